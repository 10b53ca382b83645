"""Training for a given amount of computing, so that methods whose updates differ in cost can be compared."""

import math
import os
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from schnetpack import properties

from spk_dt import processes

__all__ = ["ComputeBudget", "SecondsUsedUpError", "budgets_of", "in_time"]


class SecondsUsedUpError(Exception):
    """The budget of the training is used up in the middle of something."""


class ComputeBudget(Callback):
    r"""Ends the training after so many seconds of computing, and lowers the learning rate along the way.

    Seconds are those of the processor, all threads and processes that have ended together (of the clock on a GPU, after
    synchronisation), spent in training: loading of batches counts, and so do `spk_dt.training.OnPolicyLabels`, simulations
    and reference calculations; validation and start-up do not. They are logged as ``train_seconds``,
    with ``train_updates`` and ``train_frames``, the number of force evaluations of systems
    (`spk_dt.training.DynamicTrainingTask.force_evaluations`).

    With f the share of the budget that is used, the learning rate is :math:`l_0 (l_1/l_0)^f`, the same for every method; the
    task then needs no scheduler (``task.scheduler_cls=null``). Of several processes that train together, those of the one
    that needs most count, from batch to batch. What a process had used since the last checkpoint is not
    known to the one that goes on, and seconds are never the same: such a training does not give the same numbers twice.

    Args:
        seconds: the budget.
        final_lr: learning rate l_1 at its end; None leaves the learning rate alone.

    Raises:
        ValueError: if the budget or the learning rate is not positive; at the start of the fit, if a scheduler sets the
            learning rate as well.
    """

    def __init__(self, seconds: float, final_lr: float | None = None) -> None:
        if not 0.0 < seconds < math.inf:
            raise ValueError(f"callbacks.budget.seconds={seconds}: the budget must be a positive number of seconds.")
        if final_lr is not None and not final_lr > 0.0:
            raise ValueError(
                f"callbacks.budget.final_lr={final_lr}: the learning rate falls geometrically, not to zero."
            )
        self.seconds = seconds
        self.final_lr = final_lr
        #: used so far
        self.used = 0.0
        self.updates = 0
        self.frames = 0
        self._since: float | None = None
        self._unshared = 0.0  # used in this process, and not yet compared with others

    @property
    def fraction(self) -> float:
        """Share of the budget that is used, 0 to 1."""
        return min(1.0, self.used / self.seconds)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse what could not work, before any training."""
        if self.final_lr is not None and trainer.lr_scheduler_configs:
            raise ValueError(
                f"callbacks.budget.final_lr={self.final_lr} sets the learning rate, and so does a scheduler: set "
                "task.scheduler_cls=null, or callbacks.budget.final_lr=null."
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, unless the budget was used up before the training was interrupted."""
        self._since = _now(pl_module)
        if self.used >= self.seconds:
            trainer.should_stop = True

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Set the learning rate."""
        if self.final_lr is None:
            return
        for group in trainer.optimizers[0].param_groups:
            first = group.setdefault("initial_lr", group["lr"])
            group["lr"] = first * (self.final_lr / first) ** self.fraction

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count, and end the training if the budget is used up."""
        self.updates += 1
        evaluations: Any = getattr(pl_module, "force_evaluations", None)  # SchNetPack's own task has none
        frames = len(batch[properties.idx]) if evaluations is None else evaluations(batch)
        self.frames += int(processes.total(torch.tensor(frames)))
        self._share(pl_module)
        if self.used >= self.seconds:
            trainer.should_stop = True

    def used_up(self, pl_module: pl.LightningModule) -> bool:
        """Whether the budget is used up by now, in this process."""
        self._read(pl_module)
        return self.used + self._unshared >= self.seconds

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        if self._since is not None:
            self._read(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start it again."""
        if self._since is not None:
            self._since = _now(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log what was used."""
        self._share(pl_module)
        log = {"train_seconds": self.used, "train_updates": self.updates, "train_frames": self.frames}
        pl_module.log_dict({key: float(value) for key, value in log.items()}, on_step=False, on_epoch=True)

    def _read(self, pl_module: pl.LightningModule) -> None:
        now = _now(pl_module)
        if self._since is not None:
            self._unshared += now - self._since
        self._since = now

    def _share(self, pl_module: pl.LightningModule) -> None:
        """Count what the process that needs most has used."""
        self._read(pl_module)
        self.used += processes.largest(self._unshared)
        self._unshared = 0.0

    def state_dict(self) -> dict[str, Any]:
        """What was used."""
        return {"used": self.used, "updates": self.updates, "frames": self.frames}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.used, self.updates, self.frames = (state_dict[key] for key in ("used", "updates", "frames"))


def budgets_of(trainer: pl.Trainer) -> list[ComputeBudget]:
    """The budgets of a training, of which there is one at most in general."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it, but does not declare it
    return [one for one in callbacks if isinstance(one, ComputeBudget)]


def in_time(trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    """Raise an error when the budget of the training is used up in this process.

    Raises:
        SecondsUsedUpError: if it is.
    """
    if any(one.used_up(pl_module) for one in budgets_of(trainer)):
        raise SecondsUsedUpError


def _now(pl_module: pl.LightningModule) -> float:
    if pl_module.device.type != "cuda":
        return sum(os.times()[:4])  # of this process and its children
    torch.cuda.synchronize(pl_module.device)
    return time.perf_counter()
