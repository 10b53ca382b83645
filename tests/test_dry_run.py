"""`spktrain ... +dry_run=true`: numbers of windows, batches and parameters are those of the training; nothing is written."""

import os
import re
import sys
from pathlib import Path

import pytest
import schnetpack.cli
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from spk_dt.training.dry_run import DryRun

pytestmark = pytest.mark.usefixtures("quiet_hydra")

SMALL = [
    "experiment=dt_egnn", "+dry_run=true", "data=trajectory", "data.val_window=4", "data.max_val_windows=2",
    "data.max_test_windows=3", "data.max_train_windows=30", "data.batch_size=4", "globals.max_rollout_length=3",
    "model.representation.n_atom_basis=8", "globals.cutoff=3.0", "trainer.limit_train_batches=6",
    "trainer.accelerator=cpu", "run.id=one",
]  # fmt: skip


@pytest.fixture
def dry_run(tmp_path, monkeypatch, database, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))

    def dry_run(*overrides):
        GlobalHydra.instance().clear()
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        monkeypatch.setattr(sys, "argv", ["spktrain", *SMALL, f"data.datapath={database}", *overrides])
        with pytest.raises(SystemExit) as end:
            schnetpack.cli.train()
        return end.value.code, capsys.readouterr().out

    yield dry_run
    assert Path.cwd() == tmp_path
    assert os.listdir(tmp_path) == []


def test_it_tells_and_writes_nothing(dry_run, database):
    before = sorted(database.parent.iterdir())
    code, out = dry_run(
        "callbacks.curriculum.rule._target_=spk_dt.training.Elapsed", "+callbacks.curriculum.rule.epochs=5"
    )
    assert code == 0
    found = dict(line.split(":", 1) for line in out[out.index("dry run") :].splitlines()[1:])
    assert found["windows"].strip() == "30 of 3 frames (train), 2 of 4 frames (val), 3 of 4 frames (test)"
    assert found["data"].strip() == str(database)
    assert found["epoch"].strip().startswith("6 batches of 4 windows, 1 batches in validation")
    assert "EGNN" in found["model"]
    assert found["stages"].strip() == "S = 1 to 3 (Elapsed)"
    at = {int(s): float(x) for x, s in re.findall(r"([\d.e-]+) s at S = (\d)", found["a batch"])}
    assert at[3] > at[1] > 0.0
    assert found["in all"].strip().startswith("about ")
    assert float(re.search(r"([\d.]+) GiB", found["memory"])[1]) > 0.1
    assert sorted(database.parent.iterdir()) == before


def test_what_would_be_refused_is_refused(dry_run):
    code, _ = dry_run("callbacks.curriculum.reset_lr=1e-9")
    assert "callbacks.curriculum.reset_lr=1e-09 must be above task.scheduler_args.min_lr" in str(code)
    with pytest.raises(SystemExit, match="leave -m out"):
        DryRun().on_multirun_start(OmegaConf.create({"dry_run": True}))
