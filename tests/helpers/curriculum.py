"""A small training whose rollouts grow."""

import pytorch_lightning as pl
import torch
from schnetpack.train import ReduceLROnPlateau

from helpers.models import potential
from helpers.training import data_module, paper_outputs, trainer
from spk_dt.training import DynamicTrainingTask

PLATEAU = {"factor": 0.1, "patience": 0, "threshold": 1e9, "threshold_mode": "abs", "min_lr": 1e-5}  # never improves


def task(**kwargs):
    scheduler_args = PLATEAU | kwargs.pop("scheduler_args", {})
    return DynamicTrainingTask(
        potential().double(), paper_outputs(), optimizer_cls=torch.optim.Adam, optimizer_args={"lr": 1e-3},
        scheduler_cls=ReduceLROnPlateau, scheduler_args=scheduler_args, scheduler_monitor="val_loss", **kwargs,
    )  # fmt: skip


class Watch(pl.Callback):
    """S and learning rate of each epoch that was trained."""

    def __init__(self):
        self.epochs = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 0:
            self.epochs.append((pl_module.rollout_length, trainer.optimizers[0].param_groups[0]["lr"]))


def fit(database, folder, curriculum, callbacks=(), model=None, ckpt_path=None, max_epochs=40, **kwargs):
    watch = Watch()
    run = trainer(
        folder, max_epochs=max_epochs, callbacks=[*callbacks, curriculum, watch], limit_train_batches=2,
        limit_val_batches=1, gradient_clip_val=1.0, **kwargs,
    )  # fmt: skip
    run.fit(task() if model is None else model, data_module(database, folder), ckpt_path=ckpt_path)
    return run, watch.epochs
