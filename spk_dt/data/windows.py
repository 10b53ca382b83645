"""Windows of consecutive frames: the training samples of dynamic training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from schnetpack import properties as spk_properties
from schnetpack.transform import Transform
from torch.utils.data import Dataset

from spk_dt import processes, properties
from spk_dt.trajectories.diagnosis import SINGLE_FRAMES
from spk_dt.trajectories.frames import Frames
from spk_dt.trajectories.moves import same_cell, shortest
from spk_dt.trajectories.verlet_residual import verlet_residual

__all__ = ["TrajectoryWindows", "Windows", "refuse_fewer_than_processes", "window_starts"]


@dataclass(frozen=True)
class Windows:
    """Which windows of a partition there are.

    Args:
        partition: train, val or test.
        length: frames of a window.
        number: of windows; None takes all. Training windows are drawn once at random with a fixed seed, others are spread
            evenly over the partition.

    Raises:
        ValueError: if a window has no frame, or the number is negative.
    """

    partition: str
    length: int = 1
    number: int | None = None

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        if self.length < 1:
            raise ValueError(f"data.{self.partition}_window={self.length}: a window has at least one frame.")
        if self.number is not None and self.number < 0:
            raise ValueError(f"data.max_{self.partition}_windows={self.number} must not be negative; null takes all.")

    def starts(self, frames: Frames, members: Sequence[int]) -> np.ndarray:
        """First frames of the windows, [n_windows], ascending.

        Args:
            frames: the frames.
            members: indices of those of the partition.

        Raises:
            ValueError: if no window fits.
        """
        starts = window_starts(frames, members, self.length, self.partition)
        if self.number is None or self.number >= len(starts):
            return starts
        if self.partition == "train":
            return np.sort(np.random.default_rng(0).permutation(starts)[: self.number])
        return starts[np.linspace(0, len(starts) - 1, self.number).round().astype(int)]


def window_starts(frames: Frames, partition: Sequence[int], length: int, name: str) -> np.ndarray:
    """First frames of all windows that lie within a partition.

    A window consists of consecutive frames of one trajectory, all of the partition, so windows of different partitions
    share no frame.

    Args:
        frames: the frames.
        partition: indices of the frames that belong to the partition.
        length: frames of a window, S.
        name: name of the partition, for the error message.

    Returns:
        [n_windows] indices of frames, ascending.

    Raises:
        ValueError: if no window fits, or the cell changes along one: a rollout keeps that of its first frame.
    """
    members = np.unique(np.asarray(partition, dtype=np.int64))
    if len(members) == 0:
        return members
    owner = np.searchsorted([t.start for t in frames.trajectories], members, side="right")
    breaks = np.flatnonzero((np.diff(members) != 1) | (np.diff(owner) != 0)) + 1
    runs = np.split(members, breaks)
    starts = [run[: len(run) - length + 1] for run in runs if len(run) >= length]
    if not starts:
        longest = max(len(run) for run in runs)
        raise ValueError(
            f"data.{name}_window={length} frames, but the longest run of consecutive {name} frames in "
            f"'{frames.source}' has {longest}; set data.{name}_window to at most {longest}, or use longer trajectories."
        )
    found = np.concatenate(starts)
    _refuse_changing_cells(frames, found, length, name)
    return found


def refuse_fewer_than_processes(n_windows: int, name: str) -> None:
    """Refuse windows to validate or test on that do not suffice for all processes of a training.

    Raises:
        ValueError: if a process would have none of them.
    """
    if name != "train" and 0 < n_windows < processes.number():
        raise ValueError(
            f"{n_windows} windows of data.num_{name} for {processes.number()} processes, each of which needs one: set "
            f"trainer.devices={n_windows}, or data.num_{name} and data.max_{name}_windows higher."
        )


def _refuse_changing_cells(frames: Frames, starts: np.ndarray, length: int, name: str) -> None:
    """Refuse windows along which the cell changes."""
    for trajectory, pbc in zip(frames.trajectories, frames.pbc, strict=True) if length > 1 else ():
        end = trajectory.start + trajectory.length
        if same_cell(frames.cell[trajectory.start : end], frames.cell[trajectory.start], pbc).all():
            continue
        for start in starts[(starts >= trajectory.start) & (starts < end)].tolist():
            if not same_cell(frames.cell[start : start + length], frames.cell[start], pbc).all():
                raise ValueError(
                    f"data.{name}_window={length}: the cell changes along windows of '{frames.source}', first along that "
                    f"from frame {start - trajectory.start} of trajectory '{trajectory.name}' on, and a rollout keeps the "
                    f"cell of its first frame. {SINGLE_FRAMES} Or use trajectories at constant volume."
                )


class TrajectoryWindows(Dataset[dict[str, torch.Tensor]]):
    """Windows of `length` consecutive frames.

    A sample is a SchNetPack sample of the first frame (positions, neighbours, energy, forces ...), plus its velocities,
    masses, what is held fixed, time step and how far atoms will move, plus each target along the window under
    `properties.window(key)`: [1, S] for a property of the system, [n_atoms, S, ...] for one of atoms. Transforms see targets
    of all frames at once, so an offset is removed from all of them.

    Args:
        frames: the frames.
        starts: [n_windows] first frame of each window.
        length: frames of a window, S.
        atomrefs: single-atom reference values of the database, for SchNetPack's transforms.
        kicks: add what a thermostat did from frame to frame, for trajectories of which every step was saved; zero for
            others.
        counted_forces: per trajectory, [n_atoms, 3] false for components of forces that do not count in losses; None if
            all do.
    """

    def __init__(
        self,
        frames: Frames,
        starts: np.ndarray,
        length: int,
        atomrefs: dict[str, torch.Tensor] | None = None,
        kicks: bool = False,
        counted_forces: Sequence[np.ndarray] | None = None,
    ) -> None:
        self.frames = frames
        self.starts = starts
        self.length = length
        self.atomrefs = atomrefs or {}
        self.kicks = kicks
        self.counted_forces = counted_forces
        self.transforms: list[Transform] = []

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        frame = int(self.starts[index])
        trajectory = self.frames.trajectory_of(frame)
        targets = [key for key in self.frames.values if key not in properties.STRUCTURE]
        sample = self._structure(frame, trajectory)
        sample[properties.window_motion] = self._motion(frame, trajectory)
        if self.counted_forces is not None:
            sample[properties.counted_forces] = torch.tensor(self.counted_forces[trajectory])
        if self.kicks:
            sample.update(self._kicks(frame, trajectory))
        for key in targets:
            values = self.frames.window(key, frame, self.length, trajectory)
            sample[key] = torch.tensor(np.moveaxis(values, 0, 1))
        for transform in self.transforms:
            sample = transform(sample)
        for key in targets:
            sample[properties.window(key)] = sample[key]
            sample[key] = sample[key][:, 0]
        return sample

    def _structure(self, frame: int, trajectory: int) -> dict[str, torch.Tensor]:
        """The first frame, without targets."""
        frames = self.frames
        numbers = frames.atomic_numbers[trajectory]
        return {
            spk_properties.idx: torch.tensor([frame]),
            spk_properties.n_atoms: torch.tensor([len(numbers)]),
            spk_properties.Z: torch.tensor(numbers, dtype=torch.long),
            spk_properties.R: torch.tensor(frames.window(spk_properties.R, frame, 1, trajectory)[0]),
            spk_properties.cell: torch.tensor(frames.cell[frame][None]),
            spk_properties.pbc: torch.tensor(frames.pbc[trajectory]),
            spk_properties.masses: torch.tensor(frames.masses[trajectory]),
            properties.velocities: torch.tensor(frames.window(properties.velocities, frame, 1, trajectory)[0]),
            properties.time_step: torch.tensor([frames.time_step[trajectory]], dtype=torch.float64),
            properties.inner_steps: torch.tensor([frames.trajectories[trajectory].inner_steps]),
            properties.mobile: torch.tensor(frames.mobile[trajectory]),
        }

    def _motion(self, frame: int, trajectory: int) -> torch.Tensor:
        """[n_atoms] largest displacement of each atom from the first frame of the window."""
        frames = self.frames
        positions = frames.window(spk_properties.R, frame, self.length, trajectory)
        moved = shortest(positions - positions[0], frames.cell[frame], frames.pbc[trajectory])
        return torch.tensor(np.sqrt((moved**2).sum(axis=-1).max(axis=0)))

    def _kicks(self, frame: int, trajectory: int) -> dict[str, torch.Tensor]:
        """What velocity Verlet does not explain of the way from each frame of the window to the next."""
        frames = self.frames
        positions, velocities, forces = (
            frames.window(key, frame, self.length, trajectory)
            for key in (spk_properties.R, properties.velocities, spk_properties.forces)
        )
        kicks = verlet_residual(
            positions,
            velocities,
            forces,
            frames.masses[trajectory],
            frames.time_step[trajectory],
            frames.cell[frame],
            frames.pbc[trajectory],
        )
        if frames.trajectories[trajectory].inner_steps > 1:  # steps in between are not known
            kicks = np.zeros_like(kicks[0]), np.zeros_like(kicks[1])
        keys = (properties.position_kicks, properties.velocity_kicks)
        return {key: torch.tensor(np.moveaxis(kick, 0, 1)) for key, kick in zip(keys, kicks, strict=True)}
