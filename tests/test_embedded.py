"""The data set that the package carries."""

from importlib.resources import files

import numpy as np
import pytest
from ase.db import connect
from schnetpack import properties as spk
from schnetpack.data import ASEAtomsData

from spk_dt import properties
from spk_dt.data import H2Pd6Graphene, load_frames
from spk_dt.data.checks import check_frames
from spk_dt.data.embedded import SPLITS, pack, unpack


@pytest.fixture(scope="module")
def h2_data(tmp_path_factory):
    """The data module after its first use, in a folder that was not there."""
    path = tmp_path_factory.mktemp("embedded") / "data" / "h2_pd6_graphene.db"
    data = H2Pd6Graphene(str(path), 4, num_workers=0, split_file=None, train_window=11, val_window=121)
    data.prepare_data()
    data.prepare_data()  # every process of a run calls it
    data.setup()
    return data


def test_it_is_small_enough_for_a_wheel():
    assert (files("spk_dt.data") / "h2_pd6_graphene.npz").stat().st_size <= 15e6


def test_trajectories_and_windows(h2_data):
    frames = h2_data.frames
    assert len(frames.trajectories) == 19
    assert {(t.length, t.timestep_fs) for t in frames.trajectories} == {(401, 0.5)}
    assert {len(z) for z in frames.atomic_numbers} == {39}
    assert len(h2_data.train_dataset) == 11 * (401 - 10)
    assert len(h2_data.val_dataset) == 3 * (401 - 120)
    assert len(h2_data.test_dataset) == 5 * (401 - 120)
    batch = next(iter(h2_data.val_dataloader()))
    assert batch["forces_window"].shape == (4 * 39, 121, 3)


def test_partitions(h2_data):
    parts = {"train": h2_data.train_idx, "val": h2_data.val_idx, "test": h2_data.test_idx}
    names = {name: {h2_data.frames.trajectories[i // 401].name for i in part} for name, part in parts.items()}
    assert {name: tuple(sorted(found)) for name, found in names.items()} == SPLITS
    assert sum(len(part) for part in parts.values()) == 19 * 401


def test_velocity_verlet_leads_from_frame_to_frame(h2_data):
    frames = h2_data.frames
    check_frames(frames)
    for i, trajectory in enumerate(frames.trajectories):
        x, v, f = (
            frames.window(key, trajectory.start, trajectory.length, i)
            for key in (spk.R, properties.velocities, spk.forces)
        )
        h, m = frames.time_step[i], frames.masses[i][:, None]
        assert np.abs(x[1:] - x[:-1] - v[:-1] * h - f[:-1] * h**2 / (2.0 * m)).max() < 1e-7  # Å
        assert np.abs(v[1:] - v[:-1] - (f[:-1] + f[1:]) * h / (2.0 * m)).max() < 1e-5  # Å per 10 fs


def test_energy_is_conserved(h2_data):
    frames = h2_data.frames
    for i, trajectory in enumerate(frames.trajectories):
        energy = frames.window(spk.energy, trajectory.start, trajectory.length, i)[:, 0]
        v = frames.window(properties.velocities, trajectory.start, trajectory.length, i)
        total = energy + 0.5 * (frames.masses[i][:, None] * v**2).sum(axis=(1, 2))
        assert np.ptp(total) < 0.02  # eV, over 200 fs


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "a.db").write_text("precious")
    with pytest.raises(FileExistsError, match=r"a\.db"):
        unpack(tmp_path / "a.db")


def test_packing_keeps_eight_digits(tmp_path, monkeypatch, crystal, make_trajectory):
    trajectories = [make_trajectory(crystal, 6, 0.5, seed) for seed in range(2)]
    pack(trajectories, ["one", "two"], 0.5, tmp_path / "small.npz")
    monkeypatch.setattr("spk_dt.data.embedded._RESOURCE", tmp_path / "small.npz")
    monkeypatch.setattr("spk_dt.data.embedded.SPLITS", {"train": ["one"], "val": ["two"]})
    unpack(tmp_path / "small.db")
    expected = [atoms for frames in trajectories for atoms in frames]
    for atoms, row in zip(expected, connect(tmp_path / "small.db").select(sort="id"), strict=True):
        np.testing.assert_allclose(row.positions, atoms.positions, rtol=0, atol=0.51e-8)
        np.testing.assert_allclose(row.data["forces"], atoms.get_forces(), rtol=0, atol=0.51e-7)
        np.testing.assert_array_equal(row.data["energy"], atoms.get_potential_energy())
        np.testing.assert_array_equal(row.cell, atoms.cell)
    check_frames(load_frames(ASEAtomsData(str(tmp_path / "small.db"))))


def test_a_value_too_large_to_pack_is_refused(tmp_path, crystal, make_trajectory):
    frames = make_trajectory(crystal, 1, 0.5, 0)
    frames[1].calc.results["forces"] += 1000.0
    with pytest.raises(ValueError, match="too large"):
        pack([frames], ["one"], 0.5, tmp_path / "small.npz")
