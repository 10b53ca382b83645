"""As a user would: the built wheel in a clean environment, commands in an empty folder outside the checkout."""

import csv
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from schnetpack import units
from schnetpack.md.data import HDF5Loader

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")
pytestmark = pytest.mark.skipif(not UV.exists(), reason="needs uv in the environment, as `make env` puts it there")


def run(*command, cwd, **kwargs):
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["PWD"] = str(cwd)  # SchNetPack's configs look here
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=900, **kwargs
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    run(UV, "build", "--wheel", "--python", sys.executable, "--out-dir", folder, ROOT, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Folder of the commands of an environment with nothing but the wheel and what it asks for."""
    environment = tmp_path_factory.mktemp("environment") / "venv"
    run(UV, "venv", "--python", sys.executable, environment, cwd=wheel.parent)
    constraints = ROOT / "constraints.txt"
    python = environment / "bin" / "python"
    run(UV, "pip", "install", "--python", python, "--constraint", constraints, wheel, cwd=wheel.parent)
    return environment / "bin"


def test_contents(wheel):
    assert wheel.stat().st_size < 15e6
    names = zipfile.ZipFile(wheel).namelist()
    assert {"spk_dt/configs/experiment/dt_egnn.yaml", "spk_dt/configs/md/config.yaml"} <= set(names)
    templates = {f"spk_dt/evaluation/report{part}.html.jinja" for part in ("", "_certificate", "_evaluation")}
    assert {"spk_dt/data/h2_pd6_graphene.npz", *templates} <= set(names)
    assert "hydra_plugins/spk_dt/spktrain/hydra/env/default.yaml" in names
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {
        *("spk_dt", "hydra_plugins", "spk_dt_programs.pth")
    }
    assert "hydra_plugins/__init__.py" not in names  # it is a namespace


@pytest.mark.slow
@pytest.mark.parametrize("program", ["spktrain", "spkmd"])
def test_programs_begin_with_their_own_words(installed, tmp_path, program):
    """Nothing of other packages about themselves, but what anybody else warns of."""
    arguments = {"spktrain": ["experiment=dt_egnn"], "spkmd": ["simulation_dir=out"]}[program]
    shown = subprocess.run(
        [installed / program, *arguments, "--cfg", "job"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PWD": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert shown.returncode == 0
    assert "Warning" not in shown.stderr
    other = [installed / "python", "-c", "import schnetpack"]
    assert "FutureWarning" in subprocess.run(other, capture_output=True, text=True).stderr


def test_train_simulate_deploy(installed, tmp_path):
    folder = tmp_path / "empty folder"  # a name that needs quoting
    folder.mkdir()
    short = [
        "trainer.max_epochs=3", "trainer.limit_train_batches=10", "data.max_val_windows=2", "data.val_window=10",
        "data.max_test_windows=2", "run.id=first", "+seed=0", "callbacks.curriculum.rule._target_=spk_dt.training.Elapsed",
        "+callbacks.curriculum.rule.epochs=1",
    ]  # fmt: skip
    run(installed / "spktrain", "experiment=dt_egnn", *short, cwd=folder)
    model = folder / "runs" / "first" / "best_model"
    rows = list(csv.DictReader((folder / "runs/first/csv/version_0/metrics.csv").open(newline="")))
    assert [float(row["S"]) for row in rows if row["S"]] == [1.0, 2.0, 3.0]
    errors = [float(row["val_loss"]) for row in rows if row["val_loss"]]
    assert errors[-1] < errors[0]
    out = run(installed / "spkdt", "plot", "runs/first", cwd=folder)
    assert "S = 3: validation error" in out
    assert (folder / "runs" / "first" / "validation.png").stat().st_size > 10_000

    run(installed / "spkdt", "frames", "start.traj", "--split", "test", "--number", "2", cwd=folder)
    simulation = ["system.molecule_file=start.traj", "system/initializer=frames", "dynamics.n_steps=20"]
    run(installed / "spkmd", f"calculator.model_file={model}", *simulation, "simulation_dir=md", cwd=folder)
    data = HDF5Loader(str(folder / "md" / "simulation.hdf5"))
    assert (data.entries, data.n_molecules) == (20, 2)
    for molecule, start in enumerate(ase.io.read(folder / "start.traj", ":")):
        total = data.get_kinetic_energy(mol_idx=molecule) + data.get_potential_energy(mol_idx=molecule)
        assert np.ptp(total) * units.convert_units("kJ/mol", "eV") < 2e-3
        first = 10.0 * data.get_positions(mol_idx=molecule)[0]
        np.testing.assert_allclose(first, start.positions + start.get_velocities() * 0.5 * ase.units.fs, atol=2e-3)
    data.database.close()
    out = run(installed / "python", ROOT / "tutorials" / "look_at_a_simulation.py", "md/simulation.hdf5", cwd=folder)
    assert "molecule 1: temperature" in out
    assert (folder / "md" / "simulation.png").exists()

    evaluate = ["evaluate", "embedded", "runs/first", "--number", "1", "--steps", "20", "--out", "evaluation"]
    assert "first: force error along the reference" in run(installed / "spkdt", *evaluate, cwd=folder)
    assert run(installed / "spkdt", "report", "evaluation", cwd=folder).strip() == "evaluation/report.html"
    page = (folder / "evaluation" / "report.html").read_text()
    assert "spk_dt[report]" in page  # chemiscope is not in this environment: it says how to get the 3D view

    run(installed / "spkdeploy", model, "deployed", cwd=folder)
    deployed = torch.jit.load(str(folder / "deployed"), _extra_files=(extra := {"cutoff": ""}))
    assert float(extra["cutoff"]) == 4.0
    assert deployed is not None


def test_public_names(installed, tmp_path):
    code = (
        "from spk_dt import EGNN, DynamicTrainingTask, TrajectoryDataModule, rollout; import spk_dt; "
        "[getattr(spk_dt, name) for name in spk_dt.__all__]; print(rollout.__name__, EGNN.__name__)"
    )
    assert run(installed / "python", "-c", code, cwd=tmp_path).split()[-2:] == ["rollout", "EGNN"]
