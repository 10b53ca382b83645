"""A small training: data, losses, task, trainer, and loss and gradient of one batch without a trainer."""

from types import SimpleNamespace

import pytorch_lightning as pl
import torch
from schnetpack.transform import CastTo64, MatScipyNeighborList, RemoveOffsets
from torchmetrics.regression import MeanAbsoluteError

from helpers.models import CUTOFF, potential
from spk_dt.data import TrajectoryDataModule
from spk_dt.training import DynamicTrainingTask, ElementwiseOutput, PerAtomOutput

S = 4


def data_module(database, folder, transforms=None, **kwargs):
    transforms = (
        [RemoveOffsets("energy", remove_mean=True), MatScipyNeighborList(CUTOFF), CastTo64()]
        if (transforms is None)
        else transforms
    )
    defaults = {"batch_size": 4, "train_window": S, "val_window": 8, "split_file": None, "num_workers": 0}
    return TrajectoryDataModule(str(database), transforms=transforms, **(defaults | kwargs))


def first_batch(database, folder):
    module = data_module(database, folder)
    module.setup()
    torch.manual_seed(0)
    return next(iter(module.train_dataloader()))


def new_model():
    """The same parameters at each call."""
    torch.manual_seed(0)
    return potential().double()


def paper_outputs(loss_weight=1.0):
    return [
        ElementwiseOutput("forces", torch.nn.L1Loss(), loss_weight, metrics={"mae": MeanAbsoluteError()}),
        PerAtomOutput("energy", torch.nn.L1Loss(), loss_weight, metrics={"mae": MeanAbsoluteError()}),
    ]


def task(model, outputs, cls=DynamicTrainingTask, **kwargs):
    return cls(model, outputs, optimizer_cls=torch.optim.Adam, optimizer_args={"lr": 1e-3}, **kwargs)


def trainer(folder, **kwargs):
    defaults = {"max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    defaults |= {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "inference_mode": False,
        "precision": "64",
    }
    return pl.Trainer(default_root_dir=folder, num_sanity_val_steps=0, **(defaults | kwargs))


class Batches(pl.Callback):
    """The batches that were trained on."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(batch)


class Alone:
    """What `self.log` and the epoch need, without a trainer."""

    def __init__(self, task):
        task.log = lambda *args, **kwargs: None
        task.log_dict = task.log
        task._batch_radius = CUTOFF
        task._trainer = SimpleNamespace(world_size=1)
        type(task).current_epoch = 0


def loss_and_gradient(task, batch):
    Alone(task)
    task.train()
    task.zero_grad()
    loss = task.training_step({key: value.clone() for key, value in batch.items()}, 0)
    loss.backward()
    found = [q.grad.flatten() for q in task.parameters() if q.grad is not None]
    return loss.detach(), torch.cat(found)
