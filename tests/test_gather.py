"""Runs in a table: what differs, what has come of them, and which are broken."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.programs import spkdt

from spk_dt.evaluation.certificates import Certificate
from spk_dt.evaluation.gather import gather, table_of
from spk_dt.folders.file_hash import file_hash

LOG = """[2026-11-27 07:41:02,000][schnetpack.cli][INFO] - Running on host: node1
[2026-11-27 07:41:12,000][schnetpack.cli][INFO] - Starting training.
[2026-11-27 09:00:00,000][schnetpack.cli][INFO] - Running on host: node2
[2026-11-27 09:00:05,500][schnetpack.cli][INFO] - Best model stored
"""


def write_run(folder, config, rows=(), log="", model=""):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config)
    if rows:
        table = folder / "csv" / "version_0" / "metrics.csv"
        table.parent.mkdir(parents=True)
        table.write_text("\n".join(["S,epoch,step,train_seconds,val_loss", *rows]) + "\n")
        os.utime(table, (0, 0))
    if log:
        (folder / "cli.log").write_text(log)
    if model:
        (folder / "best_model").write_text(model)
    return folder


def config(lr, name, transforms=1):
    return (
        f"run:\n  id: {name}\nglobals:\n  lr: {lr}\n  cutoff: 5.0\nseed: 3\ndata:\n  transforms:\n"
        + "  - a: ${x}\n" * transforms
    )


@pytest.fixture
def sweep(tmp_path):
    folder = tmp_path / "sweep"
    rows = ["1.0,0,7,12.5,0.9", "2.0,1,15,30.25,0.4", ",,16,,", "2.0,2,23,41.0,0.5"]
    write_run(folder / "a", config(1e-3, "a"), rows, LOG, "model a")
    write_run(folder / "b", config(3e-3, "b"), ["1.0,0,7,,0.7", "1.0,1,15,,nan"], LOG, "model b")
    write_run(folder / "c", config(1e-3, "c"))
    write_run(folder / "d", "run: {id: [", ["1.0,0,7,,0.8", "1.0,one,15,,0.6"], model="model d")
    return folder


def test_what_differs_and_what_has_come_of_it(sweep):
    columns, rows = table_of(gather([sweep]))
    assert columns == ["run", "globals.lr", "best val_loss", "S", "epochs", "seconds", "certificate", "trouble"]
    named = {Path(row[0]).name: row[1:] for row in rows}
    assert named["a"] == [0.001, 0.4, 2, 3, 41.0, None, None]
    assert named["b"] == [0.003, 0.7, 1, 2, 15.5, None, None]  # 10 s and 5.5 s by the clock
    assert named["c"] == [0.001, None, None, 0, None, None, "no metrics; no best_model: it has not ended"]
    assert named["d"][:5] == [None, 0.6, 1, 1, None]
    assert "config.yaml cannot be read" in named["d"][-1]
    assert "1 rows of metrics.csv make no sense" in named["d"][-1]


def test_runs_one_by_one_and_settings_that_some_do_not_have(sweep, tmp_path):
    other = write_run(tmp_path / "other", config(1e-3, "other", transforms=2))
    columns, rows = table_of(gather([sweep / "a", other, sweep / "a"]))
    assert columns[1] == "data.transforms.1.a"
    assert [row[:2] for row in rows] == [[str(sweep / "a"), None], [str(other), "${x}"]]  # not resolved, nothing is run
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no config.yaml; no metrics" in table_of(gather([empty]))[1][0][-1]


def certificate_of(model, folder):
    settings = {"model_sha256": {"it": file_hash(model)}, "conditions": {"time_ps": 10.0}}
    conditions = type("Conditions", (), {"time_ps": 10.0, "described": "at constant energy"})
    return Certificate(folder, settings, conditions, {"it": {"failures": 2, "simulations": 20}})


def test_certificates_belong_to_the_model_by_its_hash(sweep, monkeypatch, tmp_path):
    monkeypatch.setattr(
        "spk_dt.evaluation.gather.read_certificate",
        lambda folder: certificate_of(sweep / "b" / "best_model", Path(folder)),
    )
    (sweep / "a" / "old").mkdir()
    (sweep / "a" / "old" / "certificate.json").write_text(json.dumps({}))
    a, b, *_ = gather([sweep], [tmp_path / "certificate"])
    assert b.certificates == ["10 ps at constant energy: 2 of 20 fail"]
    assert (a.certificates, a.troubles) == ([], ["old is of another model"])


def test_the_command(sweep, tmp_path):
    code, out, _ = spkdt("gather", sweep, "--out", tmp_path / "table.csv")
    assert code == 0
    assert "globals.lr" in out
    assert "it has not ended" in out
    with (tmp_path / "table.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["best val_loss"] for row in rows] == ["0.4", "0.7", "", "0.6"]
    code, _, error = spkdt("gather", sweep, "--out", tmp_path / "table.csv")
    assert (code, "exists, and nothing is overwritten" in error) == (1, True)
    code, _, error = spkdt("gather", tmp_path / "absent")
    assert (code, f"there is no folder '{tmp_path / 'absent'}'" in error) == (1, True)


@pytest.mark.slow
def test_a_sweep_by_submitit(database, tmp_path):
    """Two trainings, each a job of its own, and their table."""
    subprocess.run(
        [
            str(Path(sys.executable).with_name("spktrain")), "-m", "hydra/launcher=submitit_local", "hydra.sweep.dir=sweep",
            "hydra.sweep.subdir=${hydra:job.num}", "experiment=static_egnn", "globals.lr=1e-3,3e-3", "data=trajectory",
            f"data.datapath={database}", "data.max_train_windows=8", "data.val_window=4", "data.max_val_windows=2",
            "data.max_test_windows=2", "trainer.max_epochs=1", "trainer.accelerator=cpu",
            "+trainer.enable_progress_bar=false", "model.representation.n_atom_basis=4", "print_config=false", "+seed=0",
        ],
        cwd=tmp_path, check=True, timeout=600,
    )  # fmt: skip
    columns, rows = table_of(gather([tmp_path / "sweep"]))
    assert columns[1:4] == ["globals.lr", "best val_loss", "S"]
    assert [(row[1], row[3], row[4], row[-1]) for row in rows] == [(1e-3, 1, 1, None), (3e-3, 1, 1, None)]
    assert rows[0][2] != rows[1][2]
    assert all(row[5] > 0 for row in rows)
