"""When the rollouts grow: a rule that looks at the stage, and a callback that applies it.

A stage is the time during which the rollout length S stays the same.
"""

import logging
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch.optim.lr_scheduler import ReduceLROnPlateau

from spk_dt.training.budget import ComputeBudget
from spk_dt.training.last_stage import last_stage_of
from spk_dt.training.task import DynamicTrainingTask

__all__ = ["Converged", "Curriculum", "Elapsed", "Rule", "Scheduled", "Stage"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """What a rule may look at.

    Args:
        length: rollout length S.
        epochs: finished epochs of the stage.
        learning_rate: current learning rate.
        floor: learning rate below which the scheduler does not go.
        budget_used: share of the computing budget that is used, 0 to 1; None without `spk_dt.training.ComputeBudget`.
    """

    length: int
    epochs: int
    learning_rate: float
    floor: float
    budget_used: float | None = None


class Rule(Protocol):
    """Decides when a stage is over."""

    def over(self, stage: Stage) -> bool:
        """Whether the stage is over."""


@dataclass(frozen=True)
class Converged:
    """A stage is over when the scheduler has brought the learning rate to its floor, as in the paper."""

    def over(self, stage: Stage) -> bool:
        """Whether the learning rate is at its floor."""
        return stage.epochs > 0 and stage.learning_rate <= stage.floor * (1.0 + 1e-6)


@dataclass(frozen=True)
class Elapsed:
    """A stage is over after a number of epochs.

    Args:
        epochs: epochs of a stage.
    """

    epochs: int

    def over(self, stage: Stage) -> bool:
        """Whether the epochs have passed."""
        return stage.epochs >= self.epochs


@dataclass(frozen=True)
class Scheduled:
    """S grows in proportion to the computing that is used, whatever the errors are; needs a `ComputeBudget`.

    Args:
        max_length: S at the end of the growth.
        begin: share of the budget at which the growth begins.
        end: share of the budget at which it has ended.
    """

    max_length: int
    begin: float = 0.0
    end: float = 0.8

    def __post_init__(self) -> None:
        if not 0.0 <= self.begin < self.end <= 1.0:
            raise ValueError(
                f"Scheduled(begin={self.begin}, end={self.end}): shares of the budget, 0 <= begin < end <= 1"
            )

    def over(self, stage: Stage) -> bool:
        """Whether a longer rollout is due; the last stage ends with the budget."""
        if stage.budget_used is None:
            raise ValueError(
                "spk_dt.training.Scheduled lets S grow with the computing budget, but there is none: add "
                "callbacks=[...,budget] and callbacks.budget.seconds."
            )
        share = min(1.0, (stage.budget_used - self.begin) / (self.end - self.begin))
        return stage.length < 1 + share * (self.max_length - 1) - 1e-6 and share > 0.0


class Curriculum(Callback):
    """Lets the rollouts grow step by step, whenever a stage is over, up to a largest length, and then ends the training.

    At each growth the learning rate and the plateau state of the scheduler are reset. Early stopping, if there is any,
    is held back until the last stage. The current length is logged as ``S``. If the training has a
    `spk_dt.training.LastStage`, this begins after the first stage, in place of longer rollouts.

    Args:
        max_length: largest S; the training ends when this stage is over.
        rule: when a stage is over; default `Converged`.
        reset_lr: learning rate at the start of each stage after the first; None leaves it as it is.

    Raises:
        ValueError: at the start of the fit, if `max_length` exceeds the windows of the data or is below the S that there is,
            or the rule could never say that a stage is over, or would at once.
    """

    def __init__(self, max_length: int, rule: Rule | None = None, reset_lr: float | None = 1e-4) -> None:
        if max_length < 1:
            raise ValueError(f"callbacks.curriculum.max_length={max_length}: a rollout has at least one step")
        self.max_length = max_length
        self.rule = rule if rule is not None else Converged()
        self.reset_lr = reset_lr
        self._start = 0  # epoch in which the stage began
        self._validation: dict[str, float] = {}  # metrics of the last validation that schedulers look at
        #: (epoch, S) at the start of each stage
        self.stages: list[tuple[int, int]] = []

    # pl_module is a DynamicTrainingTask; the signature of a hook is Lightning's
    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Refuse what could not work, before any training."""
        datamodule = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it, but does not declare it
        window = getattr(datamodule, "window", {"train": 1})["train"]
        if self.max_length > window:
            raise ValueError(
                f"callbacks.curriculum.max_length={self.max_length} steps, but data.train_window={window} frames; "
                "a window must hold the longest rollout."
            )
        if pl_module.rollout_length > self.max_length:
            raise ValueError(
                f"callbacks.curriculum.max_length={self.max_length} (globals.max_rollout_length), but the rollouts have "
                f"{pl_module.rollout_length} steps already (task.rollout_length, or the checkpoint that is resumed)."
            )
        if isinstance(self.rule, Scheduled) and self.rule.max_length > self.max_length:
            raise ValueError(
                f"callbacks.curriculum.rule.max_length={self.rule.max_length} is above callbacks.curriculum.max_length="
                f"{self.max_length}, where the training would end before its budget is used; make them equal."
            )
        if isinstance(self.rule, Converged):
            floor = self._floor(trainer)
            if not floor > 0.0:
                raise ValueError(
                    "the rollouts grow when the learning rate has reached its floor, but there is none: set "
                    "task.scheduler_args.min_lr, or callbacks.curriculum.rule."
                )
            if self.reset_lr is not None and self.reset_lr <= floor:
                raise ValueError(
                    f"callbacks.curriculum.reset_lr={self.reset_lr} must be above task.scheduler_args.min_lr={floor}"
                )
            first = max(group["lr"] for group in trainer.optimizers[0].param_groups)
            if first <= floor and trainer.ckpt_path is None:
                raise ValueError(
                    f"the learning rate {first:g} (globals.lr) must be above task.scheduler_args.min_lr={floor:g}; a stage "
                    "ends when it has fallen to that."
                )
        if not self.stages:
            self.stages.append((trainer.current_epoch, pl_module.rollout_length))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember what schedulers will be shown at the end of the epoch."""
        metrics = trainer.callback_metrics
        monitors = [config.monitor for config in trainer.lr_scheduler_configs]
        self._validation = {monitor: float(metrics[monitor]) for monitor in monitors if monitor in metrics}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make up for the step of plateau schedulers that Lightning loses when it resumes.

        Checkpoints are written after validation, the schedulers make their step after that.
        """
        for config in trainer.lr_scheduler_configs:
            missed = config.scheduler.last_epoch == trainer.current_epoch - 1
            if missed and isinstance(config.scheduler, ReduceLROnPlateau) and config.monitor in self._validation:
                config.scheduler.step(self._validation[config.monitor])

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Grow or end, if the stage is over; the scheduler has made its step for the last epoch by now."""
        last, warming_up = last_stage_of(trainer), trainer.global_step < pl_module.warmup_steps
        while not warming_up and not (last and last.began >= 0) and self.rule.over(self._stage(trainer, pl_module)):
            if last is not None and last.begin(trainer, pl_module):
                break
            if pl_module.rollout_length == self.max_length:
                log.info("the last stage (S = %d) is over, the training ends", self.max_length)
                trainer.should_stop = True  # Lightning leaves this epoch before its first batch
                return
            self._grow(trainer, pl_module)
        if pl_module.rollout_length < self.max_length or (last and last.began >= 0):
            self._hold_back_early_stopping(trainer)
        pl_module.log("S", float(pl_module.rollout_length), on_step=False, on_epoch=True)

    @property
    def began(self) -> int:
        """Epoch in which the present stage has begun."""
        return self._start

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Show S in the progress bar while the epoch runs; what is logged per epoch shows only when it is over."""
        pl_module.log("S", float(pl_module.rollout_length), on_step=True, on_epoch=False, prog_bar=True, logger=False)

    def _stage(self, trainer: pl.Trainer, pl_module: DynamicTrainingTask) -> Stage:
        callbacks = trainer.callbacks  # type: ignore[attr-defined]  # as above
        return Stage(
            length=pl_module.rollout_length,
            epochs=trainer.current_epoch - self._start,
            learning_rate=max(group["lr"] for group in trainer.optimizers[0].param_groups),
            floor=self._floor(trainer),
            budget_used=next((c.fraction for c in callbacks if isinstance(c, ComputeBudget)), None),
        )

    def _grow(self, trainer: pl.Trainer, pl_module: DynamicTrainingTask) -> None:
        pl_module.rollout_length += 1
        self._start = trainer.current_epoch
        self.stages.append((self._start, pl_module.rollout_length))
        if self.reset_lr is not None:
            for group in trainer.optimizers[0].param_groups:
                group["lr"] = self.reset_lr
        for scheduler in _plateau_schedulers(trainer):
            best = inf if scheduler.mode == "min" else -inf
            # ema_loss is of schnetpack.train.ReduceLROnPlateau
            scheduler.load_state_dict({"best": best, "num_bad_epochs": 0, "cooldown_counter": 0, "ema_loss": None})
        if pl_module.rollout_length == self.max_length:
            for callback in trainer.early_stopping_callbacks:
                callback.wait_count = 0
                callback.best_score = callback.best_score.new_tensor(inf if callback.mode == "min" else -inf)

    @staticmethod
    def _floor(trainer: pl.Trainer) -> float:
        """The lowest learning rate of the scheduler, 0 if there is none."""
        return max((max(scheduler.min_lrs) for scheduler in _plateau_schedulers(trainer)), default=0.0)

    @staticmethod
    def _hold_back_early_stopping(trainer: pl.Trainer) -> None:
        """Start the count of early stopping so low that the coming validation cannot reach its patience."""
        for callback in trainer.early_stopping_callbacks:
            callback.wait_count = -2

    def state_dict(self) -> dict[str, Any]:
        """Start and history of stages."""
        return {"start": self._start, "stages": list(self.stages), "validation": dict(self._validation)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the history of stages."""
        self._start = state_dict["start"]
        self._validation = dict(state_dict["validation"])
        self.stages = [tuple(stage) for stage in state_dict["stages"]]


def _plateau_schedulers(trainer: pl.Trainer) -> list[ReduceLROnPlateau]:
    schedulers = (config.scheduler for config in trainer.lr_scheduler_configs)
    return [scheduler for scheduler in schedulers if isinstance(scheduler, ReduceLROnPlateau)]
