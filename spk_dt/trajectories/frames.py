"""Frames of trajectories as arrays, in memory or mapped from files.

Properties of atoms are stored one atom after the other and one frame after the other, so that a window of S frames is one
slice.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from spk_dt.trajectories.database import Trajectory

__all__ = ["Frames"]


@dataclass(frozen=True)
class Frames:
    """All frames of a database, in the units asked for.

    Args:
        source: path of the database.
        trajectories: [n_trajectories] records.
        atomic_numbers: per trajectory, [n_atoms].
        masses: per trajectory, [n_atoms] Dalton.
        pbc: per trajectory, [3].
        time_step: per trajectory, time between frames in the unit of time that follows from length, energy, Dalton.
        cell: [n_frames, 3, 3] length unit.
        values: per property an array with one row per frame, or one row per atom and frame; positions under
            `spk_dt.properties.R`.
        atomwise: the properties with one row per atom and frame.
        units: unit of each property.
        distance_unit: unit of positions and cell.
        mobile: per trajectory, [n_atoms, 3] false for components of positions that are held fixed; without it nothing is.
    """

    source: str
    trajectories: tuple[Trajectory, ...]
    atomic_numbers: tuple[np.ndarray, ...]
    masses: tuple[np.ndarray, ...]
    pbc: tuple[np.ndarray, ...]
    time_step: tuple[float, ...]
    cell: np.ndarray
    values: dict[str, np.ndarray]
    atomwise: frozenset[str]
    units: dict[str, str]
    distance_unit: str
    mobile: tuple[np.ndarray, ...] = ()

    def __post_init__(self) -> None:
        """Let all atoms move if nothing is said."""
        if not self.mobile:
            everything = tuple(np.ones((len(numbers), 3), dtype=bool) for numbers in self.atomic_numbers)
            object.__setattr__(self, "mobile", everything)

    def __len__(self) -> int:
        return len(self.cell)

    @cached_property
    def _first_frames(self) -> np.ndarray:
        """[n_trajectories] first frame of each trajectory."""
        return np.array([trajectory.start for trajectory in self.trajectories])

    @cached_property
    def _first_atoms(self) -> np.ndarray:
        """[n_trajectories] first row of each trajectory in the arrays of atoms."""
        rows = [t.length * len(z) for t, z in zip(self.trajectories, self.atomic_numbers, strict=True)]
        return np.cumsum([0, *rows[:-1]])

    def trajectory_of(self, frame: int) -> int:
        """Index of the trajectory that holds frame `frame` of the database."""
        return int(np.searchsorted(self._first_frames, frame, side="right")) - 1

    def window(self, key: str, frame: int, length: int, trajectory: int | None = None) -> np.ndarray:
        """Values of a property along `length` frames from `frame` on: [length, rows of a frame, ...], a view.

        Args:
            key: property.
            frame: index of the first frame in the database.
            length: number of frames; they must belong to one trajectory.
            trajectory: index of the trajectory, if known.
        """
        trajectory = self.trajectory_of(frame) if trajectory is None else trajectory
        rows = len(self.atomic_numbers[trajectory]) if key in self.atomwise else 1
        first = self._first_atoms[trajectory] if key in self.atomwise else self._first_frames[trajectory]
        first += rows * (frame - self._first_frames[trajectory])
        values = self.values[key]
        return values[first : first + rows * length].reshape(length, rows, *values.shape[1:])
