"""Lightning data module that serves windows of trajectories."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import to_absolute_path
from schnetpack.data import ASEAtomsData, AtomsDataModule, AtomsLoader, SplittingStrategy, load_dataset

from spk_dt import processes, units
from spk_dt.data.checks import check_frames
from spk_dt.data.fixed_forces import counted_forces
from spk_dt.data.load import load_frames
from spk_dt.data.mixed_batches import GrowingDataset, MixedBatches
from spk_dt.data.split_file import read_split
from spk_dt.data.splitting import TrajectorySplit
from spk_dt.data.windows import TrajectoryWindows, Windows, refuse_fewer_than_processes
from spk_dt.folders.hold import hold
from spk_dt.folders.whole_file import whole_file
from spk_dt.trajectories.checked_database import read_metadata
from spk_dt.trajectories.frames import Frames

__all__ = ["TrajectoryDataModule"]

log = logging.getLogger(__name__)

_PARTITIONS = ("train", "val", "test")


class TrajectoryDataModule(AtomsDataModule):
    """Windows of consecutive frames from a trajectory database (see `spk_dt.data.TrajectoryWriter`).

    A batch is a SchNetPack batch of the first frames, with targets along the window beside it
    (see `spk_dt.data.TrajectoryWindows`). Frames are read once and held in memory.

    Args:
        datapath: trajectory database; a relative path counts from where `spktrain` was started, not from its run folder.
        batch_size: windows per training batch.
        num_train: size of the training partition in the units of `splitting` (trajectories, or a fraction). None takes
            what is left, or the split in the metadata of the database.
        num_val: size of the validation partition, likewise.
        num_test: size of the test partition, likewise.
        train_window: frames of a training window, the largest S that the curriculum may reach.
        val_window: frames of a validation window, N_val.
        test_window: frames of a test window; None takes `val_window`.
        max_train_windows: number of training windows, drawn once at random with a fixed seed; None takes all.
        max_val_windows: number of validation windows, spread evenly over the partition; None takes all.
        max_test_windows: number of test windows, likewise; None takes all.
        splitting: how frames are partitioned; default `TrajectorySplit`, whole trajectories.
        split_file: file in which the partition is kept, and from which it is read when training is resumed.
        max_memory_gb: above this size, frames are mapped from files beside the database.
        check_data: refuse frames that cannot be the reference of a rollout (`spk_dt.data.checks`).
        replay_kicks: for trajectories with a thermostat, of which every step was saved: replay in rollouts what it did at
            each step, so that with perfect forces they follow the reference.
        fixed_forces: whether forces on fixed atoms count in losses, where the data hold them
            (`spk_dt.data.fixed_forces`).
        kwargs: arguments of `schnetpack.data.AtomsDataModule`.

    Raises:
        FileNotFoundError: by `setup`, if there is no database.
        ValueError: if a window has no frame, or a number of windows is negative; by `setup`, if the frames fail the
            check, or no window fits into a partition.
    """

    dataset: ASEAtomsData | None  # None before `setup`
    _train_dataloader: AtomsLoader | None
    # set by `setup`
    frames: Frames
    train_idx: list[int]
    val_idx: list[int]
    test_idx: list[int]
    _train_dataset: TrajectoryWindows
    # set by `mix_in`
    _growing: GrowingDataset
    _mixed: MixedBatches

    def __init__(
        self,
        datapath: str,
        batch_size: int,
        num_train: float | None = None,
        num_val: float | None = None,
        num_test: float | None = None,
        train_window: int = 1,
        val_window: int = 1,
        test_window: int | None = None,
        max_train_windows: int | None = None,
        max_val_windows: int | None = None,
        max_test_windows: int | None = None,
        splitting: SplittingStrategy | None = None,
        split_file: str | None = "split.npz",
        max_memory_gb: float = 4.0,
        check_data: bool = True,
        replay_kicks: bool = False,
        fixed_forces: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            to_absolute_path(datapath),
            batch_size,
            num_train=num_train,
            num_val=num_val,
            num_test=num_test,
            splitting=splitting or TrajectorySplit(),
            split_file=split_file,
            **kwargs,
        )
        self.windows = {
            "train": Windows("train", train_window, max_train_windows),
            "val": Windows("val", val_window, max_val_windows),
            "test": Windows("test", val_window if test_window is None else test_window, max_test_windows),
        }
        self.max_memory_gb = max_memory_gb
        self.check_data = check_data
        self.replay_kicks = replay_kicks
        self.fixed_forces = fixed_forces

    @property
    def window(self) -> dict[str, int]:
        """Frames of the windows, by partition."""
        return {name: windows.length for name, windows in self.windows.items()}

    def setup(self, stage: str | None = None) -> None:
        """Read the frames, check them, partition them and cut windows; once, whatever the stage."""
        if self.dataset is not None:
            return
        if not Path(self.datapath).exists():
            raise FileNotFoundError(
                f"there is no trajectory database '{self.datapath}'; set data.datapath, or write one with "
                "spk_dt.data.TrajectoryWriter."
            )
        for key, unit in (self.property_units or {}).items():
            units.conversion(unit, unit, f"data.property_units.{key}")  # SchNetPack's own error would not say which
        if self.distance_unit is not None:
            units.conversion(self.distance_unit, "Ang", "data.distance_unit")
        datapath = self.datapath if self.data_workdir is None else self._copy_to_workdir()
        self.dataset = self._open(datapath)
        self.frames = load_frames(self.dataset, self.max_memory_gb)
        if self.check_data:
            check_frames(self.frames, self.replay_kicks)
        self._load_partitions()
        counted = counted_forces(self.frames, self.fixed_forces)
        parts = []
        for name, members in zip(_PARTITIONS, (self.train_idx, self.val_idx, self.test_idx), strict=True):
            starts, length = self.windows[name].starts(self.frames, members), self.window[name]
            refuse_fewer_than_processes(len(starts), name)
            parts.append(
                TrajectoryWindows(self.frames, starts, length, self.dataset.atomrefs, self.replay_kicks, counted)
            )
        self._train_dataset, self._val_dataset, self._test_dataset = parts
        self._setup_transforms()
        log.info(
            "%d trajectories, %d frames; windows for training, validation, test: %d of %d frames, %d of %d, %d of %d",
            len(self.frames.trajectories),
            len(self.frames),
            *(n for part in parts for n in (len(part), part.length)),
        )

    def mix_in(self, share: float) -> None:
        """Let a share of the training batches be of frames that are added while the training runs.

        Call it before the training loader is made; `add_training_frames` adds.

        Args:
            share: expected share of the batches.

        Raises:
            ValueError: if it is not a share, or the loader is there already.
        """
        if not 0.0 < share < 1.0:
            raise ValueError(f"share={share}: a share of the training batches lies between 0 and 1.")
        if self._train_dataloader is not None or self.train_sampler_cls is not None:
            raise ValueError("frames cannot be mixed in: the training data have a sampler or a loader of their own.")
        self._growing = GrowingDataset(self._train_dataset)
        self._mixed = MixedBatches(self._growing, self.batch_size, share)
        self._train_dataloader = AtomsLoader(
            self._growing,
            batch_size=None,
            sampler=self._mixed,
            num_workers=self.num_workers,
            collate_fn=None,
            pin_memory=self._pin_memory,
        )

    def order_batches(self, seed: int) -> None:
        """Let the random order of the mixed batches of the next epoch follow from a seed; see `mix_in`.

        So a training that was interrupted goes on as if it had not been: Lightning draws random numbers when it begins.
        """
        self._mixed.generator = torch.Generator().manual_seed(seed)

    def add_training_frames(self, datapath: str | Path) -> int:
        """Add all frames of a trajectory database to the training data, as single frames; see `mix_in`.

        Args:
            datapath: the database.

        Returns:
            number of frames added.
        """
        frames = load_frames(self._open(str(datapath)), self.max_memory_gb)
        atomrefs, counted = self._train_dataset.atomrefs, None if self.fixed_forces else frames.mobile
        windows = TrajectoryWindows(frames, np.arange(len(frames)), 1, atomrefs, counted_forces=counted)
        windows.transforms = self._train_dataset.transforms
        self._growing.append(windows)
        return len(frames)

    def _open(self, datapath: str) -> ASEAtomsData:
        """A trajectory database, in the units of the data."""
        read_metadata(datapath)  # refuses what is none
        return load_dataset(
            datapath,
            self.format,
            property_units=self.property_units,
            distance_unit=self.distance_unit,
            load_properties=self.load_properties,
        )

    def _load_partitions(self) -> None:
        """Read the partition from the split file, or make it and write the file."""
        if self.split_file is None:
            asked = self.dataset, self.num_train, self.num_val, self.num_test
            partitions = processes.by_first(lambda: self.splitting.split(*asked))
            self._check_partitions(partitions, type(self.splitting).__name__)
        else:
            path = Path(self.split_file)
            with hold(path.with_suffix(".lock"), wait=True):
                partitions = self._partitions_of_file(path)
        self.train_idx, self.val_idx, self.test_idx = partitions

    def _partitions_of_file(self, path: Path) -> list[list[int]]:
        """The partition that a split file holds; the file is made if it is not there."""
        trajectories = json.dumps([asdict(trajectory) for trajectory in self.frames.trajectories])
        sizes = json.dumps([self.num_train, self.num_val, self.num_test])
        splitting = json.dumps(self.splitting, default=_described)
        if not path.exists():
            partitions = self.splitting.split(self.dataset, self.num_train, self.num_val, self.num_test)
            self._check_partitions(partitions, type(self.splitting).__name__)
            frames = {f"{name}_idx": idx for name, idx in zip(_PARTITIONS, partitions, strict=True)}
            with whole_file(path) as part, part.open("wb") as stream:
                np.savez(stream, trajectories=trajectories, sizes=sizes, splitting=splitting, **frames)
            return partitions
        split = read_split(path)
        if lacking := [name for name in _PARTITIONS if f"{name}_idx" not in split]:
            raise ValueError(f"'{path}' has no {lacking[0]}_idx; remove the file to make a new split.")
        partitions = [split[f"{name}_idx"].astype(np.int64).tolist() for name in _PARTITIONS]
        made_for = str(split.get("trajectories", trajectories))  # SchNetPack's own split files do not say
        made_with = str(split.get("sizes", sizes))
        made_by = str(split.get("splitting", splitting))
        if made_for != trajectories:
            raise ValueError(
                f"'{path}' was made for a database with other trajectories than '{self.datapath}'. Remove the file to make "
                "a new split."
            )
        if made_with != sizes:
            raise ValueError(
                f"'{path}' was made with data.num_train, num_val, num_test = {made_with}, not {sizes}. Remove the file to "
                "make a new split."
            )
        if made_by != splitting:
            raise ValueError(
                f"'{path}' was made with data.splitting = {made_by}, not {splitting}. Remove the file to make a new split."
            )
        self._check_partitions(partitions, f"'{path}'")
        return partitions

    def _check_partitions(self, partitions: Sequence[Sequence[int]], source: str) -> None:
        """Refuse partitions that share a frame, lie outside of the database, or leave nothing to train or validate on."""
        frames = np.concatenate([np.asarray(partition, dtype=np.int64) for partition in partitions])
        if len(np.unique(frames)) != len(frames):
            raise ValueError(f"partitions of {source} share frames; training, validation and test must not overlap.")
        if len(frames) and frames.max() >= len(self.frames):
            raise ValueError(
                f"{source} names frame {frames.max()}, but '{self.datapath}' has {len(self.frames)} frames; the split "
                "belongs to another database. Remove the file to make a new split."
            )
        for name, partition in zip(_PARTITIONS[:2], partitions[:2], strict=True):
            if len(partition) == 0:
                raise ValueError(f"{source} leaves no frames for data.num_{name}.")

    def get_stats(
        self, property: str, divide_by_atoms: bool, remove_atomref: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of a scalar property over all training frames.

        Args:
            property: name of a property with one value per frame.
            divide_by_atoms: divide by the number of atoms first.
            remove_atomref: subtract single-atom reference values first.

        Returns:
            mean and standard deviation, [] each, in the unit of the property.
        """
        key = (property, divide_by_atoms, remove_atomref)
        if key not in self._stats:
            frames = self.frames
            values = np.asarray(frames.values[property]).reshape(len(frames), -1).sum(axis=1)
            atomref = self._train_dataset.atomrefs.get(property) if remove_atomref else None
            for trajectory, numbers in zip(frames.trajectories, frames.atomic_numbers, strict=True):
                rows = slice(trajectory.start, trajectory.start + trajectory.length)
                if atomref is not None:
                    values[rows] -= atomref[torch.as_tensor(numbers)].sum().item()
                if divide_by_atoms:
                    values[rows] /= len(numbers)
            of_training = torch.as_tensor(values[np.asarray(self.train_idx)])
            self._stats[key] = (of_training.mean(), of_training.std(correction=0))
        return self._stats[key]


def _described(value: Any) -> Any:
    """A splitting strategy, or what is in it, as JSON can hold it."""
    return {type(value).__name__: vars(value)} if isinstance(value, SplittingStrategy) else str(value)
