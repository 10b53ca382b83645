"""Does the total energy of a trajectory at constant energy drift?"""

import numpy as np

__all__ = ["drifts", "slope_and_fluctuation"]

#: drift worth a word, meV per atom and ps
_DRIFT = 10.0
#: part of the range of the kinetic energy by which velocity Verlet lets the total energy swing, (omega dt)²/4 and some more
_SHADOW = 0.05


def slope_and_fluctuation(total: np.ndarray, step_fs: float, degrees_of_freedom: int) -> tuple[float, float]:
    """Slope of the total energy, meV per atom that moves and ps, and RMS about that line, meV per atom.

    Args:
        total: [n_frames] eV, two frames at least.
        step_fs: time between frames, fs.
        degrees_of_freedom: components of positions that move.
    """
    time = 1e-3 * step_fs * np.arange(len(total))
    time = time - time.mean()
    energy = 1e3 * (total - total.mean()) / (degrees_of_freedom / 3.0)
    slope = float(time @ energy / (time @ time))
    return slope, float(np.sqrt(np.mean((energy - slope * time) ** 2)))


def drifts(slope: float, fluctuation: float, duration_fs: float, kinetic: np.ndarray, n_atoms: int) -> bool:
    """Whether a drift is worth a word, and more than velocity Verlet lets the total energy swing.

    Args:
        slope: meV per atom and ps.
        fluctuation: about it, meV per atom.
        duration_fs: of the trajectory, fs.
        kinetic: [n_frames] kinetic energy, eV.
        n_atoms: number of atoms.
    """
    shadow = 1e3 * _SHADOW * float(np.ptp(kinetic)) / n_atoms
    return abs(slope) > _DRIFT and 1e-3 * abs(slope) * duration_fs > max(5.0 * fluctuation, shadow)
