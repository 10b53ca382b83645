"""Reference trajectories from structures: interrupted, killed, failing, in several processes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.db import connect
from helpers.generation import (
    Fragile,
    InThisProcess,
    Pushed,
    Sites,
    WithoutTorch,
    assert_equal,
    columns,
    compute_here,
    crystal,
    name,
)

from spk_dt.labels.generate import Recipe, generate
from spk_dt.labels.generate_from import Protocol, generate_from
from spk_dt.labels.reference_process import NoLabelError
from spk_dt.trajectories.database import read_trajectories


@pytest.fixture
def here(monkeypatch):
    """The reference computes in this process."""
    compute_here(monkeypatch)


HOT = Protocol(300.0, 5.0, 2, 0.05, 150.0)  # Langevin dynamics: 30 steps that are not kept, then those that are


def names(path):
    return [trajectory.name for trajectory in read_trajectories(connect(path).metadata, str(path))]


PROGRAM = """
import sys
from helpers.generation import WithoutTorch, crystal, name
from spk_dt.labels.generate_from import Protocol, generate_from
structures = [crystal("Ar8"), crystal("Ne7", fixed=False)]
protocol = Protocol(300.0, 5.0, 2, 0.05, 150.0)
how = {"scratch": sys.argv[3], "n_processes": int(sys.argv[2])}
generate_from(structures, sys.argv[1], 60, protocol, name(WithoutTorch), 2, **how)
"""


@pytest.mark.slow
def test_killed_and_continued_in_any_number_of_processes_is_the_same(tmp_path):
    """Killed twice at random moments; random numbers of the thermostat and fixed atoms included."""
    path, folder, scratch, left = tmp_path / "killed.db", tmp_path / "killed.generate", tmp_path / "scratch", []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    for processes in (2, 1):
        wanted = len(left) + random.randint(1, 6)
        command = [sys.executable, "-c", PROGRAM, path, str(processes), scratch]
        with subprocess.Popen(command, env=environment) as running:
            while len(left := list(folder.glob("traj_*.traj"))) < wanted and running.poll() is None:
                time.sleep(0.01)
            time.sleep(random.uniform(0.0, 0.1))
            assert running.poll() is None
            running.send_signal(signal.SIGKILL)
        assert not path.exists()
        until = time.monotonic() + 10.0
        while [file for file in scratch.rglob("*") if file.is_file()] and time.monotonic() < until:
            time.sleep(0.05)  # processes end, and remove what they were at
        assert not [file for file in scratch.rglob("*") if file.is_file()]
    times = {file: file.stat().st_mtime_ns for file in folder.glob("traj_*.traj")}
    assert 2 <= len(times) < 20
    arguments = (60, HOT, name(WithoutTorch), 2)
    structures = [crystal("Ar8"), crystal("Ne7", fixed=False)]
    generate_from(structures, path, *arguments, n_processes=2)
    assert times == {file: file.stat().st_mtime_ns for file in times}  # nothing was made again
    generate_from(structures, tmp_path / "whole.db", *arguments)
    assert_equal(path, tmp_path / "whole.db")
    assert len(names(path)) == 4


def test_another_seed_gives_other_trajectories_and_each_is_different(here, tmp_path):
    for seed in (1, 2):
        generate_from([crystal()], tmp_path / f"{seed}.db", 4, Protocol(300.0), name(Sites), 2, seed)
    with pytest.raises(AssertionError):
        assert_equal(tmp_path / "1.db", tmp_path / "2.db")
    assert_equal(tmp_path / "1.db", tmp_path / "1.db")
    velocities = columns(tmp_path / "1.db")["velocities"]
    assert np.abs(velocities[0] - velocities[5]).max() > 1e-4


def test_more_and_fewer_steps_trajectories_and_structures(here, tmp_path):
    """Each is what it would have been at once; nothing of it is made again."""
    first, second = crystal("Ar8"), crystal("Ne7", fixed=False)
    generate_from([first, second], tmp_path / "whole.db", 50, HOT, name(Sites), 2)
    path = tmp_path / "a.db"
    for structures, steps, number in (([first], 30, 1), ([first, second], 50, 2)):
        generate_from(structures, path, steps, HOT, name(Sites), number)
        if steps == 30:
            assert len(connect(path)) == 16
            path.unlink()
    assert_equal(path, tmp_path / "whole.db")
    before = columns_of(path, "traj_01_01")
    path.unlink()
    generate_from([first], path, 24, HOT, name(Sites))
    for key, values in columns(path).items():
        assert np.array_equal(values, before[key][:13]), key


def columns_of(path, trajectory):
    record = next(one for one in read_trajectories(connect(path).metadata, str(path)) if one.name == trajectory)
    rows = [connect(path).get(i + 1) for i in record.frames]
    return {"positions": np.array([row.positions for row in rows])} | {
        key: np.array([row.data[key] for row in rows]) for key in ("energy", "forces", "velocities")
    }


@pytest.mark.parametrize("processes", [1, 2])
def test_a_failing_step_is_named_and_the_others_go_on(here, tmp_path, monkeypatch, processes):
    file, path = tmp_path / "fragile", tmp_path / "a.db"
    file.write_text("Ne8")
    monkeypatch.setenv("FRAGILE", str(file))
    arguments = ([crystal("Ne8"), crystal("Ar8")], path, 40, Protocol(300.0, 5.0), name(Fragile), 2)
    with pytest.raises(NoLabelError) as error:
        generate_from(*arguments, n_processes=processes)
    text = str(error.value)
    assert "2 of 4 trajectories could not be completed: " in text
    assert "\n" not in text
    for trajectory in ("traj_01_01", "traj_01_02"):
        assert f"{trajectory} at step 4: RuntimeError: SCF not converged" in text
    assert "The same command tries them again; --drop-failed leaves them out" in text
    assert not path.exists()
    pieces = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "a.generate").glob("*.traj")}
    assert sorted(pieces) == [f"traj_02_0{j}.0000{k}.traj" for j in (1, 2) for k in (0, 1)]

    generate_from(*arguments, n_processes=processes, drop_failed=True)
    assert names(path) == ["traj_02_01", "traj_02_02"]
    assert len(connect(path)) == 82
    path.unlink()
    file.unlink()
    generate_from(*arguments, n_processes=processes)
    assert names(path) == ["traj_01_01", "traj_02_01", "traj_01_02", "traj_02_02"]
    assert {name: (tmp_path / "a.generate" / name).stat().st_mtime_ns for name in pieces} == pieces


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("C31Pd6", r"2 of 2 trajectories could not be completed: relaxed at step \d: RuntimeError: SCF not converged"),
        ("C31H2Pd6", r"2 of 2 .*: traj_01 at step 4: .*; traj_02 at step 4: RuntimeError: SCF not converged"),
    ],
)
def test_a_failing_step_of_the_recipe_is_named_and_what_is_done_is_kept(here, tmp_path, monkeypatch, formula, message):
    (tmp_path / "fragile").write_text(formula)
    monkeypatch.setenv("FRAGILE", str(tmp_path / "fragile"))
    recipe = Recipe(relax_steps=8, equilibration_fs=1.0, start_interval_fs=1.0, steps=6)
    with pytest.raises(NoLabelError, match=message):
        generate(tmp_path / "a.db", recipe, 2, reference=name(Fragile))
    (tmp_path / "fragile").unlink()
    generate(tmp_path / "a.db", recipe, 2, reference=name(Fragile), n_processes=2)
    generate(tmp_path / "b.db", recipe, 2, reference=name(Fragile))
    assert_equal(tmp_path / "a.db", tmp_path / "b.db")


def test_all_failing_is_refused_and_fewer_steps_are_a_way_out(here, tmp_path, monkeypatch):
    """The fifth geometry of the second piece is step 25."""
    monkeypatch.setenv("FRAGILE", str(tmp_path / "fragile"))
    path = tmp_path / "a.db"
    arguments = ([crystal()], path)
    rest = (Protocol(300.0, 5.0), name(Fragile))
    generate_from(*arguments, 20, *rest)
    path.unlink()
    (tmp_path / "fragile").write_text("Ar8")
    with pytest.raises(NoLabelError, match=r"traj_01_01 at step 25: .*; --steps 20 writes what all of them have; or"):
        generate_from(*arguments, 60, *rest, drop_failed=True)
    generate_from(*arguments, 20, *rest)
    assert len(connect(path)) == 21


def test_energy_that_is_not_conserved_is_refused_and_named(here, tmp_path, monkeypatch):
    """Beyond omega dt = 2 velocity Verlet explodes; at a part of it, nothing is said."""
    light = crystal("H8", fixed=False)
    generate_from([light], tmp_path / "a.db", 200, Protocol(300.0, 4.0), name(Sites))
    with pytest.raises(
        NoLabelError, match=r"traj_01_01 at step \d+: the energy is not conserved, .* 15 fs is too long"
    ):
        generate_from([light], tmp_path / "b.db", 200, Protocol(300.0, 15.0), name(Sites))
    assert not (tmp_path / "b.db").exists()
    generate_from([light], tmp_path / "c.db", 200, Protocol(300.0, 4.0, 1, 0.1), name(Sites))  # a thermostat may


@pytest.mark.parametrize(("push", "said"), [(0.0, False), (0.4, True)])
def test_a_drift_is_named(here, tmp_path, monkeypatch, caplog, push, said):
    monkeypatch.setenv("PUSH", str(push))
    atoms = crystal("Ar8", fixed=False)
    atoms.positions -= 0.05
    atoms.set_velocities(0.05 * np.ones((8, 3)))  # along the push
    generate_from([atoms], tmp_path / "a.db", 20, Protocol(None, 2.0), name(Pushed))
    assert ("traj_01_01: the total energy drifts by" in caplog.text) == said


def test_an_interruption_ends_the_processes(here, tmp_path):
    def interrupt(trajectory, done, total):
        if done == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_from(
            [crystal(), crystal("Ne8")], tmp_path / "a.db", 40, HOT, name(Sites), progress=interrupt, n_processes=2
        )
    assert not (tmp_path / "a.db").exists()
    assert not (tmp_path / "a.generate" / "lock").exists()


def test_each_trajectory_has_a_process_of_its_own(here, tmp_path, monkeypatch):
    used, original = {}, InThisProcess.compute

    def compute(self, atoms, fresh=True):
        used.setdefault(str(atoms.symbols), set()).add(id(self))
        return original(self, atoms, fresh)

    monkeypatch.setattr(InThisProcess, "compute", compute)
    generate_from([crystal(), crystal("Ne8")], tmp_path / "a.db", 30, Protocol(300.0, 5.0), name(Sites), n_processes=8)
    assert len(used) == 2
    assert all(len(each) == 1 for each in used.values())
    assert used["Ar8"] != used["Ne8"]
