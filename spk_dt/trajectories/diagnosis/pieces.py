"""One trajectory read piece by piece in Å, fs, eV and Dalton, so that memory does not grow with its length."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import ase.units
import numpy as np
from ase import Atoms

from spk_dt import properties, units
from spk_dt.trajectories.database import VELOCITIES
from spk_dt.trajectories.frames import Frames
from spk_dt.trajectories.moves import moves, same_cell

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
        moved: [n_frames - 1, n_atoms, 3] Å from each frame to the next, without lattice vectors, and without what a cell
            that changes carries along (`spk_dt.trajectories.moves`); `positions` then go on by it from those of the first
            frame of the piece.
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
        return self.cells(0, 1)[0]

    @cached_property
    def cell_changes(self) -> bool:
        """Whether the cell is not the same in all frames."""
        return not same_cell(self.cells(0, len(self)), self.cell, self.pbc).all()

    def cells(self, start: int, stop: int) -> np.ndarray:
        """[n_frames, 3, 3] Å of frames `start` to `stop`."""
        return self.frames.cell[self.record.start + start : self.record.start + stop] * self._length

    def atoms(self, frame: int, members: np.ndarray | slice = slice(None)) -> Atoms:
        """Elements, positions and cell of a frame, or of some of its atoms."""
        positions = self.raw(properties.R, frame, frame + 1)[0] * self._length
        return Atoms(self.numbers[members], positions[members], cell=self.cells(frame, frame + 1)[0], pbc=self.pbc)

    def raw(self, key: str, start: int, stop: int) -> np.ndarray:
        """A property of frames `start` to `stop`, as it is in memory."""
        return self.frames.window(key, self.record.start + start, stop - start, self.index)

    def stress(self, start: int, stop: int) -> np.ndarray | None:
        """[n_frames, 3, 3] eV/Å³ of frames `start` to `stop`; None if the data have none, or none of all directions."""
        if properties.stress not in self.frames.values or not self.pbc.all():
            return None
        unit = units.conversion(self.frames.units[properties.stress], "eV/Ang/Ang/Ang", properties.stress)
        return self.raw(properties.stress, start, stop).reshape(-1, 3, 3) * unit

    def read(self, start: int, stop: int) -> Piece:
        """Frames `start` to `stop` (without it)."""
        positions = self.raw(properties.R, start, stop) * self._length
        moved = moves(positions, self.cells(start, stop), self.pbc)
        if self.cell_changes:
            positions = positions[:1] + np.cumsum(np.concatenate([0.0 * positions[:1], moved]), axis=0)
        to_acceleration = self._energy / self._length * ase.units.fs**2 / self.masses[:, None] * self.mobile
        return Piece(
            positions=positions,
            velocities=self.raw(properties.velocities, start, stop) * (self._length / self._time * self.mobile),
            accelerations=self.raw(properties.forces, start, stop) * to_acceleration,
            energy=self.raw(properties.energy, start, stop).reshape(-1) * self._energy,
            moved=moved,
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
