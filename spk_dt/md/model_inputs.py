"""Total charge and spin multiplicity of the molecules of SchNetPack's molecular dynamics, for models that take them.

SchNetPack's system knows elements, positions, masses and cells only, and its calculators give the model no more. They also
ask a model for its stress only if they are told to.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from ase import Atoms
from schnetpack import properties
from schnetpack.md import System
from schnetpack.md.calculators import SchNetPackCalculator
from schnetpack.model import AtomisticModel
from schnetpack.nn import ElectronicEmbedding

from spk_dt.dynamics import predict_stress, stress_key_of
from spk_dt.models import is_plain, load_model, read_facts
from spk_dt.trajectories.stored_properties import charge_and_spin
from spk_dt.units import conversion

__all__ = ["InputsCalculator", "state_inputs", "stress_of_files"]

log = logging.getLogger(__name__)

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


def stress_of_files(model_file: str | Path | Sequence[str | Path]) -> str | None:
    """Name of the stress among the outputs of a stored model, or of all of several; None if one predicts none."""
    files = [model_file] if isinstance(model_file, str | Path) else model_file
    keys = {stress_key_of(load_model(file)) for file in files}
    return keys.pop() if len(keys) == 1 else None


class InputsCalculator(SchNetPackCalculator):
    """SchNetPack's calculator, which also gives the model total charge and spin multiplicity of the molecules.

    A model that predicts its stress is asked for it, so that barostats have it.

    Args:
        model_file: stored SchNetPack model, or several for an ensemble.
        args: arguments of `schnetpack.md.calculators.SchNetPackCalculator`.
        stress_key: name of the stress. None takes that of the model; a name lets a model compute it that was not trained on
            it, with a warning.
        kwargs: as `args`.

    Raises:
        ValueError: if the model has the stress under another name, or cannot have it, or its file says other units; at the
            first step, if it takes an input that the molecules do not have.
    """

    #: whether units that the file of a model states (`spk_dt.models`) must be those that are given
    refuses_other_units: ClassVar[bool] = True

    def __init__(
        self, model_file: str | Sequence[str], *args: Any, stress_key: str | None = None, **kwargs: Any
    ) -> None:
        if self.refuses_other_units:
            for file in [model_file] if isinstance(model_file, str | Path) else model_file:
                _refuse_other_units(file, kwargs.get("energy_unit"), kwargs.get("position_unit"))
        stress_key = stress_of_files(model_file) if stress_key is None else stress_key
        super().__init__(model_file, *args, stress_key=stress_key, **kwargs)

    def _load_model(self, model_file: str) -> AtomisticModel:
        """A stored model, with its stress; SchNetPack's would strain twice what strains already."""
        model = load_model(model_file).to(torch.float64).eval()
        if self.stress_key is not None:
            if stress_key_of(model) is None:
                log.warning(
                    "calculator.stress_key=%s: '%s' was not trained on the stress, and pressures may be far off. Compare "
                    "it with the reference, or train with task/stress=trained.",
                    *(self.stress_key, model_file),
                )
            predict_stress(model, self.stress_key)
        if self.script_model:
            model = torch.jit.script(model)
        self._deactivate_postprocessing(model)
        return model

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


def _refuse_other_units(file: str | Path, energy_unit: str | float | None, position_unit: str | float | None) -> None:
    """Compare the units that are given with those that the file of a model states, if it does."""
    if not is_plain(file):
        return
    facts = read_facts(file)
    for option, given, stated in (
        ("energy_unit", energy_unit, facts.energy_unit),
        ("position_unit", position_unit, facts.distance_unit),
    ):
        if given is not None and abs(conversion(given, stated, option) - 1.0) > 1e-6:
            raise ValueError(
                f"calculator.{option}={given}, but '{file}' says {stated}. Set calculator.{option}='{stated}'."
            )


def _missing(key: str) -> str:
    if key not in _INPUTS:
        return f"the model takes '{key}', but molecular dynamics has {' and '.join(_INPUTS)} of its molecules only."
    return (
        f"the model takes {key}, which the start frames do not say. Write {key}=... into the comment line of each frame of "
        "the extended XYZ file (Atoms.info); spkdt frames does so for data that have it. spkmd reads it with "
        "system/initializer=frames, maxwell_boltzmann or uniform."
    )
