"""Two trainings in one run folder: the second is refused while the first runs, and changes nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import schnetpack.cli
from helpers.other_process import Holder
from helpers.programs import HYDRA  # noqa: F401  # imports both programs of SchNetPack, which register the same resolvers
from hydra.core.global_hydra import GlobalHydra

from spk_dt.folders.hold import LOCK
from spk_dt.folders.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("quiet_hydra")

RUN = Path("runs", "one")
#: ours, and SchNetPack's own
EXPERIMENTS = ["dt_egnn", "static_painn", "qm9_atomwise", "md17"]


class Started(Exception):
    """A training was let into its folder, and has written its config."""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Trainings begin, and end where SchNetPack has dealt with config.yaml and seeds."""
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))

    def begun(**kwargs):
        raise Started

    monkeypatch.setattr(schnetpack.cli, "seed_everything", begun)
    return tmp_path


def spktrain(*arguments, experiment="dt_egnn", program=schnetpack.cli.train):
    """The program, in this process, with Hydra's part of it."""
    here, argv = Path.cwd(), sys.argv
    GlobalHydra.instance().clear()
    sys.argv = ["spktrain", *arguments, f"experiment={experiment}"] if experiment else ["spkpredict", *arguments]
    try:
        program()
    finally:
        sys.argv = argv
        os.chdir(here)


def content(folder=Path("runs")):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")) if path.is_file()}


def trained():
    """What a training leaves in its folder."""
    with pytest.raises(Started):
        spktrain("run.id=one")
    (RUN / "checkpoints").mkdir()
    (RUN / "checkpoints" / "last.ckpt").write_bytes(b"weights")
    names = {str(path.relative_to(RUN)) for path in RUN.rglob("*") if path.is_file()}
    assert names == {"config.yaml", "cli.log", "checkpoints/last.ckpt"}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_second_is_refused_and_changes_nothing(experiment):
    trained()
    with Holder(RUN / LOCK) as other:
        before = content()
        message = rf"spktrain: another process \({other.pid} on .*still training in .*runs/one.*run\.id"
        for arguments in (["run.id=one"], ["run.id=x", "hydra.run.dir=runs/../runs/one"]):
            with pytest.raises(SystemExit, match=message):
                spktrain(*arguments, experiment=experiment)
        assert content() == before
    assert (RUN / LOCK).exists()  # the other was killed; its lock file is no obstacle
    with pytest.raises(Started):
        spktrain("run.id=one", experiment=experiment)
    assert (RUN / "config.old.1.yaml").exists()
    assert not (RUN / LOCK).exists()


def test_both_pass_the_first_look(monkeypatch):
    """One that begins at the same moment is refused when it has come to the folder, with nothing but its log opened."""
    trained()
    monkeypatch.setattr(RunFolder, "look", lambda self, configs: None)
    with Holder(RUN / LOCK):
        before = content()
        with pytest.raises(SystemExit, match="still training"):
            spktrain("run.id=one")
        assert {path: data for path, (data, _) in content().items()} == {
            path: data for path, (data, _) in before.items()
        }
    with pytest.raises(Started):
        spktrain("run.id=one")


@pytest.mark.slow
def test_a_training_holds_its_folder(monkeypatch):
    """From before SchNetPack's function begins until it ends: seen by the whole program in another process."""
    found = []

    def second(**kwargs):
        before = content()
        command = [
            str(Path(sys.executable).with_name("spktrain")),
            "experiment=qm9_atomwise",
            f"hydra.run.dir={Path.cwd()}",
        ]
        found.append(subprocess.run(command, capture_output=True, text=True, timeout=300))
        assert content() == before
        raise Started

    monkeypatch.setattr(schnetpack.cli, "seed_everything", second)
    with pytest.raises(Started):
        spktrain("run.id=one")
    assert found[0].returncode == 1
    assert f"spktrain: another process ({os.getpid()} on " in found[0].stderr
    assert "Traceback" not in found[0].stderr
    assert not (RUN / LOCK).exists()


@pytest.mark.parametrize(
    ("name", "value"), [("LOCAL_RANK", "1"), ("RANK", "3"), ("SLURM_PROCID", "2"), ("NODE_RANK", "1")]
)
def test_processes_of_one_training_share_its_folder(monkeypatch, name, value):
    trained()
    with Holder(RUN / LOCK):
        for rank, expected in (("0", SystemExit), (value, Started)):
            monkeypatch.setenv(name, rank)
            with pytest.raises(expected):
                spktrain("run.id=one")


def test_several_processes_begin_at_the_same_moment(monkeypatch):
    """The first one writes the log, and the folder of the data is there before SchNetPack makes it twice."""
    trained()
    assert not Path("data").exists()
    lines = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(Started):
            spktrain("run.id=one")
        assert Path("data").is_dir()
        lines.append((RUN / "cli.log").read_text())
    assert "Running on host" in lines[0]
    assert lines[0] == lines[1]


def test_prediction_is_no_training():
    """It runs in the folder of the model, which may still be trained."""
    trained()
    arguments = ["datapath=none.db", "modeldir=runs/one", "outputdir=out", "cutoff=5.0"]
    with Holder(RUN / LOCK), pytest.raises(Exception, match=r"none\.db"):
        spktrain(*arguments, experiment=None, program=schnetpack.cli.predict)


def test_jobs_of_a_sweep():
    """Two in one folder are refused before the first begins, and so is one in a folder in which a training runs."""
    with pytest.raises(SystemExit, match=r"two jobs would train in the run folder '.*same'.*\$\{hydra:job\.num\}"):
        spktrain("-m", "globals.lr=1e-3,1e-4", "hydra.sweep.dir=runs", "hydra.sweep.subdir=same")
    assert not Path("runs").exists()
    sweep = ["-m", "run.id=zero,one", "hydra.sweep.dir=runs", "hydra.sweep.subdir=${run.id}"]
    with Holder(RUN / LOCK):
        with pytest.raises(SystemExit, match="another process"):
            spktrain(*sweep)
        assert not Path("runs", "zero").exists()
    with pytest.raises(Started):  # of the first job; Hydra gives its jobs' errors when all have run
        spktrain(*sweep)
    assert all(Path("runs", name, "config.yaml").exists() for name in ("zero", "one"))
    with pytest.raises(Started):
        spktrain("-m", "globals.lr=1e-3,1e-4")
    assert len(list(Path("multirun").rglob("config.yaml"))) == 2
    assert not list(Path().rglob(LOCK))


def test_an_interrupted_training_does_not_stand_in_the_way(monkeypatch):
    """In one process, as in a notebook: Hydra does not tell that a job has ended by Ctrl-C."""

    def interrupted(**kwargs):
        assert (Path.cwd() / LOCK).exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(schnetpack.cli, "seed_everything", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            spktrain("run.id=one")
