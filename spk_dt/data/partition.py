"""Frames that simulations may start from: those of a partition of the database, and of the runs that trained on it."""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from spk_dt.data.split_file import read_split
from spk_dt.trajectories.checked_database import read_metadata
from spk_dt.trajectories.database import Trajectory, read_trajectories

__all__ = ["ALL", "SPLIT_FILE", "Part", "Partition", "read_partition"]

log = logging.getLogger(__name__)

#: in place of a partition: all trajectories
ALL = "all"

#: where a run of spktrain keeps its partitions, in its folder
SPLIT_FILE = "split.npz"


@dataclass(frozen=True)
class Part:
    """Consecutive frames of a trajectory.

    Args:
        trajectory: the trajectory.
        frames: indices of the frames in the trajectory, from 0.
    """

    trajectory: Trajectory
    frames: range


@dataclass(frozen=True)
class Partition:
    """Trajectories, or parts of them, of a database.

    Args:
        source: the database.
        name: ``test`` for example, or `ALL`.
        parts: one for each trajectory that has frames in the partition.
    """

    source: str
    name: str
    parts: tuple[Part, ...]

    def first(self, number: int | None) -> Self:
        """The first trajectories of the partition; None takes all.

        Raises:
            ValueError: if there are fewer.
        """
        if number is not None and not 1 <= number <= len(self.parts):
            raise ValueError(
                f"number={number}: '{self.source}' has {len(self.parts)} trajectories for '{self.name}'; ask for 1 to "
                f"{len(self.parts)}."
            )
        return replace(self, parts=self.parts[:number])


def read_partition(datapath: str | Path, split: str | None = None, split_files: Iterable[Path] = ()) -> Partition:
    """The frames of a partition, of the database and of runs that trained on it.

    Partitions are known from the metadata of the database, and from the ``split.npz`` of runs; of several those frames count
    that are in the partition in all of them. A split file of other data says nothing about these and is passed over.

    Args:
        datapath: trajectory database.
        split: name of the partition, or `ALL`; None takes ``test``, or all trajectories, with a warning, if no
            partitions are known.
        split_files: files that `spk_dt.data.TrajectoryDataModule` writes; those that do not exist are passed over.

    Raises:
        FileNotFoundError: if there is no database.
        ValueError: if there is no such partition, or no frame is in it.
    """
    if not Path(datapath).exists():
        raise FileNotFoundError(f"there is no trajectory database '{datapath}'.")
    metadata, source = read_metadata(datapath), str(datapath)
    trajectories = read_trajectories(metadata, source)
    everything = Partition(source, ALL, tuple(Part(one, range(one.length)) for one in trajectories))
    if split == ALL:
        return everything
    known = _splits(metadata, source, trajectories, split_files)
    if not known and split is not None:
        raise ValueError(
            f"'{source}' has no partitions, and there is no split file of a run on it: which frames are '{split}' is not "
            f"known. Name a run on these data, or take all trajectories (split '{ALL}')."
        )
    if not known:
        log.warning(
            "'%s' has no partitions, and there is no split file of a run on it: all %d trajectories are used, also those "
            "that a model may have been trained on.",
            *(source, len(trajectories)),
        )
        return everything
    name = split or "test"
    for file, partitions in known.items():
        if name not in partitions:
            raise ValueError(f"'{file}' has no partition '{name}'; it has {', '.join(partitions)}.")
    members = set.intersection(*(partitions[name] for partitions in known.values()))
    parts = tuple(Part(one, frames) for one in trajectories if (frames := _consecutive(one, members)))
    if not parts:
        others = [
            one
            for one in next(iter(known.values()))
            if set.intersection(*(each.get(one, set()) for each in known.values()))
        ]
        raise ValueError(
            f"no frame of '{source}' is in the partition '{name}' of {' and '.join(map(repr, known))}. Name another one: "
            f"{', '.join(f'--split {one}' for one in (*others, ALL))}. Frames that a model was trained on tell little of it."
        )
    return Partition(source, name, parts)


def _splits(
    metadata: Mapping[str, Any], source: str, trajectories: list[Trajectory], split_files: Iterable[Path]
) -> dict[str, dict[str, set[int]]]:
    """Frames of each partition, by file that says so."""
    known = {}
    if "splits" in metadata:
        known[source] = {name: set(frames[0]) for name, frames in metadata["splits"].items()}
    described = json.loads(json.dumps([asdict(one) for one in trajectories]))
    for file in dict.fromkeys(split_files):
        if not file.exists():
            continue
        content = read_split(file)
        if "trajectories" in content and json.loads(str(content["trajectories"])) == described:
            indices = {key: content[key].tolist() for key in content if key.endswith("_idx")}
            known[str(file)] = {key.removesuffix("_idx"): set(frames) for key, frames in indices.items()}
    return known


def _consecutive(trajectory: Trajectory, members: set[int]) -> range:
    """The first frames of a trajectory that are members without a gap."""
    inside = [index in members for index in trajectory.frames]
    if not any(inside):
        return range(0)
    first = inside.index(True)
    end = inside.index(False, first) if False in inside[first:] else trajectory.length
    return range(first, end)
