"""Training windows, and beside them frames that are added while the training runs."""

from bisect import bisect_right
from collections.abc import Iterator

import torch
from schnetpack.data.loader import _atoms_collate_fn
from torch.utils.data import Dataset, DistributedSampler

from spk_dt import processes
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

    def __getitem__(self, index: int | list[int]) -> dict[str, torch.Tensor]:
        """A window or frame, or a batch of several."""
        if isinstance(index, list):
            batch: dict[str, torch.Tensor] = _atoms_collate_fn([self[one] for one in index])
            return batch
        part = bisect_right(self._ends, index)
        return self._parts[part][index - (self._ends[part - 1] if part else 0)]


class MixedBatches(DistributedSampler[list[int]]):
    """Batches of windows in random order, among them batches of added frames, as soon as there are any.

    A batch is of one kind, because windows have targets along time and single frames have not. An epoch has as many
    batches as the windows alone would make.

    Several processes share batches of as many times the size; where what is left does not suffice for all, some of it comes
    twice. They have the same order, from the seed of the training and the number of the epoch. A `DistributedSampler` is not
    replaced by Lightning.

    Args:
        dataset: windows and added frames.
        batch_size: windows, or frames, of a batch of one process.
        share: expected share of the batches that are of added frames, at least 0 and below 1.
        generator: of the random order of the next epoch; None takes that of PyTorch in one process.
    """

    def __init__(self, dataset: GrowingDataset, batch_size: int, share: float) -> None:
        super().__init__(dataset, processes.number(), processes.rank())
        self.growing, self.share = dataset, share
        self.batch_size = batch_size * self.num_replicas  # of all processes together
        self.generator: torch.Generator | None = None

    def __len__(self) -> int:
        return -(-len(self.growing.first) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        n_windows, n_added = len(self.growing.first), self.growing.n_added
        generator = self.generator
        if generator is None and self.num_replicas > 1:
            generator = torch.Generator().manual_seed(processes.seed() + self.epoch)
        windows = iter(torch.randperm(n_windows, generator=generator).split(self.batch_size))
        for _ in range(len(self)):
            if n_added and torch.rand((), generator=generator) < self.share:
                yield self._own(n_windows + torch.randperm(n_added, generator=generator)[: self.batch_size])
            else:
                yield self._own(next(windows))

    def _own(self, indices: torch.Tensor) -> list[int]:
        """What this process has of a batch."""
        n = -(-len(indices) // self.num_replicas) * self.num_replicas
        return indices.repeat(self.num_replicas)[:n][self.rank :: self.num_replicas].tolist()
