"""What a training shows of itself: a bar or lines, the time that is left, and the summary."""

import io
import logging
import re
import sys
from types import SimpleNamespace

import pytest
import torch
from helpers.short_training import short_data, short_task, short_trainer
from rich.console import Console
from torch.optim.lr_scheduler import ReduceLROnPlateau

from spk_dt.cli.progress import progress_bar
from spk_dt.duration import duration
from spk_dt.training import (
    ComputeBudget,
    Converged,
    Curriculum,
    Elapsed,
    Labelling,
    LastStage,
    RoundSchedule,
    TrainingProgress,
)
from spk_dt.training import progress as module
from spk_dt.training.next_commands import next_commands
from spk_dt.training.progress_bar import TrainingBar
from spk_dt.training.summary import StageSummary, summary
from spk_dt.training.time_left import Pace, time_left


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (7200, "2 h"), (200000, "2 days"), (1e6, "12 days")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_a_task_in_a_log_is_a_line_from_time_to_time(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with progress_bar() as progress:
        for done in (40, 50, 60, 100):  # 40 are from an earlier run; 10 in 45 s
            progress("simulating m", done, 100)
            now += 45.0
        progress("judging m", 1, 20)  # a round
        for done in (1, 2):  # and another one, of 60 s for each
            now += 60.0
            progress("judging m", done, 7)
    assert capsys.readouterr().err.splitlines() == [
        "simulating m: 60 of 100, about 3 min left",
        "judging m: 1 of 20",
        "judging m: 1 of 7",
        "judging m: 2 of 7, about 5 min left",
    ]


# ------------------------------------------------------------------------------------------------- the time that is left


def trainer(*callbacks, epoch=0, max_epochs=-1, lr=1e-3, bad=0, floor=1e-5):
    """What `time_left` looks at."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
    plateau = ReduceLROnPlateau(optimizer, factor=0.1, patience=3, min_lr=floor)
    plateau.num_bad_epochs = bad
    return SimpleNamespace(
        callbacks=list(callbacks), current_epoch=epoch, max_epochs=max_epochs, optimizers=[optimizer],
        lr_scheduler_configs=[SimpleNamespace(scheduler=plateau)],
    )  # fmt: skip


def left(trainer, done=0.0, steps=1, pace=None):
    found = time_left(trainer, SimpleNamespace(rollout_length=steps), pace or Pace(1, 6.0, 4.0), done)
    return found and found[:2]


def test_nothing_says_when():
    assert left(trainer()) is None
    assert left(trainer(max_epochs=100_000)) is None


def test_of_a_number_of_epochs():
    assert left(trainer(epoch=3, max_epochs=10), done=0.5) == (65.0, "at most")


def test_of_a_budget():
    budget = ComputeBudget(100.0)
    budget.used = 40.0
    assert left(trainer(budget), pace=Pace(1, 6.0, 4.0, per_second=1.5)) == (90.0, "about")
    budget.used = 101.0
    assert left(trainer(budget)) == (0.0, "about")


def test_of_stages_of_so_many_epochs():
    """S = 1 has 2 of 3 epochs to go, of 10 s; S = 2 and 3 have three of 16 and of 22 s."""
    curriculum = Curriculum(3, Elapsed(3))
    assert left(trainer(curriculum, epoch=1)) == (20.0 + 3 * 16.0 + 3 * 22.0, "about")


def test_of_a_last_stage_with_rounds():
    """8 of 10 epochs of 10 s to go, and rounds of 30 s, every fourth epoch at most, until the goal is reached."""
    labels, schedule = Labelling("helpers.pair_reference:Reference"), RoundSchedule(9, every_n_epochs=4)
    last = LastStage(labels, 10, 1e-3, 5e-5, last_ps=50.0, kept=0.2, schedule=schedule)
    last.began = 5
    pace = Pace(1, 6.0, 4.0, labels=30.0)
    assert left(trainer(last, epoch=7), pace=pace) == (80.0 + 2 * 30.0, "about")
    assert left(trainer(last, epoch=7)) == (80.0, "about")
    last.schedule.done, last.goal.labels = 3, 150  # of 200, so that there is one more such round
    assert left(trainer(last, epoch=7), pace=pace) == (80.0 + 30.0, "about")
    last.goal.reached = 3
    assert left(trainer(last, epoch=7), pace=pace) == (80.0, "about")
    told = str(time_left(trainer(last, epoch=7), SimpleNamespace(rollout_length=1), pace, 0.0))
    assert told == "about 80 s left until the last model is tried"


def test_a_resumed_run_has_not_made_the_rounds_before():
    """Else the moment before its first batch would be what a round takes."""
    labels = LastStage(Labelling("helpers.pair_reference:Reference"), 10, 1e-3, 5e-5, last_ps=50.0, kept=0.2)
    labels.schedule.done = 3
    progress, run = TrainingProgress(), trainer(labels)
    progress.on_train_start(run, None)
    progress._begun, progress._first_batch = 1.0, 1.5
    assert progress._labelling(run) == 0.0
    labels.schedule.done, progress._first_batch = 4, 61.0
    assert progress._labelling(run) == 60.0


def test_a_round_before_the_first_epoch_is_part_of_it(monkeypatch):
    """A round of 60 s, then an epoch of 10 s, both of one processor: a second of the budget takes one of the clock."""
    budget, clock = ComputeBudget(100.0), SimpleNamespace(now=0.0)
    labels = LastStage(Labelling("helpers.pair_reference:Reference"), 10, 1e-3, 5e-5, last_ps=50.0, kept=0.2)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    progress, run = TrainingProgress(), trainer(budget, labels)
    run.is_global_zero, run.callback_metrics = True, {}
    progress.on_train_start(run, None)
    clock.now, labels.schedule.done = 60.0, 1
    progress.on_train_epoch_start(run, None)
    progress.on_train_batch_start(run, None, None, 0)
    clock.now = budget.used = 70.0
    progress.on_train_epoch_end(run, SimpleNamespace(rollout_length=1))
    assert progress._pace == Pace(1, 10.0, 0.0, per_second=1.0, labels=60.0)
    assert left(run, pace=progress._pace) == (30.0, "about")


def test_of_convergence():
    """From 1e-3 to 1e-5 in two reductions, of four epochs each at least; then S = 2 from 1e-4 in one."""
    curriculum = Curriculum(2, Converged(), reset_lr=1e-4)
    assert left(trainer(curriculum)) == (8 * 10.0 + 4 * 16.0, "at least")
    assert left(trainer(curriculum, bad=3)) == (5 * 10.0 + 4 * 16.0, "at least")
    assert left(trainer(curriculum, epoch=1, max_epochs=4)) == (30.0, "about")  # before it can have converged
    assert left(trainer(Curriculum(2, Converged(), reset_lr=1e-4), floor=0.0))[1] == "at least"


# ------------------------------------------------------------------------------------------------------------- the whole


def fit(database, folder, monkeypatch, **kwargs):
    progress = TrainingProgress()
    curriculum = Curriculum(2, Elapsed(1), reset_lr=None)
    run = short_trainer(folder, callbacks=[curriculum, progress], max_epochs=3, limit_train_batches=2, **kwargs)
    run.fit(short_task(), short_data(database, max_val_windows=2))
    return progress, run


def test_lines_and_summary(database, tmp_path, monkeypatch, caplog):
    """Where there is no terminal, a line for each epoch, also if Lightning was to show a bar."""
    with caplog.at_level(logging.INFO, "spk_dt.training.progress"):
        progress, run = fit(database, tmp_path, monkeypatch, enable_progress_bar=True)
    assert run.progress_bar_callback is None
    lines = [record.getMessage() for record in caplog.records if record.name == "spk_dt.training.progress"]
    assert lines[0].startswith("epoch 0, S = 1: val_loss ")
    assert "; force errors H " in lines[0]
    assert ", Pd " in lines[0]
    assert lines[1].startswith("epoch 1, S = 2: val_loss ")
    assert "an epoch, about " in lines[0]
    assert len(lines) == 3
    assert [(one.length, one.epochs) for one in progress.stages] == [(1, 1), (2, 1)]
    table = lines[2].splitlines()
    assert table[2].split() == ["stage", "epochs", "val_loss", "(eV/Ang)", "forces,", "H", "forces,", "Pd"]
    assert table[3].split()[:5] == ["1:", "S", "=", "1", "1"]
    assert float(table[3].split()[5]) == pytest.approx(progress.stages[0].best, abs=1e-4)
    command = f"spkdt certify {tmp_path} {database} --time 10 --number 10 --out certificate"
    assert f"{command} --reference package.module:Class" in lines[2]  # the data name none


def test_bar_on_a_terminal(database, tmp_path, monkeypatch, caplog):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=140)
    monkeypatch.setattr(module, "TrainingBar", lambda: TrainingBar(console))
    with caplog.at_level(logging.INFO, "spk_dt.training.progress"):
        fit(database, tmp_path, monkeypatch, enable_progress_bar=True)
    shown = screen.getvalue()
    assert "epoch 1, S = 2" in shown
    assert re.search(r"[0-2]/2", shown)  # as far as it was drawn
    assert "left" in shown
    assert not [record for record in caplog.records if record.getMessage().startswith("epoch")]


def test_what_is_logged_goes_above_the_bar(monkeypatch):
    """And where it was after it."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    handler = logging.StreamHandler(out)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    screen = io.StringIO()
    bar = TrainingBar(Console(file=screen, force_terminal=True, width=100))
    bar.begin("epoch 0", 2)
    logging.getLogger().warning("a word")
    bar.stop()
    assert "a word" in screen.getvalue()
    assert handler.stream is out
    bar.stop()


def test_its_state_is_that_of_the_stages():
    one, other = TrainingProgress(), TrainingProgress()
    one.stages = [StageSummary(1, False)]
    one.stages[0].add(0.5, {"H": 0.1})
    one.stages[0].add(0.7, {"H": 0.2})
    one.stages[0].add(None, {})
    other.load_state_dict(one.state_dict())
    assert other.stages == one.stages
    one.on_train_end(None, None)
    one.load_state_dict(TrainingProgress().state_dict())  # of the best checkpoint, for the test
    assert (one.stages[0].epochs, one.stages[0].best, one.stages[0].errors) == (3, 0.5, {"H": 0.1})


def test_summary_with_labels_and_test(tmp_path):
    labels = SimpleNamespace(schedule=SimpleNamespace(done=3), labels=SimpleNamespace(reference="tblite:GFN1-xTB"))
    stages = [StageSummary(1, False, 4, 0.25, {"H": 0.1}), StageSummary(1, True, 2)]
    text = summary(stages, (0.3, {"H": 0.2}), labels, None, tmp_path / "runs" / "x")
    assert "2: S = 1, with labels" in text
    assert "test" in text
    assert "0.3000" in text
    assert "labels:  3 rounds, of tblite:GFN1-xTB" in text
    assert f"model:   {tmp_path}/runs/x/best_model" in text


@pytest.mark.parametrize(("test_idx", "end"), [([4], " --out evaluation"), ([], " --out evaluation --split val")])
def test_without_test_frames_others_are_named(database, tmp_path, test_idx, end):
    data = SimpleNamespace(datapath=str(database), test_idx=test_idx)
    assert next_commands(data, tmp_path)[1].endswith(end)
