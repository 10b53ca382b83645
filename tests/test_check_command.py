"""``spkdt check``: a table, what was found, exit codes, and JSON."""

import json

import ase.db
import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from helpers.programs import spkdt
from schnetpack.data import ASEAtomsData

from spk_dt.data import TrajectoryWriter


@pytest.fixture
def faulty(tmp_path, cluster, make_trajectory):
    """One good trajectory, and five with another time step."""
    path = tmp_path / "faulty.db"
    with TrajectoryWriter(path) as writer:
        writer.add("good", make_trajectory(cluster, 24, 0.5, 0), 0.5)
        for i in range(5):
            writer.add(f"bad_{i}", make_trajectory(cluster, 24, 0.5, i), 1.0)
    return path


def test_good_trajectories(mixed_database):
    code, out, err = spkdt("check", mixed_database)
    assert code == 0, err
    assert out.rstrip().endswith("3 trajectories, 47 frames: ok")
    rows = [line.split() for line in out.splitlines()]
    assert ["cluster", "6", "20", "0.5", "file"] in [row[:5] for row in rows]
    assert ["larger", "8", "12", "0.25", "file"] in [row[:5] for row in rows]
    assert err == ""


def test_what_is_refused_is_said_with_the_remedy(faulty):
    code, out, _ = spkdt("check", faulty)
    assert code == 1
    assert "refused: bad_0: says 1 fs between frames, but they are 0.5 fs apart." in out
    assert "Write the trajectory with timestep_fs=0.5." in out
    assert "bad_3:" not in out
    assert "(time_step) in 2 more" in out
    assert "good:" not in out
    assert out.rstrip().endswith("6 trajectories, 150 frames: refused")


def test_json(faulty):
    code, out, _ = spkdt("check", faulty, "--json")
    assert code == 1
    found = json.loads(out)
    assert (found["database"], found["verdict"]) == (str(faulty), "refused")
    good, bad = found["trajectories"][:2]
    assert (good["trajectory"], good["verdict"], good["findings"]) == ("good", "ok", [])
    assert good["displaced"] < 1e-6
    (finding,) = bad["findings"]
    assert (finding["key"], finding["severity"]) == ("time_step", "refused")
    assert finding["values"]["timestep_fs"] == pytest.approx(0.5)
    assert bad["displaced"] is None


def test_a_warning_does_not_fail(tmp_path, cluster, make_trajectory):
    path = tmp_path / "a.db"
    with TrajectoryWriter(path) as writer:
        writer.add("short", make_trajectory(cluster, 1, 0.5, 0), 0.5)
    code, out, _ = spkdt("check", path)
    assert code == 0
    assert "warning: short: 2 frames are too few" in out
    assert out.rstrip().endswith(": warning")


def test_numbers_that_are_not_finite(tmp_path, cluster, make_trajectory):
    frames = make_trajectory(cluster, 9, 0.5, 0)
    frames[4].calc.results["energy"] = np.nan
    with TrajectoryWriter(tmp_path / "a.db") as writer:
        writer.add("run", frames, 0.5)
    code, out, _ = spkdt("check", tmp_path / "a.db", "--json")
    assert code == 1
    assert json.loads(out)["trajectories"][0]["findings"][0]["frames"] == [4]


def test_what_cannot_be_read(tmp_path):
    (tmp_path / "text.db").write_text("not a database")
    with ase.db.connect(tmp_path / "plain.db") as database:
        database.write(Atoms("H"))
    ASEAtomsData.create(str(tmp_path / "static.db"), distance_unit="Ang", property_unit_dict={"energy": "eV"})
    for name in ("absent.db", "text.db", "plain.db", "static.db", "."):
        code, out, err = spkdt("check", tmp_path / name)
        assert (code, out) == (2, "")
        assert err.startswith("spkdt: ")
        assert str(tmp_path) in err
        assert "Traceback" not in err


def test_a_thermostat_is_fine_if_it_is_replayed(tmp_path, crystal):
    atoms = crystal.repeat((2, 1, 1))
    atoms.calc = EMT()
    atoms.set_velocities(np.random.default_rng(0).normal(scale=0.03, size=(len(atoms), 3)))
    bath = {"temperature_K": 600.0, "friction": 0.02 / ase.units.fs, "rng": np.random.default_rng(1), "fixcm": False}
    frames = []
    for _ in Langevin(atoms, 1.0 * ase.units.fs, **bath).irun(60):
        frames.append(atoms.copy())
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        frames[-1].calc = SinglePointCalculator(frames[-1], **results)
    with TrajectoryWriter(tmp_path / "a.db") as writer:
        writer.add("bath", frames, 1.0)
    code, out, _ = spkdt("check", tmp_path / "a.db")
    assert code == 1
    assert "data.replay_kicks=true" in out
    code, out, _ = spkdt("check", tmp_path / "a.db", "--replay-kicks")
    assert code == 0
    assert out.rstrip().endswith("1 trajectory, 61 frames: ok")
