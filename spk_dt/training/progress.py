"""What is shown while a model is trained: how far it is, how good, how long it still takes; and a summary at the end."""

import logging
import re
import time
from collections.abc import Mapping
from statistics import fmean
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from pytorch_lightning.callbacks import Callback, TQDMProgressBar

from spk_dt.duration import duration
from spk_dt.training.budget import ComputeBudget
from spk_dt.training.last_stage import last_stage_of
from spk_dt.training.next_commands import run_folder
from spk_dt.training.on_policy import JoiningLabels
from spk_dt.training.progress_bar import TrainingBar
from spk_dt.training.summary import StageSummary, summary
from spk_dt.training.time_left import Left, Pace, time_left

__all__ = ["TrainingProgress"]

log = logging.getLogger(__name__)


class TrainingProgress(Callback):
    """Shows S, the force error of each element, and the time that remains; at the end a summary, and what to do next.

    On a terminal that is a bar, in place of Lightning's own; elsewhere, as in the log of a batch job, a line for each epoch.
    Without Lightning's bar (``+trainer.enable_progress_bar=false``), or with one of the user's, there are lines. With
    ``spktrain`` the summary comes after the test, otherwise at the end of the fit.
    """

    def __init__(self) -> None:
        #: what has come of each stage so far
        self.stages: list[StageSummary] = []
        self._bar: TrainingBar | None = None
        self._pace: Pace | None = None
        self._begun = self._first_batch = self._trained = self._shown = 0.0
        self._used = 0.0  # of the budget, when the epoch began
        self._rounds, self._round = 0, 0.0  # number of rounds of labels, and what the last one has taken
        self._rests: list[float] = []  # what validation has taken in each epoch of the stage; free simulations are rare
        self._fitted = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the place of Lightning's bar, if there is a terminal."""
        if stage != "fit" or not trainer.is_global_zero:
            return
        replaced = [one for one in _callbacks(trainer) if type(one) is TQDMProgressBar]
        if replaced:
            trainer.callbacks = [one for one in _callbacks(trainer) if one not in replaced]  # type: ignore[attr-defined]
            bar = TrainingBar()
            self._bar = bar if bar.on_terminal else None

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """The first epoch begins; rounds of labels before a run was interrupted say nothing about the time."""
        self._rounds = _rounds(trainer)
        self._begin(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """An epoch begins; rounds of labels, which come before it, belong to it."""
        self._first_batch = self._trained = 0.0
        if self._bar is not None:
            self._bar.begin(self._title(trainer, pl_module), _number(trainer.num_training_batches))

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """The training part of the epoch begins with its first batch."""
        if batch_idx == 0:
            self._first_batch = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A step of the bar, at most ten times a second."""
        done = batch_idx + 1
        if self._bar is not None and (time.monotonic() - self._shown > 0.1 or done == trainer.num_training_batches):
            self._shown = time.monotonic()
            left = self._left(trainer, pl_module, done / _number(trainer.num_training_batches))
            self._bar.show(done, "" if left is None else str(left))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """The training part of the epoch is over."""
        if self._first_batch > 0.0 and not trainer.sanity_checking:
            self._trained = time.monotonic() - self._first_batch
        if self._bar is not None:
            self._bar.name(f"{self._title(trainer, pl_module)}, validation")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Add the epoch to its stage, and tell of it; one in which a callback has ended the training is none."""
        if not trainer.is_global_zero or self._first_batch == 0.0:
            return
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        errors = errors_by_element(metrics, "val", pl_module)
        length, labelled = getattr(pl_module, "rollout_length", 1), _with_labels(trainer)
        if not self.stages or (self.stages[-1].length, self.stages[-1].labelled) != (length, labelled):
            self.stages.append(StageSummary(length, labelled))
            self._rests.clear()
        self.stages[-1].add(metrics.get("val_loss"), errors)
        took = time.monotonic() - self._begun
        training = self._trained or self._begun + took - self._first_batch  # without validation
        used, labels = _used(trainer) - self._used, self._labelling(trainer)
        self._rests.append(took - training - labels)
        self._pace = Pace(length, training, fmean(self._rests), took / used if used > 0.0 else 1.0, self._round)
        self._begin(trainer)
        if self._bar is not None:
            self._bar.errors(errors)
            return
        loss, left = metrics.get("val_loss"), self._left(trainer, pl_module, 1.0)
        parts = [f"{self._title(trainer, pl_module)}: "]
        parts[0] += "not validated" if loss is None else f"val_loss {loss:.4g}"
        if errors:
            parts.append("force errors " + ", ".join(f"{element} {error:.3g}" for element, error in errors.items()))
        parts.append(f"{duration(took)} an epoch" + ("" if left is None else f", {left}"))
        log.info("; ".join(parts))

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """No more bars."""
        self._fitted = True
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """No more bars."""
        self._stop()

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        """Tell what came of the training; with ``spktrain``, which tests its model, after that."""
        self._stop()
        in_program = HydraConfig.initialized()
        if not (self._fitted and trainer.is_global_zero and stage == ("test" if in_program else "fit")):
            return
        self._fitted = False
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        test = (metrics.get("test_loss"), errors_by_element(metrics, "test", pl_module)) if stage == "test" else None
        labels = next((one for one in _callbacks(trainer) if isinstance(one, JoiningLabels)), None)
        log.info("%s", summary(self.stages, test, labels, getattr(trainer, "datamodule", None), run_folder(trainer)))

    def state_dict(self) -> dict[str, Any]:
        """What has come of each stage."""
        return {"stages": [stage.state_dict() for stage in self.stages]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there; not back to the best checkpoint, with which Lightning tests."""
        if self._fitted:
            return
        self.stages = [StageSummary(**stage) for stage in state_dict["stages"]]

    def _begin(self, trainer: pl.Trainer) -> None:
        self._begun, self._used = time.monotonic(), _used(trainer)

    def _labelling(self, trainer: pl.Trainer) -> float:
        """What a round of labels before the epoch has taken, s; 0 if there was none."""
        done = _rounds(trainer)
        if done == self._rounds:
            return 0.0
        self._rounds, self._round = done, self._first_batch - self._begun
        return self._round

    def _left(self, trainer: pl.Trainer, task: Any, done: float) -> Left | None:
        return None if self._pace is None else time_left(trainer, task, self._pace, done)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _title(self, trainer: pl.Trainer, task: Any) -> str:
        length = getattr(task, "rollout_length", 1)
        return f"epoch {trainer.current_epoch}, S = {length}{', with labels' if _with_labels(trainer) else ''}"


def errors_by_element(metrics: Mapping[str, float], subset: str, task: Any) -> dict[str, float]:
    """Mean absolute error of a force component for each element, of ``val`` or ``test``, in the unit of the data."""
    key = re.compile(rf"{subset}_{re.escape(getattr(task, 'force_key', 'forces'))}_mae_([A-Z][a-z]?)")
    return {match[1]: value for name, value in sorted(metrics.items()) if (match := key.fullmatch(name))}


def _callbacks(trainer: pl.Trainer) -> list[Callback]:
    return trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it, but does not declare it


def _number(batches: int | float) -> int:
    return int(batches) if batches < float("inf") else 0


def _with_labels(trainer: pl.Trainer) -> bool:
    """Whether labels of the reference method join the training by now."""
    last = last_stage_of(trainer)
    if last is not None:
        return last.began >= 0
    return any(isinstance(one, JoiningLabels) for one in _callbacks(trainer))


def _rounds(trainer: pl.Trainer) -> int:
    """Rounds of labels that have been made."""
    return max((one.schedule.done for one in _callbacks(trainer) if isinstance(one, JoiningLabels)), default=0)


def _used(trainer: pl.Trainer) -> float:
    return next((one.used for one in _callbacks(trainer) if isinstance(one, ComputeBudget)), 0.0)
