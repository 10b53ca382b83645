"""Labels by workers of dask and of submitit: the same labels, one lost for each worker that dies or hangs, and refusals."""

import logging
import threading
import time
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from types import SimpleNamespace

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from helpers.programs import spkdt
from helpers.reference_programs import FAR

from spk_dt.labels import remote_process
from spk_dt.labels.pools import check_pool
from spk_dt.labels.reference_process import NoLabelError, reference_processes
from spk_dt.labels.relabel import relabel
from spk_dt.training import Labelling

PROGRAMS = "helpers.reference_programs"
POOLS = ["dask", "submitit:cluster=local"]


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    moved = [bulk("Cu", cubic=True) for _ in range(8)]
    for atoms in moved:
        atoms.positions += 0.1 * rng.standard_normal((4, 3))
    return moved


def right(frames, without=()):
    found = []
    for i, atoms in enumerate(frames):
        if i not in without:
            atoms = atoms.copy()
            atoms.calc = EMT()
            found.append(atoms.get_forces())
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize("pool", POOLS)
def test_who_dies_or_hangs_costs_one_label(pool, frames, tmp_path, monkeypatch, caplog):
    """A calculation that kills itself, one that sleeps for ever, one that takes its worker along; all write files."""
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    for i, how in {1: 2, 3: 3, 5: 4}.items():
        frames[i].positions[0, 0] = how * FAR
    scratch = tmp_path / "scratch"
    labels = relabel(
        frames, f"{PROGRAMS}:MisbehavingProgram", tmp_path / "a.jsonl", 2, scratch=scratch, time_limit=5.0, pool=pool
    )
    assert sorted(labels.failures) == ["1", "3", "5"]
    assert "died of SIGKILL" in labels.failures["1"]
    assert "did not finish within 5 s" in labels.failures["3"]
    assert "has died, and so has another one before" in labels.failures["5"]
    assert sorted((tmp_path / "count").read_text()) == list("ddssww")
    others = [i for i in range(8) if i not in (1, 3, 5)]
    np.testing.assert_allclose([labels.forces[i] for i in others], right(frames, (1, 3, 5)), atol=1e-12)
    for i in (1, 3, 5):
        assert f"geometry '{i}' has no label" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("pool", POOLS)
def test_trajectories_are_those_of_processes_here(pool, tmp_path, monkeypatch):
    """Step by step with one calculator, which goes on from its last geometry."""
    monkeypatch.chdir(tmp_path)
    atoms = bulk("Cu", cubic=True)
    ase.io.write("start.xyz", atoms)
    made = {}
    for name, option in {"here": "processes", "there": pool}.items():
        code, _, error = spkdt(
            "generate", "start.xyz", f"{name}.db", "--reference", "ase.calculators.emt:EMT", "--temperature", 300,
            "--trajectories", 2, "--steps", 5, "--processes", 2, "--pool", option,
        )  # fmt: skip
        assert code == 0, error
        made[name] = [one.positions for one in ase.io.read(f"{name}.db", ":")]
    np.testing.assert_array_equal(made["here"], made["there"])
    assert np.abs(made["here"][1] - made["here"][0]).max() > 1e-4


@pytest.mark.slow
def test_a_scheduler_by_its_address(frames, tmp_path):
    from distributed import LocalCluster

    with LocalCluster(1, threads_per_worker=1, memory_limit=0, dashboard_address=None) as cluster:
        address = f"dask:{cluster.scheduler_address}"
        labels = relabel(
            frames[:3], "ase.calculators.emt:EMT", tmp_path / "a.jsonl", 3, pool=address
        )  # more than there are
    np.testing.assert_allclose(labels.forces, right(frames[:3]), atol=1e-12)
    with pytest.raises(ValueError, match=r"dask:tcp://127.0.0.1:1: there is no scheduler of dask .*'dask scheduler'"):
        relabel(frames, "ase.calculators.emt:EMT", tmp_path / "b.jsonl", pool="dask:tcp://127.0.0.1:1")


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        ("slurm", "--pool slurm: there is no such pool. Take one of these: processes"),
        ("processes:4", "there is no such pool"),
        ("dask:", "there is no such pool"),
        ("submitit:long", "'long' is not NAME=VALUE. Write, for example, submitit:slurm_partition=long"),
    ],
)
def test_refusals(pool, said, frames, tmp_path):
    with (
        pytest.raises(ValueError, match="^" + said.replace(".", r"\."))
        if said.startswith("--")
        else pytest.raises(ValueError, match=said.replace(".", r"\."))
    ):
        check_pool(pool)
    with pytest.raises(ValueError, match=f"--pool {pool}"):
        relabel(frames, "ase.calculators.emt:EMT", tmp_path / "a.jsonl", pool=pool)
    assert not (tmp_path / "a.jsonl").exists()
    with pytest.raises(ValueError, match=f"callbacks.on_policy.labels.pool {pool}"):
        Labelling("ase.calculators.emt:EMT", pool=pool)


class Threads:
    """Workers of a pool that are threads of the test."""

    host, local = "127.0.0.1", True

    def __init__(self, work):
        self.work, self.n = work, 0

    def submit(self, function, *arguments):
        self.n += 1
        thread = threading.Thread(target=self.work, args=(self.n, *arguments), daemon=True)
        thread.start()
        return SimpleNamespace(ended=lambda: None if thread.is_alive() else "is over", cancel=lambda: None)


def with_workers(monkeypatch, work):
    jobs = Threads(work)

    @contextmanager
    def jobs_of(*_):
        yield jobs

    monkeypatch.setattr(remote_process, "jobs_of", jobs_of)
    monkeypatch.setattr(remote_process, "_LOOK", 0.02)
    monkeypatch.setattr(remote_process, "_FAREWELL", 0.5)
    return jobs


def test_a_lost_worker_is_replaced_and_its_label_tried_once_more(frames, monkeypatch, caplog):
    """The first worker is lost at its first label, and strangers are not let in."""

    def work(n, address, key, number, *_):
        if n == 1:
            with pytest.raises(AuthenticationError):
                Client(address, authkey=b"another")
        with suppress(EOFError, OSError), Client(address, authkey=key) as connection:
            connection.send((number, "somewhere"))
            while True:
                method, arguments = connection.recv()
                if n == 1 or (n > 2 and len(arguments[0]) == 3):
                    return
                connection.send((True, (method, len(arguments[0]), n)))

    jobs = with_workers(monkeypatch, work)
    with reference_processes("any:Thing", 1, pool="dask") as (process,), caplog.at_level(logging.WARNING):
        assert process.compute(frames[0]) == ("compute", 4, 2)
        process.rest()
        assert process.compute(frames[1]) == ("compute", 4, 2)
        assert "a label is tried once more, since its worker on somewhere has died" in caplog.text
        monkeypatch.setattr(jobs, "work", lambda n, *args: work(1, *args))
        process._workers.lose(process._worker)
        process._worker = None
        with pytest.raises(NoLabelError, match="its worker on somewhere has died, and so has another one before"):
            process.compute(frames[2])


def test_a_worker_that_hangs_is_given_up(frames, monkeypatch):
    monkeypatch.setattr(remote_process, "_GRACE", 0.1)

    def work(n, address, key, number, *_):
        with Client(address, authkey=key) as connection:
            connection.send((number, "somewhere"))
            time.sleep(5)

    with_workers(monkeypatch, work)
    began = time.monotonic()
    with reference_processes("any:Thing", 1, time_limit=0.1, pool="dask") as (process,):
        with pytest.raises(NoLabelError, match=r"has not answered within twice 0\.1 s"):
            process.compute(frames[0])
        process.stop()
        with pytest.raises(NoLabelError, match="was ended"):
            process.compute(frames[0])
    assert time.monotonic() - began < 4


def test_workers_that_cannot_start_end_it(frames, monkeypatch):
    jobs = with_workers(monkeypatch, lambda *_: None)
    submit = jobs.submit

    def failing(*arguments):
        job = submit(*arguments)
        job.ended = lambda: "failed: no module named spk_dt"
        return job

    jobs.submit = failing
    with (
        reference_processes("any:Thing", 2, pool="dask") as (process, _),
        pytest.raises(
            RuntimeError, match="no worker of the reference method can be started: the last one failed: no module"
        ),
    ):
        process.compute(frames[0])
