"""The last stage of a training: hardening where there is a reference method, longer rollouts where there is none.

At equal seconds nothing that was tried lasts as long as labels of the reference method at states of the model's own
simulations, and rollouts of some steps do not make them last (benchmarks/study). So a curriculum that has a
`LastStage` beside it goes on with that after its first stage.
"""

import logging
from math import ceil, inf
from typing import Any

import pytorch_lightning as pl

from spk_dt.data.datamodule import TrajectoryDataModule
from spk_dt.labels.reference_of_data import OF_DATA
from spk_dt.training.hardening import Hardening
from spk_dt.training.labelling import Labelling
from spk_dt.training.next_commands import hardening_command, run_folder
from spk_dt.training.on_policy import data_of

__all__ = ["LastStage", "last_stage_of"]

log = logging.getLogger(__name__)


class LastStage(Hardening):
    r"""Hardening for a number of epochs after the first stage of a `spk_dt.training.Curriculum`, if it is possible.

    With ``labels.reference`` ``data`` the reference method is the one that the data name. If they name none, it is not
    installed, or hardening is not possible for another reason, the curriculum goes on with longer rollouts, and the reason
    is told at the end of the training. A reference that is named must work, see `spk_dt.training.Hardening`.

    With f the share of the epochs that have passed, the learning rate is :math:`l_0 (l_1/l_0)^f`, and a round is made while
    no more than this share of the labels is used, so that there are labels of the model at all learning rates. Then the last
    model is tried, whether or not the goal was reached. If a simulation fails, its labels join the training, which goes on
    for as many epochs as lie between two rounds, in which the learning rate falls again, from :math:`\sqrt{l_0 l_1}` to l_1;
    and so on until the model passes, or labels are used up. What the experiments use is in
    ``configs/callbacks/last_stage.yaml``.

    Args:
        labels: reference method.
        epochs: length of the stage, without those that follow a failure of the last model.
        lr: learning rate l_0 at its start.
        final_lr: learning rate l_1 at its end.
        last_ps: length of the simulations in which the last model is tried, ps; that of the goal if this is longer.
        kept: share of the labels of the goal that is kept for its failures.
        hardening: other arguments of `spk_dt.training.Hardening`.

    Raises:
        ValueError: if an argument makes no sense; when a run is resumed that had begun its last stage, if that has become
            impossible.
    """

    def __init__(
        self,
        labels: Labelling,
        epochs: int,
        lr: float,
        final_lr: float,
        last_ps: float,
        kept: float,
        **hardening: Any,
    ) -> None:
        super().__init__(labels, **hardening)
        for name, value in {"epochs": epochs, "lr": lr, "final_lr": final_lr, "last_ps": last_ps}.items():
            if not 0 < value < inf:
                raise ValueError(f"callbacks.on_policy.{name}={value} must be positive.")
        if not 0 <= kept < 1:
            raise ValueError(f"callbacks.on_policy.kept={kept}, a share of the labels, must be at least 0 and below 1.")
        self.goal.kept = int(kept * self.goal.max_labels)
        self.last_ps = max(last_ps, self.goal.until_ps)
        self.epochs, self.lr, self.final_lr = epochs, lr, final_lr
        #: epoch in which the stage has begun, -1 before
        self.began = -1
        #: epochs that have followed failures of the last model
        self.further = 0
        self._is_named = labels.reference != OF_DATA
        self._obstacle = ""

    @property
    def possible(self) -> bool:
        """Whether there may be labels, known after `setup`."""
        return not self._obstacle

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        """Find out whether hardening will be possible."""
        try:
            super().setup(trainer, pl_module, stage)
        except (ValueError, ImportError) as error:
            if self._is_named:
                raise
            self._obstacle = str(error)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check a reference that is named, before hours of training; read the rounds that are done."""
        if self.began >= 0 and self._obstacle:
            raise ValueError(f"the run has begun to train on labels of its simulations, but now: {self._obstacle}")
        if self.began >= 0 or self._is_named:
            super().on_train_start(trainer, pl_module)

    def begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
        """Begin with the present epoch.

        Returns:
            whether that is possible.
        """
        if self._obstacle:
            return False
        if not self._is_named:
            try:
                super().on_train_start(trainer, pl_module)
            except ValueError as error:
                self._obstacle = str(error)
                return False
        self.began = self.schedule.next_epoch = trainer.current_epoch
        log.info("the first stage is over; the model is hardened with labels of %s", self.labels.reference)
        return True

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Make a round, if it is time; end the training after the last epoch."""
        if self.began < 0:
            return
        if self.epochs_left(trainer) <= 0 and not self._goes_on(trainer, pl_module):
            log.info("the last stage, of %d epochs, is over, the training ends", self.epochs + self.further)
            trainer.should_stop = True  # Lightning leaves this epoch before its first batch
            return
        super().on_train_epoch_start(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the learning rate."""
        if self.began < 0:
            return
        passed = trainer.current_epoch - self.began + batch_idx / trainer.num_training_batches
        left = 1.0 - passed / self.epochs
        if trainer.current_epoch >= self.began + self.epochs:
            left = 0.5 * (self.epochs + self.further - passed) / self.schedule.every_n_epochs
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self.final_lr * (self.lr / self.final_lr) ** left

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Choose what is stored, and say whether there were labels."""
        if self.began >= 0:
            super().on_train_end(trainer, pl_module)
            return
        reason = self._obstacle or "the training has ended before its first stage was over"
        log.warning(
            "trained without labels of the reference method, so nothing shows what is right where its simulations go "
            "(%s). To train it on: %s",
            *(reason.rstrip("."), hardening_command(data_of(trainer), run_folder(trainer))),
        )

    def state_dict(self) -> dict[str, Any]:
        """As of `Hardening`, and when it has begun."""
        return {**super().state_dict(), "began": self.began, "further": self.further}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state_dict)
        self.began = state_dict["began"]
        self.further = state_dict.get("further", 0)

    def epochs_left(self, trainer: pl.Trainer) -> int:
        """Epochs of the stage, which has begun, from the present one on."""
        return self.began + self.epochs + self.further - trainer.current_epoch

    def rounds_left(self, epochs: float) -> float:
        """Rounds of labels that so many epochs will have, if each uses as many labels as those so far."""
        if not self.more_rounds:
            return 0.0
        used, most = self.goal.labels, epochs / self.schedule.every_n_epochs
        return min(most, self.goal.labels_left * self.schedule.done / used) if used else most

    def _add_labels(self, trainer: pl.Trainer, task: Any, passed_ps: float, come_to: dict[str, Any]) -> None:
        """As of `Hardening`; the next round waits until the share of the epochs that have passed is that of the labels."""
        super()._add_labels(trainer, task, passed_ps, come_to)
        used = self.goal.labels / (self.goal.max_labels - self.goal.kept)
        self.schedule.next_epoch = max(self.schedule.next_epoch, self.began + ceil(used * self.epochs))

    def _goes_on(self, trainer: pl.Trainer, task: Any) -> bool:
        """Whether the last model fails, and its labels are trained on."""
        if trainer.should_stop:
            return False
        trial = self._by_first(lambda: self._last_trial(trainer, task, join=True))
        self._tried = trial.told
        if trial.come_to is None:
            return False
        self._add_labels(trainer, task, trial.passed_ps, trial.come_to)
        self._tried = None
        self.further += self.schedule.every_n_epochs
        return True

    def _find_reference(self, datamodule: TrajectoryDataModule) -> None:
        """As of `Hardening`; one that the data name is not started before it is needed."""
        if self._is_named:
            super()._find_reference(datamodule)
        else:
            self._take_reference_of(datamodule)


def last_stage_of(trainer: pl.Trainer) -> LastStage | None:
    """The last stage of a training, if it has one."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it, but does not declare it
    return next((one for one in callbacks if isinstance(one, LastStage)), None)
