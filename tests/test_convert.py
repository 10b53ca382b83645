"""`spkdt convert`: what ends up in the database, what is refused, and that an interrupted conversion continues."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc

import ase.io
import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db import connect
from ase.io.extxyz import write_xyz
from helpers.database_content import assert_same, content
from helpers.programs import spkdt
from helpers.simulation_files import changed, write_dump, write_log, write_outcar, write_vasprun
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spk_dt.trajectories import TrajectoryWriter, part_file
from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.inputs import Reading

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def frames(crystal, make_trajectory):
    """Thirteen frames of a crystal that flies through its cell."""
    atoms = crystal.copy()
    frames = make_trajectory(atoms, 12, 0.5, 2)
    return flying(frames, [0.9, -0.7, 0.05], 0.5)


def flying(frames, velocity, timestep_fs):
    """Frames with a common velocity more, in Å/fs."""
    out = []
    for number, atoms in enumerate(frames):
        copy = atoms.copy()
        copy.positions += number * timestep_fs * np.array(velocity)
        copy.set_velocities(copy.get_velocities() + np.array(velocity) / ase.units.fs)
        copy.calc = SinglePointCalculator(copy, **atoms.calc.results)
        out.append(copy)
    return out


def bare(frames, wrap=False):
    """Frames without velocities, in the cell or not."""

    def change(atoms):
        del atoms.arrays["momenta"]
        if wrap:
            atoms.wrap()

    return changed(frames, change)


def write(path, frames):
    ase.io.write(path, frames)
    return path


def refused(tmp_path, message, *inputs, **options):
    """That a conversion is refused, and leaves nothing behind."""
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=message):
        convert(inputs, tmp_path / "refused.db", Reading(**options))
    assert {path.name for path in tmp_path.iterdir()} == before


# what is written


def test_all_that_a_traj_has_is_in_the_database(tmp_path, frames):
    for atoms in frames:
        atoms.set_masses([60.0, None, None, 65.0])
        atoms.positions[2], atoms.arrays["momenta"][2] = frames[0].positions[2], 0.0
        atoms.calc.atoms.positions[2] = frames[0].positions[2]
        atoms.set_constraint(FixAtoms([2]))
    out = tmp_path / "out.db"
    (found,) = convert([write(tmp_path / "run.traj", frames)], out, Reading(timestep_fs=0.5))
    read = content(out)
    assert (found.trajectory,) == tuple(read.trajectories)
    assert (found.trajectory.name, found.trajectory.velocities, found.formula, found.n_atoms) == (
        "run",
        "file",
        "Cu4",
        4,
    )
    np.testing.assert_array_equal(read.positions, [atoms.positions for atoms in frames])
    np.testing.assert_array_equal(read.forces, [atoms.calc.results["forces"] for atoms in frames])
    np.testing.assert_array_equal(read.energy, [atoms.calc.results["energy"] for atoms in frames])
    np.testing.assert_array_equal(read.masses, [atoms.get_masses() for atoms in frames])
    np.testing.assert_array_equal(read.cell, [atoms.cell.array for atoms in frames])
    expected = [atoms.arrays["momenta"] / atoms.get_masses()[:, None] * ase.units.fs for atoms in frames]
    np.testing.assert_allclose(read.velocities, expected, rtol=1e-14)
    assert "begun" not in read.keys
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize("wrap", [False, True])
def test_velocities_are_recovered_and_positions_unwrapped(tmp_path, frames, wrap):
    path = write(tmp_path / "run.traj", bare(frames, wrap))
    (found,) = convert([path], tmp_path / "out.db", Reading(timestep_fs=0.5))
    assert found.trajectory.velocities == "central differences"
    read = content(tmp_path / "out.db")
    expected = np.array([atoms.get_velocities() for atoms in frames]) * ase.units.fs
    np.testing.assert_allclose(read.velocities, expected, rtol=0.0, atol=1e-10)
    positions = np.array([atoms.positions for atoms in frames])
    np.testing.assert_allclose(read.positions - read.positions[0], positions - positions[0], rtol=0.0, atol=1e-10)
    assert np.ptp(read.positions[:, 0, 0]) > 5.0  # it did leave the cell


def test_without_unwrapping_the_velocities_would_be_wrong(tmp_path, frames):
    wrapped = changed(bare(frames, wrap=True), lambda atoms: atoms.set_pbc(False))
    convert([write(tmp_path / "run.traj", wrapped)], tmp_path / "out.db", Reading(timestep_fs=0.5))
    expected = np.array([atoms.get_velocities() for atoms in frames]) * ase.units.fs
    assert np.abs(content(tmp_path / "out.db").velocities - expected).max() > 1.0


def test_recover_velocities_ignores_those_of_the_file(tmp_path, frames):
    wrong = changed(frames, lambda atoms: atoms.set_velocities(2.0 * atoms.get_velocities()))
    path = write(tmp_path / "run.traj", wrong)
    convert([path], tmp_path / "out.db", Reading(timestep_fs=0.5, recover_velocities=True))
    expected = np.array([atoms.get_velocities() for atoms in frames]) * ase.units.fs
    np.testing.assert_allclose(content(tmp_path / "out.db").velocities, expected, rtol=0.0, atol=1e-10)


def test_save_every(tmp_path, crystal, make_trajectory):
    frames = make_trajectory(crystal, 24, 1.0, 3)
    path = write(tmp_path / "run.traj", bare(frames[::4], wrap=True))
    expected = np.array([atoms.get_velocities() for atoms in frames[::4]]) * ase.units.fs
    errors = []
    for name, timestep_fs, save_every in (("right", 1.0, 4), ("wrong", 4.0, None)):
        (found,) = convert([path], tmp_path / f"{name}.db", Reading(timestep_fs=timestep_fs, save_every=save_every))
        assert (found.trajectory.timestep_fs, found.trajectory.inner_steps) == (4.0, save_every or 1)
        errors.append(np.abs(content(tmp_path / f"{name}.db").velocities - expected).max())
    assert errors[0] < 1e-6
    assert errors[1] > 10.0 * errors[0]


@pytest.mark.parametrize("kind", ["extxyz", "vasprun.xml", "OUTCAR", "dump"])
def test_each_format_to_its_digits(tmp_path, frames, kind):
    path, options, digits = tmp_path / f"run.{kind}", {}, 2e-8
    if kind == "extxyz":
        write(path, frames)
        options = {"timestep_fs": 0.5}
    elif kind == "vasprun.xml":
        write_vasprun(path, frames)
    elif kind == "OUTCAR":
        write_outcar(path, frames)
        digits = 1e-5
    else:
        write_dump(path, frames)
        log = write_log(tmp_path / "log", [atoms.calc.results["energy"] for atoms in frames], 4)
        options, digits = {"lammps_logs": [log]}, 1e-10
    (found,) = convert([path], tmp_path / "out.db", Reading(**options))
    assert (found.trajectory.timestep_fs, found.trajectory.inner_steps) == (pytest.approx(0.5), 1)
    read = content(tmp_path / "out.db")
    positions = np.array([atoms.positions for atoms in frames])
    np.testing.assert_allclose(read.positions - read.positions[0], positions - positions[0], rtol=0.0, atol=10 * digits)
    expected = np.array([atoms.get_velocities() for atoms in frames]) * ase.units.fs
    np.testing.assert_allclose(read.velocities, expected, rtol=0.0, atol=10 * digits)
    np.testing.assert_allclose(read.forces, [atoms.calc.results["forces"] for atoms in frames], rtol=0.0, atol=digits)
    np.testing.assert_allclose(read.energy, [atoms.calc.results["energy"] for atoms in frames], rtol=0.0, atol=1e-8)


def test_the_free_energy_is_taken_and_this_is_said(tmp_path, frames):
    for atoms in frames:
        atoms.calc.results["free_energy"] = atoms.calc.results["energy"] - 0.25
    (found,) = convert([write(tmp_path / "run.traj", frames)], tmp_path / "out.db", Reading(timestep_fs=0.5))
    expected = [atoms.calc.results["free_energy"] for atoms in frames]
    np.testing.assert_array_equal(content(tmp_path / "out.db").energy, expected)
    assert any("free energy" in note for note in found.notes)


def test_frozen_atoms_rest_and_this_is_said(tmp_path, frames):
    for atoms in frames:
        atoms.positions[1] = frames[0].positions[1]
    (found,) = convert([write(tmp_path / "run.traj", bare(frames))], tmp_path / "out.db", Reading(timestep_fs=0.5))
    assert (content(tmp_path / "out.db").velocities[:, 1] == 0.0).all()
    (note,) = found.notes
    assert "never move: 1," in note
    assert "--fixed 1" in note


def test_repeated_frames_stay(tmp_path, frames):
    path = write(tmp_path / "run.traj", frames[:6] + frames[5:])
    (found,) = convert([path], tmp_path / "out.db", Reading(timestep_fs=0.5))
    assert found.trajectory.length == 14


def test_several_files_get_names_of_their_own(tmp_path, frames):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_outcar(tmp_path / folder / "OUTCAR", frames)
    paths = [tmp_path / "a" / "OUTCAR", tmp_path / "b" / "OUTCAR", write(tmp_path / "run.traj", frames)]
    found = convert(paths[:2], tmp_path / "two.db")
    assert [one.trajectory.name for one in found] == ["a_OUTCAR", "b_OUTCAR"]
    found = convert(paths, tmp_path / "out.db", Reading(timestep_fs=0.5))
    assert [one.trajectory.name for one in found] == ["a_OUTCAR", "b_OUTCAR", "run"]
    assert [(t.start, t.length) for t in content(tmp_path / "out.db").trajectories] == [(0, 13), (13, 13), (26, 13)]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(1, 5),
    st.integers(1, 4),
    st.floats(0.01, 10.0),
    st.integers(1, 20),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.integers(0, 10_000),
)
def test_any_trajectory_is_kept_exactly(tmp_path, n_frames, n_atoms, timestep_fs, save_every, pbc, seed):
    rng = np.random.default_rng(seed)
    numbers = rng.integers(1, 90, n_atoms)
    cell = 8.0 * np.eye(3) + rng.uniform(-1.0, 1.0, (3, 3))
    start, drift = rng.uniform(-20.0, 20.0, (n_atoms, 3)), rng.uniform(-0.5, 0.5, (n_atoms, 3))
    frames = []
    for k in range(n_frames):
        atoms = Atoms(numbers, positions=start + k * drift, cell=cell, pbc=pbc)
        atoms.set_momenta(rng.standard_normal((n_atoms, 3)))
        energy, forces = rng.standard_normal(), rng.standard_normal((n_atoms, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    out = tmp_path / "any.db"
    out.unlink(missing_ok=True)
    path = write(tmp_path / "any.traj", frames)
    (found,) = convert([path], out, Reading(timestep_fs=timestep_fs, save_every=save_every))
    assert found.trajectory.timestep_fs == timestep_fs * save_every
    read = content(out)
    np.testing.assert_array_equal(read.positions, [atoms.positions for atoms in frames])
    np.testing.assert_array_equal(read.forces, [atoms.calc.results["forces"] for atoms in frames])
    np.testing.assert_array_equal(read.energy, [atoms.calc.results["energy"] for atoms in frames])
    np.testing.assert_array_equal(read.pbc, [pbc] * n_frames)
    velocities = [atoms.get_velocities() * ase.units.fs for atoms in frames]
    np.testing.assert_allclose(read.velocities, velocities, rtol=1e-14)


# what is refused


def test_an_existing_database_is_not_touched(tmp_path, frames):
    path = write(tmp_path / "run.traj", frames)
    (tmp_path / "out.db").write_text("precious")
    with pytest.raises(FileExistsError, match=r"out\.db' exists"):
        convert([path], tmp_path / "out.db", Reading(timestep_fs=0.5))
    assert (tmp_path / "out.db").read_text() == "precious"


def test_the_time_step_must_be_known_and_without_contradiction(tmp_path, frames):
    path = write(tmp_path / "run.traj", frames)
    refused(tmp_path, r"run\.traj' does not say the time step.*--timestep-fs", path)
    refused(tmp_path, "a time step is positive", path, timestep_fs=-0.5)
    refused(tmp_path, "at least one step", path, timestep_fs=0.5, save_every=0)
    outcar = write_outcar(tmp_path / "OUTCAR", frames)
    refused(tmp_path, r"0\.5 fs between frames, but --timestep-fs 1 .* makes 1 fs", outcar, timestep_fs=1.0)
    refused(tmp_path, "has 1 steps between frames, but --save-every says 2", outcar, save_every=2)
    convert([outcar], tmp_path / "out.db", Reading(timestep_fs=0.5))


def test_options_and_files_that_do_not_go_together(tmp_path, frames):
    path = write(tmp_path / "run.traj", frames)
    for option in ("energy_key", "velocity_unit"):
        refused(tmp_path, f"--{option.replace('_', '-')} is for extxyz only", path, timestep_fs=0.5, **{option: "x"})
    refused(tmp_path, "--lammps-units is for lammps only", path, timestep_fs=0.5, lammps_units="metal")
    refused(tmp_path, "--lammps-log is given 1 times for 0", path, timestep_fs=0.5, lammps_logs=[path])
    refused(tmp_path, "given twice", path, tmp_path / "." / "run.traj", timestep_fs=0.5)
    with pytest.raises(FileNotFoundError, match="absent"):
        convert([tmp_path / "absent"], tmp_path / "out.db")


def spoil_order(atoms):
    atoms.numbers[:] = [46, 29, 29, 29]


def spoil_pbc(atoms):
    atoms.pbc = (True, True, False)


def spoil_masses(atoms):
    atoms.set_masses([60.0] * 4)


def spoil_momenta(atoms):
    del atoms.arrays["momenta"]


def spoil_forces(atoms):
    atoms.calc.results["forces"][2, 1] = np.nan


def jump(atoms):
    atoms.positions[3] += [0.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_order, "other atoms"),
        (spoil_pbc, "periodic along other"),
        (spoil_masses, "masses differ"),
        (spoil_momenta, r"has no velocities, the first frame has them.*--recover-velocities"),
        (spoil_forces, "forces is not finite"),
        (jump, r"atom 3 \(Cu\) is .* Å .* Frames are missing"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_frames_that_do_not_belong_together_are_named(tmp_path, frames, spoil, message):
    spoil(frames[5])
    path = write(tmp_path / "run.traj", changed(frames, lambda atoms: None))
    refused(tmp_path, rf"run\.traj', frame 5: .*{message}", path, timestep_fs=0.5)


def test_missing_results_and_bad_cells(tmp_path, frames):
    only_energy = [atoms.copy() for atoms in frames]
    for atoms in only_energy:
        atoms.calc = SinglePointCalculator(atoms, energy=0.0)
    refused(tmp_path, "frame 0: it has no forces", write(tmp_path / "run.traj", only_energy), timestep_fs=0.5)
    flat = changed(frames, lambda atoms: atoms.set_cell([3.6, 3.6, 0.0]))
    refused(tmp_path, "no volume", write(tmp_path / "run.traj", flat), timestep_fs=0.5)
    one = write(tmp_path / "run.traj", bare(frames)[:1])
    refused(tmp_path, r"run\.traj' has only one frame", one, timestep_fs=0.5)


def test_an_unfinished_run_is_refused_or_its_last_frame_dropped(tmp_path, frames):
    for path, text in (
        (write_outcar(tmp_path / "OUTCAR", frames), " POSITION"),
        (write_vasprun(tmp_path / "vasprun.xml", frames), "<calculation>"),
        (write(tmp_path / "run.extxyz", frames), "Lattice"),
    ):
        whole = path.read_text()
        path.write_text(whole[: whole.rindex(text) + 200])
        timestep_fs = 0.5 if path.suffix == ".extxyz" else None
        refused(tmp_path, rf"{path.name}' ends within frame 12: .*--drop-incomplete", path, timestep_fs=timestep_fs)
        out = tmp_path / f"{path.stem}.db"
        (found,) = convert([path], out, Reading(timestep_fs=timestep_fs, drop_incomplete=True))
        assert found.trajectory.length == 12
        assert "frame 12" in found.notes[0]
        path.write_text(whole[:40])
    refused(tmp_path, r"run\.extxyz' has no complete frame", path, timestep_fs=0.5, drop_incomplete=True)


# interruptions


class Stop(Exception):
    """Stands for whatever ends a program."""


@pytest.fixture
def small_commits(monkeypatch):
    monkeypatch.setattr(part_file, "COMMIT_EVERY", 4)


def stopping(name, n):
    def progress(trajectory, done, total):
        if (trajectory, done) == (name, n):
            raise Stop

    return progress


@pytest.fixture
def three(tmp_path, frames):
    """Three files, and the database of an uninterrupted conversion."""
    paths = [write(tmp_path / f"{name}.traj", bare(frames[i:], wrap=True)) for i, name in enumerate("abc")]
    convert(paths, tmp_path / "whole.db", Reading(timestep_fs=0.5))
    return paths


@pytest.mark.parametrize(("name", "n"), [("a", 1), ("a", 5), ("a", 13), ("b", 3), ("b", 12), ("c", 11)])
def test_an_interrupted_conversion_continues(tmp_path, three, small_commits, name, n):
    out = tmp_path / "out.db"
    for stop in (n, max(1, n - 2)):
        with pytest.raises(Stop):
            convert(three, out, Reading(timestep_fs=0.5), progress=stopping(name, stop))
    assert not out.exists()
    seen = []
    convert(
        three, out, Reading(timestep_fs=0.5), progress=lambda trajectory, done, total: seen.append((trajectory, done))
    )
    assert_same(out, tmp_path / "whole.db")
    assert list(tmp_path.glob(".*")) == []
    if name == "c":
        assert ("a", 3) not in seen  # complete trajectories are not read again


@pytest.mark.parametrize("change", ["option", "file", "order", "fewer"])
def test_what_was_begun_with_other_files_or_options_is_written_again(
    tmp_path, three, frames, small_commits, caplog, change
):
    out, options, paths = tmp_path / "out.db", {"timestep_fs": 0.5}, list(three)
    with pytest.raises(Stop):
        convert(paths, out, Reading(**options), progress=stopping("c", 8))
    if change == "option":
        options = {"timestep_fs": 0.25}
    elif change == "file":
        os.utime(write(three[1], bare(frames[3:])), ns=(1, 1))
    elif change == "order":
        paths = paths[::-1]
    else:
        paths = paths[:1]
    convert(paths, out, Reading(**options))
    assert ("was begun with other files or options" in caplog.text) == (change != "fewer")
    convert(paths, tmp_path / "expected.db", Reading(**options))
    assert_same(out, tmp_path / "expected.db")


def test_after_an_error_of_the_data_what_is_complete_is_kept(tmp_path, three, frames, small_commits):
    out, whole = tmp_path / "out.db", three[1].read_bytes()
    three[1].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError, match=r"b\.traj'.*trajectories before it .1. are kept in '.*\.out\.part\.db'.*goes on"
    ):
        convert(three, out, Reading(timestep_fs=0.5))
    three[1].write_bytes(whole)
    seen = []
    convert(three, out, Reading(timestep_fs=0.5), progress=lambda name, done, total: seen.append((name, done)))
    assert_same(out, tmp_path / "whole.db")
    assert ("a", 3) not in seen


def test_a_part_that_is_no_database_is_replaced(tmp_path, three):
    (tmp_path / ".out.part.db").write_text("not a database")
    convert(three, tmp_path / "out.db", Reading(timestep_fs=0.5))
    assert_same(tmp_path / "out.db", tmp_path / "whole.db")


def test_two_at_a_time_are_refused(tmp_path, three):
    path = tmp_path / "out.db"
    script = (
        "import sys, fasteners; lock = fasteners.InterProcessLock(sys.argv[1]); lock.acquire(); print('held', flush=True);"
        "sys.stdin.read()"
    )
    lock = tmp_path / ".out.part.lock"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=r"another process writes '.*out\.db'"):
            convert(three, path, Reading(timestep_fs=0.5))
        other.stdin.close()
    convert(three, path, Reading(timestep_fs=0.5))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_killed_program_continues(tmp_path, frames):
    source, out = tmp_path / "long.extxyz", tmp_path / "out.db"
    with source.open("w") as file:
        for _ in range(30):
            write_xyz(file, frames + frames[-2:0:-1])  # there and back
    begun = FORK.Event()

    def reached(name, done, total):
        if done == 600:
            begun.set()
            time.sleep(600.0)

    def run():
        convert([source], out, Reading(timestep_fs=0.5), progress=reached)

    process = FORK.Process(target=run)
    process.start()
    assert begun.wait(60.0)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not out.exists()
    assert connect(tmp_path / ".out.part.db").count() == part_file.COMMIT_EVERY
    code, _, err = spkdt("convert", source, out, "--timestep-fs", 0.5)
    assert code == 0, err
    convert([source], tmp_path / "whole.db", Reading(timestep_fs=0.5))
    assert_same(tmp_path / "out.db", tmp_path / "whole.db")


def test_the_writer_removes_long_trajectories_that_it_refuses(tmp_path, frames, small_commits):
    broken = [*frames, Atoms("H")]
    with TrajectoryWriter(tmp_path / "a.db") as writer:
        writer.add("one", frames, 0.5)
        with pytest.raises(ValueError, match="other atoms"):
            writer.add("broken", broken, 0.5)
        writer.add("two", frames, 0.5)
    assert [(t.name, t.start) for t in content(tmp_path / "a.db").trajectories] == [("one", 0), ("two", 13)]


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path, frames):
    peaks = []
    for n in (2, 10, 30):  # the first warms caches up
        with (tmp_path / f"{n}.extxyz").open("w") as file:
            for _ in range(n):
                write_xyz(file, frames[:-1] + frames[-1:0:-1])
        tracemalloc.start()
        convert([tmp_path / f"{n}.extxyz"], tmp_path / f"{n}.db", Reading(timestep_fs=0.5))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.5 * peaks[1] + 200_000


# the command


def test_the_command_says_what_it_did_and_what_comes_next(tmp_path, frames):
    path = write(tmp_path / "run.traj", bare(frames))
    out = tmp_path / "out.db"
    code, text, err = spkdt("convert", path, out, "--timestep-fs", 0.25, "--save-every", 2)
    assert code == 0, err
    lines = text.splitlines()
    assert re.split(r"  +", lines[0]) == [
        "trajectory",
        "atoms",
        "frames",
        "time step / fs",
        "inner steps",
        "velocities",
    ]
    assert re.split(r"  +", lines[1]) == ["run", "Cu4", "13", "0.5", "2", "central differences"]
    assert lines[-1].endswith(f"spkdt check {out}")
    code, text, err = spkdt("convert", path, out, "--timestep-fs", 0.25)
    assert (code, text) == (1, "")
    assert err == f"spkdt: '{out}' exists. Remove it or choose another name.\n"


def test_an_interrupted_command_says_that_it_continues(tmp_path, frames, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("spk_dt.trajectories.convert.convert", interrupt)
    code, _, err = spkdt("convert", write(tmp_path / "run.traj", frames), tmp_path / "out.db")
    assert code == 130
    assert "The same command continues" in err
