"""One process, and one thread, at a time."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import ase.io
import fasteners
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.other_process import Holder
from helpers.programs import spkdt

from spk_dt.data.embedded import H2Pd6Graphene
from spk_dt.evaluation.evaluate import evaluate
from spk_dt.folders.hold import LOCK, hold
from spk_dt.trajectories import TrajectoryWriter

BUSY = "works in 'x'; wait for it."
ADD = """
import sys
from pathlib import Path
from spk_dt.folders.hold import hold
for _ in range(60):
    with hold("lock", wait=True):
        number = int(Path("number").read_text())
        Path("number").write_text(str(number + 1))
"""


def test_another_process_is_refused_until_it_ends_however(tmp_path):
    file = tmp_path / "new" / "lock"
    other = Holder(file)
    for _ in range(2):  # to ask takes nothing from it
        with (
            pytest.raises(ValueError, match=rf"^another process \({other.pid} on .*\) works in 'x'"),
            hold(file, BUSY),
        ):
            pass
    other.kill()
    assert file.exists()
    with hold(file, BUSY):
        assert file.read_text().startswith(str(os.getpid()))
    assert not file.exists()


def test_threads_of_a_process(tmp_path):
    """The system does not tell them apart; the same folder by another name is the same."""
    (tmp_path / "link").symlink_to(tmp_path)
    inside, leave, order = threading.Event(), threading.Event(), []

    def first():
        with hold(tmp_path / "lock", BUSY):
            inside.set()
            leave.wait(60)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(60)
    with (
        pytest.raises(ValueError, match="another thread of this process works"),
        hold(tmp_path / "link" / "lock", BUSY),
    ):
        pass
    threading.Timer(0.1, leave.set).start()
    with hold(tmp_path / "link" / "lock", wait=True):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_none_is_let_in_by_a_file_that_is_about_to_go(tmp_path):
    """Files are removed by those who leave while others wait: numbers that are read, raised and written are not lost."""
    (tmp_path / "number").write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", ADD], cwd=tmp_path) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert (tmp_path / "number").read_text() == "180"
    assert not (tmp_path / "lock").exists()


def test_a_folder_that_is_moved_takes_its_lock_along(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    with hold(old / LOCK):
        old.rename(new)
        (old / LOCK).parent.mkdir()
        (old / LOCK).write_text("of another")
    assert (old / LOCK).read_text() == "of another"


def test_a_folder_made_for_the_lock_goes_if_it_is_empty(tmp_path):
    with hold(tmp_path / "empty" / LOCK):
        pass
    with hold(tmp_path / "used" / LOCK):
        (tmp_path / "used" / "file").touch()
    (tmp_path / "was_there").mkdir()
    with hold(tmp_path / "was_there" / LOCK):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["used", "was_there"]


def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch, caplog):
    def no_locks(lock):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fasteners.InterProcessLock, "trylock", no_locks)
    with hold(tmp_path / "lock", BUSY):
        pass
    assert "No locks available" in caplog.text
    assert "no other process" in caplog.text


# ------------------------------------------------------------------------------------------------- who writes to one place


def water(n):
    for i in range(n):
        atoms = molecule("H2O")
        atoms.set_velocities(np.zeros((3, 3)))
        atoms.calc = SinglePointCalculator(atoms, energy=float(i), forces=np.zeros((3, 3)))
        yield atoms


@pytest.mark.parametrize("resume", [True, False])
def test_databases(tmp_path, resume):
    """Also those that are not continued, which have one hidden file, too."""
    path = tmp_path / "a.db"
    other = Holder(tmp_path / ".a.part.lock")
    with pytest.raises(ValueError, match=r"another process .* writes '.*a\.db'"), TrajectoryWriter(path, resume=resume):
        pass
    other.kill()
    with TrajectoryWriter(path, resume=resume) as writer:
        writer.add("run", water(3), timestep_fs=0.5)
        with pytest.raises(ValueError, match="another thread"), TrajectoryWriter(path, resume=resume):
            pass
    assert [file.name for file in tmp_path.iterdir()] == ["a.db"]


def test_start_frames(tmp_path):
    other = Holder(tmp_path / ".start.traj.lock")
    assert "another process" in spkdt("frames", tmp_path / "start.traj", "--number", 1)[2]
    other.kill()
    assert spkdt("frames", tmp_path / "start.traj", "--number", 1)[0] == 0
    assert [file.name for file in tmp_path.iterdir()] == ["start.traj"]
    assert len(ase.io.read(tmp_path / "start.traj", ":")) == 1


def test_evaluations(pair_folder, pair_database):
    """The second is told so before it has looked at models, and writes nothing; a mistake leaves no folder."""
    out = Path("out")
    with pytest.raises(FileNotFoundError):
        evaluate(pair_database, {"none": "no_such_model"}, out)
    assert not out.exists()
    other = Holder(out / LOCK)
    with pytest.raises(ValueError, match=r"another process .* evaluates to 'out'"):
        evaluate(pair_database, {"none": "no_such_model"}, out)
    assert "another process" in spkdt("relabel", out, "--reference", "ase.calculators.emt:EMT")[2]
    assert [file.name for file in out.iterdir()] == [LOCK]
    other.kill()
    with pytest.raises(FileNotFoundError):  # the lock file that is left does not make the folder full
        evaluate(pair_database, {"none": "no_such_model"}, out)


def test_preparation_leaves_no_lock(embedded, tmp_path, monkeypatch):
    """Of data, of windows mapped from files, and of the partition."""
    monkeypatch.chdir(tmp_path)
    data = H2Pd6Graphene("data.db", 4, max_memory_gb=1e-9, num_workers=0, train_window=2, val_window=3)
    (tmp_path / "data.db").write_bytes(embedded.read_bytes())
    data.prepare_data()
    data.setup()
    assert (tmp_path / "split.npz").exists()
    assert (tmp_path / "data.frames").is_dir()
    assert not [path for path in tmp_path.rglob("*") if "lock" in path.name]
