"""Errors of `spktrain` and `spkmd`: what a user can mend is a message, a bug keeps its traceback. Failed starts."""

import os
import sys
from pathlib import Path

import ase.io
import h5py
import numpy as np
import pytest
import schnetpack.cli
from ase import Atoms
from helpers.programs import spkmd
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from schnetpack.md.data import HDF5Loader

from spk_dt.folders.run_folder import RunFolder
from spk_dt.folders.user_errors import message_for_user
from spk_dt.md import restart
from spk_dt.training import Scheduled

LJ = ("calculator=lj", "calculator/neighbor_list=matscipy")
HDF5 = "[checkpoint,hdf5]"


@pytest.fixture(autouse=True)
def folder(quiet_hydra, tmp_path, monkeypatch):
    """As for users, in a folder with a cluster."""
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    atoms = Atoms("Ar2", positions=[[0.0, 0.0, 0.0], [3.7, 0.1, 0.0]])
    ase.io.write("start.traj", atoms)
    return tmp_path


def spktrain(*arguments):
    """The program, with Hydra's part of it: what it leaves with."""
    here, argv = Path.cwd(), sys.argv
    GlobalHydra.instance().clear()
    sys.argv = ["spktrain", *arguments]
    try:
        with pytest.raises(SystemExit) as end:
            schnetpack.cli.train()
    finally:
        sys.argv = argv
        os.chdir(here)
    return end.value.code


QUIET = ("experiment=dt_egnn", "print_config=false", "run.id=one")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=trajectory", "data.datapath=none.db"], "none.db"),
        (["+callbacks.curriculum.lenght=3"], "unexpected keyword argument 'lenght'"),
        (["data=trajectory"], "Missing mandatory value: data.datapath"),
    ],
)
def test_what_a_user_can_mend(overrides, message, capsys):
    end = spktrain(*QUIET, *overrides)
    assert end.startswith("spktrain: ")
    assert message in end
    assert end.endswith("\n(HYDRA_FULL_ERROR=1 spktrain ... shows where this was raised.)")
    assert "Traceback" not in capsys.readouterr().err


def test_completion_of_hydra(monkeypatch, capsys):
    """The shell asks the program, as `spktrain -sc install=bash` tells it to."""
    line = "spktrain experiment=dt_eg"
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    monkeypatch.setattr(sys, "argv", ["spktrain", "-sc", "query=bash"])
    schnetpack.cli.train()
    assert set(capsys.readouterr().out.split()) == {"experiment=dt_egnn", "experiment=dt_egnn_paper"}


def test_a_bug_keeps_its_traceback(monkeypatch, capsys):
    def broken(**kwargs):
        raise ValueError("nobody has foreseen this")  # not raised by us

    monkeypatch.setattr(schnetpack.cli, "seed_everything", broken)
    assert spktrain(*QUIET) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "in broken" in err


@pytest.mark.parametrize("number", ["???", 1])
def test_single_jobs_and_those_of_a_sweep(number):
    """A single one ends the program; the others of a sweep go on, and Hydra tells the message when all have run."""
    config = OmegaConf.create({"task": {}, "hydra": {"job": {"num": number}}})
    job = JobReturn(status=JobStatus.FAILED)
    job.return_value = error_of(lambda: Scheduled(3, begin=0.9, end=0.1))
    if number == 1:
        RunFolder().on_job_end(config, job)
        assert isinstance(job._return_value, CompactHydraException)  # of which Hydra tells the message alone
        assert str(job._return_value).startswith("spktrain: Scheduled(begin=0.9, end=0.1): shares")
    else:
        with pytest.raises(SystemExit, match=r"^spktrain: Scheduled"):
            RunFolder().on_job_end(config, job)


@pytest.mark.parametrize("setting", ["1", "0"])
def test_everything_on_demand(monkeypatch, setting):
    monkeypatch.setenv("HYDRA_FULL_ERROR", setting)
    job = JobReturn(status=JobStatus.FAILED)
    job.return_value = error_of(lambda: Scheduled(3, begin=0.9, end=0.1))
    config = OmegaConf.create({"task": {}, "hydra": {"job": {"num": 1}}})
    RunFolder().on_job_end(config, job)
    assert isinstance(job._return_value, ValueError) == (setting == "1")


def test_bugs_that_hydra_would_hide():
    """Of an error in the making of an object Hydra shows no traceback: the error itself comes out instead."""
    bug = {"_target_": "spk_dt.training.Scheduled", "max_length": 3, "begin": "none"}  # fails in a comparison
    job = JobReturn(status=JobStatus.FAILED)
    job.return_value = error_of(instantiate, bug)
    RunFolder().on_job_end(OmegaConf.create({"task": {}, "hydra": {"job": {"num": 1}}}), job)
    assert isinstance(job._return_value, TypeError)


def error_of(function, *args):
    with pytest.raises(Exception) as caught:  # noqa: PT011  # of any kind
        function(*args)
    return caught.value


def test_in_the_making_of_an_object():
    refused = {"_target_": "spk_dt.training.Scheduled", "max_length": 3, "begin": 0.9, "end": 0.1}
    assert message_for_user(error_of(instantiate, refused)).startswith("Scheduled(begin=0.9, end=0.1): shares")
    assert "spk_dt.training.Nothing" in message_for_user(error_of(instantiate, {"_target_": "spk_dt.training.Nothing"}))


def test_of_other_kinds():
    assert message_for_user(error_of(open, "none")) == "[Errno 2] No such file or directory: 'none'"
    assert message_for_user(error_of(np.zeros(3).reshape, 2)) is None
    assert message_for_user(error_of([].pop)) is None


# --------------------------------------------------------------------------------------------- a start that failed


def failed(*overrides, **kwargs):
    with pytest.raises(SystemExit) as end:
        spkmd(*LJ, *overrides, **kwargs)
    return end.value.code


def test_a_start_that_failed_makes_room(monkeypatch):
    """Before the calculator, in the first hook, and killed when all files are open: the same command works then."""
    message = failed("system.molecule_file=none.traj", callbacks=HDF5)
    assert message.startswith("spkmd: [Errno 2] No such file or directory")
    assert Path("out/.hydra").exists()
    with monkeypatch.context() as patched:
        patched.setattr(restart.FileLogger, "on_step_finalize", lambda *args: [].pop())
        assert failed(callbacks=HDF5) == 1
    assert Path("out/simulation.hdf5").exists()
    spkmd(*LJ, callbacks=HDF5)
    data = HDF5Loader("out/simulation.hdf5")
    assert data.entries == 2
    data.database.close()


def test_a_run_that_made_steps_does_not(monkeypatch):
    def interrupted(hook, simulator):
        if simulator.step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(restart.Checkpoint, "on_step_middle", interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt):
        spkmd(*LJ, "callbacks.hdf5.buffer_size=1", callbacks=HDF5, steps=9)
    assert "'out' holds a run already" in failed(callbacks=HDF5)
    with h5py.File("out/simulation.hdf5", "r", libver="latest", swmr=True) as file:
        assert file["molecules"].attrs["entries"] > 0


def test_of_a_run_that_was_to_keep_nothing_it_is_not_known():
    with pytest.raises(FileNotFoundError, match="checkpoint"):  # which is not asked for
        spkmd(*LJ, callbacks="[tensorboard]")
    assert "'out' holds a run already" in failed(callbacks="[tensorboard]")
