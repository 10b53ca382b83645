"""Windows that a process validates although another one does, since all processes have as many windows as the first."""

from collections.abc import Mapping
from typing import Any

import torch
from schnetpack import properties
from torch.utils.data import DistributedSampler

from spk_dt.training.parts_of_batch import some_systems

__all__ = ["without_repeated"]


def without_repeated(batch: Mapping[str, torch.Tensor], batch_idx: int, loader: Any) -> dict[str, torch.Tensor] | None:
    """A batch without windows that are repeated, so that a mean over all processes counts each window once.

    Args:
        batch: a batch of a loader whose order is that of the data.
        batch_idx: its number.
        loader: its loader; with several processes its sampler is a `DistributedSampler`.

    Returns:
        None if all are repeated.
    """
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler) or sampler.shuffle:
        return dict(batch)
    of_this_process = len(range(sampler.rank, len(sampler.dataset), sampler.num_replicas))  # type: ignore[arg-type]  # has a length
    n_systems, before = len(batch[properties.n_atoms]), batch_idx * int(loader.batch_size)
    left = of_this_process - before
    if left >= n_systems:
        return dict(batch)
    return (
        some_systems(batch, torch.arange(n_systems, device=batch[properties.n_atoms].device) < left)
        if left > 0
        else None
    )
