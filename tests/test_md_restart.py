"""A simulation that was killed or interrupted and is restarted has the files of one that was not."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import ase.io
import h5py
import numpy as np
import pytest
import torch
from helpers.kills import in_fork
from helpers.pair_simulation import STEPS, comparison, simulator
from helpers.programs import spkmd
from schnetpack import units as spk_units
from schnetpack.md.data import HDF5Loader
from schnetpack.md.simulation_hooks import Checkpoint as SchNetPackCheckpoint
from schnetpack.md.simulation_hooks import LangevinThermostat, PropertyStream, SimulationHook

from spk_dt.data.start_frames import start_frames
from spk_dt.md import Checkpoint, FileLogger, MoleculeStream

pytestmark = pytest.mark.usefixtures("quiet_hydra")
CALLBACKS = "[checkpoint,hdf5,tensorboard,compare]"


class Snapshot(SimulationHook):
    """Copies the folder to ``killed`` in a step: what a kill at that moment leaves."""

    def __init__(self, step, moment):
        super().__init__()
        self.step = step
        setattr(self, moment, self.copy)

    def copy(self, simulator):
        if simulator.step + 1 == self.step:
            shutil.copytree(".", "killed")


class Interrupt(Snapshot):
    def copy(self, simulator):
        if simulator.step + 1 == self.step:
            raise KeyboardInterrupt


def hooks(data, every=1, first="checkpoint", compared=1):
    streams = [MoleculeStream(True), PropertyStream(["energy", "forces"])]
    logger = FileLogger("simulation.hdf5", 7, streams, every_n_steps=every, precision=64)
    writers = [Checkpoint("checkpoint.chk", 10), logger, comparison(data, every_n_steps=compared)]
    return writers if first == "checkpoint" else writers[::-1]


def restarted(hooks):
    """A simulator as `spkmd` makes it with ``restart=checkpoint.chk``."""
    run = simulator(hooks)
    run.restart_simulation(torch.load("checkpoint.chk", weights_only=False))
    return run.to(torch.float64)


def linked(monkeypatch, folder, name):
    """Go to a further folder for simulations."""
    (folder / name).mkdir()
    monkeypatch.chdir(folder / name)
    for file in ("start.extxyz", "exact"):
        Path(file).symlink_to(folder / file)


def content(folder="."):
    """Arrays of both files, as far as they are filled, and the time between entries."""
    with h5py.File(Path(folder, "simulation.hdf5")) as file:
        arrays = {name: file[name][: file[name].attrs["entries"]] for name in file}
        arrays["time_step"] = file["molecules"].attrs["time_step"]
    if Path(folder, "force_error.hdf5").exists():
        with h5py.File(Path(folder, "force_error.hdf5")) as file:
            arrays.update({name: file[name][:] for name in file})
            assert list(file.attrs["elements"]) == ["H", "Pd"]
    return arrays


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-10, atol=1e-10, err_msg=name)


def test_killed_program_goes_on(pair_folder, pair_database):
    """`spkmd`, killed for good: as if nothing had been, also in the eyes of a reader."""
    ase.io.write("start.traj", start_frames(pair_database)[:1])
    common = ("calculator.model_file=exact", "system/initializer=frames", f"callbacks.compare.data={pair_database}")
    spkmd(*common, "simulation_dir=whole", callbacks=CALLBACKS, steps=STEPS)
    command = [
        *(str(Path(sys.executable).with_name("spkmd")), "system.molecule_file=start.traj", *common),
        *("simulation_dir=out", f"callbacks={CALLBACKS}", f"dynamics.n_steps={STEPS}"),
        *("+callbacks.kill._target_=helpers.pair_simulation.Kill", "+callbacks.kill.step=27"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == -signal.SIGKILL, result.stderr
    with pytest.raises(OSError, match="already open for write"):
        h5py.File("out/simulation.hdf5", "a")
    spkmd(*common, "restart=out/checkpoint.chk", callbacks=CALLBACKS, steps=STEPS - 20)
    assert_same(content("out"), content("whole"))
    loader = HDF5Loader("out/simulation.hdf5")
    assert loader.entries == STEPS
    assert loader.time_step == pytest.approx(0.5 * spk_units.fs)
    loader.database.close()
    assert not list(Path("out").glob("*.part"))


@pytest.mark.slow
def test_a_run_that_is_alive_is_left_alone(pair_folder, pair_database):
    """Neither continued nor moved aside, until its process has ended, however that ends."""
    ase.io.write("start.traj", start_frames(pair_database)[:1])
    common = ("calculator.model_file=exact", "system/initializer=frames", "simulation_dir=out")
    command = [str(Path(sys.executable).with_name("spkmd")), "system.molecule_file=start.traj", *common]
    command += ["callbacks=[checkpoint,hdf5]", "callbacks.checkpoint.every_n_steps=5", "dynamics.n_steps=1000000"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not Path("out/checkpoint.chk").exists():
            assert process.poll() is None
            time.sleep(0.1)
        for option in ("restart=out/checkpoint.chk", "overwrite=true", "seed=1"):
            with pytest.raises(SystemExit, match="still going on in simulation_dir='out'"):
                spkmd(*common, option, callbacks="[checkpoint,hdf5]", steps=10)
        assert process.poll() is None
        assert not list(Path().glob("out.old*"))
    finally:
        process.kill()
        process.wait()
    spkmd(*common, "restart=out/checkpoint.chk", callbacks="[checkpoint,hdf5]", steps=10)
    assert content("out")["molecules"].shape[0] > 10


@pytest.mark.parametrize("moment", ["on_step_begin", "on_step_finalize"])
@pytest.mark.parametrize("first", ["checkpoint", "compare"])
@pytest.mark.parametrize(("every", "compared"), [(1, 1), (3, 2)])
def test_killed_at_any_moment(pair_folder, pair_database, monkeypatch, every, compared, first, moment):
    """Whatever the order of the hooks: before, between and after the writing of the checkpoint of step 20."""
    for step in (20, 21, 26):
        kill, settings = Snapshot(step, moment), {"every": every, "first": first, "compared": compared}
        simulator([*hooks(pair_database, **settings), kill]).simulate(STEPS)
        whole = content()
        assert len(whole["molecules"]) == -(-STEPS // every)
        monkeypatch.chdir("killed")
        done = torch.load("checkpoint.chk", weights_only=False)["step"]
        assert step - 12 < done < step
        restarted(hooks(pair_database, **settings)).simulate(STEPS - done)
        assert_same(content(), whole)
        monkeypatch.chdir(pair_folder)
        shutil.rmtree("killed")
        Path("simulation.hdf5").unlink()


@pytest.mark.parametrize("stop", [Snapshot, Interrupt])
def test_interrupted_with_a_thermostat(pair_folder, pair_database, monkeypatch, stop):
    """Twice stopped, by a kill and by Ctrl-C, and with the noise of the uninterrupted run."""

    def run(*more):
        torch.manual_seed(7)  # as `spkmd` does
        return [LangevinThermostat(300.0, 20.0), *hooks(pair_database), *more]

    linked(monkeypatch, pair_folder, "whole")
    simulator(run()).simulate(STEPS)
    whole = content()
    monkeypatch.chdir(pair_folder)

    def stopped(run):
        if stop is Snapshot:
            run.simulate(STEPS)
            monkeypatch.chdir("killed")
        else:
            with pytest.raises(KeyboardInterrupt):
                run.simulate(STEPS)
            run.simulator_hooks = torch.nn.ModuleList()
            gc.collect()  # as at the end of the program: closes its files

    stopped(simulator(run(stop(17, "on_step_finalize"))))
    stopped(restarted(run(stop(33, "on_step_finalize"))))
    done = torch.load("checkpoint.chk", weights_only=False)["step"]
    assert done == 30
    restarted(run()).simulate(STEPS - done)
    assert_same(content(), whole)


def test_branches_follow_the_seed(pair_folder, pair_database, monkeypatch):
    """In another folder than that of the checkpoint: files and random numbers of its own, to be continued in turn."""

    def run(*more):
        return [LangevinThermostat(300.0, 20.0), *hooks(pair_database, every=3), *more]

    simulator(run()).simulate(20)
    state, positions = torch.load("checkpoint.chk", weights_only=False), []
    for seed in (1, 2):
        linked(monkeypatch, pair_folder, f"{seed}")
        branch = simulator(run(Snapshot(33, "on_step_finalize")))
        branch.restart_simulation(state)
        torch.manual_seed(seed)
        branch.to(torch.float64).simulate(STEPS - 20)
        positions.append(branch.system.positions)
        whole = content()
        assert whole["step"].tolist() == list(range(21, STEPS + 1))
        monkeypatch.chdir("killed")
        restarted(run()).simulate(STEPS - 30)
        assert_same(content(), whole)
    assert (positions[0] - positions[1]).abs().max() > 1e-6


def test_restart_refuses_what_does_not_follow(pair_folder, pair_database, monkeypatch, caplog):
    simulator([*hooks(pair_database), Snapshot(33, "on_step_finalize")]).simulate(STEPS)
    ahead = torch.load("checkpoint.chk", weights_only=False)
    monkeypatch.chdir("killed")
    with pytest.raises(ValueError, match=r"1 steps and 0\.5 fs apart.* 2 steps and 1 fs"):
        restarted(hooks(pair_database, every=2)).simulate(1)
    assert "did not end properly" in caplog.text
    gap = restarted(hooks(pair_database))
    gap.restart_simulation(ahead)
    with pytest.raises(ValueError, match="has 30 entries of 'molecules', but 40 belong to the 40 steps"):
        gap.to(torch.float64).simulate(1)
    # a reader that holds the file, and a file that is none
    reader = subprocess.Popen(
        [sys.executable, "-c", "import h5py; file = h5py.File('simulation.hdf5'); print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    reader.stdout.readline()
    with pytest.raises(OSError, match=r"'simulation\.hdf5' is open in another program"):
        restarted(hooks(pair_database)).simulate(1)
    reader.communicate(b"\n")
    Path("simulation.hdf5").write_bytes(b"disk full")
    with pytest.raises(OSError, match=r"'simulation.hdf5' cannot be read .* another simulation_dir"):
        restarted(hooks(pair_database)).simulate(1)
    assert not list(Path().glob("*.part"))


def test_checkpoints_of_others_are_named(pair_folder, pair_database, caplog):
    simulator([SchNetPackCheckpoint("checkpoint.chk", 10)]).simulate(10)
    restarted(hooks(pair_database)[:1]).simulate(1)
    assert "'checkpoint.chk' was written by SchNetPack's own hook" in caplog.text


def test_one_command_begins_goes_on_and_ends(pair_folder, pair_database, capsys):
    """``restart=auto``: killed before the first checkpoint and after one, then done, and done once more."""
    ase.io.write("start.traj", start_frames(pair_database)[:1])
    common = ("calculator.model_file=exact", "system/initializer=frames", "+dynamics/thermostat=langevin")
    common = (*common, "callbacks.hdf5.buffer_size=2")  # entries before the first checkpoint
    spkmd(*common, "simulation_dir=whole", callbacks="[checkpoint,hdf5]", steps=STEPS)
    again = (*common, "restart=auto")
    kill = ("+callbacks.kill._target_=helpers.pair_simulation.Kill", "+callbacks.kill.step={}")

    def start(*more):
        return in_fork(partial(spkmd, *again, *more, callbacks="[checkpoint,hdf5]", steps=STEPS))[0]

    assert start(kill[0], kill[1].format(5)) == -signal.SIGKILL
    assert not Path("out/checkpoint.chk").exists()
    assert start(kill[0], kill[1].format(27)) == -signal.SIGKILL
    assert Path("out.old.1").is_dir()
    assert start() == 0
    assert_same(content("out"), content("whole"))
    before = Path("out/checkpoint.chk").read_bytes()
    with pytest.raises(SystemExit) as ended:
        spkmd(*again, callbacks="[checkpoint,hdf5]", steps=STEPS)
    assert ended.value.code == 0
    assert f"all {STEPS} steps of simulation_dir='out' are made" in capsys.readouterr().out
    assert Path("out/checkpoint.chk").read_bytes() == before
    refused = {
        "overwrite=true": "overwrite=true replaces it",
        "callbacks=[hdf5]": "name 'checkpoint' among the callbacks",
    }
    for option, words in refused.items():
        with pytest.raises(SystemExit, match=words):
            spkmd(*again, option, **({} if "=[" in option else {"callbacks": "[checkpoint,hdf5]"}))
    Path("out/checkpoint.chk").write_bytes(before[:100])
    with pytest.raises(SystemExit, match=r"'out/checkpoint\.chk' is no checkpoint of spkmd"):
        spkmd(*again, callbacks="[checkpoint,hdf5]")
