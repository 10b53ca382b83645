"""A task, data and a trainer for trainings of a few batches."""

import pytorch_lightning as pl
import torch
from schnetpack.transform import CastTo32, CastTo64, MatScipyNeighborList

from helpers.models import CUTOFF, potential
from helpers.training import paper_outputs
from spk_dt.data import TrajectoryDataModule
from spk_dt.training import DynamicTrainingTask


def short_task(outputs=None, model=None, lr=1e-3, optimizer_cls=torch.optim.Adam, **kwargs):
    """A task with the outputs of the paper, whose model has the same parameters at each call."""
    if model is None:
        torch.manual_seed(0)
        model = potential().double()
    outputs = paper_outputs() if outputs is None else outputs
    return DynamicTrainingTask(model, outputs, optimizer_cls=optimizer_cls, optimizer_args={"lr": lr}, **kwargs)


def short_data(database, single_precision=False, **kwargs):
    transforms = [MatScipyNeighborList(CUTOFF), CastTo32() if single_precision else CastTo64()]
    defaults = {"batch_size": 4, "train_window": 4, "val_window": 6, "split_file": None, "num_workers": 0}
    return TrajectoryDataModule(str(database), transforms=transforms, **(defaults | kwargs))


def short_trainer(folder, **kwargs):
    defaults = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "precision": None if "plugins" in kwargs else "64",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "inference_mode": False,
        "num_sanity_val_steps": 0,
    }
    return pl.Trainer(default_root_dir=folder, **(defaults | kwargs))
