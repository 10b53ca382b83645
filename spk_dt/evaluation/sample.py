"""Frames of the data as a sample of structures, with which trajectories that follow none of them are compared.

h(r) and g(r) of a whole trajectory are compared with those of all frames. That says how alike the structures are; they
differ as well where temperature, pressure or phase do, and by the noise of few frames: `Sample.noise` is the error between
two halves of the data.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from spk_dt.data.continuation import spread_continuations
from spk_dt.data.partition import Partition
from spk_dt.evaluation.distributions import (
    DistanceDistribution,
    RadialDistribution,
    distance_distribution,
    distance_mae,
    radial_distribution,
    rdf_mae,
)
from spk_dt.evaluation.pair_distances import finite_frames
from spk_dt.evaluation.simulated_trajectory import SimulatedTrajectory

__all__ = ["Sample"]

_FRAMES = 300  # of the data, at most
_MOST_ATOMS = 1000  # of which all pairs are looked at


@dataclass(frozen=True)
class Sample:
    """Structures of the same atoms.

    Args:
        numbers: [n_atoms] atomic numbers.
        positions: [n_frames, n_atoms, 3] Å; frames with a position that is not finite do not count.
        cell: [3, 3] Å, or [n_frames, 3, 3].
        pbc: [3] periodic directions.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray

    @classmethod
    def of(cls, partition: Partition, numbers: np.ndarray, pbc: np.ndarray) -> Self | None:
        """Frames of a partition that are of the same atoms, in any order; None if there are none.

        Args:
            partition: of a trajectory database.
            numbers: [n_atoms] atomic numbers.
            pbc: [3] periodic directions.
        """
        several = max(1, _FRAMES // len(partition.parts))
        several = min(several, *(len(part.frames) for part in partition.parts))
        order = np.sort(numbers)
        frames = [
            atoms[np.argsort(atoms.numbers, kind="stable")]
            for atoms in (one.start for one in spread_continuations(partition, None, several, steps=0))
            if np.array_equal(np.sort(atoms.numbers), order) and np.array_equal(atoms.pbc, pbc)
        ]
        if not frames or len(order) < 2:
            return None
        cells = np.array([atoms.cell.array for atoms in frames])
        return cls(order, np.array([atoms.positions for atoms in frames]), cells, np.asarray(pbc))

    @classmethod
    def along(cls, trajectory: SimulatedTrajectory) -> Self:
        """All frames of a trajectory."""
        return cls(trajectory.atomic_numbers, trajectory.positions, trajectory.cell, trajectory.pbc)

    @cached_property
    def distances(self) -> DistanceDistribution | None:
        """h(r) of all frames; None for a single atom, or more than a thousand, or where no frame is finite."""
        if not 2 <= len(self.numbers) <= _MOST_ATOMS or not finite_frames(self.positions).any():
            return None
        return distance_distribution(self.positions, self.cell, self.pbc)

    @cached_property
    def radial(self) -> RadialDistribution | None:
        """g(r) of all frames; None without a periodic cell, or where no frame is finite."""
        if not np.any(self.pbc) or not finite_frames(self.positions).any():
            return None
        if not (np.abs(np.linalg.det(self.cell)) > 0.0).all():
            return None
        return radial_distribution(self.positions, self.numbers, self.cell, self.pbc)

    @property
    def noise(self) -> float | None:
        """Error of h(r) of the first half of the frames against the second; None where it is not known."""
        half = len(self.positions) // 2
        cells = np.broadcast_to(self.cell, (len(self.positions), 3, 3))
        parts = (replace(self, positions=self.positions[k], cell=cells[k]) for k in (slice(half), slice(half, None)))
        one, other = (part.distances if len(part.positions) else None for part in parts)
        return None if one is None or other is None else distance_mae(one, other)

    def compare(self, trajectory: SimulatedTrajectory) -> dict[str, Any]:
        """Errors of h(r) and g(r) of a trajectory: ``distances`` and ``rdf_mae_ang``, none where atoms are others."""
        other, found = type(self).along(trajectory), {}
        if not np.array_equal(np.sort(other.numbers), np.sort(self.numbers)):
            return {}
        if other.distances is not None and self.distances is not None:
            found["distances"] = {
                "mae": distance_mae(other.distances, self.distances),
                "n_frames": other.distances.n_frames,
                "n_reference_frames": self.distances.n_frames,
                "span_fs": float(trajectory.time_fs[-1] - trajectory.time_fs[0]),
            }
        if other.radial is not None and self.radial is not None:
            found["rdf_mae_ang"] = rdf_mae(other.radial, self.radial)
        return found
