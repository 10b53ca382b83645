"""The command ``spkdt``."""

import subprocess
import sys

import ase.io
import ase.units
import numpy as np
import pytest
from ase.db import connect
from helpers.programs import spkdt
from typer.main import get_command
from typer.testing import CliRunner

from spk_dt.cli import app
from spk_dt.cli.app import ORDER
from spk_dt.data import TrajectoryWriter
from spk_dt.data.embedded import SPLITS

EMT = "ase.calculators.emt:EMT"


def refused(*arguments):
    """The one line on stderr of a command that refuses its input."""
    code, out, err = spkdt(*arguments)
    assert code == 1
    assert out == ""
    assert err.startswith("spkdt: ")
    assert err.count("\n") == 1
    return err


def test_help_and_version_import_nothing_heavy():
    program = (
        "import sys; from spk_dt.cli import app; app(sys.argv[1:], standalone_mode=False);"
        "print(sorted({'torch', 'schnetpack', 'ase', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    for argument, expected in (("--help", "generate"), ("--version", "spk_dt 0.")):
        out = subprocess.run(
            [sys.executable, "-c", program, argument], capture_output=True, text=True, check=True
        ).stdout
        assert expected in out
        assert out.splitlines()[-1] == "[]"


def test_without_a_command_the_help_is_shown():
    _, out, err = spkdt()
    assert "frames" in out + err


def test_commands_are_in_the_order_of_the_work():
    shown = list(get_command(app).list_commands(None))
    assert [shown.index(name) for name in ("convert", "check", "frames", "evaluate", "certify", "export")] == sorted(
        shown.index(name) for name in ("convert", "check", "frames", "evaluate", "certify", "export")
    )
    assert set(shown) <= {name for names in ORDER.values() for name in names}, "a new command needs a place in ORDER"
    out = spkdt("--help")[1]
    lines = [" Data ", "│ check ", "│ evaluate ", " Other engines ", "│ export "]
    assert [out.index(line) for line in lines] == sorted(out.index(line) for line in lines)


def test_help_has_nothing_that_rich_takes_for_markup():
    """It leaves out what is in square brackets."""
    commands = get_command(app).commands.values()
    texts = [one.help for one in commands] + [p.help for one in commands for p in one.params]
    assert len(texts) > 100
    assert not [text for text in texts if text and "[" in text]


@pytest.mark.parametrize(
    ("typed", "offered"), [("c", {"convert", "check", "certify"}), ("evaluate --spl", {"--split"})]
)
def test_completion(typed, offered):
    words = f"spkdt {typed}"
    env = {"_SPKDT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    result = CliRunner().invoke(app, env=env, prog_name="spkdt")
    assert set(result.stdout.split()) == offered


def test_generate_makes_a_database_and_says_where(tmp_path):
    path = tmp_path / "a.db"
    arguments = ("generate", path, "--trajectories", 1, "--steps", 2, "--reference", EMT)
    code, out, err = spkdt(*arguments)
    assert code == 0, err
    assert f"{path}: 1 trajectories of 3 frames" in out
    assert "a.generate" in out
    assert connect(path).count() == 3
    assert "a.db' exists" in refused(*arguments)


def test_generate_refuses_in_one_line(tmp_path):
    assert "'nonsense' is not the name of a calculator" in refused(
        "generate", tmp_path / "a.db", "--reference", "nonsense"
    )
    assert "no module 'nowhere'" in refused("generate", tmp_path / "a.db", "--reference", "nowhere:Calculator")
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_is_no_user_error_keeps_its_traceback(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("defect")

    monkeypatch.setattr("spk_dt.labels.generate.generate", fail)
    result = CliRunner().invoke(app, ["generate", str(tmp_path / "a.db")])
    assert isinstance(result.exception, RuntimeError)


@pytest.mark.parametrize(("name", "digits"), [("a.extxyz", 1e-8), ("a.traj", 1e-15)])
def test_frames_of_a_partition(tmp_path, database, name, digits):
    path = tmp_path / "sub" / name
    code, out, err = spkdt("frames", path, "--data", database, "--split", "train", "--number", 2, "--frame", 7)
    assert code == 0, err
    assert "run_0 (7), run_2 (7)" in out
    frames = ase.io.read(path, ":")
    assert [atoms.info["trajectory"] for atoms in frames] == ["run_0", "run_2"]
    for atoms, index in zip(frames, (7, 57), strict=True):
        row = connect(database).get(index + 1)
        np.testing.assert_allclose(atoms.positions, row.positions, rtol=0, atol=digits)
        np.testing.assert_allclose(atoms.get_velocities() * ase.units.fs, row.data["velocities"], rtol=0, atol=digits)
        np.testing.assert_allclose(atoms.get_forces(), row.data["forces"], rtol=0, atol=digits)
        assert atoms.get_potential_energy() == pytest.approx(row.data["energy"][0], rel=1e-14)
        np.testing.assert_array_equal(atoms.cell, row.cell)
        assert atoms.pbc.tolist() == row.pbc.tolist()


def test_frames_of_a_database_without_a_split(tmp_path, mixed_database):
    assert spkdt("frames", tmp_path / "a.traj", "--data", mixed_database)[0] == 0
    assert [len(atoms) for atoms in ase.io.read(tmp_path / "a.traj", ":")] == [6, 4, 8]


def test_frames_keep_masses(tmp_path, cluster, make_trajectory):
    frames = make_trajectory(cluster, 1, 0.5, 0)
    for atoms in frames:
        atoms.set_masses([2.014 if z == 1 else None for z in atoms.numbers])
    with TrajectoryWriter(tmp_path / "heavy.db") as writer:
        writer.add("run", frames, 0.5)
    assert spkdt("frames", tmp_path / "a.extxyz", "--data", tmp_path / "heavy.db")[0] == 0
    read = ase.io.read(tmp_path / "a.extxyz")
    np.testing.assert_array_equal(read.get_masses()[-2:], 2.014)
    np.testing.assert_allclose(read.get_velocities(), frames[0].get_velocities(), atol=1e-7)


def test_frames_of_the_embedded_data(tmp_path):
    code, _, err = spkdt("frames", tmp_path / "a.extxyz")
    assert code == 0, err
    frames = ase.io.read(tmp_path / "a.extxyz", ":")
    assert tuple(atoms.info["trajectory"] for atoms in frames) == SPLITS["test"]
    for atoms in frames:
        velocity = atoms.get_velocities()[-2:].mean(axis=0)
        assert atoms.get_masses()[-1] * velocity @ velocity == pytest.approx(0.125, rel=1e-5)  # eV
    assert "exists" in refused("frames", tmp_path / "a.extxyz")


def test_frames_refusals(tmp_path, database):
    assert "absent.db'" in refused("frames", tmp_path / "a.extxyz", "--data", tmp_path / "absent.db")
    assert "no partition 'holdout'; it has train, val, test" in refused(
        "frames", tmp_path / "a.extxyz", "--data", database, "--split", "holdout"
    )
    assert "has 1 trajectories for 'test'" in refused(
        "frames", tmp_path / "a.extxyz", "--data", database, "--number", 2
    )
    assert "has frames 0 to 24" in refused("frames", tmp_path / "a.extxyz", "--data", database, "--frame", 25)
    assert "may not keep velocities" in refused("frames", tmp_path / "a.cif", "--data", database)
    with connect(tmp_path / "plain.db") as plain:
        plain.write(connect(database).get_atoms(1))
    assert "has no 'trajectories'" in refused("frames", tmp_path / "a.extxyz", "--data", tmp_path / "plain.db")
    assert not (tmp_path / "a.extxyz").exists()
