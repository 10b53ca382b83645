r"""Vibrational density of states of simulations, from their velocities.

.. math:: D_Z(\tilde\nu) \propto \sum_{i \in Z} m_i \int \langle v_i(0) \cdot v_i(t) \rangle\, e^{-2\pi i c \tilde\nu t} dt,
          \qquad \sum_Z \int D_Z\, d\tilde\nu = 1

By the Wiener-Khinchin theorem this is the power spectrum of the velocities weighted by the masses; it is estimated by
Welch's method (`scipy.signal.welch`, Hann window, overlapping segments), averaged over simulations. J. M. Dickey, A.
Paskin, Phys. Rev. 188 (1969) 1407, doi 10.1103/PhysRev.188.1407; P. D. Welch, IEEE Trans. Audio Electroacoust. 15
(1967) 70.

Velocities that are kept too rarely show fast vibrations at wrong, lower wavenumbers: a stretch of hydrogen at 4,400
cm⁻¹ needs a velocity every 3.8 fs. Where the Nyquist wavenumber is lower than a vibration may be, no spectrum is made,
and it is said.
"""

from collections.abc import Iterable
from math import sqrt
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.units import _c as SPEED_OF_LIGHT  # m/s
from scipy.signal import welch

from spk_dt.evaluation.simulated_trajectory import SimulatedTrajectory

__all__ = ["highest_wavenumber", "nyquist_wavenumber", "vibrational_density"]

_LONGEST_FS = 4000.0  # of a segment, which gives 8 cm⁻¹
_FEWEST = 16  # frames
#: cm⁻¹ above any stretch of hydrogen (H2, 4,401), and of other elements (N2, 2,359)
_OF_HYDROGEN, _OF_OTHERS = 4500.0, 2500.0


def nyquist_wavenumber(interval_fs: float) -> float:
    """Highest wavenumber that velocities at this distance can show, cm⁻¹."""
    return 0.5 / (interval_fs * 1e-15 * 100.0 * SPEED_OF_LIGHT)


def highest_wavenumber(numbers: np.ndarray, masses: np.ndarray) -> float:
    """Wavenumber above which nothing vibrates, cm⁻¹; that of hydrogen follows from its mass.

    Args:
        numbers: [n_atoms] atomic numbers.
        masses: [n_atoms] Dalton.
    """
    hydrogen = masses[numbers == 1]
    return max(_OF_OTHERS, _OF_HYDROGEN * sqrt(1.008 / hydrogen.min()) if len(hydrogen) else 0.0)


def vibrational_density(trajectories: Iterable[SimulatedTrajectory]) -> dict[str, Any]:
    """Density of states by element, mean over trajectories of the same interval.

    The first frame, which may be at another distance, what is held fixed, and simulations that exploded are left out.

    Args:
        trajectories: with velocities, all planned for the same length.

    Returns:
        ``wavenumber`` (cm⁻¹), ``density`` by element (cm, the integral of their sum is 1), ``resolution`` (cm⁻¹, of two
        neighbouring points), ``nyquist``, and ``n_simulations``; or ``reason`` why there is none.
    """
    found: dict[str, np.ndarray] = {}
    frequency, interval, segment, needed, number = np.empty(0), 0.0, 0, 0.0, 0
    for one in trajectories:
        if one.velocities is None:
            return {"reason": "velocities are not known"}
        if len(one.time_fs) <= _FEWEST:
            return {"reason": f"simulations have fewer than {_FEWEST} frames"}
        intervals = np.diff(one.time_fs[1:])
        interval = interval or float(intervals[0])
        if not np.allclose(intervals, interval):
            return {"reason": "frames are at different distances in time"}
        nyquist, needed = nyquist_wavenumber(interval), max(needed, highest_wavenumber(one.atomic_numbers, one.masses))
        if nyquist < needed:
            often = interval * nyquist / needed
            return {
                "reason": f"velocities every {interval:g} fs show wavenumbers up to {nyquist:.0f} cm⁻¹ only, but there may "
                f"be vibrations up to {needed:.0f} cm⁻¹, which would appear at lower ones: keep frames every {often:.2g} fs"
            }
        segment = segment or min(len(one.time_fs) - 1, max(_FEWEST, round(_LONGEST_FS / interval)))
        if not one.intact.all() or len(one.time_fs) - 1 < segment:
            continue
        weighted = np.sqrt(one.masses)[:, None] * one.velocities[1:]
        moves = np.ones(weighted.shape[1:], dtype=bool) if one.mobile is None else one.mobile
        frequency, power = welch(weighted, fs=1.0 / interval, nperseg=segment, axis=0, detrend="constant")
        number += 1
        for z in np.unique(one.atomic_numbers):
            own = power[:, (one.atomic_numbers == z)[:, None] & moves].sum(axis=1)
            found[chemical_symbols[z]] = found.get(chemical_symbols[z], 0.0) + own
    if not found:
        return {"reason": "all simulations exploded"}
    wavenumber = frequency * 2.0 * interval * nyquist
    total = float(np.trapezoid(np.sum(list(found.values()), axis=0), wavenumber))
    if not total > 0.0:
        return {"reason": "nothing moves"}
    shown = wavenumber <= needed
    return {
        "wavenumber": wavenumber[shown].tolist(),
        "density": {element: (one[shown] / total).tolist() for element, one in found.items()},
        "resolution": float(wavenumber[1]),
        "nyquist": nyquist,
        "n_simulations": number,
    }
