"""Training, validation and test frames that never overlap in time.

Random frames of one trajectory are nearly copies of each other, so a random split tells nothing. Both strategies here give
lists of frames and are `schnetpack.data.SplittingStrategy`, so static training can use the same split.
"""

from collections.abc import Sequence

import numpy as np
from schnetpack.data import ASEAtomsData, SplittingStrategy

from spk_dt.trajectories.database import read_trajectories

__all__ = ["TimeBlockSplit", "TrajectorySplit"]

_PARTITIONS = ("train", "val", "test")


class TrajectorySplit(SplittingStrategy):
    """Whole trajectories for training, validation and test.

    If the metadata of the database has splits, sizes only shorten them: the first trajectories of each partition are
    taken. Otherwise the trajectories are shuffled and dealt out.

    Sizes are numbers of trajectories, or fractions if below 1; None or -1 means all that remain (of the
    partition, or, for one size at most, of the database).

    Args:
        seed: seed of the shuffle. It is fixed, so that models trained with different seeds share their split.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def split(self, dataset: ASEAtomsData, *split_sizes: float | None) -> list[list[int]]:
        """Frames of training, validation and test.

        Raises:
            ValueError: if there are fewer trajectories than asked for.
        """
        metadata = dataset.metadata
        trajectories = read_trajectories(metadata, dataset.datapath)
        if "splits" in metadata:
            predefined = {name: set(metadata["splits"].get(name, [[]])[0]) for name in _PARTITIONS}
            candidates = [[t for t in trajectories if t.start in predefined[name]] for name in _PARTITIONS]
            counts = [
                len(found) if size is None or size < 0 else _absolute(size, len(found))
                for found, size in zip(candidates, split_sizes, strict=True)
            ]
        else:
            order = np.random.default_rng(self.seed).permutation(len(trajectories))
            counts = _all_absolute(split_sizes, len(trajectories))
            ends = np.cumsum(counts)
            candidates = [
                [trajectories[i] for i in order[end - count : end]] for end, count in zip(ends, counts, strict=True)
            ]
        for name, found, count in zip(_PARTITIONS, candidates, counts, strict=True):
            if len(found) < count:
                raise ValueError(
                    f"data.num_{name}={count} trajectories, but '{dataset.datapath}' has only {len(found)} for it "
                    f"({len(trajectories)} in all)."
                )
        return [
            sorted(frame for trajectory in found[:count] for frame in trajectory.frames)
            for found, count in zip(candidates, counts, strict=True)
        ]


class TimeBlockSplit(SplittingStrategy):
    """Each trajectory cut into three blocks in time: training, validation, test, with gaps between them.

    For few, long trajectories. Sizes are fractions of each trajectory; one of them may be None (what remains). The gap
    is taken from the start of the later block.

    Args:
        guard: frames left out between two blocks, so that the end of one does not tell the start of the next.
    """

    def __init__(self, guard: int = 20) -> None:
        super().__init__()
        if guard < 0:
            raise ValueError(f"guard={guard}: the number of frames between two blocks cannot be negative.")
        self.guard = guard

    def split(self, dataset: ASEAtomsData, *split_sizes: float | None) -> list[list[int]]:
        """Frames of training, validation and test.

        Raises:
            ValueError: if a size is not a fraction, or a block has no frames after its gap.
        """
        for name, size in zip(_PARTITIONS, split_sizes, strict=True):
            if size is not None and size >= 1:
                raise ValueError(f"data.num_{name}={size}: TimeBlockSplit takes fractions of each trajectory.")
        frames: list[list[int]] = [[], [], []]
        for trajectory in read_trajectories(dataset.metadata, dataset.datapath):
            counts = _all_absolute(split_sizes, trajectory.length)
            end = 0
            for partition, count in enumerate(counts):
                begin, end = end, end + count
                if count == 0:
                    continue
                begin += self.guard if begin > 0 else 0
                if begin >= end:
                    raise ValueError(
                        f"the {_PARTITIONS[partition]} block of trajectory '{trajectory.name}' has {count} frames, not "
                        f"more than the guard of {self.guard}; enlarge data.num_{_PARTITIONS[partition]} or lower "
                        "data.splitting.guard."
                    )
                frames[partition] += trajectory.frames[begin:end]
        return frames


def _absolute(size: float, total: int) -> int:
    """A number, from a number or a fraction below 1."""
    return int(size * total) if 0 < size < 1 else int(size)


def _all_absolute(sizes: Sequence[float | None], total: int) -> list[int]:
    """Numbers from numbers, fractions, and at most one None or -1 for what remains."""
    counts = [None if size is None or size < 0 else _absolute(size, total) for size in sizes]
    given = sum(count for count in counts if count is not None)
    if counts.count(None) > 1:
        raise ValueError(
            f"sizes {list(sizes)} of training, validation and test: only one of data.num_train, data.num_val and "
            "data.num_test may be left open."
        )
    if given > total:
        raise ValueError(f"sizes {list(sizes)} of training, validation and test ask for {given} of {total}.")
    return [total - given if count is None else count for count in counts]
