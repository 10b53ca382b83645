"""A training that is killed at any moment, and started again, is the one that was not: metrics and weights, bit for bit."""

import csv
import random
import re
import resource
import signal

import pytest
import torch
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.kills import Moments, halves, in_fork
from helpers.programs import spktrain

from spk_dt.data import TrajectoryWriter
from spk_dt.training import CSVLogger, DynamicTrainingTask
from spk_dt.training.checkpoint import WholeFileIO
from spk_dt.training.same_run import refuse_another

SHORT = [
    "experiment=dt_egnn", "+seed=0", "data=trajectory", "data.max_train_windows=16", "data.val_window=4",
    "data.max_val_windows=2", "data.max_test_windows=2", "data.batch_size=4", "globals.max_rollout_length=2",
    "task.scheduler_args.patience=0", "task.scheduler_args.threshold=0.5", "task.scheduler_args.factor=1e-3",
    "task.scheduler_args.min_lr=1e-5", "callbacks.free_simulations.steps=10", "callbacks.free_simulations.n_systems=1",
    "callbacks.free_simulations.share=1", "model.representation.n_atom_basis=4", "trainer.limit_train_batches=2",
    "trainer.accelerator=cpu", "+trainer.enable_progress_bar=false", "+trainer.log_every_n_steps=1",
    "print_config=false", "trainer.enable_model_summary=false",
]  # fmt: skip

LABELS = [
    "callbacks=[checkpoint,lrmonitor,dt_ema,curriculum,free_simulations,on_policy]", "trainer.max_epochs=9",
    "callbacks.on_policy.labels.reference=ase.calculators.emt:EMT", "callbacks.on_policy.labels.n_labels=3",
    "callbacks.on_policy.simulations.n_systems=2", "callbacks.on_policy.simulations.steps=5",
    "callbacks.on_policy.simulations.max_steps=8", "callbacks.on_policy.schedule.n_rounds=3",
]  # fmt: skip


def train(folder, kill_at, *overrides):
    """Train in this process, which is a fork, and tell the moments at which it could have been killed."""
    folder.mkdir(exist_ok=True)
    monkeypatch = pytest.MonkeyPatch()
    moments = Moments(folder, kill_at)
    halves(moments, monkeypatch)
    for name in ("training_step", "validation_step"):
        original = getattr(DynamicTrainingTask, name)

        def marked(*args, name=name, original=original):
            moments.mark(name)
            return original(*args)

        monkeypatch.setattr(DynamicTrainingTask, name, marked)
    spktrain(folder, monkeypatch, *SHORT, *overrides)
    return moments.told


def outcome(folder):
    """Rows of the table, and all numbers of the last checkpoint and of the stored model."""
    (table,) = folder.glob("csv/*/metrics*.csv")
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)
    kept = [last[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "loops")]
    return rows, list(numbers([*kept, torch.load(folder / "best_model", weights_only=False).state_dict()]))


def numbers(value, name=""):
    if isinstance(value, dict):
        for key, one in value.items():
            yield from numbers(one, f"{name}.{str(key).split('/')[-1]}")  # files by their names
    elif isinstance(value, list | tuple):
        for i, one in enumerate(value):
            yield from numbers(one, f"{name}.{i}")
    elif isinstance(value, torch.Tensor):
        yield name, value.tolist()
    elif isinstance(value, int | float):
        yield name, value


def kill_and_resume(tmp_path, database, moments, *overrides):
    """Compare trainings that are killed at chosen moments with one that is not.

    Args:
        moments: which of the moments of that one.
    """
    arguments = (f"data.datapath={database}", *overrides)
    code, told = in_fork(train, tmp_path / "whole", None, *arguments)
    assert code == 0
    expected = outcome(tmp_path / "whole")
    assert len({row["S"] for row in expected[0] if row["S"]}) == 2  # with a change of stage
    chosen = moments(told)
    for at in chosen:
        folder = tmp_path / f"killed_{at}"
        assert in_fork(train, folder, at, *arguments)[0] == -signal.SIGKILL
        assert in_fork(train, folder, None, *arguments)[0] == 0, told[at]
        rows, found = outcome(folder)
        assert rows == expected[0], told[at]
        assert dict(found) == dict(expected[1]), told[at]
    return [told[at] for at in chosen]


def test_killed_while_a_checkpoint_is_written_and_in_an_epoch(tmp_path, database):
    def chosen(told):
        halves = [i for i, one in enumerate(told) if one == "half of last.ckpt.part"]
        steps = [i for i, one in enumerate(told) if one == "training_step"]
        return [halves[-2], steps[-1]]

    kill_and_resume(tmp_path, database, chosen, "trainer.max_epochs=4")


@pytest.mark.slow
def test_killed_at_20_random_moments(tmp_path, database):
    told = kill_and_resume(
        tmp_path, database, lambda told: sorted(random.Random(1).sample(range(len(told)), 20)), *LABELS
    )
    assert len(told) == 20


def test_another_training_is_refused(tmp_path, database):
    """Each with both values, before anything is trained."""
    before = (f"data.datapath={database}", "trainer.max_epochs=1", "globals.max_rollout_length=1")
    monkeypatch = pytest.MonkeyPatch()
    spktrain(tmp_path, monkeypatch, *SHORT, *before)
    other = tmp_path / "other.db"
    frames = [bulk("Al", cubic=True).repeat(2) for _ in range(12)]
    for one in frames:
        one.calc = SinglePointCalculator(one, energy=0.0, forces=one.positions * 0.0)
        one.set_velocities(one.positions * 0.0)
    with TrajectoryWriter(other, splits={"train": ["a"], "val": ["b"], "test": ["c"]}) as writer:
        for name in "abc":
            writer.add(name, frames, timestep_fs=2.0)
    for option, told in {
        "globals.cutoff=3.5": r"cutoff 4\.0, .* with 3\.5\. Set globals\.cutoff",
        "data.property_units={energy: kcal/mol, forces: kcal/mol/Ang}": r"'forces': 'eV/Ang'.* with .*'kcal/mol/Ang'",
        "task.outputs.0.loss_weight=2.0": r"forces of forces: .* weight 1'.*weight 2'",
        "task.outputs.1.loss_fn._target_=torch.nn.MSELoss": r"L1Loss.*MSELoss",
    }.items():
        with pytest.raises(ValueError, match=told):
            spktrain(tmp_path, monkeypatch, *SHORT, *before, option)
    (tmp_path / "split.npz").unlink()
    with pytest.raises(ValueError, match=r"time step of the data in fs \[0\.5\], .* with \[2\.0\]"):
        spktrain(tmp_path, monkeypatch, *SHORT, *before[1:], f"data.datapath={other}", "data.check_data=false")
    for name, values in {
        "elements": (["H"], ["H", "Pd"]),
        "reference method of the data": ({"a": 1}, {"a": 2}),
    }.items():
        with pytest.raises(ValueError, match=re.escape(f"with {name} {values[0]}, and")):
            refuse_another({name: values[0]}, {name: values[1]}, "last.ckpt")
    monkeypatch.undo()


@pytest.mark.parametrize("before", [False, True])
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, before):
    """The limit of the size of a file stands for the disk."""
    path = tmp_path / "last.ckpt"
    if before:
        WholeFileIO().save_checkpoint({"epoch": 1}, path)

    def write():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            WholeFileIO().save_checkpoint({"epoch": 2, "weights": torch.zeros(10_000)}, path)
        except (OSError, RuntimeError) as error:
            return str(error)

    code, told = in_fork(write)
    assert code == 0
    assert told
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"] * before
    if before:
        assert torch.load(path) == {"epoch": 1}


def test_a_training_that_goes_on_from_an_older_checkpoint_keeps_the_table_as_it_was(tmp_path):
    logger = CSVLogger(tmp_path, "csv")
    for epoch in range(3):
        logger.log_metrics({"epoch": epoch, "val_loss": 1.0 / (1 + epoch)}, step=2 * epoch + 1)
        logger.save()
    table = tmp_path / "csv" / "version_0" / "metrics.csv"
    whole = table.read_text()
    table.write_text(whole + "3,7")  # cut off
    again = CSVLogger(tmp_path, "csv")
    again.go_on(step=6, epoch=3)
    assert table.read_text().split() == whole.split()
    again.go_on(step=2, epoch=1)
    assert table.read_text().split() == whole.split()[:2]
    assert (table.parent / "metrics.old.1.csv").read_text().split() == whole.split()
    again.log_metrics({"epoch": 1, "val_loss": 0.4, "S": 2.0}, step=3)
    again.save()
    with table.open(newline="") as stream:
        assert [row["val_loss"] for row in csv.DictReader(stream)] == ["1.0", "0.4"]
