"""The data module: windows of which partition, in which units, and what it refuses."""

import copy

import numpy as np
import pytest
import torch
from schnetpack import properties as spk
from schnetpack.data import AtomsDataModule, GroupSplit, SubsamplePartitions
from schnetpack.transform import ASENeighborList, CastTo32, RemoveOffsets

from spk_dt import properties
from spk_dt.data import TimeBlockSplit, TrajectoryDataModule, TrajectorySplit, TrajectoryWriter


def make(path, **kwargs):
    """A data module without workers and without a split file, set up."""
    kwargs = {"batch_size": 4, "num_workers": 0, "split_file": None, **kwargs}
    data = TrajectoryDataModule(str(path), **kwargs)
    data.setup()
    return data


def loaders(data):
    return {"train": data.train_dataloader(), "val": data.val_dataloader(), "test": data.test_dataloader()}


def touched(dataset):
    """Frames of the database that the windows of a partition cover."""
    return {int(start) + k for start in dataset.starts for k in range(dataset.length)}


def test_the_split_of_the_database_and_shapes_of_batches(database):
    lengths = {"train_window": 6, "val_window": 9, "test_window": 3}
    data = make(database, **lengths, transforms=[ASENeighborList(4.0)])
    assert len(data.train_dataset) == 3 * (25 - 5)
    assert len(data.val_dataset) == 25 - 8
    assert len(data.test_dataset) == 25 - 2
    for name, loader in loaders(data).items():
        batch = next(iter(loader))
        assert batch["energy_window"].shape == (4, lengths[f"{name}_window"])
        assert batch["forces_window"].shape == (24, lengths[f"{name}_window"], 3)
        assert batch["velocities"].shape == batch[spk.R].shape == (24, 3)
        assert batch[properties.time_step].shape == (4,)
        assert batch[spk.idx_i].max() < 24


@pytest.mark.parametrize(
    ("splitting", "sizes"),
    [
        (None, {}),
        (TrajectorySplit(), {"num_train": 2, "num_val": 1, "num_test": 1}),
        (GroupSplit("trajectory"), {"num_train": 3, "num_val": 1, "num_test": 1}),
        (SubsamplePartitions(["train", "val", "test"]), {"num_train": 75, "num_val": 25, "num_test": 25}),
        (TimeBlockSplit(guard=2), {"num_train": 0.5, "num_val": 0.25}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_windows_of_partitions_share_no_frame(database, splitting, sizes):
    data = make(database, splitting=splitting, **sizes, train_window=4, val_window=3)
    frames = [touched(d) for d in (data.train_dataset, data.val_dataset, data.test_dataset)]
    assert all(frames)
    assert sum(map(len, frames)) == len(set().union(*frames))
    for dataset in (data.train_dataset, data.val_dataset, data.test_dataset):
        assert all(start // 25 == (start + dataset.length - 1) // 25 for start in dataset.starts)


@pytest.mark.parametrize("stage_order", [("fit", "test"), ("test", "fit")])
def test_setup_reads_once_whatever_the_stage(database, stage_order):
    data = TrajectoryDataModule(str(database), 4, split_file=None, num_workers=0)
    data.setup(stage_order[0])
    frames = data.frames
    data.setup(stage_order[1])
    assert data.frames is frames


@pytest.mark.parametrize(
    ("energy", "length"), [("eV", "Ang"), ("kcal/mol", "Bohr"), ("kJ/mol", "nm"), ("Hartree", "Bohr")]
)
def test_units_of_a_batch_fit_each_other(mixed_database, energy, length):
    data = make(
        mixed_database,
        num_train=1,
        num_val=1,
        train_window=2,
        val_window=2,
        property_units={"energy": energy, "forces": f"{energy}/{length}"},
        distance_unit=length,
    )
    for loader in loaders(data).values():
        for batch in loader:
            following = [data.frames.window(spk.R, int(frame) + 1, 1)[0] for frame in batch[spk.idx]]
            step = torch.as_tensor(np.concatenate(following)) - batch[spk.R]
            assert residual(batch, step) < 1e-9
            for wrong in (properties.time_step, spk.masses, spk.forces, "velocities"):
                assert residual({**batch, wrong: 1.5 * batch[wrong]}, step) > 1e-5, wrong


def residual(batch, step):
    """Largest error of a velocity-Verlet step, relative to the largest displacement."""
    h = batch[properties.time_step][batch[spk.idx_m], None]
    predicted = batch["velocities"] * h + batch["forces"] * h**2 / (2.0 * batch[spk.masses][:, None])
    return ((step - predicted).abs().max() / step.abs().max()).item()


def test_an_offset_is_removed_from_all_frames_of_a_window(database):
    plain = make(database, train_window=5, val_window=5)
    shifted = make(database, train_window=5, val_window=5, transforms=[RemoveOffsets("energy", remove_mean=True)])
    mean = plain.get_stats("energy", True, False)[0]
    assert abs(mean) > 0.01
    for i in (0, 7):
        one, other = plain.train_dataset[i], shifted.train_dataset[i]
        torch.testing.assert_close(other["energy_window"], one["energy_window"] - 6 * mean, rtol=0, atol=1e-12)
        torch.testing.assert_close(other["energy"], one["energy"] - 6 * mean, rtol=0, atol=1e-12)
        torch.testing.assert_close(other["forces_window"], one["forces_window"], rtol=0, atol=0)


@pytest.mark.parametrize("divide_by_atoms", [True, False])
def test_statistics_are_those_of_schnetpack(tmp_path, monkeypatch, mixed_database, divide_by_atoms):
    monkeypatch.chdir(tmp_path)
    data = make(mixed_database, num_train=2, num_val=1)
    np.savez("split.npz", train_idx=data.train_idx, val_idx=data.val_idx, test_idx=data.test_idx)
    stock = AtomsDataModule(str(mixed_database), 4, num_workers=0)
    stock.setup()
    for ours, theirs in zip(
        data.get_stats("energy", divide_by_atoms, False),
        stock.get_stats("energy", divide_by_atoms, False),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs.to(ours), rtol=1e-6, atol=1e-9)


def test_transforms_may_cast(database):
    batch = next(iter(make(database, train_window=3, transforms=[CastTo32()]).train_dataloader()))
    assert {batch[key].dtype for key in ("forces_window", "energy", "velocities", "time_step")} == {torch.float32}


def test_numbers_of_windows_are_limited(database):
    limits = {"max_train_windows": 10, "max_val_windows": 5, "max_test_windows": 100}
    data, again = (make(database, train_window=2, val_window=2, **limits) for _ in range(2))
    assert [len(d) for d in (data.train_dataset, data.val_dataset, data.test_dataset)] == [10, 5, 24]
    assert data.train_dataset.starts.tolist() == again.train_dataset.starts.tolist()
    np.testing.assert_array_equal(np.diff(data.val_dataset.starts), [6, 6, 5, 6])


def test_test_windows_are_as_those_of_validation_unless_they_are_given(database):
    lengths = [make(database, val_window=5, **test).window for test in ({}, {"test_window": 7}, {"test_window": None})]
    assert lengths == [{"train": 1, "val": 5, "test": test} for test in (5, 7, 5)]


def test_mapped_frames_give_the_same_batches(tmp_path, mixed_database):
    path = tmp_path / "a.db"
    path.write_bytes(mixed_database.read_bytes())
    sizes = {"num_train": 1, "num_val": 1, "train_window": 4, "val_window": 4, "transforms": [ASENeighborList(4.0)]}
    in_memory, mapped = (make(path, max_memory_gb=gb, **sizes) for gb in (1.0, 0.0))
    assert isinstance(mapped.frames.values[spk.R], np.memmap)
    for one, other in zip(in_memory.val_dataloader(), mapped.val_dataloader(), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_split_file_is_written_and_read_again(tmp_path, mixed_database):
    sizes = {"num_train": 1, "num_val": 1, "split_file": str(tmp_path / "split.npz")}
    first = make(mixed_database, **sizes)
    with np.load(tmp_path / "split.npz") as split:
        written = dict(split)
    for older in ([], ["splitting"], ["sizes", "splitting"], ["trajectories", "sizes", "splitting"]):  # versions
        kept = {key: value for key, value in written.items() if key not in older}
        np.savez(tmp_path / "split.npz", **{**kept, "train_idx": written["val_idx"], "val_idx": written["train_idx"]})
        again = make(mixed_database, **sizes)
        assert [again.val_idx, again.train_idx, again.test_idx] == [first.train_idx, first.val_idx, first.test_idx]


@pytest.mark.parametrize(
    ("splitting", "other", "named"),
    [
        (TrajectorySplit(), TimeBlockSplit(guard=2), ['{"TrajectorySplit": {"seed": 0}}', '{"guard": 2}}']),
        (TimeBlockSplit(guard=2), TimeBlockSplit(guard=0), ['{"TimeBlockSplit": {"guard": 2}}', '{"guard": 0}}']),
        (TrajectorySplit(), TrajectorySplit(seed=1), ['{"TrajectorySplit": {"seed": 0}}', '{"seed": 1}}']),
        (
            SubsamplePartitions(["train", "val", "test"], base_splitting=GroupSplit("trajectory")),
            SubsamplePartitions(["train", "val", "test"]),
            ['{"GroupSplit": {"splitting_key": "trajectory"', '{"RandomSplit": {}}'],
        ),
    ],
)
def test_a_split_file_of_another_splitting_is_refused(tmp_path, database, splitting, other, named):
    parts = isinstance(splitting, SubsamplePartitions)
    sizes = {"num_train": 75, "num_val": 25, "num_test": 25} if parts else {"num_train": 0.5, "num_test": 0}
    make(database, splitting=splitting, split_file=str(tmp_path / "split.npz"), **sizes)
    make(database, splitting=copy.deepcopy(splitting), split_file=str(tmp_path / "split.npz"), **sizes)
    with pytest.raises(ValueError, match=r"split\.npz' was made with data\.splitting = .* Remove the file") as error:
        make(database, splitting=other, split_file=str(tmp_path / "split.npz"), **sizes)
    for value in named:
        assert value in str(error.value)


def test_a_split_file_of_another_database_is_refused(tmp_path, database, mixed_database, cluster, make_trajectory):
    split_file = str(tmp_path / "split.npz")
    make(database, split_file=split_file)
    with pytest.raises(ValueError, match=r"split\.npz' was made for .* than .*mixed\.db'. Remove the file"):
        make(mixed_database, split_file=split_file)

    same_size = tmp_path / "same_size.db"
    with TrajectoryWriter(same_size) as writer:
        writer.add("one", make_trajectory(cluster, 62, 0.5, 0), 0.5)
        writer.add("two", make_trajectory(cluster, 61, 0.5, 1), 0.5)
    with pytest.raises(ValueError, match=r"split\.npz' was made for .* than .*same_size\.db'"):
        make(same_size, split_file=split_file)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (([0, 1, 2], [2, 3], [4]), "share frames"),
        (([0, 1, 2], [3], [125]), "names frame 125, but .* has 125 frames.*Remove the file"),
        (([0, 1, 2], [], [4]), r"leaves no frames for data\.num_val"),
    ],
)
def test_a_split_file_that_does_not_fit_is_refused(tmp_path, database, parts, message):
    split_file = tmp_path / "split.npz"
    parts = [np.array(part, dtype=int) for part in parts]
    np.savez(split_file, **dict(zip(("train_idx", "val_idx", "test_idx"), parts, strict=True)))
    with pytest.raises(ValueError, match=message) as error:
        make(database, split_file=str(split_file))
    assert str(split_file) in str(error.value)


def test_refusals(tmp_path, database):
    with pytest.raises(FileNotFoundError, match=r"no trajectory database '.*absent\.db'.*data\.datapath"):
        make(tmp_path / "absent.db")
    for name in ("train", "val", "test"):
        with pytest.raises(ValueError, match=rf"data\.{name}_window=0: a window has"):
            make(database, **{f"{name}_window": 0})
        with pytest.raises(ValueError, match=rf"data\.max_{name}_windows=-1 must not be negative"):
            make(database, **{f"max_{name}_windows": -1})
    with pytest.raises(ValueError, match=r"data\.val_window=26 frames.*to at most 25"):
        make(database, val_window=26)
    with pytest.raises(ValueError, match=r"data\.num_val"):
        make(database, num_train=1, num_val=0)


def test_frames_that_do_not_fit_their_time_step_are_refused(tmp_path, cluster, make_trajectory):
    path = tmp_path / "a.db"
    with TrajectoryWriter(path) as writer:
        for i in range(2):
            writer.add(f"run_{i}", make_trajectory(cluster, 10, 0.5, i), timestep_fs=1.0)
    with pytest.raises(ValueError, match=r"says 1 fs .* are 0\.5 fs apart"):
        make(path, num_train=1, num_val=1)
    assert len(make(path, num_train=1, num_val=1, check_data=False).train_dataset) == 11
