"""Validation with averaged weights, in a training that may be interrupted."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from schnetpack import train

__all__ = ["ExponentialMovingAverage", "averaged_weights"]


class ExponentialMovingAverage(train.ExponentialMovingAverage):
    """`schnetpack.train.ExponentialMovingAverage` that goes on with the weights of the training when it is resumed.

    Checkpoints are written after validation, when the model has the averaged weights; those of the training are kept
    beside them. SchNetPack's callback replaces these by the average when it resumes, so each interruption would change the
    training.

    Args:
        decay: part of the average that an update leaves.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with the average, and keep the weights of the training for the first epoch."""
        state: dict[str, Any] = self._to_load or {}
        super().on_fit_start(trainer, pl_module)
        of_training, in_model = state.get("collected_params"), self.ema.collected_params
        averaged = all(map(torch.equal, in_model, self.ema.shadow_params))  # else the checkpoint is of mid-epoch
        if of_training is not None and averaged:
            self.ema.collected_params = [kept.to(one).clone() for kept, one in zip(of_training, in_model, strict=True)]


@contextmanager
def averaged_weights(trainer: pl.Trainer, model: torch.nn.Module) -> Iterator[None]:
    """Give the model the averaged weights for a while, as for validation; without averaging it keeps its own.

    Args:
        trainer: with the callback that averages, if there is one.
        model: of the training.
    """
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning sets it, but does not declare it
        if isinstance(callback, train.ExponentialMovingAverage) and callback.ema is not None:
            callback.ema.copy_to(model.parameters())
    try:
        yield
    finally:
        for parameter, kept in zip(model.parameters(), before, strict=True):
            parameter.data.copy_(kept)
