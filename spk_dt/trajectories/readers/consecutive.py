r"""Whether frames follow each other, and how far apart in time they are, found from positions and forces alone.

Velocity Verlet, x_{k+1} = x_k + h v_k + h² a_k / 2, leads to Störmer's form

.. math:: d_k = x_{k+1} - 2 x_k + x_{k-1} = h^2 a_k, \qquad a_k = F_k / m

which holds exactly at constant energy, and but for a kick with a thermostat. So for three frames in a row d is parallel to
a, and the ratio is h²; where a frame is missing, or the order is another, d is of the size of the steps themselves, some
ten times larger or more.

Of each three frames five sums over the atoms are kept (columns of an array): m a·a, m d·a, m d·d, and of the steps
u_k = x_k - x_{k-1} before and after: m u_k·u_{k+1}, and m² (u_k·u_k) (u_{k+1}·u_{k+1}).
"""

from itertools import pairwise

import ase.units
import numpy as np

from spk_dt.trajectories.moves import shortest

__all__ = ["measured_time_step", "motion", "nominal_time_step", "unbroken"]

_SMALLEST_TURN = 0.5  # cosine between the steps before and after a frame, as median: -0.5 for frames in random order
_SMALLEST_MATCH = (
    0.3  # cosine between d and a, as median: 1 for velocity Verlet, less with a thermostat of random kicks
)

#: time steps in fs that simulations have; a wrong unit of energy (kcal/mol, kJ/mol, eV) does not lead from one to another
_USUAL_FS = (0.1, 0.2, 0.25, 0.5, 1.0, 2.0)
_TOLERANCE = 0.02


def motion(
    positions: np.ndarray, forces: np.ndarray, masses: np.ndarray, cell: np.ndarray, pbc: np.ndarray
) -> np.ndarray:
    """The five sums for each frame but the first and the last. Coordinates that stay, as of frozen atoms, are left out.

    Args:
        positions: [n_frames, n_atoms, 3] Å, modulo the cell.
        forces: [n_frames, n_atoms, 3] eV/Å.
        masses: [n_atoms] Dalton.
        cell: [3, 3] Å.
        pbc: [3] whether it is periodic.

    Returns:
        [max(n_frames - 2, 0), 5], in the units of ASE.
    """
    steps = shortest(np.diff(np.asarray(positions, dtype=np.float64), axis=0), cell, pbc)
    bend, before, after = np.diff(steps, axis=0), steps[:-1], steps[1:]
    moves = (before != 0.0) | (after != 0.0)
    acceleration = np.where(moves, np.asarray(forces[1:-1], dtype=np.float64) / masses[:, None], 0.0)

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.einsum("a,kai,kai->k", masses, a, b)

    return np.stack(
        [
            product(acceleration, acceleration),
            product(bend, acceleration),
            product(bend, bend),
            product(before, after),
            product(before, before) * product(after, after),
        ],
        axis=-1,
    )


def measured_time_step(sums: np.ndarray, source: str) -> float:
    """The time between frames, in fs, that positions and forces show.

    Args:
        sums: [n, 5] what `motion` gives.
        source: name of what the frames are from, for the error message.

    Raises:
        ValueError: if the frames do not follow each other, or the forces are not those that move the atoms.
    """
    if len(sums) == 0:
        raise ValueError(f"{source} has fewer than three frames; a trajectory without velocities needs at least three.")
    with np.errstate(divide="ignore", invalid="ignore"):
        turn = _median(sums[:, 3] / np.sqrt(sums[:, 4]))
        match = _median(sums[:, 1] / np.sqrt(sums[:, 0] * sums[:, 2]))
        square = _median(sums[:, 1] / sums[:, 0])
    if not turn >= _SMALLEST_TURN:
        raise ValueError(
            f"frames of {source} are not consecutive: the cosine between the steps to a frame and from it is {turn:.2f} "
            "(median), but near 1 for atoms that move from frame to frame and -0.5 for frames in random order. Dynamic "
            "training needs frames in the order of the simulation; this file serves conventional training."
        )
    if not (match >= _SMALLEST_MATCH and square > 0.0):
        raise ValueError(
            f"forces of {source} do not move the atoms from frame to frame: the cosine between the second difference of "
            f"positions and F/m is {match:.2f} (median), but 1 for velocity Verlet. Frames are missing between those "
            "saved, positions are rounded too much, or the forces are not those of the simulation."
        )
    return float(np.sqrt(square) / ase.units.fs)


def _median(values: np.ndarray) -> float:
    """Median of the values that are numbers; a frame that is there twice leads to one that is not."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else np.nan


def nominal_time_step(measured_fs: float, expected_fs: float, source: str) -> float:
    """The time step that was meant: the expected one, or another usual one, if it fits within 2 %.

    Args:
        measured_fs: what `measured_time_step` found.
        expected_fs: what the data are said to have.
        source: name of what the frames are from, for the error message.

    Raises:
        ValueError: if the measured value is not near a usual time step.
    """
    for usual_fs in (expected_fs, *_USUAL_FS):
        if abs(measured_fs - usual_fs) < _TOLERANCE * usual_fs:
            return usual_fs
    raise ValueError(
        f"frames of {source} look {measured_fs:.3g} fs apart, but {expected_fs:g} fs was expected. Units of positions or "
        "forces are not what they should be, or frames are missing between those saved."
    )


def unbroken(sums: np.ndarray, timestep_fs: float) -> list[range]:
    """The parts of a trajectory in which each frame follows the one before.

    A link between two frames is broken if d does not fit a in both of them; if it does not fit in one frame alone, that
    frame is wrong, and both of its links are broken. Parts of fewer than three frames are left out.

    Args:
        sums: [n_frames - 2, 5] what `motion` gives.
        timestep_fs: time between frames, in fs.
    """
    square = (timestep_fs * ase.units.fs) ** 2
    scale = square**2 * np.median(sums[:, 0])
    residual = np.maximum(sums[:, 2] - 2.0 * square * sums[:, 1] + square**2 * sums[:, 0], 0.0)
    relative = np.sqrt(residual / scale)
    wrong = np.zeros(len(sums) + 2, dtype=bool)  # of each frame
    wrong[1:-1] = ~(relative <= max(1.0, 6.0 * np.median(relative)))
    broken = wrong[:-1] & wrong[1:]
    alone = np.flatnonzero(wrong[1:-1] & ~wrong[:-2] & ~wrong[2:]) + 1
    broken[alone - 1] = True
    broken[alone] = True
    edges = [0, *(np.flatnonzero(broken) + 1).tolist(), len(wrong)]
    return [range(a, b) for a, b in pairwise(edges) if b - a >= 3]
