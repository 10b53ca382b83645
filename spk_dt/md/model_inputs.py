"""Total charge and spin multiplicity of the molecules of SchNetPack's molecular dynamics, for models that take them.

SchNetPack's system knows elements, positions, masses and cells only, and its calculators give the model no more.
"""

from collections.abc import Sequence

import torch
from ase import Atoms
from schnetpack import properties
from schnetpack.md import System
from schnetpack.md.calculators import SchNetPackCalculator
from schnetpack.nn import ElectronicEmbedding

from spk_dt.trajectories.stored_properties import charge_and_spin

__all__ = ["InputsCalculator", "state_inputs"]

_INPUTS = (properties.total_charge, properties.spin_multiplicity)


def state_inputs(system: System, molecules: Sequence[Atoms]) -> None:
    """Let a system have what the molecules that it was loaded from say of total charge and spin multiplicity.

    Args:
        system: gets buffers [n_molecules] ``total_charge`` (e) and ``spin_multiplicity``, of what all molecules say. They
            are no part of its state: they are those of the molecules also where a run is continued.
        molecules: structures, in order, with the values in `Atoms.info` (`charge_and_spin`).

    Raises:
        ValueError: if a value is not a number, two names contradict each other, or some molecules only have a value.
    """
    known = [charge_and_spin(atoms, f"molecule {i}") for i, atoms in enumerate(molecules)]
    for key in _INPUTS:
        lacking = [i for i, one in enumerate(known) if key not in one]
        if len(lacking) == len(known):
            continue
        if lacking:
            raise ValueError(
                f"molecule {lacking[0]} has no {key}, while others have: write {key}=... into the comment line of each "
                "frame of the extended XYZ file (Atoms.info), or of none."
            )
        values = torch.tensor([one[key] for one in known], dtype=system.positions.dtype, device=system.device)
        system.register_buffer(key, values, persistent=False)


class InputsCalculator(SchNetPackCalculator):
    """SchNetPack's calculator, which also gives the model total charge and spin multiplicity of the molecules.

    Raises:
        ValueError: at the first step, if the model takes an input that the molecules do not have.
    """

    def _generate_input(self, system: System) -> dict[str, torch.Tensor]:
        inputs: dict[str, torch.Tensor] = super()._generate_input(system)
        inputs[properties.idx] = torch.arange(len(inputs[properties.n_atoms]), device=system.device)
        for key in _INPUTS:
            if hasattr(system, key):
                inputs[key] = getattr(system, key).to(inputs[properties.R]).repeat(system.n_replicas)
        for module in self.modules():
            if isinstance(module, ElectronicEmbedding) and module.property_key not in inputs:
                raise ValueError(_missing(module.property_key))
        return inputs


def _missing(key: str) -> str:
    if key not in _INPUTS:
        return f"the model takes '{key}', but molecular dynamics has {' and '.join(_INPUTS)} of its molecules only."
    return (
        f"the model takes {key}, which the start frames do not say. Write {key}=... into the comment line of each frame of "
        "the extended XYZ file (Atoms.info); spkdt frames does so for data that have it. spkmd reads it with "
        "system/initializer=frames, maxwell_boltzmann or uniform."
    )
