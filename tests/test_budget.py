"""A training ends when its compute is used up, and its learning rate and S follow what is used."""

import time

import pytest
import pytorch_lightning as pl
import torch
from helpers.curriculum import task as scheduled_task
from helpers.models import potential
from helpers.training import data_module, paper_outputs, trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from spk_dt.training import ComputeBudget, Curriculum, DynamicTrainingTask, Scheduled, Stage


class Slow(pl.Callback):
    """Makes batches, or validation, cost time of the processor."""

    def __init__(self, batch=0.0, validation=0.0):
        self.batch, self.validation = batch, validation
        self.rates, self.lengths = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        _burn(self.batch)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.lengths.append(pl_module.rollout_length)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        _burn(self.validation)


def _burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def new_task():
    return DynamicTrainingTask(
        potential().double(), paper_outputs(), optimizer_cls=torch.optim.Adam, optimizer_args={"lr": 1e-3}
    )


def fit(database, folder, budget, *callbacks, ckpt_path=None, **kwargs):
    options = {"max_epochs": 100, "limit_train_batches": 5, "limit_val_batches": 1, **kwargs}
    run = trainer(folder, callbacks=[budget, *callbacks], gradient_clip_val=1.0, **options)
    run.fit(new_task(), data_module(database, folder), ckpt_path=ckpt_path)
    return run


def test_ends_when_it_is_used_up(database, tmp_path):
    budget, slow = ComputeBudget(2.0, final_lr=1e-5), Slow(batch=0.1)
    run = fit(database, tmp_path, budget, slow)
    assert run.current_epoch < 100
    assert 2.0 <= budget.used < 3.0
    assert budget.updates == len(slow.rates) <= 20
    assert budget.frames == 4 * budget.updates
    assert slow.rates[0] == pytest.approx(1e-3)
    assert slow.rates == sorted(slow.rates, reverse=True)
    assert 1e-5 < slow.rates[-1] < 3e-5
    assert float(run.callback_metrics["train_updates"]) == budget.updates


def test_validation_is_free(database, tmp_path):
    budget, slow = ComputeBudget(1.0), Slow(batch=0.2, validation=1.5)
    start = time.process_time()
    fit(database, tmp_path, budget, slow)
    assert time.process_time() - start > budget.used + 1.0
    assert budget.updates > 2
    assert slow.rates == [1e-3] * len(slow.rates)


def test_goes_on_where_it_was(database, tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)
    first = ComputeBudget(1.5)
    fit(database, tmp_path, first, Slow(batch=0.1), checkpoint, max_epochs=1, enable_checkpointing=True)
    assert first.updates == 5
    again = ComputeBudget(1.5)
    fit(database, tmp_path, again, Slow(batch=0.1), ckpt_path=tmp_path / "last.ckpt")
    assert 1.5 <= again.used < 2.5
    assert 5 < again.updates <= 15


def test_rollouts_grow_with_the_budget(database, tmp_path):
    slow = Slow(batch=0.1)
    curriculum = Curriculum(4, rule=Scheduled(4, end=0.5), reset_lr=None)
    fit(database, tmp_path, ComputeBudget(3.0), curriculum, slow, limit_train_batches=2)
    assert slow.lengths[:2] == [1, 1]
    assert slow.lengths == sorted(slow.lengths)
    assert slow.lengths[-1] == 4


def test_schedule():
    def length(used, rule, start=1):
        while rule.over(Stage(start, 0, 1.0, 0.0, used)):
            start += 1
        return start

    assert [length(used, Scheduled(9, end=0.8)) for used in (0.0, 0.01, 0.1, 0.11, 0.4, 0.8, 1.0)] == [
        1,
        2,
        2,
        3,
        5,
        9,
        9,
    ]
    assert length(0.5, Scheduled(9, begin=0.5, end=0.8)) == 1
    assert length(0.65, Scheduled(9, begin=0.5, end=0.8)) == 5
    assert length(1.0, Scheduled(1)) == 1


def test_refusals(database, tmp_path):
    with pytest.raises(ValueError, match="seconds=0"):
        ComputeBudget(0)
    with pytest.raises(ValueError, match="final_lr=0"):
        ComputeBudget(1.0, final_lr=0.0)
    with pytest.raises(ValueError, match=r"begin=0\.8, end=0\.5"):
        Scheduled(4, begin=0.8, end=0.5)
    with_scheduler = trainer(tmp_path, callbacks=[ComputeBudget(1.0, final_lr=1e-5)], limit_train_batches=1)
    with pytest.raises(ValueError, match=r"final_lr=1e-05 sets the learning rate, and so does a scheduler"):
        with_scheduler.fit(scheduled_task(), data_module(database, tmp_path))
    run = trainer(tmp_path, callbacks=[Curriculum(2, rule=Scheduled(2), reset_lr=None)], limit_train_batches=1)
    with pytest.raises(ValueError, match=r"there is none: add callbacks=\[\.\.\.,budget\]"):
        run.fit(new_task(), data_module(database, tmp_path))
