"""What of a batch a model reads, and what its targets are at a step of the windows."""

from collections.abc import Iterable, Mapping

import torch
from schnetpack import properties as spk_properties

from spk_dt import properties

__all__ = ["at_step", "model_inputs", "some_systems"]

#: a model may read whatever else a batch holds
_NOT_FOR_THE_MODEL = {
    *(*properties.PAIRS, *properties.OF_WINDOW, *properties.RESULTS),
    *(properties.velocities, properties.time_step, properties.inner_steps, properties.mobile),
}


def model_inputs(batch: Mapping[str, torch.Tensor], targets: Iterable[str]) -> dict[str, torch.Tensor]:
    """The batch without pairs, targets, results of the reference method, and what belongs to the rollout."""
    left_out = _NOT_FOR_THE_MODEL | set(targets)
    suffix = properties.window_suffix
    return {key: value for key, value in batch.items() if key not in left_out and not key.endswith(suffix)}


def at_step(batch: Mapping[str, torch.Tensor], name: str, step: int) -> torch.Tensor:
    """A target at a step of the window."""
    window = properties.window(name)
    return batch[window][:, step].contiguous() if window in batch else batch[name]


def some_systems(batch: Mapping[str, torch.Tensor], keep: torch.Tensor) -> dict[str, torch.Tensor]:
    """A batch of some of the systems of a batch, without their neighbour pairs, which rollouts find themselves.

    Args:
        batch: as SchNetPack puts systems together: all values of all systems one after the other.
        keep: [n_systems] which ones.
    """
    idx_m, n_systems = batch[spk_properties.idx_m], len(keep)
    atoms = keep[idx_m]
    found = {}
    for key, value in batch.items():
        if key in properties.PAIRS:
            continue
        if key == spk_properties.idx_m:
            found[key] = (keep.cumsum(0) - 1)[idx_m[atoms]]
        elif key == spk_properties.pbc or len(value) not in (n_systems, len(idx_m)):
            found[key] = value.view(n_systems, -1)[keep].flatten() if value.ndim == 1 else value
        else:
            found[key] = value[keep if len(value) == n_systems else atoms]
    return found
