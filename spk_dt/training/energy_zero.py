"""The zero of energy of a model, and that of the data it was fine-tuned on, which is kept in the model.

A model adds offsets to its energies after training (`schnetpack.transform.AddOffsets`: mean, atomic references). The offset
per element from its zero to that of the data is one more of them, which is switched off where the model keeps its zero. It
is SchNetPack's own class, so the model needs nothing of ours where it is used, and all that reads it (`spkpredict`,
`SpkCalculator`, `spkdeploy`) gives energies in the zero that is switched on. SchNetPack's molecular dynamics has no offsets.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import torch
from ase.data import chemical_symbols
from schnetpack import properties
from schnetpack.model import AtomisticModel
from schnetpack.transform import AddOffsets, CastTo64

__all__ = [
    "EnergyZero",
    "added_by",
    "check_energy_zero",
    "data_offsets",
    "offsets_of",
    "set_data_offsets",
    "use_energy_zero",
]

#: zero of energy in which a model gives its energies
EnergyZero = Literal["model", "data"]

#: attribute of the module that leads to the zero of the data
_MARK = "to_zero_of_data"


def offsets_of(model: AtomisticModel, energy_key: str) -> list[AddOffsets]:
    """What a model adds to its energy after training, also what is switched off.

    Args:
        model: the model.
        energy_key: name of its energy.
    """
    return [m for m in model.postprocessors if isinstance(m, AddOffsets) and m._property == energy_key]


def added_by(modules: Iterable[AddOffsets], sample: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What modules add to the energy of a structure, [1], in double precision.

    Args:
        modules: on the CPU.
        sample: atomic numbers [n_atoms] and number of atoms [1] of one structure.
    """
    numbers = sample[properties.Z]
    inputs = {
        properties.Z: numbers,
        properties.n_atoms: sample[properties.n_atoms],
        properties.idx_m: torch.zeros_like(numbers),
    }
    total = torch.zeros(1, dtype=torch.float64)
    for module in modules:
        total = module({**inputs, module._property: total})[module._property]
    return total


def data_offsets(model: AtomisticModel) -> AddOffsets | None:
    """The module that leads from the zero of the model to that of the data, None if they are not known to differ.

    Args:
        model: the model. Its `add_atomrefs` tells whether the energies are in the zero of the data; `atomref` [n_elements]
            are the offsets in the model's unit of energy.
    """
    return next((m for m in model.postprocessors if getattr(m, _MARK, False)), None)


def set_data_offsets(model: AtomisticModel, energy_key: str, offsets: Mapping[int, float]) -> None:
    """Keep the offsets from the present zero of a model to that of data; its energies stay what they are.

    Args:
        model: the model, changed.
        energy_key: name of its energy.
        offsets: atomic number -> offset, in the model's unit of energy; none for other elements.
    """
    module = data_offsets(model)
    table = torch.zeros(len(chemical_symbols), dtype=torch.float64, device=next(model.parameters()).device)
    for number, offset in offsets.items():
        table[number] = offset
    if module is not None and not module.add_atomrefs:
        module.atomref = table
        return
    if module is not None:  # the zero of earlier data, which has become that of the model
        setattr(module, _MARK, False)
    module = AddOffsets(energy_key, atomrefs=table).to(table.device)
    setattr(module, _MARK, True)
    module._mean_initialized = True  # the values are not those of the training data
    model.postprocessors.append(module)


def use_energy_zero(model: AtomisticModel, zero: EnergyZero) -> AtomisticModel:
    """Let a fine-tuned model give its energies in its own zero, or in that of the data it was fine-tuned on.

    Args:
        model: the model, changed; also one that does not know of another zero, whose energies stay what they are.
        zero: ``"model"`` or ``"data"``.

    Returns:
        the model.

    Raises:
        ValueError: if there is no such zero.
    """
    check_energy_zero(zero)
    module = data_offsets(model)
    if module is None:
        return model
    module.add_atomrefs = zero == "data"
    if module.add_atomrefs and not any(isinstance(m, CastTo64) for m in model.postprocessors):
        model.postprocessors.insert(0, CastTo64())  # single precision would round energies with large offsets
    return model


def check_energy_zero(zero: str) -> None:
    """Refuse what is not one of `EnergyZero`.

    Args:
        zero: the value.

    Raises:
        ValueError: if it is not.
    """
    if zero not in get_args(EnergyZero):
        raise ValueError(
            f"energy_zero={zero}: give energies in the zero of the 'model', or in that of the 'data' it is fine-tuned on."
        )
