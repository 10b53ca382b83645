r"""Several models as one: they simulate by their mean, and how far they differ tells where they do not know.

The uncertainty of a state is the largest over its atoms of the standard deviation of the force over the models,

.. math:: u = \max_i \sqrt{\frac{1}{M - 1} \sum_m |F_i^m - \bar F_i|^2},

in eV/Å. Energies of atoms do not serve: how a model splits the energy of a system among its atoms is its own choice, so
that models that are equally right differ by more than an eV. Models that differ in forces are wrong somewhere; models
that agree may be wrong together, so that a small number is no proof.

=================  ===========================
:math:`M`          number of models
:math:`F_i^m`      force of model m on atom i
=================  ===========================

H. S. Seung, M. Opper, H. Sompolinsky, Query by committee, COLT 1992, doi 10.1145/130385.130417; the deviation of forces:
Y. Zhang et al., Comput. Phys. Commun. 253 (2020) 107206, doi 10.1016/j.cpc.2020.107206 (there with 1/M).
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
from spk_dt.certificate.record import sign_record
from spk_dt.certificate.verdict import UNCERTAINTY, Outcome
from spk_dt.labels.unit_check import Unit
from spk_dt.md import ModelCalculator
from spk_dt.md.neighborlist import model_cutoff

__all__ = ["CommitteeEngine", "WatchedEngine", "too_uncertain", "uncertainty_record"]


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

    States that are evaluated have the ``uncertainty`` of the models, eV/Å, in `Atoms.info`.

    Args:
        files: the models, two at least.
        how: see `ModelEngine`.

    Raises:
        ValueError: if there are fewer than two.
    """

    def __init__(self, files: Sequence[str | Path], **how: Unpack[ModelOptions]) -> None:
        if len(files) < 2:
            raise ValueError(f"a committee has two models at least, not {len(files)}: name another one.")
        self._files = sorted(files, key=lambda file: -model_cutoff(str(file)))
        super().__init__(self._files[0], **how)
        self._members = _members(self._files, how)

    def _calculator(self, file: str | Path, energy_unit: Unit, position_unit: Unit, compile: bool) -> ModelCalculator:
        return _MeanCalculator(self._files, energy_unit, position_unit, compile)

    def load(self, file: str | Path) -> None:
        """There is no one model whose weights could be taken."""
        raise TypeError("a committee is of several models, and does not take the weights of one")

    def evaluated(self, frames: Sequence[Atoms]) -> list[Atoms]:
        """The frames with the mean energy and forces, and the uncertainty."""
        answers = [member.evaluated(frames) for member in self._members]
        found = []
        for atoms, states in zip(frames, zip(*answers, strict=True), strict=True):
            state = atoms.copy()
            energy = np.mean([one.get_potential_energy() for one in states])
            forces = np.mean([one.get_forces(apply_constraint=False) for one in states], axis=0)
            state.calc = SinglePointCalculator(state, energy=float(energy), forces=forces)
            state.info[UNCERTAINTY] = _uncertainty(states)
            found.append(state)
        return found


class WatchedEngine(ModelEngine):
    """A model that simulates alone, while others tell by how far they differ from it and each other.

    Args:
        file: the model.
        others: one stored model at least.
        how: see `ModelEngine`; the same of all.
    """

    def __init__(self, file: str | Path, others: Sequence[str | Path], **how: Unpack[ModelOptions]) -> None:
        super().__init__(file, **how)
        self._others = _members(others, how)

    def evaluated(self, frames: Sequence[Atoms]) -> list[Atoms]:
        """The frames with energy and forces of the model, and the uncertainty."""
        found = super().evaluated(frames)
        of_others = [other.evaluated(frames) for other in self._others]
        for state, *others in zip(found, *of_others, strict=True):
            state.info[UNCERTAINTY] = _uncertainty([state, *others])
        return found


def too_uncertain(starts: Sequence[Atoms], limit: float | None) -> str:
    """Why a limit of the uncertainty can find nothing, in words: it is exceeded where simulations start; empty if it can.

    Args:
        starts: evaluated by a committee.
        limit: eV/Å, if there is one.
    """
    largest = max(float(atoms.info[UNCERTAINTY]) for atoms in starts) if limit is not None else 0.0
    if limit is None or largest <= limit:
        return ""
    return (
        f"the models differ by up to {largest:.3g} eV/Å in the force on an atom in frames of the data where simulations "
        f"start, more than the limit of {limit:g} eV/Å, so that nearly every state is beyond it. Set it well above "
        f"{largest:.3g}."
    )


def uncertainty_record(states: Mapping[int, Sequence[Atoms]], outcomes: Mapping[int, Outcome]) -> dict[str, Any]:
    """What the uncertainty of a committee was, where the reference method has said what is right.

    Args:
        states: of each simulation.
        outcomes: of each simulation.

    Returns:
        of `spk_dt.certificate.record.sign_record`, eV/Å, and ``failures_by_uncertainty``.
    """
    failures = sum(outcome.reason == UNCERTAINTY for outcome in outcomes.values())
    return {**sign_record(UNCERTAINTY, states, outcomes), "failures_by_uncertainty": failures}


def _members(files: Sequence[str | Path], how: ModelOptions) -> list[ModelEngine]:
    """Models that evaluate states, and do not simulate."""
    exact: ModelOptions = {**how, "compile": False}
    return [ModelEngine(file, **exact) for file in files]


def _uncertainty(states: Sequence[Atoms]) -> float:
    """Largest standard deviation of the force on an atom, eV/Å, over the answers of several models for one state."""
    forces = [one.get_forces(apply_constraint=False) for one in states]
    return float(np.sqrt(np.var(forces, axis=0, ddof=1).sum(axis=1)).max())
