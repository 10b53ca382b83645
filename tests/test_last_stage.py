"""After its first stage a curriculum goes on with labels where the reference method is there, and with rollouts if not."""

import logging

import numpy as np
import pytest
import pytorch_lightning as pl
from ase.db import connect
from helpers.hardening import InThisProcess, compute_in_this_process, fit, hardening, tear, torn, write_clusters
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

import spk_dt.labels.reference_of_data
from spk_dt.labels.calculator import reference_factory
from spk_dt.labels.reference_of_data import reference_of_data
from spk_dt.training import Curriculum, Elapsed, ExponentialMovingAverage, LastStage
from spk_dt.training import ModelCheckpoint as OurCheckpoint

TBLITE = "tblite:GFN1-xTB"


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    compute_in_this_process(monkeypatch)


@pytest.fixture
def named(tmp_path):
    """Data that say which method made them; in these tests it is `InThisProcess`, whatever its name."""
    return write_clusters(tmp_path / "named.db", {"reference": {"reference": TBLITE}})


class Spoils(pl.Callback):
    """The model is wrong from the round that has reached the goal on, until labels of the last trial have joined."""

    def __init__(self, stage, labels_left=True):
        self.stage, self.labels_left = stage, labels_left

    def on_train_batch_end(self, trainer, task, *args):
        goal = self.stage.goal
        if goal.reached >= 0 and not self.labels_left:
            goal.max_labels = goal.labels
        task.model.representation.tear.data.fill_(20.0 if goal.reached >= 0 and self.stage.further == 0 else 0.0)


class Steps(pl.Callback):
    """S and learning rate of each step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        epoch, lr = trainer.current_epoch, trainer.optimizers[0].param_groups[0]["lr"]
        self.seen.append((epoch, pl_module.rollout_length, lr))


def last_stage(folder, **kwargs):
    options = {"epochs": 3, "lr": 0.3, "final_lr": 0.03, "last_ps": 0.1, "kept": 0.33, "reference": "data"}
    return hardening(folder, cls=LastStage, **(options | kwargs))


def curriculum():
    return Curriculum(3, Elapsed(2), reset_lr=0.1)


def train(database, folder, stage, *callbacks, **kwargs):
    steps = Steps()
    options = {"max_epochs": 20, "limit_train_batches": 4, "train_window": 4} | kwargs
    _, task = fit(database, folder, curriculum(), stage, steps, *callbacks, **options)
    return steps.seen, task


def test_labels_take_the_place_of_longer_rollouts(named, tmp_path, caplog):
    stage = last_stage(tmp_path)
    with caplog.at_level(logging.INFO, "spk_dt"):
        seen, task = train(named, tmp_path, stage, ExponentialMovingAverage(0.9))
    assert {length for _, length, _ in seen} == {1}
    lr = np.array([lr for epoch, _, lr in seen if epoch >= 2])  # two epochs, three of the stage, and further ones
    np.testing.assert_allclose(lr[:12], 0.3 * 0.1 ** (np.arange(12) / 12))
    assert len(lr) == 4 * (3 + stage.further)
    labelled = sum(connect(file).count() for file in tmp_path.glob("hardening/round_*.db"))
    assert labelled == stage.goal.labels > 3
    assert abs(tear(task)) < 20.0  # what the data do not show has been learnt
    assert f"labels of {TBLITE}; last round" in caplog.text
    assert "without labels" not in caplog.text


def test_if_the_last_model_fails_it_is_trained_on_its_labels_until_it_passes(named, tmp_path, caplog):
    stage = last_stage(tmp_path)
    with caplog.at_level(logging.INFO, "spk_dt"):
        seen, _ = train(named, tmp_path, stage, Spoils(stage), model=torn(0.0))
    assert [epoch for epoch, _, _ in seen] == sorted([*range(6)] * 4)  # two, three of the stage, and one further
    again = 0.03 * 10.0 ** (0.5 * (1.0 - np.arange(4) / 4))  # falls once more
    np.testing.assert_allclose([lr for epoch, _, lr in seen if epoch == 5], again)
    assert "hardening, round 1: 4 simulations of 0.2 ps, 1 of which do not pass" in caplog.text
    rounds = [connect(file).count() for file in sorted(tmp_path.glob("hardening/round_*.db"))]
    assert len(rounds) == stage.schedule.done == 2
    assert sum(rounds) == stage.goal.labels
    assert "the last stage, of 4 epochs, is over" in caplog.text
    assert "stored is the last model, which passes 4 simulations of 0.2 ps" in caplog.text


def test_labels_are_kept_for_the_last_model(named, tmp_path, caplog):
    """All rounds fail, so that the goal is not reached; the last model is trained until it passes."""

    class WrongInRounds(pl.Callback):
        def on_train_batch_end(self, trainer, task, *args):
            task.model.representation.tear.data.fill_(20.0 if stage.further == 0 else 0.0)
            used.append(stage.goal.labels)

    used = [0]  # before the first epoch of the stage, and in each epoch
    stage = last_stage(tmp_path, max_labels=30, kept=0.5, epochs=6)
    with caplog.at_level(logging.INFO, "spk_dt"):
        train(named, tmp_path, stage, WrongInRounds(), limit_train_batches=1)
    assert stage.goal.reached == -1
    *rounds, last = [connect(file).count() for file in sorted(tmp_path.glob("hardening/round_*.db"))]
    assert 10 < sum(rounds) <= 15
    before = used[-1 - stage.epochs - stage.further :][: stage.epochs]
    made = [epoch for epoch in range(stage.epochs - 1) if before[epoch + 1] > before[epoch]]
    assert all(before[epoch] / 15 <= epoch / stage.epochs for epoch in made)  # they last over the stage
    assert len(made) > 1
    assert last > 0
    assert stage.goal.labels == sum(rounds) + last <= 30
    (told,) = [one for one in caplog.records if "stored is" in one.getMessage()]
    assert told.levelname == "INFO"
    assert "hardening: the training has ended after 4 rounds" in told.getMessage()
    assert "stored is the last model, which passes 4 simulations of 0.2 ps" in told.getMessage()


def test_the_last_model_is_tried_for_longer(named, tmp_path, caplog):
    stage = last_stage(tmp_path, last_ps=0.3)
    with caplog.at_level(logging.INFO, "spk_dt"):
        train(named, tmp_path, stage, model=torn(0.0))
    assert "the goal is reached, in round 0" in caplog.text
    assert "stored is the last model, which passes 4 simulations of 0.3 ps" in caplog.text


def test_if_no_labels_are_left_for_it_this_is_said(named, tmp_path, caplog):
    stage = last_stage(tmp_path)
    seen, _ = train(named, tmp_path, stage, Spoils(stage, labels_left=False), model=torn(0.0))
    assert len(seen) == 5 * 4
    assert stage.schedule.done == 1
    (told,) = [one.getMessage() for one in caplog.records if "stored is" in one.getMessage()]  # a warning
    assert "stored is the last model, which was tried in 4 simulations of 0.2 ps, " in told


@pytest.mark.slow
def test_early_stopping_does_not_end_it(named, tmp_path):
    early = EarlyStopping("val_loss", patience=1, min_delta=1e9)
    stage = last_stage(tmp_path)
    seen, _ = train(named, tmp_path, stage, early)
    assert seen[-1][0] == 4 + stage.further


def without(name, monkeypatch, tmp_path):
    """Data with which there can be no labels, and why."""
    database = tmp_path / "data.db"
    if name == "not named":
        return write_clusters(database), "does not say by which reference method it was made; name it"
    if name == "import path":
        metadata = {"reference": {"reference": "helpers.pair_reference:Reference"}}
        return write_clusters(database, metadata), "is only used if you name it: callbacks.on_policy.labels.reference="
    write_clusters(database, {"reference": {"reference": TBLITE}})
    if name == "not installed":
        monkeypatch.setattr(spk_dt.labels.reference_of_data, "find_spec", lambda package: None)
        return database, "GFN1-xTB, is not installed: pip install 'spk_dt[reference]'"
    wrong = InThisProcess.compute

    def compute(self, atoms, **kwargs):
        found = wrong(self, atoms, **kwargs)
        found.forces[...] *= 2.0
        return found

    monkeypatch.setattr(InThisProcess, "compute", compute)
    return database, "is not the method of the data"


@pytest.mark.parametrize(
    "name", ["not named", "import path", pytest.param("not installed", marks=pytest.mark.slow), "another method"]
)
def test_without_a_reference_rollouts_grow_and_the_end_says_why(name, tmp_path, monkeypatch, caplog):
    database, reason = without(name, monkeypatch, tmp_path)
    seen, task = train(database, tmp_path, last_stage(tmp_path))
    assert [length for _, length, _ in seen] == [1] * 8 + [2] * 8 + [3] * 8
    assert not list(tmp_path.glob("hardening/round_*"))
    assert tear(task) == 20.0
    (told,) = [record.getMessage() for record in caplog.records if "trained without labels" in record.getMessage()]
    assert reason in told
    named = (
        ""
        if name in ("not installed", "another method")
        else " callbacks.on_policy.labels.reference=package.module:Class"
    )
    assert f"spktrain experiment=dt_last model_file={tmp_path} data=trajectory data.datapath={database}{named}" in told


def test_a_training_that_ends_before_says_so(named, tmp_path, caplog):
    train(named, tmp_path, last_stage(tmp_path), max_epochs=1)
    assert "the training has ended before its first stage was over" in caplog.text


def test_a_reference_that_is_named_must_work(named, tmp_path, monkeypatch):
    monkeypatch.setattr(InThisProcess, "describe", lambda self: reference_factory("xtb"))
    with pytest.raises(ValueError, match="is not the name of a calculator"):
        train(named, tmp_path, last_stage(tmp_path, reference="xtb"))
    assert InThisProcess.computed == 0


def test_with_a_named_reference_the_data_need_name_none(tmp_path):
    database = write_clusters(tmp_path / "data.db")
    seen, _ = train(database, tmp_path, last_stage(tmp_path, reference="helpers.pair_reference:Reference"))
    assert {length for _, length, _ in seen} == {1}
    assert list(tmp_path.glob("hardening/round_*.db"))


@pytest.mark.parametrize("trial", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_in_the_last_trial(named, tmp_path, trial):
    """In the one that fails, and in the one after: as if it had not been, and nothing computed twice."""

    def run(folder, **kwargs):
        stage, checkpoint = last_stage(folder), ModelCheckpoint(folder, save_last=True)
        options = {"model": torn(0.0), "enable_checkpointing": True} | kwargs
        seen, task = train(named, folder, stage, Spoils(stage), checkpoint, **options)
        return seen, tear(task), stage.state_dict()

    whole, *end = run(tmp_path / "whole")
    computed = InThisProcess.computed
    folders = sorted((tmp_path / "whole" / "hardening").glob("last_trial_*"), key=lambda one: int(one.name[11:]))
    labels = [sum(len(f.read_text().splitlines()) - 1 for f in one.glob("*/labels.jsonl")) for one in folders]
    InThisProcess.until = 2 * computed - sum(labels[trial:]) + 1
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(tmp_path / "part")
    InThisProcess.until = None
    seen, *again = run(tmp_path / "part", ckpt_path=tmp_path / "part" / "last.ckpt")
    assert seen == whole[len(whole) - len(seen) :]
    assert again == end
    assert InThisProcess.computed == 2 * computed


@pytest.mark.parametrize("after", [pytest.param(2, marks=pytest.mark.slow), 12])
def test_an_interrupted_training_is_the_uninterrupted_one(named, tmp_path, after):
    """Killed among the reference calculations of the stage, and continued."""

    def run(folder, **kwargs):
        callbacks = ExponentialMovingAverage(0.9), ModelCheckpoint(folder, save_last=True)
        seen, task = train(named, folder, last_stage(folder), *callbacks, enable_checkpointing=True, **kwargs)
        return seen, tear(task)

    whole, weight = run(tmp_path / "whole")
    computed, InThisProcess.until = InThisProcess.computed, InThisProcess.computed + 3 + after
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(tmp_path / "part")
    InThisProcess.until = None
    seen, again = run(tmp_path / "part", ckpt_path=tmp_path / "part" / "last.ckpt")
    assert len(seen) < len(whole)
    assert seen == whole[-len(seen) :]
    assert again == weight != 20.0
    assert InThisProcess.computed <= 2 * computed + 3  # the frames of the check are kept in their file


def test_a_run_that_had_no_reference_goes_on_when_there_is_one(named, tmp_path, monkeypatch):
    """As after installing it: labels had not begun, so there is nothing to contradict."""

    def run(**kwargs):
        stage, checkpoint = last_stage(tmp_path), OurCheckpoint(dirpath=tmp_path, save_last=True)
        return train(named, tmp_path, stage, checkpoint, enable_checkpointing=True, **kwargs)

    with monkeypatch.context() as without_tblite:
        without_tblite.setattr(spk_dt.labels.reference_of_data, "find_spec", lambda package: None)
        run(max_epochs=1)
    run(ckpt_path=tmp_path / "last.ckpt")
    assert list(tmp_path.glob("hardening/round_*.db"))


def test_what_makes_no_sense_is_refused(tmp_path):
    for name in ("epochs", "lr", "final_lr", "last_ps"):
        with pytest.raises(ValueError, match=rf"callbacks\.on_policy\.{name}=0 must be positive"):
            last_stage(tmp_path, **{name: 0})
    with pytest.raises(ValueError, match=r"callbacks\.on_policy\.kept=1, a share"):
        last_stage(tmp_path, kept=1)


def test_the_embedded_data_name_their_method(embedded):
    assert reference_of_data(embedded, "--reference ") == TBLITE
