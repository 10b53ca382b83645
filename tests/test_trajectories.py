"""The database: what it refuses, and that stock SchNetPack reads what it accepts."""

import errno

import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.db import connect
from schnetpack.data import ASEAtomsData, AtomsDataModule, GroupSplit, SubsamplePartitions
from schnetpack.transform import ASENeighborList

from spk_dt.data import TimeBlockSplit, Trajectory, TrajectorySplit, TrajectoryWriter, read_trajectories


@pytest.fixture
def frames(cluster, make_trajectory):
    return make_trajectory(cluster, 3, 0.5, 0)


def write(path, *trajectories, timestep_fs=0.5, splits=None):
    with TrajectoryWriter(path, splits=splits) as writer:
        for name, frames in trajectories:
            writer.add(name, frames, timestep_fs)


def without_momenta(frames):
    del frames[2].arrays["momenta"]


def without_energy(frames):
    del frames[2].calc.results["energy"]


def without_calculator(frames):
    frames[2].calc = None


def of_another_order(frames):
    frames[2].numbers = frames[2].numbers[::-1]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_momenta, r"frame 2 of trajectory 'run' has no velocities.*set_velocities"),
        (without_energy, r"frame 2 of trajectory 'run' has no energy"),
        (without_calculator, r"frame 2 of trajectory 'run' has no energy and no forces"),
        (of_another_order, r"frame 2 of trajectory 'run' has other atoms"),
    ],
)
def test_a_refused_frame_is_named_and_nothing_is_left_behind(tmp_path, frames, spoil, message):
    spoil(frames)
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "a.db", ("run", frames))
    assert list(tmp_path.iterdir()) == []


def test_a_refused_trajectory_leaves_no_rows_when_the_user_goes_on(tmp_path, frames, cluster, make_trajectory):
    broken = make_trajectory(cluster, 3, 0.5, 1)
    without_momenta(broken)
    with TrajectoryWriter(tmp_path / "a.db") as writer:
        writer.add("one", frames, 0.5)
        with pytest.raises(ValueError, match="no velocities"):
            writer.add("broken", broken, 0.5)
        writer.add("two", frames, 0.5)
    dataset = ASEAtomsData(str(tmp_path / "a.db"))
    assert len(dataset) == 8
    assert [t.start for t in read_trajectories(dataset.metadata, "a.db")] == [0, 4]


def test_an_error_while_frames_are_read_leaves_nothing_behind(tmp_path, frames):
    def broken_file():
        yield from frames
        raise OSError("cannot read on")

    with pytest.raises(OSError, match="cannot read on"):
        write(tmp_path / "a.db", ("run", frames), ("broken", broken_file()))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_not_overwritten(tmp_path):
    (tmp_path / "a.db").write_text("precious")
    with pytest.raises(FileExistsError, match=r"a\.db' exists"):
        TrajectoryWriter(tmp_path / "a.db")
    assert (tmp_path / "a.db").read_text() == "precious"


@pytest.mark.parametrize("resume", [False, True])
def test_what_another_writer_has_finished_is_not_overwritten(tmp_path, frames, resume):
    path = tmp_path / "a.db"
    with TrajectoryWriter(path, resume=resume) as one:
        other = TrajectoryWriter(path, resume=resume)
        one.add("one", frames, 0.5)
    written = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"a\.db' exists"), other:
        other.add("other", frames[:2], 0.5)
    assert path.read_bytes() == written
    assert list(tmp_path.iterdir()) == [path]
    path.unlink()
    write(path, ("one", frames))  # no lock is left


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
@pytest.mark.parametrize("resume", [False, True])
def test_what_appears_while_it_is_written_is_not_overwritten(tmp_path, monkeypatch, frames, resume, links):
    def no_link(source, target):
        raise PermissionError(errno.EPERM, "Operation not permitted", source, None, target)

    if not links:
        monkeypatch.setattr("os.link", no_link)
    path = tmp_path / "a.db"

    def run(first, meanwhile=lambda: None):
        with TrajectoryWriter(path, resume=resume) as writer:
            writer.add("run", first, 0.5)
            writer.add("next", frames, 0.5)
            meanwhile()

    with pytest.raises(FileExistsError, match=r"a\.db' exists"):
        run(frames, lambda: path.write_text("precious"))
    assert path.read_text() == "precious"
    path.unlink()
    assert [file.name for file in tmp_path.iterdir()] == ([".a.part.db"] if resume else [])
    run(frames if not resume else (pytest.fail("read again") for _ in frames))
    assert len(ASEAtomsData(str(path))) == 8
    assert list(tmp_path.iterdir()) == [path]


def test_other_refusals(tmp_path, frames):
    path = tmp_path / "a.db"
    with pytest.raises(ValueError, match=r"ends in \.db"):
        write(tmp_path / "a.xyz", ("run", frames))
    with pytest.raises(ValueError, match="no trajectory was added"):
        write(path)
    with pytest.raises(ValueError, match=r"'run' is in .* already"):
        write(path, ("run", frames), ("run", frames))
    with pytest.raises(ValueError, match="'run' has no frames"):
        write(path, ("run", []))
    with pytest.raises(ValueError, match=r"does not have: \['absent'\]"):
        write(path, ("run", frames), splits={"train": ["absent"]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("timestep_fs", [0.0, -0.5, float("nan")])
def test_a_time_step_that_is_not_positive_is_refused_by_the_writer(tmp_path, frames, timestep_fs):
    with pytest.raises(ValueError, match=r"time step .* must be positive"):
        write(tmp_path / "a.db", ("run", frames), timestep_fs=timestep_fs)


def test_a_database_without_trajectories_is_refused():
    with pytest.raises(ValueError, match=r"'a\.db' has no 'trajectories'.*TrajectoryWriter"):
        read_trajectories({}, "a.db")


def test_metadata(database):
    metadata = connect(database).metadata
    trajectories = read_trajectories(metadata, str(database))
    assert trajectories[1] == Trajectory("run_1", start=25, length=25, timestep_fs=0.5)
    assert trajectories[1].frames == range(25, 50)
    assert metadata["groups_ids"]["trajectory"] == list(np.repeat(range(5), 25))
    assert metadata["splits"]["val"] == [list(range(25, 50))]


def test_schnetpack_reads_what_was_written(tmp_path, frames):
    write(tmp_path / "a.db", ("run", frames))
    dataset = ASEAtomsData(str(tmp_path / "a.db"))
    assert dataset.units == {"energy": "eV", "forces": "eV/Ang", "velocities": "Ang/fs"}
    assert len(dataset) == len(frames)
    for i, atoms in enumerate(frames):
        sample = dataset[i]
        np.testing.assert_array_equal(sample["_positions"].numpy(), atoms.positions)
        np.testing.assert_array_equal(sample["forces"].numpy(), atoms.get_forces())
        assert sample["energy"].item() == atoms.get_potential_energy()
        np.testing.assert_allclose(sample["velocities"].numpy(), atoms.get_velocities() * ase.units.fs, rtol=1e-15)


def test_masses_and_cells_are_kept(tmp_path, frames):
    for i, atoms in enumerate(frames):
        atoms.set_masses([2.014 if z == 1 else None for z in atoms.numbers])
        atoms.cell = np.diag([10.0, 11.0, 12.0 + i])
        atoms.pbc = (True, True, False)
    write(tmp_path / "a.db", ("run", frames))
    row = connect(tmp_path / "a.db").get(4)
    read: Atoms = row.toatoms()
    np.testing.assert_array_equal(read.get_masses()[-2:], 2.014)
    assert read.cell[2, 2] == 15.0
    assert read.pbc.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("splitting", "sizes"),
    [
        (GroupSplit("trajectory"), (3, 1, 1)),
        (SubsamplePartitions(["train", "val", "test"]), (60, 25, 25)),
        (TrajectorySplit(), (2, 1, 1)),
        (TimeBlockSplit(guard=3), (0.5, 0.25, 0.25)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_static_training_on_a_trajectory_database(tmp_path, monkeypatch, database, splitting, sizes):
    monkeypatch.chdir(tmp_path)  # SchNetPack writes its lock where it is
    if isinstance(splitting, TimeBlockSplit):  # SchNetPack would turn its fractions into numbers of frames
        sizes = splitting.split(ASEAtomsData(str(database)), *sizes)
        np.savez("split.npz", **dict(zip(("train_idx", "val_idx", "test_idx"), sizes, strict=True)))
        sizes = [len(part) for part in sizes]
    data = AtomsDataModule(
        str(database), 4, *sizes, splitting=splitting, transforms=[ASENeighborList(4.0)], num_workers=0
    )
    data.setup()
    groups = [{i // 25 for i in part} for part in (data.train_idx, data.val_idx, data.test_idx)]
    if not isinstance(splitting, TimeBlockSplit):
        assert not groups[0] & groups[1]
        assert not groups[0] & groups[2]
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        batch = next(iter(loader))
        assert batch["energy"].shape == (4,)
        assert batch["forces"].shape == batch["velocities"].shape == (24, 3)
        assert batch["_idx_i"].max() < 24
