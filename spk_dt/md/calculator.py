"""Stored models as calculators of SchNetPack's molecular dynamics."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from schnetpack import properties
from schnetpack.atomistic import Forces
from schnetpack.md import System
from schnetpack.md.calculators import SchNetPackEnsembleCalculator
from schnetpack.model import AtomisticModel

from spk_dt.dynamics import CompiledPotential
from spk_dt.labels.unit_check import Unit
from spk_dt.md.model_inputs import InputsCalculator
from spk_dt.md.neighborlist import VerletNeighborList
from spk_dt.models import load_model

__all__ = ["EnsembleCalculator", "ModelCalculator"]

_VARIANCE = "_var"


class _WithoutOffsets:
    """Models without what they add to their energies; SchNetPack's prints it, and fails if it is of atoms alone."""

    @staticmethod
    def _deactivate_postprocessing(model: AtomisticModel) -> AtomisticModel:
        model.do_postprocessing = False
        return model


class ModelCalculator(_WithoutOffsets, InputsCalculator):
    """SchNetPack's calculator with our neighbour list; it asks the model how it calls its energy and forces.

    In ``system.properties`` they are ``energy`` and ``forces``, in the unit of the model.

    Args:
        model_file: stored SchNetPack model.
        energy_unit: unit of the energies of the model.
        position_unit: unit of the positions that the model takes.
        compile: compile energy and forces into one function (`spk_dt.dynamics.CompiledPotential`).
        stress_key: see `spk_dt.md.model_inputs.InputsCalculator`.
    """

    refuses_other_units = False  # who uses it compares with the data, also in other units

    def __init__(
        self,
        model_file: str | Path,
        energy_unit: Unit,
        position_unit: Unit,
        compile: bool = False,
        stress_key: str | None = None,
    ) -> None:
        neighbors = VerletNeighborList(model_file=str(model_file))
        energy_key, force_key = _output_keys(load_model(model_file))
        super().__init__(
            str(model_file),
            force_key,
            energy_unit,
            position_unit,
            neighbors,
            energy_key=energy_key,
            stress_key=stress_key,
        )
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


class EnsembleCalculator(_WithoutOffsets, InputsCalculator, SchNetPackEnsembleCalculator):
    """SchNetPack's ensemble, whose variances may be asked for by their names.

    The mean over the models drives the dynamics. The variance over them, s² = sum (x - mean)² / (n_models - 1), of an
    output ``x`` is in ``system.properties["x_var"]``, for energy, forces and what is required beside them, in the square of
    its unit.

    Args:
        model_files: at least two stored SchNetPack models.
        required_properties: outputs of the models, or ``<output>_var``; either brings the other along.
        kwargs: arguments of `schnetpack.md.calculators.SchNetPackEnsembleCalculator`.

    Raises:
        ValueError: if there are fewer than two models, which have no variance.
    """

    def __init__(self, model_files: Sequence[str], required_properties: Sequence[str] = (), **kwargs: Any) -> None:
        if isinstance(model_files, str) or len(model_files) < 2:
            raise ValueError(
                f"calculator.model_files={model_files}: an ensemble has two models at least. For one model take "
                "calculator=spk with calculator.model_file."
            )
        outputs = [name.removesuffix(_VARIANCE) for name in required_properties]
        super().__init__(list(model_files), required_properties=outputs, **kwargs)

    @staticmethod
    def _accumulate_results(results: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Means and variances of what all models predict."""
        common = set.intersection(*map(set, results))
        parts = [{key: one[key] for key in common} for one in results]
        found: dict[str, torch.Tensor] = SchNetPackEnsembleCalculator._accumulate_results(parts)
        return found

    def _update_required_properties(self) -> None:
        """Add the variances, in the square of the unit; SchNetPack's converts them as it does the output."""
        super()._update_required_properties()
        for name in self.required_properties:
            if name.endswith(_VARIANCE):
                self.property_conversion[name] = self.property_conversion[name.removesuffix(_VARIANCE)] ** 2


def _output_keys(model: torch.nn.Module) -> tuple[str, str]:
    """How a model calls its energy and its forces."""
    for module in getattr(model, "output_modules", []):
        if isinstance(module, Forces):
            return module.energy_key, module.force_key
    return properties.energy, properties.forces
