r"""Velocities from positions, for files that have none.

Velocity Verlet keeps :math:`v_k = (x_{k+1} - x_{k-1}) / 2h` to all digits. For frames with n steps of the simulation between
them, T = n h apart, and accelerations a that change linearly from one frame to the next,

.. math::
    v_k &= \frac{x_{k+1} - x_{k-1}}{2 T} - \left(1 - \frac{1}{n^2}\right) \frac{T}{12} (a_{k+1} - a_{k-1}) \\
    v_0 &= \frac{x_1 - x_0}{T} - T \left[ \frac{a_0}{2} + \frac{1 - 1/n^2}{6} (a_1 - a_0) \right]

and the last frame by time reversal. For n = 1 the three are exact for velocity Verlet; beyond, the error is of fourth order
in T, at the ends of third. Coordinates that do not change at all, as those of frozen atoms, get no velocity, whatever force
acts on them. Where the cell changes, differences of positions are without what it carries along
(`spk_dt.trajectories.moves`), and the velocities as good as that.

===================  =====================
:math:`x, v, a`      positions, velocities, accelerations F / m
:math:`T`            time between frames
:math:`h`            time step of the simulation
===================  =====================
"""

from collections.abc import Iterable, Iterator

import ase.units
import numpy as np
from ase import Atoms

from spk_dt.trajectories.moves import moves

__all__ = ["recover_velocities"]


def recover_velocities(
    frames: Iterable[Atoms], timestep_fs: float, inner_steps: int = 1, source: str = "the trajectory"
) -> Iterator[Atoms]:
    """Give velocities to frames; three of them are in memory.

    Args:
        frames: frames in order of time, with forces in a calculator; positions do not jump by lattice vectors.
        timestep_fs: time between two frames, T, in fs.
        inner_steps: steps of the simulation between two frames, n.
        source: where the frames are from, for the error message.

    Yields:
        the frames, with velocities.

    Raises:
        ValueError: if there is only one frame.
    """
    time = timestep_fs * ase.units.fs
    weight = 1.0 - 1.0 / inner_steps**2
    window: list[Atoms] = []
    first = True
    for frame in frames:
        window = [*window[-2:], frame]
        if len(window) < 3:
            continue
        if first:
            yield _with(window[0], _at_end(window[0], window[1], window[2], time, weight))
            first = False
        yield _with(window[1], _between(window[0], window[1], window[2], time, weight))
    if len(window) == 1:
        raise ValueError(
            f"{source} has only one frame, without velocities. They can be recovered from the positions of at least two."
        )
    if len(window) == 2:
        yield _with(window[0], _at_end(window[0], window[1], window[1], time, weight))
    if window:
        yield _with(window[-1], -_at_end(window[-1], window[-2], window[0], time, weight))


def _between(before: Atoms, now: Atoms, after: Atoms, time: float, weight: float) -> np.ndarray:
    """[n_atoms, 3] velocities of a frame between two others."""
    change = _accelerations(after) - _accelerations(before)
    velocities = _moved(before, after) / (2.0 * time) - weight * time / 12.0 * change
    velocities[(before.positions == now.positions) & (now.positions == after.positions)] = 0.0
    return velocities


def _at_end(now: Atoms, other: Atoms, further: Atoms, time: float, weight: float) -> np.ndarray:
    """[n_atoms, 3] velocities of the first frame, from the second; with the time reversed, minus those of the last.

    A coordinate that turns round between two frames is the same in both if it is printed with few digits; one that does not
    change up to the third, `further`, is frozen.
    """
    acceleration = _accelerations(now)
    curvature = 0.5 * acceleration + weight / 6.0 * (_accelerations(other) - acceleration)
    velocities = _moved(now, other) / time - time * curvature
    velocities[(other.positions == now.positions) & (further.positions == now.positions)] = 0.0
    return velocities


def _moved(before: Atoms, after: Atoms) -> np.ndarray:
    """[n_atoms, 3] move from a frame to another, without what a cell that changes carries along."""
    cells = np.array([before.cell.array, after.cell.array])
    if np.array_equal(*cells):
        return after.positions - before.positions
    return moves(np.array([before.positions, after.positions]), cells, before.pbc)[0]


def _accelerations(atoms: Atoms) -> np.ndarray:
    return atoms.calc.results["forces"] / atoms.get_masses()[:, None]


def _with(atoms: Atoms, velocities: np.ndarray) -> Atoms:
    atoms.set_array("momenta", velocities * atoms.get_masses()[:, None], float, (3,))  # also of constrained atoms
    return atoms
