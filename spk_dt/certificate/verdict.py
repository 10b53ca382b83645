"""When simulations of a model go wrong, found with few calculations of the reference method.

Of each simulation the end is computed first: as long as a model is right there, it is most likely right on the way. In
addition states are looked at in which something is most likely wrong: that with the closest contact, that with the
largest force, that which is newest to the model (`spk_dt.certificate.novelty`), with a committee also the most uncertain
one; and some that are evenly spaced, since a model without a barrier may be right on both sides of it. From a
wrong state the last right one is searched for by bisection, down to the distance of two states. Signs that need no
reference count as well: an explosion, total energy that is not conserved at constant energy, and with a thermostat a
temperature far above its own, which the heat of the start does not explain; and an uncertainty of a committee beyond a
limit, if one is set.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from math import exp, sqrt
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import natural_cutoffs, neighbor_list

from spk_dt.certificate.criteria import Criteria, Deviation, Scales
from spk_dt.certificate.novelty import NOVELTY
from spk_dt.trajectories.fixed_atoms import degrees_of_freedom

__all__ = [
    "UNCERTAINTY",
    "Judge",
    "Label",
    "Outcome",
    "closest_contact",
    "closest_pair",
    "first_sign",
    "judge_all",
    "judged",
]

#: energy (eV) and forces [n_atoms, 3] (eV/Å) of the reference method at a state; NaN where it failed
Label = tuple[float, np.ndarray]

#: asks for labels of states by their numbers, and ends with the outcome of a simulation, see `judged`
Judge = Generator[set[int], Mapping[int, Label], "Outcome"]

#: in `Atoms.info`, and why a state is wrong of which a committee does not know enough
UNCERTAINTY = "uncertainty"

#: standard deviations of the kinetic energy of a canonical ensemble beyond which a temperature is wrong
_TEMPERATURE_DEVIATIONS = 6.0


@dataclass(frozen=True)
class Outcome:
    """What has become of a simulation.

    Args:
        simulated_ps: time of its last state, ps.
        failed_ps: time of the first state that is known to be wrong, or of the explosion, ps; None if there is none.
        right_ps: time of the last state before that is known to be right, ps.
        reason: ``exploded``, ``energy``, ``force``, ``energy and force``, ``no label`` (the reference method failed),
            ``energy not conserved``, ``temperature`` or ``uncertainty``.
        state: number of the first wrong state; of an explosion the last state before.
        deviations: of the states that the reference method has computed, by their number.
    """

    simulated_ps: float
    failed_ps: float | None
    right_ps: float
    reason: str | None
    state: int | None
    deviations: Mapping[int, Deviation]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        deviations = {
            str(k): [float(x) if np.isfinite(x) else None for x in self.deviations[k]] for k in sorted(self.deviations)
        }
        return {**{k: v for k, v in vars(self).items() if k != "deviations"}, "deviations": deviations}


def judged(
    states: Sequence[Atoms],
    temperatures: Sequence[float | None],
    criteria: Criteria,
    scales: Scales,
    friction: float = 0.0,
) -> Judge:
    """Judge a simulation: yields the numbers of states that are to be computed, is sent their labels, returns the outcome.

    Args:
        states: in order of time from the start on, with energy and forces of the model, ``time_ps`` and perhaps
            ``exploded_ps``.
        temperatures: of the thermostat, K, at each state; None without one.
        criteria: what is wrong.
        scales: what errors are measured by.
        friction: see `first_sign`.
    """
    sign = first_sign(states, temperatures, criteria, scales, friction)
    first_wrong = len(states) if sign is None else sign[0]
    spaced = [first_wrong * (n + 1) // (criteria.n_checks + 1) for n in range(criteria.n_checks)]
    wanted = {0, max(0, first_wrong - 1), *_suspicious(states[:first_wrong]), *spaced}
    deviations: dict[int, Deviation] = {}
    while wanted:
        labels = yield wanted
        at_start = labels[0][0]
        for k in wanted:
            deviations[k] = criteria.deviation(states[k], states[0], labels[k], at_start, scales, temperatures[k])
        first_wrong = min([first_wrong, *(k for k, one in deviations.items() if one.wrong)])
        right = max((k for k, one in deviations.items() if k < first_wrong and not one.wrong), default=0)
        known_wrong = first_wrong in deviations
        wanted = {(right + first_wrong) // 2} if known_wrong and first_wrong - right > 1 else set()
    return _outcome(states, first_wrong, sign, deviations)


def judge_all(
    judges: Mapping[int, Judge], label: Callable[[list[tuple[int, int]]], Mapping[tuple[int, int], Label]]
) -> tuple[dict[int, Outcome], dict[int, dict[int, Label]]]:
    """Judge several simulations together, so that what they ask for is computed at once.

    Args:
        judges: of each simulation, see `judged`.
        label: computes states, given as pairs of simulation and number. What it leaves out will not be had: the simulation
            remains without an outcome.

    Returns:
        the outcomes, and all labels, by simulation.
    """
    wanted = {i: next(judge) for i, judge in judges.items()}
    outcomes: dict[int, Outcome] = {}
    labels: dict[int, dict[int, Label]] = {i: {} for i in judges}
    while wanted:
        for (i, k), found in label([(i, k) for i, numbers in wanted.items() for k in sorted(numbers)]).items():
            labels[i][k] = found
        going = {}
        for i in (i for i, numbers in wanted.items() if numbers <= labels[i].keys()):
            try:
                going[i] = judges[i].send(labels[i])
            except StopIteration as stop:
                outcomes[i] = stop.value
        wanted = going
    return outcomes, labels


def first_sign(
    states: Sequence[Atoms],
    temperatures: Sequence[float | None],
    criteria: Criteria,
    scales: Scales,
    friction: float = 0.0,
) -> tuple[int, str] | None:
    """First state that is wrong without asking the reference method, and why.

    Heat above that of the thermostat, which a simulation begins with, leaves harmonic systems as exp(-friction * time).

    Args:
        states: see `judged`.
        temperatures: see `judged`.
        criteria: what is wrong.
        scales: what errors are measured by.
        friction: of the thermostat, 1/fs; 0, if it is not known, lets this heat stay.
    """
    total = states[0].get_total_energy()
    hottest, before_ps = max(states[0].get_temperature(), scales.temperature), 0.0
    for k, atoms in enumerate(states):
        bath = temperatures[k]
        if "exploded_ps" in atoms.info:
            return k, "exploded"
        if not np.isfinite(atoms.get_total_energy()):
            return k, "exploded"
        uncertain = criteria.uncertainty is not None and not atoms.info.get(UNCERTAINTY, 0.0) <= criteria.uncertainty
        if uncertain and k > 0:  # the start is a frame of the data
            return k, UNCERTAINTY
        if bath is None:
            if abs(atoms.get_total_energy() - total) > criteria.energy * scales.energy(
                degrees_of_freedom(atoms) / 3.0, None
            ):
                return k, "energy not conserved"
        elif k > 0:
            time_ps = atoms.info["time_ps"]
            hottest = bath + max(0.0, hottest - bath) * exp(-1e3 * friction * (time_ps - before_ps))
            before_ps = time_ps
            if atoms.get_temperature() > hottest * (
                1.0 + _TEMPERATURE_DEVIATIONS * sqrt(2.0 / degrees_of_freedom(atoms))
            ):
                return k, "temperature"
    return None


def closest_contact(atoms: Atoms) -> float:
    """Smallest distance of two atoms over the sum of their covalent radii; infinite if no two are within twice this sum."""
    return closest_pair(atoms)[3]


def closest_pair(atoms: Atoms) -> tuple[int, int, np.ndarray, float]:
    """The two atoms whose distance is smallest over the sum of their covalent radii.

    Args:
        atoms: a state.

    Returns:
        their numbers, the vector [3] from the first to the second (Å), and the ratio, which is infinite if no two are within
        twice the sum of their radii.
    """
    i, j, distance, vector = neighbor_list("ijdD", atoms, natural_cutoffs(atoms, mult=2.0))
    if len(i) == 0:
        return 0, 0, np.zeros(3), np.inf
    ratio = distance / (covalent_radii[atoms.numbers[i]] + covalent_radii[atoms.numbers[j]])
    k = int(ratio.argmin())
    return int(i[k]), int(j[k]), vector[k], float(ratio[k])


def _suspicious(states: Sequence[Atoms]) -> list[int]:
    """States in which an error is most likely: closest contact, largest force, newest, most uncertain."""
    if not states:  # the start itself has no finite energy
        return []
    contact = int(np.argmin([closest_contact(atoms) for atoms in states]))
    force = int(np.argmax([np.linalg.norm(atoms.get_forces(), axis=1).max() for atoms in states]))
    told = [int(np.argmax([atoms.info.get(sign, 0.0) for atoms in states])) for sign in (NOVELTY, UNCERTAINTY)]
    return sorted({contact, force, *told} - {0}, reverse=True)


def _outcome(
    states: Sequence[Atoms], first_wrong: int, sign: tuple[int, str] | None, deviations: Mapping[int, Deviation]
) -> Outcome:
    """Put together what was found; `first_wrong` is the number of states if none is wrong."""
    times = [float(atoms.info["time_ps"]) for atoms in states]
    right = max((k for k, one in deviations.items() if k < first_wrong and not one.wrong), default=0)
    if first_wrong == len(states):
        return Outcome(times[-1], None, times[right], None, None, deviations)
    if first_wrong in deviations and deviations[first_wrong].wrong:
        deviation = deviations[first_wrong]
        reason = "no label" if np.isnan(deviation.energy) else deviation.reason
    else:
        reason = None if sign is None else sign[1]
    failed = float(states[first_wrong].info.get("exploded_ps", times[first_wrong]))
    return Outcome(times[-1], failed, times[right], reason, first_wrong, deviations)
