"""Hooks of ``spkmd``: comparison with a reference while running, and the end of runs that explode."""

import re
from pathlib import Path

import ase.io
import ase.units
import h5py
import numpy as np
import pytest
import torch
from helpers.pair_potential import pair_model, pair_trajectory, tetrahedron
from helpers.pair_simulation import STEPS, comparison, simulator
from helpers.programs import spkmd
from schnetpack.md import UniformInit
from schnetpack.md.data import HDF5Loader
from schnetpack.md.simulation_hooks import Checkpoint, FileLogger, PropertyStream, SimulationHook
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from spk_dt.data.start_frames import start_frames
from spk_dt.md import ExplodedError, MoleculeStream, StopExploded

pytestmark = pytest.mark.usefixtures("quiet_hydra")


def logger(name="simulation.hdf5", buffer_size=7):
    return FileLogger(name, buffer_size, [MoleculeStream(True), PropertyStream(["energy", "forces"])], precision=64)


def table(name="force_error.hdf5"):
    """The file as rows, one for each number."""
    with h5py.File(name) as file:
        step, time_fs, mae = (file[key][:] for key in ("step", "time_fs", "mae"))
        elements = list(file.attrs["elements"])
        assert len(file.attrs["trajectories"]) == mae.shape[1]
    return [
        {"step": step[i], "time_fs": time_fs[i], "molecule": str(m), "element": elements[e], "mae": mae[i, m, e]}
        for i, m, e in np.argwhere(np.isfinite(mae))
    ]


# --------------------------------------------------------------------------------------------------------- comparison


def test_comparison_ends_with_the_reference(pair_folder, pair_database):
    simulator([comparison(pair_database, log_file="logs")]).simulate(STEPS + 10)
    rows = table()
    assert list(rows[0]) == ["step", "time_fs", "molecule", "element", "mae"]
    for molecule, steps in (("0", STEPS), ("1", 15)):
        own = [row for row in rows if (row["molecule"], row["element"]) == (molecule, "H")]
        assert [int(row["step"]) for row in own] == list(range(steps + 1))
        np.testing.assert_allclose([row["time_fs"] for row in own], 0.5 * np.arange(steps + 1), atol=1e-9)
        assert max(float(row["mae"]) for row in own) < 1e-5  # eV/Å; the text file rounds
    events = EventAccumulator("logs")
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"force_error/H", "force_error/Pd"}
    assert [one.step for one in events.Scalars("force_error/H")] == list(range(STEPS + 1))


def test_comparison_is_that_of_the_stored_forces(pair_folder, pair_database):
    """Negative control, another model: the errors are those of the forces in the HDF5 file."""
    simulator([comparison(pair_database), logger()], "deep").simulate(STEPS)
    loader = HDF5Loader("simulation.hdf5")
    forces = loader.get_property("forces", atomistic=True, mol_idx=0)
    loader.database.close()
    reference = [frame.get_forces() for frame in pair_trajectory(tetrahedron(), STEPS, 0.5, 1)]
    expected = np.abs(forces - reference[1:])[:, :2].mean(axis=(1, 2))
    found = [float(row["mae"]) for row in table() if (row["molecule"], row["element"]) == ("0", "Pd")]
    np.testing.assert_allclose(found[1:], expected, rtol=1e-4, atol=1e-6)
    assert min(found) > 1e-3


def test_comparison_of_some_steps_and_after_a_restart(pair_folder, pair_database):
    simulator([comparison(pair_database, every_n_steps=5), Checkpoint("checkpoint.chk", 100)]).simulate(12)
    again = simulator([comparison(pair_database, every_n_steps=5)])
    again.restart_simulation(torch.load("checkpoint.chk", weights_only=False))
    again.to(torch.float64).simulate(STEPS)
    rows = [row for row in table() if (row["molecule"], row["element"]) == ("0", "H")]
    assert [int(row["step"]) for row in rows] == list(range(0, STEPS + 1, 5))
    assert max(float(row["mae"]) for row in rows) < 1e-5


def test_comparison_refuses_what_does_not_follow(pair_folder, pair_database):
    def refused(run, *words):
        with pytest.raises(ValueError, match=".*".join(words)):
            run.simulate(1)
        assert not Path("force_error.hdf5").exists()

    words = ("time step of 0.25 fs", "'long' one of 0.5 fs", "dynamics.integrator.time_step=0.5")
    refused(simulator([comparison(pair_database)], timestep_fs=0.25), *words)
    other = UniformInit(300.0, remove_center_of_mass=False, remove_translation=False, remove_rotation=False)
    refused(
        simulator([comparison(pair_database)], initializer=other), "does not start at the frames", "initializer=frames"
    )
    refused(simulator([comparison(pair_database)], n_replicas=2), "2 replicas")
    ase.io.write("one.extxyz", start_frames(pair_database)[:1])
    refused(simulator([comparison(pair_database)], file="one.extxyz"), "other atoms")


def test_comparison_needs_the_origin_of_frames(pair_folder, pair_database):
    with pytest.raises(FileNotFoundError, match="'embedded' stands for"):
        comparison("none.db")
    ase.io.write("start.extxyz", tetrahedron())
    with pytest.raises(ValueError, match=r"frame 0 of .* does not say which trajectory"):
        comparison(pair_database)
    atoms = tetrahedron()
    atoms.info = {"trajectory": "another", "frame": 0}
    ase.io.write("start.extxyz", atoms)
    with pytest.raises(ValueError, match="no trajectory 'another'; it has long, short"):
        comparison(pair_database)
    atoms.info = {"trajectory": "short", "frame": 16}
    ase.io.write("start.extxyz", atoms)
    with pytest.raises(ValueError, match=r"frame 16: trajectory 'short' .* has frames 0 to 15"):
        comparison(pair_database)


# --------------------------------------------------------------------------------------------------------- explosions


class Ended(SimulationHook):
    """A hook that fails at the end."""

    def on_simulation_end(self, simulator):
        Path("ended").touch()
        raise OSError("disk full")


def longest(data):
    """[STEPS + 1] longest distance in the first trajectory, Å."""
    return np.array([a.get_all_distances().max() for a in pair_trajectory(tetrahedron(), STEPS, 0.5, 1)])


def broken(folder, data, kick):
    """A model that breaks down after some steps of the first trajectory, and the first step where it does."""
    lengths = longest(data)
    limit = float(lengths[:12].max()) + 1e-4
    pair_model(folder / "brittle", breaks_beyond=limit, kick=kick)
    return int(np.argmax(lengths > limit))


@pytest.mark.parametrize("kick", [1e6, float("nan")])
def test_stopped_run_is_complete_until_there(pair_folder, pair_database, kick):
    step = broken(pair_folder, pair_database, kick)
    assert 12 <= step < STEPS
    # forces too large are there one step before they move anything; forces that are no numbers stop the step itself
    last = step if kick == 1e6 else step - 1
    reason = "would move" if kick == 1e6 else r"the force on atom \d \(..?\) is not finite"
    ase.io.write("start.extxyz", start_frames(pair_database)[:1])
    hooks = [logger(), Checkpoint("checkpoint.chk", 1000), StopExploded()]
    with pytest.raises(
        ExplodedError, match=f"molecule 0 has exploded in step {last + 1}, after {0.5 * last:g} fs.*{reason}"
    ):
        simulator(hooks, "brittle").simulate(STEPS)
    simulator([logger("whole.hdf5")]).simulate(last)
    stopped, whole = HDF5Loader("simulation.hdf5"), HDF5Loader("whole.hdf5")
    assert stopped.entries == whole.entries == last
    np.testing.assert_allclose(stopped.get_positions(), whole.get_positions(), rtol=0.0, atol=1e-12)
    state = torch.load("checkpoint.chk", weights_only=False)
    assert state["step"] == last
    np.testing.assert_array_equal(state["system"]["positions"][0], stopped.get_positions()[-1])
    np.testing.assert_allclose(
        state["system"]["momenta"][0] / state["system"]["masses"][0], stopped.get_velocities()[-1], rtol=1e-12
    )
    assert all(torch.isfinite(state["system"][key]).all() for key in ("positions", "momenta"))
    for loader in (stopped, whole):
        loader.database.close()


def test_all_hooks_are_told_even_if_one_fails(pair_folder, pair_database):
    step = broken(pair_folder, pair_database, 1e6)
    ase.io.write("start.extxyz", start_frames(pair_database)[:1])
    with pytest.raises(OSError, match="disk full") as caught:
        simulator([Ended(), logger(), StopExploded()], "brittle").simulate(STEPS)
    assert isinstance(caught.value.__context__, ExplodedError)
    assert Path("ended").exists()
    loader = HDF5Loader("simulation.hdf5")
    assert loader.entries == step
    loader.database.close()


def test_the_molecule_and_the_atom_are_named(pair_folder, pair_database):
    frames = start_frames(pair_database)
    velocities = frames[1].get_velocities()
    velocities[2] = [2.0 / (0.5 * ase.units.fs), 0.0, 0.0]  # 2 Å in a step
    frames[1].set_velocities(velocities)
    ase.io.write("start.extxyz", frames)
    match = r"molecule 1 has exploded in step 1, after 0 fs: atom 2 \(H\) would move 2 Å in one step \(limit 0.5\)"
    with pytest.raises(ExplodedError, match=match):
        simulator([StopExploded()]).simulate(3)
    simulator([StopExploded(max_displacement=None, max_temperature=None)]).simulate(3)


def test_temperature(pair_folder, pair_database):
    run = simulator([StopExploded(max_temperature=1e4)])
    run.system.momenta = 10.0 * run.system.momenta
    kelvin = run.system.temperature.max().item()
    assert 1e4 < kelvin < 1e6
    with pytest.raises(ExplodedError, match=re.escape(f"in step 1, after 0 fs: it is at {kelvin:.3g} K (limit 10000)")):
        run.simulate(3)


def test_a_sound_run_is_not_touched(pair_folder, pair_database):
    whole, watched = simulator([]), simulator([StopExploded()])
    whole.simulate(STEPS)
    watched.simulate(STEPS)
    assert torch.equal(whole.system.positions, watched.system.positions)
    assert torch.equal(whole.system.momenta, watched.system.momenta)


# ------------------------------------------------------------------------------------------------------------- program


def test_program_stops_and_leaves_its_files(pair_folder, pair_database, monkeypatch):
    """`spkmd` with all callbacks: exit code, message, and what is in the folder."""
    monkeypatch.delenv("HYDRA_FULL_ERROR")  # as for users
    step = broken(pair_folder, pair_database, 1e6)
    ase.io.write("start.traj", start_frames(pair_database)[:1])
    with pytest.raises(SystemExit, match=r"^spkmd: molecule 0 has exploded.*\n\(HYDRA_FULL_ERROR=1 spkmd"):
        spkmd(
            *("calculator.model_file=brittle", "system/initializer=frames", f"callbacks.compare.data={pair_database}"),
            callbacks="[checkpoint,hdf5,tensorboard,compare,stop_exploded]",
            steps=10 * STEPS,
        )
    out = pair_folder / "out"
    loader = HDF5Loader(str(out / "simulation.hdf5"))
    assert loader.entries == step
    rows = [row for row in table(out / "force_error.hdf5") if (row["molecule"], row["element"]) == ("0", "H")]
    assert [int(row["step"]) for row in rows] == list(range(step + 1))
    assert max(float(row["mae"]) for row in rows[:step]) < 1e-9
    state = torch.load(out / "checkpoint.chk", weights_only=False)
    assert state["step"] == step
    np.testing.assert_array_equal(state["system"]["positions"][0], loader.get_positions()[-1])
    assert np.isfinite(loader.get_velocities()).all()
    loader.database.close()
    assert list((out / "logs").glob("events*"))
