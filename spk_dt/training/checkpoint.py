"""Checkpoints from which a training goes on to the last bit as if it had not been interrupted.

SchNetPack's are written when an epoch has been validated but is not over: what is logged at its end, and the step of the
scheduler, come after that, and the random numbers are not kept. Here the last checkpoint is of between two epochs.
"""

import json
import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning_fabric.utilities.seed import _collect_rng_states, _set_rng_states
from lightning_fabric.utilities.types import _PATH
from pytorch_lightning.callbacks import Callback
from schnetpack import train

from spk_dt.folders.damage import reading
from spk_dt.folders.whole_file import whole_file
from spk_dt.training.average import averaged_weights
from spk_dt.training.metrics_file import CSVLogger
from spk_dt.training.same_run import MADE_WITH, made_with, refuse_another

__all__ = ["ModelCheckpoint", "WholeFileIO"]

log = logging.getLogger(__name__)


class WholeFileIO(TorchCheckpointIO):
    """Writes checkpoints that are there as a whole or not at all, on the disk before they take their name."""

    def load_checkpoint(self, path: _PATH, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint, which runs what is in it."""
        with reading(path, "checkpoint of a training", "Take another one (run.ckpt_path), or choose another run.id."):
            content = super().load_checkpoint(path, *args, **kwargs)
            if not isinstance(content, dict):
                raise ValueError("it is no mapping")
            return content

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Write a checkpoint; if that fails, the one of this name stays as it was."""
        with whole_file(path, make_folder=True) as part:
            torch.save(checkpoint, part)


class ModelCheckpoint(train.ModelCheckpoint):
    """`schnetpack.train.ModelCheckpoint` whose last checkpoint is of the moment between two epochs.

    All of the epoch that is over is in it, and logged; nothing of the next one has begun. A training that goes on from it
    makes the same steps as one that was not interrupted, bit for bit if it runs in one process on a CPU, with the same
    random numbers. Checkpoints that are no longer wanted are removed when the last one, which may name them, is replaced.
    The best models are chosen, and stored, when an epoch has been validated, as by SchNetPack. All files are written as a
    whole (`spk_dt.folders.whole_file`).

    If the training ends before an epoch has been validated, the model as it is then is the best one, with a warning.

    Args:
        model_path: where the best model is stored; None stores none.
        do_postprocessing: whether this model has its postprocessing.
        kwargs: arguments of `pytorch_lightning.callbacks.ModelCheckpoint`.

    Raises:
        ValueError: when a training is resumed with another cutoff, time step, units, elements, loss or reference method than
            the checkpoint was made with (`spk_dt.training.same_run`).
    """

    best_model_path: str

    def __init__(self, model_path: str | None = None, do_postprocessing: bool = True, **kwargs: Any) -> None:
        super().__init__(str(model_path), do_postprocessing, **kwargs)
        if self.filename is None or "{epoch" in self.filename or "{step" in self.filename:
            self._enable_version_counter = False  # an epoch that is repeated writes its file again
        self._keeps_model = model_path is not None
        self._between_epochs = False
        self._obsolete: list[str] = []
        self._random_state: dict[str, Any] | None = None
        self._last_step = -1  # of the last checkpoint between epochs
        self.made_with: dict[str, Any] = {}

    @property
    def taken_up(self) -> bool:
        """Whether the training goes on from a checkpoint of between two epochs, and has not begun yet."""
        return self._random_state is not None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """See to it that files are written as a whole, and look at the training between epochs, before other callbacks."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit" or trainer.fast_dev_run:  # type: ignore[attr-defined]  # set, but not declared
            return
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeFileIO()
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set, but not declared
        others = [one for one in callbacks if not isinstance(one, _BetweenEpochs)]
        trainer.callbacks = [_BetweenEpochs(self), *others]  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        """The best models, what is to be removed, and between epochs the state of all random numbers."""
        state = super().state_dict() | {"obsolete": list(self._obsolete), "made_with": self.made_with}
        return state | ({"random_state": _collect_rng_states()} if self._between_epochs else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state_dict)
        self._obsolete = list(state_dict.get("obsolete", ()))
        self.made_with = state_dict.get("made_with", {})
        self._random_state = state_dict.get("random_state")

    def begin_epoch(self, trainer: pl.Trainer) -> None:
        """Take up the random numbers of the checkpoint, or write one, if there were steps since the last."""
        if self._random_state is None:
            self.save_between_epochs(trainer)
        else:
            _set_rng_states(self._random_state)
            self._random_state, self._last_step = None, trainer.global_step

    def save_between_epochs(self, trainer: pl.Trainer) -> None:
        """Write the last checkpoint, if there were steps since the one before, and remove what it no longer names."""
        if not self.save_last or trainer.global_step in (0, self._last_step):
            return
        self._last_step = trainer.global_step
        progress = trainer.fit_loop.epoch_progress
        begun = progress.total.ready - progress.total.completed  # Lightning has counted the epoch that is to begin
        self._between_epochs = True
        try:
            for counter in (progress.total, progress.current):
                counter.ready -= begun
            super()._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
        finally:
            self._between_epochs = False
            for counter in (progress.total, progress.current):
                counter.ready += begun
        kept = {*self.best_k_models, self.best_model_path, self.last_model_path}
        for path in set(self._obsolete) - kept:
            super()._remove_checkpoint(trainer, path)
        self._obsolete.clear()

    def keep_untried(self, trainer: pl.Trainer, task: Any) -> None:
        """Let the model as it is be the best one, if the training has ended before one was chosen.

        SchNetPack would end in an error when it asks for the best model.
        """
        if self.best_model_path or self.save_top_k == 0 or trainer.interrupted:
            return
        self.best_model_path = f"{self.dirpath}/untried.ckpt"  # also in the checkpoint, which the test takes up
        with averaged_weights(trainer, task.model):
            trainer.save_checkpoint(self.best_model_path)
        log.warning(
            "the training has ended before its first validation, after %d updates: the model is stored as it is, and no "
            "error of it is known. Let it run longer (callbacks.budget.seconds, trainer.max_epochs).",
            trainer.global_step,
        )

    def _save_last_checkpoint(self, trainer: pl.Trainer, monitor_candidates: dict[str, torch.Tensor]) -> None:
        """Left to `save_between_epochs`."""

    def _remove_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        """Remember it: the last checkpoint may still name it as the best."""
        self._obsolete.append(filepath)

    def _update_best_and_save(
        self, current: torch.Tensor, trainer: pl.Trainer, monitor_candidates: dict[str, torch.Tensor]
    ) -> None:
        """Write a checkpoint and, if it is wanted, the model."""
        if self._keeps_model:
            super()._update_best_and_save(current, trainer, monitor_candidates)
        else:
            super(train.ModelCheckpoint, self)._update_best_and_save(current, trainer, monitor_candidates)


class _BetweenEpochs(Callback):
    """Calls a `ModelCheckpoint` between epochs, before other callbacks, and takes a training up there.

    Lightning takes up checkpoints of several moments, and leaves out of the first epoch what it believes was done.
    """

    def __init__(self, checkpoint: ModelCheckpoint) -> None:
        self.checkpoint = checkpoint
        self._began = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing has been trained yet; refuse to go on with what the checkpoint was not made with."""
        self._began = False
        now = made_with(trainer, pl_module)
        refuse_another(self.checkpoint.made_with, now, trainer.ckpt_path)
        self.checkpoint.made_with = now
        if self.checkpoint._keeps_model and trainer.is_global_zero:
            with whole_file(Path(self.checkpoint.model_path).with_name(MADE_WITH)) as part:
                part.write_text(json.dumps(now, indent=1))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the first epoch be as any other; end if early stopping had ended the training."""
        self._began = True
        if self.checkpoint.taken_up:
            trainer.fit_loop.restarting = False
            trainer.fit_loop._resuming_from_checkpoint = False
        self._go_on_with_metrics(trainer)
        for stopping in trainer.early_stopping_callbacks:
            if stopping.stopped_epoch and stopping.wait_count >= stopping.patience:
                trainer.should_stop = True

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """An epoch is over, and the next one is about to begin."""
        self.checkpoint.begin_epoch(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The last epoch is over."""
        self.checkpoint.save_between_epochs(trainer)
        self.checkpoint.keep_untried(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let other callbacks end a training that was over already, which Lightning leaves out."""
        if not self._began:
            self._go_on_with_metrics(trainer)
            for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set, but not declared
                if callback is not self:
                    callback.on_train_end(trainer, pl_module)
            self.checkpoint.keep_untried(trainer, pl_module)

    def _go_on_with_metrics(self, trainer: pl.Trainer) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, CSVLogger):
                logger.go_on(trainer.fit_loop.epoch_loop._batches_that_stepped, trainer.current_epoch)
