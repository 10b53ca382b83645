"""What the H2 molecule does: how far its vibration is out of step with the reference, and where it ends up."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from scipy.ndimage import uniform_filter1d
from scipy.signal import hilbert

from spk_dt.data.continuation import continuation
from spk_dt.evaluation.pair_distances import pair_distances
from spk_dt.evaluation.results import Results, Start, read_results, read_simulation

__all__ = ["STATES", "hydrogen_beside_reference", "phase_error", "share_of_states", "states"]

#: where the molecule may be
STATES = ("away", "sticking", "dissociated")

_BROKEN, _STICKING = 1.5, 2.5  # Å: H-H beyond, and H-Pd below; the reference trajectories have little in between
_VIBRATING = 1.3  # Å: of a bond that vibrates H-H is shorter
_PERIOD_FS = 8.0  # of the vibration


def states(positions: np.ndarray, atoms: Atoms) -> np.ndarray:
    """Where the molecule is.

    Args:
        positions: [n_frames, n_atoms, 3] Å.
        atoms: for elements and cell.

    Returns:
        [n_frames] index into `STATES`: dissociated, if the H atoms are more than 1.5 Å apart; else sticking, if one of them
        is within 2.5 Å of a Pd atom.
    """
    near = pair_distances(positions, _pairs(atoms, "H", "Pd"), atoms.cell.array, atoms.pbc).min(axis=1) < _STICKING
    return np.where(_bond(positions, atoms) > _BROKEN, 2, near.astype(int))


def phase_error(bond: np.ndarray, reference: np.ndarray, timestep_fs: float) -> np.ndarray:
    """How far a vibration is out of step with another one.

    The phase is that of the analytic signal (Gabor, J. IEE 93, 429, 1946) of the bond length less its mean over a period.

    Args:
        bond: [n] length at equal intervals.
        reference: [n] likewise.
        timestep_fs: interval, fs.

    Returns:
        [n] absolute difference of the phases in rad, continued beyond pi; the first and last period are uncertain.
    """
    period = max(2, round(_PERIOD_FS / timestep_fs))
    one, other = (np.unwrap(np.angle(hilbert(d - uniform_filter1d(d, period)))) for d in (bond, reference))
    apart = one - other
    first = apart[period // 2 : 3 * period // 2].mean()  # both begin alike
    return np.abs(apart - 2.0 * np.pi * np.round(first / (2.0 * np.pi)))


def hydrogen_beside_reference(folder: Path, model: str, times_fs: Sequence[float]) -> dict[str, Any]:
    """The molecule in simulations beside their reference trajectories.

    Args:
        folder: evaluation that kept every step.
        model: name of the model.
        times_fs: when the phase is compared.

    Returns:
        phase: (time in fs, median phase error in rad, number of starts) for each time; over starts with a bond that vibrates
            in model and reference until then and a period longer.
        ends: for each start, in which of `STATES` the molecule and that of the reference are, when the first of them ends.
        same_state: share of the starts where it is the same.
    """
    results = read_results(folder)
    errors: dict[float, list[float]] = {time: [] for time in times_fs}
    ends = []
    for start, atoms, steps, positions in _simulations(results, model):
        followed = continuation(results.settings["data"], start.trajectory, start.frame).positions
        n = min(len(followed), 1 + steps[-1])
        assert start.inner_steps == 1
        assert steps[-1] == len(steps)  # every step is there
        ours, theirs = np.concatenate([followed[:1], positions])[:n], followed[:n]
        ends.append([STATES[states(one[-1:], atoms)[0]] for one in (ours, theirs)])
        bonds = _bond(ours, atoms), _bond(theirs, atoms)
        for time in times_fs:
            until = round((time + _PERIOD_FS) / start.timestep_fs) + 1
            if until <= n and max(bond[:until].max() for bond in bonds) < _VIBRATING:
                apart = phase_error(bonds[0][:until], bonds[1][:until], start.timestep_fs)
                errors[time].append(float(apart[round(time / start.timestep_fs)]))
    return {
        "phase": [(time, float(np.median(found)), len(found)) for time, found in errors.items() if found],
        "ends": ends,
        "same_state": float(np.mean([one == other for one, other in ends])),
    }


def share_of_states(folder: Path, model: str, lost_fs: Sequence[float], every: int) -> list[tuple[float, dict]]:
    """Where the molecules of an ensemble are, of the simulations that are not lost.

    Args:
        folder: evaluation.
        model: name of the model.
        lost_fs: [n_starts] time from which on a simulation does not count; infinite if it is not lost.
        every: steps from one time to the next.

    Returns:
        for each time, the time in fs, and the number of simulations in each of `STATES`.
    """
    counts: dict[float, Counter[str]] = {}
    results = read_results(folder)
    for start, atoms, steps, positions in _simulations(results, model):
        lost = lost_fs[results.starts.index(start)]
        for frame in np.unique(np.searchsorted(steps, np.arange(every, steps[-1] + 1, every))):
            time = float(steps[frame] * start.timestep_fs)
            found = counts.setdefault(time, Counter(dict.fromkeys(STATES, 0)))
            if time < lost:
                found[STATES[states(positions[frame : frame + 1], atoms)[0]]] += 1
    return [(time, dict(found)) for time, found in sorted(counts.items())]


def _simulations(results: Results, model: str) -> Iterator[tuple[Start, Atoms, np.ndarray, np.ndarray]]:
    """Start, its frame, steps and positions of each simulation, without step 0 and what has exploded."""
    for start, begun in zip(results.starts, results.continuations, strict=True):
        simulation = read_simulation(results, model, start)
        if simulation is not None:
            yield start, begun.start, simulation.step, simulation.positions


def _bond(positions: np.ndarray, atoms: Atoms) -> np.ndarray:
    """[n_frames] length of the H-H bond, Å."""
    return pair_distances(positions, _pairs(atoms, "H", "H"), atoms.cell.array, atoms.pbc)[:, 0]


def _pairs(atoms: Atoms, one: str, other: str) -> np.ndarray:
    """[n_pairs, 2] atoms of two elements."""
    first, second = (np.flatnonzero(atoms.symbols == element) for element in (one, other))
    return np.array([(i, j) for i in first for j in second if one != other or i < j])
