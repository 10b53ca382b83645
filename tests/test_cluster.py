"""The job script of the documentation: its syntax, and the settings of the training that it starts."""

import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
from helpers.programs import composed

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def script():
    assert "```{literalinclude} job.sh" in (DOCS / "cluster.md").read_text()
    return (DOCS / "job.sh").read_text()


def settings_of(script):
    """What ``#SBATCH`` asks for, and the overrides of the training."""
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(\S*)$", script, re.MULTILINE))
    words = shlex.split(script.replace("\\\n", " ").split("srun spktrain ")[1].split("&\n")[0])
    return asked, composed(*words)


def test_bash_reads_it(script):
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    broken = script.replace("trap '", "trap ", 1)
    assert subprocess.run(["bash", "-n"], input=broken, text=True, capture_output=True).returncode


def test_slurm_starts_as_many_processes_as_lightning_expects(script, quiet_hydra):
    asked, config = settings_of(script)
    assert int(asked["nodes"]) == config.trainer.num_nodes
    assert int(asked["ntasks-per-node"]) == int(asked["gpus-per-node"]) == config.trainer.devices
    assert config.trainer.strategy == "ddp"
    assert config.run.id == "first"  # else each process would draw a name of its own
    assert "requeue" in asked
    assert asked["signal"].startswith("B:")


def test_it_goes_back_to_the_queue_before_its_time_is_over(script, tmp_path):
    """With stand-ins for the programs of SLURM; the signal comes while the training runs."""
    for name, does in {
        "srun": f"touch {tmp_path}/started; exec sleep 3",
        "scontrol": f'echo "$@" >> {tmp_path}/asked',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "job.sh").write_text(script)
    job = subprocess.Popen(
        ["bash", tmp_path / "job.sh"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "4711", "PWD": str(tmp_path)},
    )
    while not (tmp_path / "started").exists():
        assert job.poll() is None
        time.sleep(0.01)
    job.send_signal(signal.SIGUSR1)
    job.wait(20)
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
