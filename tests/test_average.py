"""Averaged weights in a training that is interrupted."""

import pytest
import pytorch_lightning as pl
import torch
from helpers.curriculum import fit
from pytorch_lightning.callbacks import ModelCheckpoint
from schnetpack import train

from spk_dt.training import Curriculum, Elapsed, ExponentialMovingAverage


class Weights(pl.Callback):
    """Those that the optimiser had before the first and after the last batch."""

    first = last = None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.first = self.of(pl_module) if self.first is None else self.first

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.last = self.of(pl_module)

    @staticmethod
    def of(pl_module):
        return torch.cat([parameter.detach().flatten().clone() for parameter in pl_module.model.parameters()])


@pytest.mark.parametrize("average", [ExponentialMovingAverage, train.ExponentialMovingAverage], ids=["ours", "host's"])
def test_a_resumed_training_goes_on_with_its_own_weights(database, tmp_path, average):
    def run(max_epochs, ckpt_path=None):
        weights = Weights()
        callbacks = [average(0.9), weights, ModelCheckpoint(tmp_path, save_last=True)]
        curriculum = Curriculum(1, rule=Elapsed(100))
        fit(database, tmp_path, curriculum, callbacks, None, ckpt_path, max_epochs, enable_checkpointing=True)
        return weights

    pl.seed_everything(0)
    before, checkpoint = run(1), torch.load(tmp_path / "last.ckpt", weights_only=False)
    resumed = run(2, tmp_path / "last.ckpt")
    stored = torch.cat([value.flatten() for key, value in checkpoint["state_dict"].items() if "model." in key])
    assert not torch.equal(stored[: len(before.last)], before.last)  # the checkpoint has the average
    assert torch.equal(resumed.first, before.last) == (average is ExponentialMovingAverage)
    assert not torch.equal(resumed.first, resumed.last)
