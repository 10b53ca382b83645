"""What simulations do besides following a reference: vibrations, displacements, and forces at short distances.

For models and, where it has a frame for every step, for the reference trajectories, whose velocities are the central
differences of their positions, which is exact for velocity Verlet. ``motion.json`` has it all.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from spk_dt.certificate.engines import Engine
from spk_dt.data.continuation import Continuation
from spk_dt.evaluation.displacement import mean_square_displacement
from spk_dt.evaluation.pair_curves import pair_curves, shortest_distances
from spk_dt.evaluation.simulated_trajectory import SimulatedTrajectory
from spk_dt.evaluation.simulation_file import Simulations
from spk_dt.evaluation.vibrations import vibrational_density
from spk_dt.trajectories.fixed_atoms import mobile_of

__all__ = ["motion", "motion_of", "pair_numbers"]

_FRAMES = 20  # of the reference from each start, in which shortest distances are looked for

#: quantities of simulations
_CURVES: dict[str, Callable[[Iterable[SimulatedTrajectory]], dict[str, Any]]] = {
    "vibrations": vibrational_density,
    "displacement": mean_square_displacement,
}


def motion(
    simulations: Mapping[str, Simulations], engines: Mapping[str, Engine], starts: Sequence[Continuation]
) -> dict[str, Any]:
    """All curves.

    Args:
        simulations: of each model.
        engines: each model, for forces at short distances.
        starts: start frames with what the reference does from there on.

    Returns:
        ``vibrations`` and ``displacement``, by model and ``reference``, see `vibrational_density` and
        `mean_square_displacement`; ``pairs``, by model, see `pair_curves`.
    """
    followed = [one for one in starts if one.inner_steps == 1 and len(one.positions) > 2]
    curves = motion_of(simulations)
    if followed:
        for quantity, function in _CURVES.items():
            curves[quantity]["reference"] = function(_reference(followed))
    frames = [atoms for one in starts for atoms in _frames(one)]
    shortest = shortest_distances(frames)
    return {**curves, "pairs": {name: pair_curves(engine, frames, shortest) for name, engine in engines.items()}}


def motion_of(simulations: Mapping[str, Iterable[tuple[int, SimulatedTrajectory]]]) -> dict[str, dict[str, Any]]:
    """``vibrations`` and ``displacement`` of the simulations of each model alone."""
    return {
        quantity: {name: function(one for _, one in own) for name, own in simulations.items()}
        for quantity, function in _CURVES.items()
    }


def pair_numbers(curves: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Of a model for ``metrics.json``: down to which distance forces are repulsive, from the shortest of the data on.

    Args:
        curves: see `pair_curves`.
    """
    return {
        "pairs_that_stay_repulsive": sum(one["down_to"] == one["r"][-1] for one in curves.values()),
        "pairs_of_elements": len(curves),
        "repulsive_down_to_ang": {pair: one["down_to"] for pair, one in curves.items()},
        "pushed_together_down_to_ang": {pair: one["r"][-1] for pair, one in curves.items()},
        "shortest_distance_of_the_data_ang": {pair: one["shortest"] for pair, one in curves.items()},
    }


def _reference(starts: Iterable[Continuation]) -> Iterator[SimulatedTrajectory]:
    """Reference trajectories without their first and last frames, of which velocities are not known."""
    for one in starts:
        inner = slice(1, -1)
        step = np.arange(len(one.positions))[inner]
        yield SimulatedTrajectory(
            step=step,
            time_fs=step * one.timestep_fs,
            positions=one.positions[inner],
            velocities=(one.positions[2:] - one.positions[:-2]) / (2.0 * one.timestep_fs),
            potential_energy=one.energies[inner],
            forces=one.forces[inner],
            atomic_numbers=one.start.numbers,
            masses=one.start.get_masses(),
            cell=one.start.cell.array,
            pbc=one.start.pbc,
            mobile=mobile_of(one.start),
        )


def _frames(start: Continuation) -> Iterator[Atoms]:
    """Some frames of the reference, or the start frame alone."""
    n_frames = len(start.positions)
    for k in np.unique(np.linspace(0, n_frames - 1, min(n_frames, _FRAMES)).round().astype(int)):
        atoms = start.start.copy()
        atoms.positions = start.positions[k]
        yield atoms
