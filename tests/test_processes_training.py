"""Whole trainings in two processes: stages, labels, hardening, files, resuming."""

import csv
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from helpers.hardening import fit, hardening, write_clusters
from helpers.programs import spktrain
from helpers.two_processes import two_processes
from pytorch_lightning.callbacks import ModelCheckpoint

from spk_dt import processes
from spk_dt.training import ComputeBudget

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

SHORT = [
    "experiment=dt_egnn", "+seed=0", "data=trajectory", "data.max_train_windows=17", "data.val_window=4",
    "data.max_val_windows=3", "data.max_test_windows=3", "data.batch_size=2", "globals.max_rollout_length=2",
    "callbacks.curriculum.rule._target_=spk_dt.training.Elapsed", "+callbacks.curriculum.rule.epochs=2",
    "callbacks.free_simulations.steps=10", "callbacks.free_simulations.n_systems=1", "callbacks.free_simulations.share=1",
    "model.representation.n_atom_basis=4", "trainer.limit_train_batches=3", "trainer=ddp_trainer",
    "trainer.accelerator=cpu", "+trainer.enable_progress_bar=false", "+trainer.log_every_n_steps=1",
    "print_config=false", "trainer.enable_model_summary=false",
    "callbacks=[checkpoint,lrmonitor,dt_ema,curriculum,free_simulations,on_policy]",
    "callbacks.on_policy.labels.reference=ase.calculators.emt:EMT", "callbacks.on_policy.labels.n_labels=3",
    "callbacks.on_policy.simulations.n_systems=2", "callbacks.on_policy.simulations.steps=5",
    "callbacks.on_policy.simulations.max_steps=8", "callbacks.on_policy.schedule.n_rounds=2",
]  # fmt: skip


def train(rank, folder, *overrides):
    """Train in this process; what it remembers in the end: stages, learning rate, weights, labels."""
    seen = {}

    class Remember(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            seen.setdefault("stages", []).append((trainer.current_epoch, pl_module.rollout_length, rate))

        def on_train_end(self, trainer, pl_module):
            seen["weights"] = torch.cat([one.detach().flatten() for one in pl_module.parameters()])
            seen["labels"] = trainer.datamodule._growing.n_added

    (folder / "data").mkdir(exist_ok=True)  # as `RunFolder` does in the program
    monkeypatch = pytest.MonkeyPatch()
    fit_before = pl.Trainer.fit

    def fit(self, *args, **kwargs):
        self.callbacks.append(Remember())
        fit_before(self, *args, **kwargs)

    monkeypatch.setattr(pl.Trainer, "fit", fit)
    opened = set()

    def look(event, arguments):
        if (
            event == "open"
            and isinstance(arguments[0], str | Path)
            and arguments[2] & 3
            and str(folder) in str(arguments[0])
        ):
            opened.add(Path(arguments[0]).name)

    sys.addaudithook(look)
    try:
        spktrain(folder, monkeypatch, *SHORT, *overrides)
    except SystemExit as error:
        seen["ended"] = error.code
    return seen | {"files": opened}


def rows_of(folder):
    (table,) = folder.glob("csv/*/metrics*.csv")
    with table.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_stages_labels_and_files_and_the_same_when_it_is_resumed(database, tmp_path):
    data = f"data.datapath={database}"
    for name in ("whole", "resumed"):
        (tmp_path / name).mkdir()
    first, second = two_processes(tmp_path, train, tmp_path / "whole", data, "trainer.max_epochs=5")
    assert [length for _, length, _ in first["stages"]][:4] == [1, 1, 2, 2]  # the fifth epoch is left at its beginning
    assert first["stages"] == second["stages"]
    assert "ended" not in first
    assert second["ended"] == 0  # it leaves the model to the first
    assert torch.equal(first["weights"], second["weights"])
    assert first["labels"] == second["labels"] == 6
    assert "metrics.csv" in first["files"]
    # the lock keeps the partition from being made twice; the rest is SchNetPack's own record of the settings
    assert {name for name in second["files"] if not name.startswith("config")} <= {"split.lock"}
    two_processes(tmp_path, train, tmp_path / "resumed", data, "trainer.max_epochs=2")
    again, _ = two_processes(tmp_path, train, tmp_path / "resumed", data, "trainer.max_epochs=5")
    assert torch.equal(again["weights"], first["weights"])
    assert rows_of(tmp_path / "resumed") == rows_of(tmp_path / "whole")


def test_hardening(tmp_path):
    """The first process simulates and labels; both choose the same model, and end at the same time."""
    clusters = write_clusters(tmp_path / "clusters.db")

    def both(rank):
        folder = tmp_path / "run"
        callback = hardening(folder, seed=rank)
        kept = ModelCheckpoint(folder / "kept", save_last=True)
        run, task = fit(
            clusters, folder, callback, kept, ComputeBudget(1e5), strategy="ddp", devices=2, enable_checkpointing=True,
        )  # fmt: skip
        budget = run.callbacks[[isinstance(one, ComputeBudget) for one in run.callbacks].index(True)]
        return {
            "goal": callback.goal.state_dict(), "rounds": callback.schedule.state_dict(), "epoch": run.current_epoch,
            "best": kept.best_model_path, "used": budget.used, "frames": budget.frames, "seed": callback._seed,
            "weights": [one.tolist() for one in task.parameters()], "labels": run.datamodule._growing.n_added,
            "order": list(run.datamodule._mixed.growing._ends), "number": processes.number(),
        }  # fmt: skip

    first, second = two_processes(tmp_path, both)
    assert first == second
    assert first["number"] == 2
    assert first["goal"]["labels"] > 0
    assert first["labels"] > 0
