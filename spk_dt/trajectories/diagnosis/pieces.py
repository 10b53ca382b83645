"""One trajectory read piece by piece in Å, fs, eV and Dalton, so that memory does not grow with its length."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import ase.units
import numpy as np

from spk_dt import properties, units
from spk_dt.trajectories.database import VELOCITIES
from spk_dt.trajectories.frames import Frames
from spk_dt.trajectories.verlet_residual import shortest

__all__ = ["Piece", "PieceReader"]

#: numbers of one array of a piece, 16 MB of them
_PIECE = 2_000_000


@dataclass(frozen=True)
class Piece:
    """Consecutive frames of a trajectory.

    Args:
        positions: [n_frames, n_atoms, 3] Å.
        velocities: [n_frames, n_atoms, 3] Å/fs, zero of what is held fixed.
        accelerations: [n_frames, n_atoms, 3] Å/fs², force over mass, likewise.
        energy: [n_frames] eV.
        moved: [n_frames - 1, n_atoms, 3] Å from each frame to the next, without lattice vectors.
    """

    positions: np.ndarray
    velocities: np.ndarray
    accelerations: np.ndarray
    energy: np.ndarray
    moved: np.ndarray


class PieceReader:
    """Reads frames of one trajectory.

    Args:
        frames: all frames of the database.
        index: which trajectory.

    Attributes:
        record: the record of the trajectory.
        step_fs: time between frames, T.
        inner_steps: steps of the simulation between frames, n.
        numbers: [n_atoms] atomic numbers.
        masses: [n_atoms] Dalton.
        pbc: [3].
        mobile: [n_atoms, 3] false for what the database says is held fixed.
    """

    def __init__(self, frames: Frames, index: int) -> None:
        self.frames, self.index = frames, index
        self.record = frames.trajectories[index]
        self.step_fs = self.record.timestep_fs
        self.inner_steps = self.record.inner_steps
        self.numbers = frames.atomic_numbers[index]
        self.masses = frames.masses[index]
        self.pbc = frames.pbc[index]
        self.mobile = frames.mobile[index]
        energy_unit = frames.units[properties.energy]
        self._length = units.conversion(frames.distance_unit, "Ang", "distance")
        self._energy = units.conversion(energy_unit, "eV", "energy")
        self._time = units.time_unit_in_fs(energy_unit, frames.distance_unit)

    def __len__(self) -> int:
        return self.record.length

    @property
    def recovered_velocities(self) -> bool:
        """Whether velocities are central differences of the positions, and so say nothing that positions do not."""
        return self.record.velocities != VELOCITIES[0]

    @cached_property
    def cell(self) -> np.ndarray:
        """[3, 3] Å of the first frame."""
        return self.frames.cell[self.record.start] * self._length

    def raw(self, key: str, start: int, stop: int) -> np.ndarray:
        """A property of frames `start` to `stop`, as it is in memory."""
        return self.frames.window(key, self.record.start + start, stop - start, self.index)

    def read(self, start: int, stop: int) -> Piece:
        """Frames `start` to `stop` (without it)."""
        positions = self.raw(properties.R, start, stop) * self._length
        to_acceleration = self._energy / self._length * ase.units.fs**2 / self.masses[:, None] * self.mobile
        return Piece(
            positions=positions,
            velocities=self.raw(properties.velocities, start, stop) * (self._length / self._time * self.mobile),
            accelerations=self.raw(properties.forces, start, stop) * to_acceleration,
            energy=self.raw(properties.energy, start, stop).reshape(-1) * self._energy,
            moved=shortest(np.diff(positions, axis=0), self.cell, self.pbc),
        )

    def ranges(self, first: int, last: int, at_least: int = 1) -> Iterator[tuple[int, int]]:
        """Cut [first, last) into ranges of a size to read at once.

        Args:
            first: first frame.
            last: frame behind the last.
            at_least: number of ranges, if there are so many frames.
        """
        if last <= first:
            return
        size = max(16, _PIECE // (3 * len(self.numbers)))
        number = min(last - first, max(at_least, -(-(last - first) // size)))
        edges = np.linspace(first, last, number + 1).round().astype(int)
        yield from zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
