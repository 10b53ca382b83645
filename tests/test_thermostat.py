"""``spkdt evaluate --temperature``: a Langevin thermostat, and what an evaluation with one says."""

import csv
import json

import ase.units
import numpy as np
import pytest
from ase.build import bulk
from helpers.pair_potential import pair_model, pair_trajectory
from schnetpack.md.data import HDF5Loader
from typer.testing import CliRunner

from spk_dt.cli import app
from spk_dt.data import TrajectoryWriter
from spk_dt.evaluation.simulate import Protocol

STEPS, EVERY, KELVIN = 1500, 10, 600.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two starts of a crystal of 32 atoms at about 50 K."""
    folder = tmp_path_factory.mktemp("thermostat")
    with TrajectoryWriter(folder / "data.db") as writer:
        for seed in range(2):
            crystal = bulk("Cu", cubic=True, a=3.7).repeat(2)
            crystal.rattle(0.02, seed=seed)
            writer.add(f"run_{seed}", pair_trajectory(crystal, 2, 1.0, seed, kelvin=50.0), timestep_fs=1.0)
    pair_model(folder / "model")
    return folder


def evaluated(folder, name, *options, steps=STEPS):
    arguments = [folder / "data.db", f"m={folder / 'model'}", "--steps", steps, "--every", EVERY]
    arguments += ["--out", folder / name, *options]
    done = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    assert done.exit_code == 0, done.stderr
    return folder / name, done.stdout


def velocities(out):
    """[n_frames, 64, 3] in the units of ASE."""
    loader = HDF5Loader(str(out / "m" / "simulation_0.hdf5"))
    found = np.concatenate([loader.get_velocities(molecule) for molecule in range(2)], axis=1)
    loader.database.close()
    return found * 10.0 / np.sqrt(100.0 / (ase.units.kJ / ase.units.mol))


def temperature(out):
    """From the second half of the simulations, when the heat is evenly spread."""
    late = velocities(out)[STEPS // EVERY // 2 :]
    mass = bulk("Cu").get_masses()[0]
    return mass * (late**2).mean() / ase.units.kB


@pytest.fixture(scope="module")
def hot(folder):
    return evaluated(
        *(folder, "hot", "--temperature", KELVIN, "--friction", 0.02),
        *("--reference", "helpers.pair_reference:Reference", "--relabel-every", 500),
    )


def test_temperature(folder, hot):
    """That of the thermostat: 192 degrees of freedom, some 15 independent times; at constant energy it stays cold."""
    assert temperature(hot[0]) == pytest.approx(KELVIN, rel=0.06)
    assert temperature(evaluated(folder, "cold")[0]) < 60.0


def test_noise_is_that_of_the_seed(folder):
    runs = {
        name: velocities(evaluated(folder, name, "--temperature", 300, "--seed", seed, steps=41)[0])
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    }
    assert np.array_equal(runs["a"], runs["b"])
    assert not np.allclose(runs["a"], runs["c"], rtol=0.1)


def test_nothing_is_compared_with_the_reference(hot):
    """Nothing but the start frames; the true error is there, and it is that of a perfect model."""
    out, printed = hot
    assert "force error at the start frames" in printed
    with (out / "force_error.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["0"]
    metrics = json.loads((out / "metrics.json").read_text())["m"]
    assert {"along_reference", "exploded", "stability", "conservation", "by_start", "true_error"} <= set(metrics)
    assert "structure" not in metrics
    assert "reference" not in json.loads((out / "motion.json").read_text())["vibrations"]
    assert set(metrics["conservation"]) == {"mean_temperature_k", "largest_force_ev_per_ang"}
    assert metrics["true_error"]["sum_over_elements"] < 1e-4
    assert metrics["true_error"]["last_time_fs"] == 1000.0 + 1.0  # states after the steps 1, 11, ... are kept
    settings = json.loads((out / "settings.json").read_text())
    assert (settings["temperature"], settings["friction"], settings["seed"]) == (KELVIN, 0.02, 0)
    figures = {path.stem for path in (out / "figures").iterdir()}
    assert {"survival", "error_pairs", "distances", "displacement"} <= figures
    assert not figures & {"error_along_reference", "total_energy"}
    distributions = json.loads((out / "distributions.json").read_text())
    assert list(distributions["h_of_r"]) == ["m"]
    assert list(distributions["rdf"]["Cu-Cu"]) == ["m"]


def test_report(hot):
    done = CliRunner().invoke(app, ["report", str(hot[0])])
    assert done.exit_code == 0, done.stderr
    page = (hot[0] / "report.html").read_text()
    assert "force error at the start frames" in page
    assert "error along the reference</em>" not in page
    assert "beside the reference" not in page.split('id="view-note"')[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature=-1.0 K"),
        ({"friction": 0.0}, "friction=0.0 per fs"),
        ({"steps": 0}, "steps=0"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**options)
