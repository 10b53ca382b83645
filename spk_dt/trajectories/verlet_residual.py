r"""By how much frames miss what velocity Verlet would lead to: zero at constant energy, the thermostat's kick otherwise.

For frames with n steps of the simulation between them, T = n h apart, and accelerations a that change linearly from one to
the next,

.. math::
    \Delta x_k &= x_{k+1} - x_k - T v_k - T^2 \left[ \frac{a_k}{2} + \frac{1 - 1/n^2}{6} (a_{k+1} - a_k) \right] \\
    \Delta v_k &= v_{k+1} - v_k - T \frac{a_k + a_{k+1}}{2}

which is exact for n = 1 (velocity Verlet itself), and of fourth and third order in T beyond.
"""

import numpy as np

from spk_dt.trajectories.moves import shortest

__all__ = ["verlet_residual"]


def verlet_residual(
    positions: np.ndarray,
    velocities: np.ndarray,
    forces: np.ndarray,
    masses: np.ndarray,
    time_step: float,
    cell: np.ndarray,
    pbc: np.ndarray,
    inner_steps: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Residual of one step from each frame to the next, positions taken modulo the cell.

    Args:
        positions: [n_frames, n_atoms, 3].
        velocities: [n_frames, n_atoms, 3].
        forces: [n_frames, n_atoms, 3].
        masses: [n_atoms].
        time_step: time between frames, T, in the unit that follows from those of length, energy and mass.
        cell: [3, 3] of all frames.
        pbc: [3].
        inner_steps: steps of the simulation between frames, n.

    Returns:
        [n_frames - 1, n_atoms, 3] of the positions, and of the velocities.
    """
    accelerations = forces / masses[:, None]
    now, after = accelerations[:-1], accelerations[1:]
    curvature = 0.5 * now + (1.0 - 1.0 / inner_steps**2) / 6.0 * (after - now)
    moved = np.diff(positions, axis=0) - time_step * velocities[:-1] - time_step**2 * curvature
    return shortest(moved, cell, pbc), np.diff(velocities, axis=0) - 0.5 * time_step * (now + after)
