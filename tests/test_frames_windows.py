"""Frames in memory, and the windows cut from them: units, content, borders."""

from types import SimpleNamespace

import numpy as np
import pytest
from ase.db import connect
from hypothesis import given
from hypothesis import strategies as st
from schnetpack import properties as spk
from schnetpack.data import ASEAtomsData
from schnetpack.data.loader import _atoms_collate_fn

from spk_dt import properties
from spk_dt.data import Trajectory, TrajectoryWindows, TrajectoryWriter, load_frames, window_starts
from spk_dt.data import load as load_module

UNITS = [
    ("eV", "Ang", None),
    ("kcal/mol", "Bohr", None),
    ("kJ/mol", "nm", "Ang/fs"),
    ("Hartree", "Bohr", "Bohr/fs"),
]


def open_database(path, energy="eV", length="Ang", velocity=None):
    units = {"energy": energy, "forces": f"{energy}/{length}"}
    if velocity is not None:
        units["velocities"] = velocity
    return ASEAtomsData(str(path), property_units=units, distance_unit=length)


def verlet_error(frames, factor=1.0):
    """Largest error of one velocity-Verlet step, relative to the largest displacement; all units must fit."""
    errors = []
    for i, trajectory in enumerate(frames.trajectories):
        x, v, f = (
            frames.window(key, trajectory.start, trajectory.length, i)
            for key in (spk.R, properties.velocities, spk.forces)
        )
        h = factor * frames.time_step[i]
        predicted = x[:-1] + v[:-1] * h + f[:-1] * h**2 / (2.0 * frames.masses[i][:, None])
        errors.append(np.abs(x[1:] - predicted).max() / np.abs(np.diff(x, axis=0)).max())
    return max(errors)


@pytest.mark.parametrize(("energy", "length", "velocity"), UNITS)
def test_one_velocity_verlet_step_leads_to_the_next_frame_in_any_units(mixed_database, energy, length, velocity):
    frames = load_frames(open_database(mixed_database, energy, length, velocity))
    assert verlet_error(frames) < 1e-9
    assert verlet_error(frames, factor=1.001) > 1e-4
    assert frames.distance_unit == length


def test_forces_that_do_not_belong_to_the_energy_are_refused(database):
    dataset = ASEAtomsData(str(database), property_units={"energy": "kcal/mol"})
    with pytest.raises(ValueError, match=r"forces in 'eV/Ang' do not belong to energies in 'kcal/mol'.*property_units"):
        load_frames(dataset)


def test_frames_are_those_of_the_database(mixed_database):
    frames = load_frames(open_database(mixed_database))
    assert [len(z) for z in frames.atomic_numbers] == [6, 4, 8]
    assert [pbc.tolist() for pbc in frames.pbc] == [[False] * 3, [True] * 3, [True] * 3]
    assert len(frames) == 20 + 15 + 12
    for index, row in enumerate(connect(mixed_database).select(sort="id")):
        trajectory = frames.trajectory_of(index)
        np.testing.assert_array_equal(frames.atomic_numbers[trajectory], row.numbers)
        np.testing.assert_array_equal(frames.window(spk.R, index, 1)[0], row.positions)
        np.testing.assert_array_equal(frames.window(spk.forces, index, 1)[0], row.data["forces"])
        np.testing.assert_array_equal(frames.window(spk.energy, index, 1)[0], row.data["energy"])
        np.testing.assert_array_equal(frames.cell[index], row.cell)


def test_progress_counts_frames(database):
    seen = []
    load_frames(open_database(database), progress=seen.append)
    assert seen == list(range(1, 126))


def test_a_database_whose_rows_do_not_fit_its_trajectories_is_refused(tmp_path, database):
    copy = tmp_path / "copy.db"
    copy.write_bytes(database.read_bytes())
    with connect(copy) as rows:
        rows.delete([125])
    with pytest.raises(ValueError, match="have 125 frames in all, but it has 124 rows"):
        load_frames(open_database(copy))
    with connect(copy) as rows:
        rows.delete([60])
        for row in (rows.get(1), rows.get(2)):
            rows.write(row.toatoms(), data=row.data)
    with pytest.raises(ValueError, match="has 24 of the 25 rows from 50 on"):
        load_frames(open_database(copy))


def test_rows_are_fetched_some_at_a_time(mixed_database, monkeypatch):
    """ASE fetches all that it selects before it gives the first one: of a million frames gigabytes."""
    dataset, fetched = open_database(mixed_database), []

    def select(*args, select=dataset.conn.select, **options):
        rows = list(select(*args, **options))
        fetched.append(sum(row.natoms for row in rows))
        return rows

    whole = load_frames(open_database(mixed_database))
    monkeypatch.setattr(load_module, "_PIECE", 24)
    monkeypatch.setattr(dataset.conn, "select", select)
    found = load_frames(dataset)
    assert max(fetched) == 24
    for key, values in whole.values.items():
        np.testing.assert_array_equal(found.values[key], values)


def test_a_database_without_velocities_is_refused(tmp_path, database):
    static = ASEAtomsData.create(
        str(tmp_path / "static.db"), distance_unit="Ang", property_unit_dict={"energy": "eV", "forces": "eV/Ang"}
    )
    atoms = connect(database).get_atoms(1)
    static.add_system(atoms, energy=np.zeros(1), forces=np.zeros((6, 3)))
    with pytest.raises(ValueError, match=r"static\.db' has no velocities"):
        load_frames(static)


def test_mapped_frames_equal_frames_in_memory_and_are_kept(tmp_path, mixed_database):
    path = tmp_path / "a.db"
    path.write_bytes(mixed_database.read_bytes())
    in_memory = load_frames(open_database(path))
    read = []
    mapped = load_frames(open_database(path), max_memory_gb=0, progress=read.append)
    assert len(read) == len(mapped)
    assert isinstance(mapped.values[spk.R], np.memmap)
    for key, values in in_memory.values.items():
        np.testing.assert_array_equal(mapped.values[key], values)
    starts = window_starts(in_memory, range(len(in_memory)), 4, "train")
    for index in (0, len(starts) // 2, len(starts) - 1):
        one, other = (TrajectoryWindows(frames, starts, 4)[index] for frames in (in_memory, mapped))
        assert one.keys() == other.keys()
        assert all((one[key] == other[key]).all() for key in one)

    load_frames(open_database(path), max_memory_gb=0, progress=lambda _: pytest.fail("read again"))

    read.clear()
    other_units = load_frames(open_database(path, "kcal/mol", "Bohr"), max_memory_gb=0, progress=read.append)
    assert read
    assert verlet_error(other_units) < 1e-9
    for key, values in in_memory.values.items():  # of a run that goes on meanwhile
        np.testing.assert_array_equal(mapped.values[key], values)
    np.testing.assert_array_equal(mapped.cell, in_memory.cell)
    names = sorted(file.name for file in path.with_suffix(".frames").iterdir())
    assert [name for name in names if not name.endswith(".npy")] == ["complete.json"]


def test_mapped_frames_stay_when_others_cannot_be_read(tmp_path, mixed_database):
    path = tmp_path / "a.db"
    path.write_bytes(mixed_database.read_bytes())
    load_frames(open_database(path), max_memory_gb=0)
    for _ in range(2):  # what the first leaves behind is no obstacle
        with pytest.raises(KeyboardInterrupt):
            load_frames(open_database(path, "kcal/mol", "Bohr"), max_memory_gb=0, progress=interrupt)
    load_frames(open_database(path), max_memory_gb=0, progress=lambda _: pytest.fail("read again"))


def interrupt(_):
    raise KeyboardInterrupt


def test_mapped_frames_are_read_again_when_the_database_changes(tmp_path, cluster, make_trajectory):
    path = tmp_path / "a.db"
    for seed in range(2):  # of the same shape
        path.unlink(missing_ok=True)
        frames = make_trajectory(cluster, 5, 0.5, seed)
        with TrajectoryWriter(path) as writer:
            writer.add("run", frames, 0.5)
        mapped = load_frames(open_database(path), max_memory_gb=0)
        np.testing.assert_array_equal(mapped.window(spk.R, 0, 6), [atoms.positions for atoms in frames])


@pytest.mark.parametrize("length", [1, 2, 7])
def test_a_window_holds_its_frames(mixed_database, length):
    frames = load_frames(open_database(mixed_database))
    rows = list(connect(mixed_database).select(sort="id"))
    starts = window_starts(frames, range(len(frames)), length, "train")
    assert len(starts) == sum(t.length - length + 1 for t in frames.trajectories)
    windows = TrajectoryWindows(frames, starts, length)
    for start, sample in zip(starts, (windows[i] for i in range(len(windows))), strict=True):
        along = rows[start : start + length]
        assert len({row.formula for row in along}) == 1
        assert sample[spk.idx].item() == start
        np.testing.assert_array_equal(sample[spk.R], along[0].positions)
        np.testing.assert_array_equal(sample[spk.cell][0], along[0].cell)
        np.testing.assert_array_equal(sample[spk.energy], along[0].data["energy"])
        np.testing.assert_array_equal(sample[spk.forces], along[0].data["forces"])
        energies = np.stack([row.data["energy"] for row in along], axis=1)
        np.testing.assert_array_equal(sample["energy_window"], energies)
        forces = np.stack([row.data["forces"] for row in along], axis=1)
        np.testing.assert_array_equal(sample["forces_window"], forces)


def test_a_batch_of_windows_of_different_systems(mixed_database):
    frames = load_frames(open_database(mixed_database))
    windows = TrajectoryWindows(frames, np.array([3, 22, 40]), 5)
    batch = _atoms_collate_fn([windows[i] for i in range(3)])
    n_atoms = 6 + 4 + 8
    assert batch["energy_window"].shape == (3, 5)
    assert batch["forces_window"].shape == (n_atoms, 5, 3)
    assert batch["energy"].shape == (3,)
    assert batch["forces"].shape == batch["velocities"].shape == batch[spk.R].shape == (n_atoms, 3)
    assert batch[spk.cell].shape == (3, 3, 3)
    assert batch[spk.masses].shape == (n_atoms,)
    np.testing.assert_allclose(batch[properties.time_step] / batch[properties.time_step][0], [1.0, 2.0, 0.5])
    assert batch[spk.idx_m].tolist() == [0] * 6 + [1] * 4 + [2] * 8


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 5), st.data())
def test_windows_are_exactly_those_that_fit(lengths, length, data):
    borders = np.cumsum([0, *lengths])
    trajectories = [Trajectory(f"t{i}", int(borders[i]), n, 0.5) for i, n in enumerate(lengths)]
    partition = data.draw(st.lists(st.sampled_from(range(borders[-1])), min_size=1))
    pbc, cell = [np.ones(3, dtype=bool)] * len(lengths), np.ones((borders[-1], 3, 3))
    frames = SimpleNamespace(trajectories=trajectories, source="a.db", pbc=pbc, cell=cell)
    expected = [
        start
        for trajectory in trajectories
        for start in trajectory.frames
        if all(start + k in partition and start + k in trajectory.frames for k in range(length))
    ]
    if expected:
        assert window_starts(frames, partition, length, "train").tolist() == expected
    else:
        with pytest.raises(ValueError, match=rf"data\.train_window={length} frames, but the longest run"):
            window_starts(frames, partition, length, "train")


def test_an_empty_partition_has_no_windows():
    frames = SimpleNamespace(trajectories=[Trajectory("t", 0, 4, 0.5)], source="a.db")
    assert len(window_starts(frames, [], 3, "test")) == 0
