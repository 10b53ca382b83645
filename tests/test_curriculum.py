"""When rollouts grow, and that nothing ends the training in between."""

import copy

import pytest
import pytorch_lightning as pl
from helpers.curriculum import fit, task
from helpers.training import data_module, trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from spk_dt.training import Converged, Curriculum, Elapsed, Scheduled, Stage


def test_rules():
    assert Converged().over(Stage(1, 5, 2e-6, 2e-6))
    assert not Converged().over(Stage(1, 5, 2.1e-6, 2e-6))
    assert not Converged().over(Stage(1, 0, 2e-6, 2e-6))
    assert Elapsed(3).over(Stage(2, 3, 1.0, 0.0))
    assert not Elapsed(3).over(Stage(2, 2, 1.0, 0.0))


def test_grows_at_the_floor_and_ends_after_the_last_stage(database, tmp_path):
    """The scheduler needs a first epoch, then reduces twice: 1e-3, 1e-3, 1e-4, then the floor 1e-5 ends the stage."""
    pl.seed_everything(0)
    curriculum = Curriculum(3, reset_lr=1e-4)
    run, epochs = fit(database, tmp_path, curriculum)
    assert epochs[-1][0] == 3
    assert curriculum.stages[0] == (0, 1)
    assert [length for _, length in curriculum.stages] == [1, 2, 3]
    for epoch, length in curriculum.stages[1:]:
        assert epochs[epoch] == (length, 1e-4)  # reset
        assert epochs[epoch - 1][0] == length - 1
    assert run.current_epoch < 40  # it ended by itself
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-5)
    assert len(epochs) in (run.current_epoch, run.current_epoch - 1)
    assert float(run.callback_metrics["S"]) == 3.0


def test_learning_rate_may_stay(database, tmp_path):
    curriculum = Curriculum(2, rule=Elapsed(2), reset_lr=None)
    _, epochs = fit(database, tmp_path, curriculum, model=task(scheduler_args={"patience": 100}))
    assert epochs == [(1, 1e-3)] * 2 + [(2, 1e-3)] * 2


def test_early_stopping_acts_in_the_last_stage_only(database, tmp_path):
    def stops_at(max_length):
        early = EarlyStopping("val_loss", patience=2, min_delta=1e9)  # nothing is an improvement
        curriculum = Curriculum(max_length, rule=Elapsed(5))
        _, epochs = fit(database, tmp_path, curriculum, [early], max_epochs=30)
        return [length for length, _ in epochs]

    assert stops_at(3) == [1] * 5 + [2] * 5 + [3] * 3  # first value, then two without improvement
    assert stops_at(1) == [1] * 3


def test_early_stopping_alone_would_have_ended_it(database, tmp_path):
    early = EarlyStopping("val_loss", patience=2, min_delta=1e9)
    run = trainer(tmp_path, max_epochs=30, callbacks=[early], limit_train_batches=2, limit_val_batches=1)
    run.fit(task(), data_module(database, tmp_path))
    assert run.current_epoch == 3


def test_warm_up_is_no_convergence(database, tmp_path):
    curriculum = Curriculum(2)
    _, epochs = fit(database, tmp_path, curriculum, model=task(warmup_steps=1000), max_epochs=4)
    assert [length for length, _ in epochs] == [1] * 4


def test_resumed_is_uninterrupted(database, tmp_path):
    """Stopped in the second stage and taken up: the same stages and learning rates, and S goes on."""

    def run(folder, max_epochs, ckpt_path=None):
        pl.seed_everything(3)
        curriculum = Curriculum(3, reset_lr=5e-4)
        checkpoint = ModelCheckpoint(folder, save_last=True, save_top_k=-1, filename="{epoch}")
        model = task(scheduler_args={"patience": 1, "factor": 0.05})
        run, epochs = fit(
            database, folder, curriculum, [checkpoint], model, ckpt_path, max_epochs, enable_checkpointing=True,
        )  # fmt: skip
        return model, curriculum, epochs, run

    _, curriculum, epochs, _ = run(tmp_path / "whole", 40)
    boundary = curriculum.stages[1][0] + 1  # an epoch into the second stage
    run(tmp_path / "part", boundary)
    resumed, again, rest, _ = run(tmp_path / "part", 40, tmp_path / "part" / "last.ckpt")
    assert again.stages == curriculum.stages
    assert rest == epochs[boundary:]
    assert resumed.rollout_length == 3


def test_refusals(database, tmp_path):
    with pytest.raises(ValueError, match="max_length=0"):
        Curriculum(0)
    with pytest.raises(ValueError, match=r"max_length=5 steps, but data.train_window=4"):
        fit(database, tmp_path, Curriculum(5))
    with pytest.raises(ValueError, match=r"set task\.scheduler_args\.min_lr"):
        fit(database, tmp_path, Curriculum(2), model=task(scheduler_args={"min_lr": 0.0}))
    with pytest.raises(ValueError, match=r"reset_lr=1e-06 must be above"):
        fit(database, tmp_path, Curriculum(2, reset_lr=1e-6))
    with pytest.raises(ValueError, match=r"learning rate 0\.001 \(globals\.lr\) must be above .*min_lr=0\.002"):
        fit(database, tmp_path, Curriculum(1, reset_lr=None), model=task(scheduler_args={"min_lr": 2e-3}))
    with pytest.raises(ValueError, match=r"max_length=2 .* but the rollouts have 3 steps already"):
        fit(database, tmp_path, Curriculum(2), model=task(rollout_length=3))
    with pytest.raises(ValueError, match=r"rule\.max_length=4 is above callbacks\.curriculum\.max_length=2"):
        fit(database, tmp_path, Curriculum(2, rule=Scheduled(4)))


def test_a_smaller_largest_s_is_refused_when_a_run_is_resumed(database, tmp_path):
    """S of the checkpoint is that of a later stage."""
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)
    curriculum = Curriculum(3, rule=Elapsed(1))
    fit(database, tmp_path, curriculum, [checkpoint], max_epochs=3, enable_checkpointing=True)
    with pytest.raises(ValueError, match=r"max_length=2 .* but the rollouts have 3 steps already"):
        fit(database, tmp_path, Curriculum(2, rule=Elapsed(1)), ckpt_path=tmp_path / "last.ckpt")


def test_state_round_trip():
    curriculum = Curriculum(3)
    curriculum.stages = [(0, 1), (4, 2)]
    curriculum._start = 4
    other = Curriculum(3)
    other.load_state_dict(copy.deepcopy(curriculum.state_dict()))
    assert other.stages == [(0, 1), (4, 2)]
    assert other._start == 4
