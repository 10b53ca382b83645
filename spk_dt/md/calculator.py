"""A stored model as the calculator of SchNetPack's molecular dynamics."""

from pathlib import Path

import torch
from schnetpack import properties
from schnetpack.atomistic import Forces
from schnetpack.md import System
from schnetpack.md.calculators import SchNetPackCalculator
from schnetpack.utils import load_model

from spk_dt.dynamics import CompiledPotential
from spk_dt.labels.unit_check import Unit
from spk_dt.md.neighborlist import VerletNeighborList

__all__ = ["ModelCalculator"]


class ModelCalculator(SchNetPackCalculator):
    """SchNetPack's calculator with our neighbour list; it asks the model how it calls its energy and forces.

    In ``system.properties`` they are ``energy`` and ``forces``, in the unit of the model.

    Args:
        model_file: stored SchNetPack model.
        energy_unit: unit of the energies of the model.
        position_unit: unit of the positions that the model takes.
        compile: compile energy and forces into one function (`spk_dt.dynamics.CompiledPotential`).
    """

    def __init__(self, model_file: str | Path, energy_unit: Unit, position_unit: Unit, compile: bool = False) -> None:
        neighbors = VerletNeighborList(model_file=str(model_file))
        energy_key, force_key = _output_keys(load_model(str(model_file)))
        super().__init__(str(model_file), force_key, energy_unit, position_unit, neighbors, energy_key=energy_key)
        self._compiled = CompiledPotential(self.model) if compile else None

    def calculate(self, system: System) -> None:
        """Energy and forces of the system."""
        if self._compiled is None:
            super().calculate(system)
            return
        self.results = self._compiled(self._generate_input(system))
        self._update_system(system)

    def _update_system(self, system: System) -> None:
        super()._update_system(system)
        system.properties[properties.energy] = system.properties[self.energy_key]
        system.properties[properties.forces] = system.properties[self.force_key]


def _output_keys(model: torch.nn.Module) -> tuple[str, str]:
    """How a model calls its energy and its forces."""
    for module in getattr(model, "output_modules", []):
        if isinstance(module, Forces):
            return module.energy_key, module.force_key
    return properties.energy, properties.forces
