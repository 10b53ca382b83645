"""What of a batch a model reads, and what its targets are at a step of the windows."""

from collections.abc import Iterable, Mapping

import torch

from spk_dt import properties

__all__ = ["at_step", "model_inputs"]

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
