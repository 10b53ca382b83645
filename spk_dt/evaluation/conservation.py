r"""Is energy conserved? Drift and fluctuation of the total energy along a trajectory, its temperature and largest force.

.. math:: E(t) = U(t) + \sum_i \tfrac12 m_i v_i^2(t), \qquad E(t) / N \approx a + b\,t, \qquad
          \mathrm{RMS}^2 = \langle (E(t)/N - a - b\,t)^2 \rangle, \qquad
          T = \Bigl\langle \frac{2 E_\mathrm{kin}}{N_f k_B} \Bigr\rangle

====================  ====================================  =========================
symbol                variable                              unit
====================  ====================================  =========================
`U`                   ``potential_energy``                  eV
`v`                   ``velocities``                        Å/fs
`b`                   ``drift_mev_per_atom_per_ps``         meV per atom and ps
`\sigma_b`            ``drift_standard_error...``           meV per atom and ps
`\mathrm{RMS}`        ``rms_fluctuation_mev_per_atom``      meV per atom
`T`                   ``mean_temperature_k``                K
====================  ====================================  =========================

The slope is that of the least-squares line. Its standard error is that of a line through the means over 20 pieces, since
neighbouring frames are not independent. Energy oscillates about it with the fastest vibrations (velocity Verlet
conserves a neighbouring energy), so over a few periods a slope is found where there is no drift: give it 100 fs at least.

:math:`N_f` are the degrees of freedom, 3 for each atom unless some are held fixed, and :math:`N = N_f / 3`: energies are per
atom that moves, so that fixed atoms do not hide a drift.
"""

from dataclasses import asdict, dataclass
from typing import Any

import ase.units
import numpy as np
from scipy.stats import linregress

__all__ = ["Conservation", "energy_conservation", "kinetic_energy"]

_PIECES = 20  # of a trajectory


@dataclass(frozen=True)
class Conservation:
    """What energy does along a trajectory; None where too few frames are finite to say.

    Args:
        drift_mev_per_atom_per_ps: slope of the total energy per atom.
        drift_standard_error_mev_per_atom_per_ps: its standard error; None for fewer than 40 frames.
        drift_over_kinetic_deviation_per_ps: slope of the total energy over the standard deviation of the kinetic energy.
        rms_fluctuation_mev_per_atom: RMS deviation of the total energy per atom from the line.
        mean_temperature_k: mean over the frames (the centre of mass counts).
        largest_force_ev_per_ang: largest force on an atom in any frame.
        n_frames: frames evaluated, those before the first whose energy is not finite.
        complete: whether these are all frames.
    """

    drift_mev_per_atom_per_ps: float | None
    drift_standard_error_mev_per_atom_per_ps: float | None
    drift_over_kinetic_deviation_per_ps: float | None
    rms_fluctuation_mev_per_atom: float | None
    mean_temperature_k: float | None
    largest_force_ev_per_ang: float | None
    n_frames: int
    complete: bool

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name, for JSON."""
        return asdict(self)


def kinetic_energy(velocities: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Kinetic energy of each frame: [n_frames] eV.

    Args:
        velocities: [n_frames, n_atoms, 3] Å/fs.
        masses: [n_atoms] Dalton.
    """
    with np.errstate(over="ignore"):  # of a simulation that explodes; infinite is what the caller looks for
        return 0.5 * np.einsum("i,tix,tix->t", masses, velocities, velocities) / ase.units.fs**2


def energy_conservation(
    time_fs: np.ndarray,
    potential_energy: np.ndarray | None,
    velocities: np.ndarray | None,
    masses: np.ndarray,
    forces: np.ndarray | None = None,
    mobile: np.ndarray | None = None,
) -> Conservation:
    """Drift, fluctuation, temperature and largest force, up to the first frame whose energy is not finite.

    Args:
        time_fs: [n_frames] time, fs.
        potential_energy: [n_frames] eV; None if it is not known, and with it the total energy.
        velocities: [n_frames, n_atoms, 3] Å/fs; None if they are not known, and with them temperature and total energy.
        masses: [n_atoms] Dalton.
        forces: [n_frames, n_atoms, 3] eV/Å, optional.
        mobile: [n_atoms, 3] false for what is held fixed; None if all atoms move.
    """
    freedom = 3 * len(masses) if mobile is None else max(int(np.sum(mobile)), 1)
    n_atoms = freedom / 3.0
    kinetic = None if velocities is None else kinetic_energy(np.asarray(velocities), np.asarray(masses))
    potential = None if potential_energy is None else np.asarray(potential_energy)
    total = None if kinetic is None or potential is None else potential + kinetic
    finite = np.isfinite(next((x for x in (total, kinetic, potential) if x is not None), np.zeros(len(time_fs))))
    n_frames = len(finite) if finite.all() else int(finite.argmin())

    drift = error = relative = rms = temperature = None
    if kinetic is not None and n_frames > 0:
        temperature = float(2.0 * kinetic[:n_frames].mean() / (freedom * ase.units.kB))
    if kinetic is not None and total is not None and n_frames > 2:  # a line passes through two frames whatever they are
        energy = 1e3 * (total[:n_frames] - total[0]) / n_atoms  # meV per atom
        time = np.asarray(time_fs)[:n_frames] * 1e-3  # ps
        time = time - time.mean()
        slope = np.sum(time * energy) / np.sum(time**2)
        drift = _finite(slope)
        deviation = 1e3 * kinetic[:n_frames].std() / n_atoms
        relative = _finite(slope / deviation) if deviation > 0.0 else None
        if n_frames >= 2 * _PIECES:
            means = [[one.mean() for one in np.array_split(values, _PIECES)] for values in (time, energy)]
            error = _finite(float(linregress(*means).stderr))
        rms = _finite(np.sqrt(np.mean((energy - energy.mean() - slope * time) ** 2)))
    largest = None
    if forces is not None:
        sizes = np.linalg.norm(np.asarray(forces)[:n_frames], axis=-1)
        largest = float(sizes[np.isfinite(sizes)].max()) if np.isfinite(sizes).any() else None
    return Conservation(drift, error, relative, rms, temperature, largest, n_frames, n_frames == len(finite))


def _finite(value: float) -> float | None:
    """The number, or None if it overflowed."""
    return float(value) if np.isfinite(value) else None
