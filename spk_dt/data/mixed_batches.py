"""Training windows, and beside them frames that are added while the training runs."""

from bisect import bisect_right
from collections.abc import Iterator

import torch
from torch.utils.data import Dataset, Sampler

from spk_dt.data.windows import TrajectoryWindows

__all__ = ["GrowingDataset", "MixedBatches"]


class GrowingDataset(Dataset[dict[str, torch.Tensor]]):
    """A data set to which others may be appended.

    Args:
        first: the windows of the reference trajectories.
    """

    def __init__(self, first: TrajectoryWindows) -> None:
        self.first = first
        self._parts = [first]
        self._ends = [len(first)]

    def append(self, part: TrajectoryWindows) -> None:
        """Append frames; their indices follow those there are."""
        self._parts.append(part)
        self._ends.append(self._ends[-1] + len(part))

    @property
    def n_added(self) -> int:
        """Number of frames that were appended."""
        return len(self) - len(self.first)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        part = bisect_right(self._ends, index)
        return self._parts[part][index - (self._ends[part - 1] if part else 0)]


class MixedBatches(Sampler[list[int]]):
    """Batches of windows in random order, among them batches of added frames, as soon as there are any.

    A batch is of one kind, because windows have targets along time and single frames have not. An epoch has as many
    batches as the windows alone would make.

    Args:
        dataset: windows and added frames.
        batch_size: windows, or frames, of a batch.
        share: expected share of the batches that are of added frames, at least 0 and below 1.
        generator: of the random order of the next epoch; None takes that of PyTorch.
    """

    def __init__(self, dataset: GrowingDataset, batch_size: int, share: float) -> None:
        self.dataset, self.batch_size, self.share = dataset, batch_size, share
        self.generator: torch.Generator | None = None

    def __len__(self) -> int:
        return -(-len(self.dataset.first) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        n_windows, n_added = len(self.dataset.first), self.dataset.n_added
        windows = iter(torch.randperm(n_windows, generator=self.generator).split(self.batch_size))
        for _ in range(len(self)):
            if n_added and torch.rand((), generator=self.generator) < self.share:
                yield (n_windows + torch.randperm(n_added, generator=self.generator)[: self.batch_size]).tolist()
            else:
                yield next(windows).tolist()
