"""The authors' data: ``traj_N.traj`` with ``velall-N``."""

import random

import ase.io
import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.db import connect
from helpers.simulation_files import verlet_miss

from spk_dt import properties
from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.readers import dtegnn_files


def write(folder, number, frames, timestep_fs=0.5, scale=1.0, later=0.0):
    """The two files of a trajectory; velocities in direct coordinates per step, `later` steps after the positions."""
    folder.mkdir(exist_ok=True)
    ase.io.write(folder / f"traj_{number}.traj", frames)
    step = timestep_fs * ase.units.fs
    with (folder / f"velall-{number}").open("w") as file:
        for atoms in frames:
            velocities = atoms.get_velocities() + later * step * atoms.get_forces() / atoms.get_masses()[:, None]
            direct = scale * step * velocities @ np.linalg.inv(atoms.cell.array)
            file.writelines(f"  {x: .16E}  {y: .16E}  {z: .16E}\n" for x, y, z in direct)
    return folder / f"traj_{number}.traj"


@pytest.fixture(scope="module")
def frames(crystal, make_trajectory):
    return make_trajectory(crystal, 15, 0.5, 0)


def test_values_units_and_physics(tmp_path, frames):
    path = write(tmp_path, 3, frames)
    assert dtegnn_files.recognises(path)
    (raw,) = dtegnn_files.read(path)
    assert (raw.name, raw.timestep_fs, raw.n_frames) == ("traj_3", 0.5, 16)
    assert [file.name for file in raw.files] == ["traj_3.traj", "velall-3"]
    for _ in range(2):
        found = list(raw.frames())
        for atoms, expected in zip(found, frames, strict=True):
            np.testing.assert_array_equal(atoms.numbers, expected.numbers)
            np.testing.assert_allclose(atoms.positions, expected.positions, rtol=0, atol=1e-12)
            np.testing.assert_allclose(atoms.cell, expected.cell, rtol=0, atol=1e-12)
            np.testing.assert_allclose(atoms.get_velocities(), expected.get_velocities(), rtol=1e-12, atol=1e-14)
            np.testing.assert_allclose(atoms.get_forces(), expected.get_forces(), rtol=0, atol=1e-12)
            assert atoms.get_potential_energy() == pytest.approx(expected.get_potential_energy(), rel=1e-12)
            assert atoms.pbc.all()
    assert verlet_miss(found) < 1e-12


def test_a_folder_in_the_order_of_numbers(tmp_path, crystal, make_trajectory):
    for number in (10, 2, 1):
        write(tmp_path / "data", number, make_trajectory(crystal, 5, 0.5, number))
    (tmp_path / "data" / "notes.txt").write_text("about")
    assert dtegnn_files.recognises(tmp_path / "data")
    assert [raw.name for raw in dtegnn_files.read(tmp_path / "data")] == ["traj_1", "traj_2", "traj_10"]


def test_positions_that_were_wrapped(tmp_path, frames):
    wrapped = [atoms.copy() for atoms in frames]
    for atoms, whole in zip(wrapped, frames, strict=True):
        atoms.wrap()
        atoms.calc = type(whole.calc)(atoms, **whole.calc.results)
    (raw,) = dtegnn_files.read(write(tmp_path, 1, wrapped))
    assert verlet_miss(list(raw.frames())) < 1e-12


def test_frozen_atoms(tmp_path, crystal, make_trajectory):
    """Forces act on them, and they stay."""
    held = crystal.copy()
    held.rattle(0.1, seed=0)
    held.set_constraint(FixAtoms([0, 1]))
    frames = make_trajectory(held, 15, 0.5, 0)
    for atoms in frames:
        free = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True, calculator=EMT())
        atoms.calc.results["forces"] = free.get_forces()
    (raw,) = dtegnn_files.read(write(tmp_path, 1, frames))
    assert raw.timestep_fs == 0.5
    atoms = next(raw.frames())
    assert atoms.constraints[0].index.tolist() == [0, 1]
    assert not atoms.get_velocities()[:2].any()
    assert atoms.get_velocities()[2:].all()
    assert np.abs(atoms.calc.results["forces"][:2]).max() > 0.1


@pytest.mark.parametrize("later", [-0.5, 0.5])
def test_velocities_of_half_a_step_are_not_used(tmp_path, frames, later, caplog):
    (raw,) = dtegnn_files.read(write(tmp_path, 1, frames, later=later))
    assert not any(atoms.has("momenta") for atoms in raw.frames())
    assert "half a step" in caplog.text


def test_another_time_step_is_found(tmp_path, crystal, make_trajectory):
    (raw,) = dtegnn_files.read(write(tmp_path, 1, make_trajectory(crystal, 15, 1.0, 0), timestep_fs=1.0))
    assert raw.timestep_fs == 1.0
    assert verlet_miss(list(raw.frames()), 1.0) < 1e-12


@pytest.mark.parametrize("scale", [2.0, 0.5, -1.0, 0.0])
def test_velocities_in_another_unit_are_refused(tmp_path, frames, scale):
    """2 is that of direct coordinates per fs."""
    with pytest.raises(ValueError, match=r"traj_1\.traj' do not lead from frame to frame.*direct coordinates per step"):
        dtegnn_files.read(write(tmp_path, 1, frames, scale=scale))


def test_velocities_of_another_trajectory_are_refused(tmp_path, frames, crystal, make_trajectory):
    write(tmp_path, 1, make_trajectory(crystal, 15, 0.5, 7))
    ase.io.write(tmp_path / "traj_1.traj", frames)
    with pytest.raises(ValueError, match="or of another trajectory"):
        dtegnn_files.read(tmp_path)


def test_frames_that_are_not_consecutive_are_refused(tmp_path, frames):
    order = np.random.default_rng(0).permutation(len(frames))
    with pytest.raises(ValueError, match=r"traj_1\.traj' are not consecutive"):
        dtegnn_files.read(write(tmp_path, 1, [frames[i] for i in order]))


def lines(path, change):
    text = path.read_text().splitlines(keepends=True)
    change(text)
    path.write_text("".join(text))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.pop(), r"velall-1' is cut off in frame 15: 3 lines of 4 atoms"),
        (lambda text: text.append("0 0 0\n"), r"velall-1' has lines after the last of the 16 frames"),
        (
            lambda text: text.__setitem__(9, "0.0 0.0\n"),
            r"frame 2 of '.*velall-1' has a line that is not three numbers",
        ),
        (lambda text: text.__setitem__(9, "0.0 nan 0.0\n"), r"frame 2 of '.*velall-1' has a line"),
        (lambda text: text.clear(), r"velall-1' is cut off in frame 0"),
    ],
)
def test_damaged_velocities_are_refused(tmp_path, frames, change, message):
    path = write(tmp_path, 1, frames)
    lines(tmp_path / "velall-1", change)
    with pytest.raises(ValueError, match=message):
        dtegnn_files.read(path)


def test_frames_that_lack_something_are_refused(tmp_path, frames):
    path = write(tmp_path, 1, frames)
    ase.io.write(path, [*frames[:4], frames[4].copy(), *frames[5:]])
    with pytest.raises(ValueError, match=r"frame 4 of '.*traj_1\.traj' has no energy and no forces"):
        dtegnn_files.read(path)
    ase.io.write(path, [*frames[:4], *frames[:1], frames[4].repeat((2, 1, 1))])
    with pytest.raises(ValueError, match=r"frame 5 .*no energy"):
        dtegnn_files.read(path)
    with pytest.raises(ValueError, match="has 2 frames"):
        dtegnn_files.read(write(tmp_path, 2, frames[:2]))


def test_a_missing_file_of_velocities(tmp_path, frames):
    write(tmp_path, 1, frames)
    path = write(tmp_path, 2, frames)
    (tmp_path / "velall-2").unlink()
    assert not dtegnn_files.recognises(path)
    with pytest.raises(ValueError, match=r"traj_2\.traj' has no 'velall-2' beside it"):
        dtegnn_files.read(tmp_path)
    for name in ("missing", "traj_9.traj", "velall-1"):
        assert not dtegnn_files.recognises(tmp_path / name)


def test_truncation_and_random_damage_give_value_errors_only(tmp_path, frames):
    write(tmp_path, 1, frames)
    generator, messages = random.Random(0), []
    whole = {path: path.read_bytes() for path in sorted(tmp_path.iterdir())}
    for trial in range(200):
        path = sorted(whole)[trial % 2]
        data = bytearray(whole[path])
        if trial < 60:
            data = data[: generator.randrange(len(data) - 2)]
        else:
            for _ in range(generator.choice((1, 30))):
                data[generator.randrange(len(data))] = generator.randrange(256)
        path.write_bytes(data)
        try:
            messages.append([len(list(raw.frames())) for raw in dtegnn_files.read(tmp_path)])
        except ValueError as error:
            messages.append(str(error))
        assert trial >= 60 or isinstance(messages[-1], str)
        path.write_bytes(whole[path])
    refusals = [message for message in messages if isinstance(message, str)]
    assert len(refusals) > 100
    assert all("traj_1" in message or "velall-1" in message for message in refusals)


def test_conversion(tmp_path, frames):
    """Velocities of half a step are replaced by those that the positions show."""
    for number, later in ((1, 0.0), (2, 0.5)):
        write(tmp_path / "data", number, frames, later=later)
    found = convert([tmp_path / "data"], tmp_path / "a.db")
    kinds = [(one.trajectory.name, one.trajectory.velocities) for one in found]
    assert kinds == [("traj_1", "file"), ("traj_2", "central differences")]
    for row, atoms in zip(connect(tmp_path / "a.db").select(sort="id"), [*frames, *frames], strict=True):
        velocities = atoms.get_velocities() * ase.units.fs
        np.testing.assert_allclose(row.data[properties.velocities], velocities, atol=1e-12)
