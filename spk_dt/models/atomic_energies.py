"""The energy of a stored model as a sum over atoms: which module makes it, and what is added to each atom."""

from pathlib import Path

import torch
from ase.data import chemical_symbols
from schnetpack.atomistic import Atomwise, Forces, PairwiseDistances, Strain
from schnetpack.model import AtomisticModel
from schnetpack.transform import AddOffsets, CastTo32, CastTo64, ScaleProperty

__all__ = ["added_energies", "energy_module"]


def energy_module(model: AtomisticModel, file: Path) -> Atomwise:
    """The module that makes the energy of a model.

    Raises:
        ValueError: if that is not one `schnetpack.atomistic.Atomwise` that sums over atoms; names the file.
    """
    refused = [m for m in getattr(model, "input_modules", ()) if not isinstance(m, PairwiseDistances | Strain)]
    forces = [m for m in model.output_modules if isinstance(m, Forces)]
    others = [m for m in model.output_modules if not isinstance(m, Forces)]
    key = forces[0].energy_key if forces else None
    energies = [m for m in others if isinstance(m, Atomwise) and (key is None or m.output_key == key)]
    # what predicts something else than the energy, as a dipole, is left out
    of_energy = [m for m in others if key in getattr(m, "model_outputs", ()) and m not in energies]
    if refused or of_energy or len(energies) != 1:
        names = ", ".join(type(m).__name__ for m in [*refused, *of_energy, *(energies if len(energies) > 1 else [])])
        raise ValueError(
            f"'{file}' has no energies of atoms: its energy must come from one Atomwise module and from distances alone"
            f"{f', but it has {names}' if names else ', and there is none'}. Fields, charges and sums of several energies "
            "cannot be expressed."
        )
    if energies[0].aggregation_mode != "sum" or energies[0].n_out != 1:
        raise ValueError(
            f"'{file}' has no energies of atoms: its energy is not the sum of energies of atoms (aggregation_mode="
            f"{energies[0].aggregation_mode}, n_out={energies[0].n_out})."
        )
    return energies[0]


def added_energies(model: AtomisticModel, key: str, file: Path) -> tuple[float, torch.Tensor]:
    """What postprocessors make of an atom's energy.

    Args:
        model: with its postprocessors.
        key: name of its energy.
        file: it is of, for messages.

    Returns:
        factor, and [n_elements] offsets by atomic number, in the unit of the model.

    Raises:
        ValueError: if what they make of the energy is no sum over atoms.
    """
    scale, offsets = 1.0, torch.zeros(len(chemical_symbols), dtype=torch.float64)
    for module in model.postprocessors if model.do_postprocessing else ():
        if isinstance(module, ScaleProperty) and {module.input_key, module.output_key} == {key}:
            factor = float(module.scale)
            scale, offsets = scale * factor, offsets * factor
        elif isinstance(module, AddOffsets) and module._property == key and module.is_extensive:
            if module.add_mean:
                offsets += float(module.mean)
            if module.add_atomrefs:
                table = module.atomref.detach().to(torch.float64).flatten().cpu()
                offsets[: len(table)] += table[: len(offsets)]
        elif isinstance(module, CastTo32 | CastTo64) or key not in (
            getattr(module, "_property", None),
            getattr(module, "output_key", None),
        ):
            continue
        else:
            raise ValueError(
                f"'{file}' has no energies of atoms: what {type(module).__name__} makes of its energy is no sum over atoms."
            )
    return scale, offsets
