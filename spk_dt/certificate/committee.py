r"""Several models as one: they simulate by their mean, and how far they differ tells where they do not know.

The uncertainty of a state is the largest over its atoms of the standard deviation of the atom's energy over the models,

.. math:: u = \max_i \sqrt{\frac{1}{M - 1} \sum_m (\varepsilon_i^m - \bar\varepsilon_i)^2}, \qquad
          E^m = \sum_i \varepsilon_i^m,

in eV: the number that files for engines give for each atom (`spk_dt.export.potential`), and on which engines warn. Models
that differ are wrong somewhere; models that agree may be wrong together, so that a small number is no proof.

================================  =======================================
:math:`M`                         number of models
:math:`\varepsilon_i^m`           energy of atom i of model m, with what is added to it (mean, atom references)
================================  =======================================

H. S. Seung, M. Opper, H. Sompolinsky, Query by committee, COLT 1992, doi 10.1145/130385.130417; J. Behler, Int. J. Quantum
Chem. 115 (2015) 1032, doi 10.1002/qua.24890.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from schnetpack import properties
from schnetpack.md import System

from spk_dt.certificate.engines import ModelEngine, ModelOptions
from spk_dt.certificate.verdict import UNCERTAINTY, Outcome
from spk_dt.labels.unit_check import Unit
from spk_dt.md import ModelCalculator
from spk_dt.md.neighborlist import model_cutoff
from spk_dt.models import load_model
from spk_dt.models.atomic_energies import added_energies, energy_module

__all__ = ["CommitteeEngine", "WatchedEngine", "uncertainty_record"]

_ATOMIC = "energy_of_atoms"


class _Member(ModelEngine):
    """A model that also tells the energies of atoms, in double precision."""

    def __init__(self, file: str | Path, **how: Unpack[ModelOptions]) -> None:
        how["compile"] = False
        super().__init__(file, **how)
        model = self._exact.model
        module = energy_module(model, Path(file))
        self._factor, self._added = added_energies(load_model(file), module.output_key, Path(file))
        module.per_atom_output_key = _ATOMIC
        if _ATOMIC not in model.model_outputs:
            model.model_outputs.append(_ATOMIC)

    def with_atomic(self, frames: Sequence[Atoms]) -> tuple[list[Atoms], list[np.ndarray]]:
        """The frames with energy and forces, and [n_atoms] eV of each."""
        found = self.evaluated(frames)
        atomic = self._exact.results[_ATOMIC].detach().cpu().double().reshape(-1)
        numbers = torch.as_tensor(np.concatenate([atoms.numbers for atoms in frames]))
        energies = (self._factor * atomic + self._added[numbers]).numpy() * self._energy_unit
        return found, np.split(energies, np.cumsum([len(atoms) for atoms in frames])[:-1])


class _MeanCalculator(ModelCalculator):
    """The mean of several models, for simulations.

    Args:
        files: stored models; the pairs are those of the first, which has the largest cutoff.
        energy_unit: unit of their energies.
        position_unit: their unit of length.
        compile: compile them.
    """

    def __init__(self, files: Sequence[str | Path], energy_unit: Unit, position_unit: Unit, compile: bool) -> None:
        super().__init__(files[0], energy_unit, position_unit, compile)
        self._others = [ModelCalculator(file, energy_unit, position_unit, compile) for file in files[1:]]

    def calculate(self, system: System) -> None:
        """Energy and forces of the system."""
        inputs = self._generate_input(system)
        energies, forces = [], []
        for one in (self, *self._others):
            own = dict(inputs)
            own[properties.R] = inputs[properties.R].detach().clone()
            one.to(system.positions.device).to(system.positions.dtype) if one is not self else None
            results = one.model(own) if one._compiled is None else one._compiled(own)
            energies.append(results[one.energy_key].detach())
            forces.append(results[one.force_key].detach())
        self.results = {self.energy_key: torch.stack(energies).mean(0), self.force_key: torch.stack(forces).mean(0)}
        self._update_system(system)


class CommitteeEngine(ModelEngine):
    """Several stored models as one, whose energies and forces are the means of theirs.

    States that are evaluated have the ``uncertainty`` of the models, eV, in `Atoms.info`.

    Args:
        files: the models, two at least.
        how: see `ModelEngine`.

    Raises:
        ValueError: if there are fewer than two, or the energy of one is no sum over atoms.
    """

    def __init__(self, files: Sequence[str | Path], **how: Unpack[ModelOptions]) -> None:
        if len(files) < 2:
            raise ValueError(f"a committee has two models at least, not {len(files)}: name another one.")
        self._files = sorted(files, key=lambda file: -model_cutoff(str(file)))
        super().__init__(self._files[0], **how)
        self._members = [_Member(file, **how) for file in self._files]

    def _calculator(self, file: str | Path, energy_unit: Unit, position_unit: Unit, compile: bool) -> ModelCalculator:
        return _MeanCalculator(self._files, energy_unit, position_unit, compile)

    def load(self, file: str | Path) -> None:
        """There is no one model whose weights could be taken."""
        raise TypeError("a committee is of several models, and does not take the weights of one")

    def evaluated(self, frames: Sequence[Atoms]) -> list[Atoms]:
        """The frames with the mean energy and forces, and the uncertainty."""
        answers = [member.with_atomic(frames) for member in self._members]
        found = []
        for k, atoms in enumerate(frames):
            state = atoms.copy()
            energy = np.mean([states[k].get_potential_energy() for states, _ in answers])
            forces = np.mean([states[k].get_forces(apply_constraint=False) for states, _ in answers], axis=0)
            state.calc = SinglePointCalculator(state, energy=float(energy), forces=forces)
            state.info["uncertainty"] = _uncertainty([atomic[k] for _, atomic in answers])
            found.append(state)
        return found


class WatchedEngine(ModelEngine):
    """A model that simulates alone, while others tell by how far they differ from it and each other.

    Args:
        file: the model.
        others: one stored model at least.
        how: see `ModelEngine`; the same of all.

    Raises:
        ValueError: if the energy of one is no sum over atoms.
    """

    def __init__(self, file: str | Path, others: Sequence[str | Path], **how: Unpack[ModelOptions]) -> None:
        super().__init__(file, **how)
        self._own = _Member(file, **how)
        self._others = [_Member(one, **how) for one in others]

    def load(self, file: str | Path) -> None:
        """Take the weights of another model of the same make."""
        super().load(file)
        self._own.load(file)

    def evaluated(self, frames: Sequence[Atoms]) -> list[Atoms]:
        """The frames with energy and forces of the model, and the uncertainty."""
        states, atomic = self._own.with_atomic(frames)
        of_others = [other.with_atomic(frames)[1] for other in self._others]
        for k, state in enumerate(states):
            state.info["uncertainty"] = _uncertainty([atomic[k], *(one[k] for one in of_others)])
        return states


def uncertainty_record(states: Mapping[int, Sequence[Atoms]], outcomes: Mapping[int, Outcome]) -> dict[str, Any]:
    """What the uncertainty of a committee was, where the reference method has said what is right.

    Args:
        states: of each simulation.
        outcomes: of each simulation.

    Returns:
        ``largest_ev``, of all states; ``largest_of_right_states_ev`` and ``smallest_of_wrong_states_ev``, None without such
        states: a limit between the two tells them apart; ``failures_by_uncertainty``.
    """
    of = {(i, k): float(atoms.info["uncertainty"]) for i, own in states.items() for k, atoms in enumerate(own)}
    judged = [(of[i, k], one.wrong) for i, outcome in outcomes.items() for k, one in outcome.deviations.items()]
    return {
        "largest_ev": max(of.values(), default=None),
        "largest_of_right_states_ev": max((value for value, wrong in judged if not wrong), default=None),
        "smallest_of_wrong_states_ev": min((value for value, wrong in judged if wrong), default=None),
        "failures_by_uncertainty": sum(outcome.reason == UNCERTAINTY for outcome in outcomes.values()),
    }


def _uncertainty(atomic: Sequence[np.ndarray]) -> float:
    """Largest standard deviation over models [n_models][n_atoms] of the energy of an atom, eV."""
    return float(np.std(atomic, axis=0, ddof=1).max())
