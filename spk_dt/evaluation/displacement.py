r"""Mean square displacement of each element against time.

.. math:: \mathrm{MSD}_Z(t) = \bigl\langle \lVert x_i(t_0 + t) - x_i(t_0) \rVert^2 \bigr\rangle_{i \in Z,\, t_0}

over all origins :math:`t_0` (D. Frenkel, B. Smit, Understanding Molecular Simulation, section 4.4.1). It is :math:`6 D
t` for diffusion and :math:`v^2 t^2` where atoms fly. Positions are those of the simulation, which are never wrapped
into the cell. The motion of the centre of mass is taken away where nothing is held fixed; atoms that are held fixed,
also in part, are left out.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from spk_dt.evaluation.simulated_trajectory import SimulatedTrajectory

__all__ = ["mean_square_displacement"]

_MOST_LAGS = 60
_LONGEST = 0.5  # part of a trajectory: longer times have hardly any origins


def mean_square_displacement(trajectories: Iterable[SimulatedTrajectory]) -> dict[str, Any]:
    """Mean over the trajectories, up to half of their length; simulations that exploded are left out.

    The first frame, which may be at another distance, is left out.

    Args:
        trajectories: with frames at the same distance, all planned for the same length.

    Returns:
        ``time_fs``, ``msd`` by element (Å²) and ``n_simulations``; or ``reason`` why there is none.
    """
    found: dict[str, list[np.ndarray]] = {}
    lags, interval, number = np.empty(0, dtype=int), 0.0, 0
    for one in trajectories:
        if not one.unwrapped:
            return {"reason": "frames are too far apart to tell which image of an atom went where"}
        if len(one.time_fs) < 5:
            return {"reason": "simulations have fewer than five frames"}
        intervals = np.diff(one.time_fs[1:])
        interval = interval or float(intervals[0])
        if not np.allclose(intervals, interval):
            return {"reason": "frames are at different distances in time"}
        if not len(lags):
            longest = int(_LONGEST * (len(one.time_fs) - 1))
            lags = np.unique(np.linspace(1, longest, min(longest, _MOST_LAGS)).round().astype(int))
        if not one.intact.all() or len(one.time_fs) - 1 <= lags[-1]:
            continue
        number += 1
        free = np.ones(len(one.masses), dtype=bool) if one.mobile is None else one.mobile.all(axis=1)
        positions = one.positions[1:]
        if free.all():
            positions = positions - np.average(positions, axis=1, weights=one.masses)[:, None]
        for z in np.unique(one.atomic_numbers[free]):
            own = positions[:, free & (one.atomic_numbers == z)]
            squares = [((own[lag:] - own[:-lag]) ** 2).sum(axis=-1).mean() for lag in lags]
            found.setdefault(chemical_symbols[z], []).append(np.array(squares))
    if not found:
        return {"reason": "all simulations exploded, or nothing moves"}
    return {
        "time_fs": (interval * lags).tolist(),
        "msd": {element: np.mean(curves, axis=0).tolist() for element, curves in found.items()},
        "n_simulations": number,
    }
