"""Which frames evaluations start from: none that a model was trained on, or a word that this is not known."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from ase.db import connect
from helpers.pair_potential import pair_trajectory, tetrahedron
from typer.testing import CliRunner

from spk_dt.cli import app
from spk_dt.data import TimeBlockSplit, TrajectoryDataModule, TrajectoryWriter
from spk_dt.data.continuation import spread_continuations
from spk_dt.data.partition import read_partition
from spk_dt.trajectories.database import read_trajectories

LENGTH = 21


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four trajectories, as `spkdt convert` leaves them: without partitions."""
    path = tmp_path_factory.mktemp("data") / "mine.db"
    with TrajectoryWriter(path) as writer:
        for seed in range(4):
            writer.add(f"run_{seed}", pair_trajectory(tetrahedron(), LENGTH - 1, 0.5, seed), timestep_fs=0.5)
    return path


def trained(data, folder, splitting=None, sizes=(0.5, 0.25, 0.25)):
    """What training leaves behind; the file of its partitions."""
    folder.mkdir()
    module = TrajectoryDataModule(
        str(data),
        2,
        num_train=sizes[0],
        num_val=sizes[1],
        num_test=sizes[2],
        splitting=splitting,
        split_file=str(folder / "split.npz"),
    )
    module.setup()
    return module, folder / "split.npz"


def frames_of(partition):
    return {part.trajectory.start + frame for part in partition.parts for frame in part.frames}


def test_trajectories_of_the_run(data, tmp_path):
    module, file = trained(data, tmp_path / "run")
    for name, indices in (("test", module.test_idx), ("val", module.val_idx), ("train", module.train_idx)):
        assert frames_of(read_partition(data, name, [file])) == set(indices)
    assert read_partition(data, None, [file]).name == "test"
    assert len(read_partition(data, "all", [file]).parts) == 4


def test_blocks_of_the_run(data, tmp_path):
    """With blocks in time simulations start after the frames of the training, in every trajectory."""
    module, file = trained(data, tmp_path / "run", TimeBlockSplit(guard=2))
    partition = read_partition(data, "test", [file])
    assert len(partition.parts) == 4
    assert frames_of(partition) == set(module.test_idx)
    starts = spread_continuations(partition, per_trajectory=2)
    begin = partition.parts[0].frames.start
    assert [one.frame for one in starts[:2]] == [begin, begin + len(partition.parts[0].frames) // 2]
    with pytest.raises(ValueError, match=r"starts_per_trajectory=9: trajectory 'run_0' .* has \d frames in 'test'"):
        spread_continuations(partition, per_trajectory=9)


def test_several_runs_and_the_database_count_together(data, tmp_path):
    _, file = trained(data, tmp_path / "a")
    trajectories = read_trajectories(connect(data).metadata, "")
    ours = read_partition(data, "test", [file]).parts[0].trajectory
    other = next(one for one in trajectories if one != ours)
    records = json.dumps([asdict(one) for one in trajectories])
    both = tmp_path / "both.npz"
    np.savez(both, trajectories=records, test_idx=[*ours.frames, *other.frames])
    assert [part.trajectory for part in read_partition(data, "test", [file, both]).parts] == [ours]
    np.savez(both, trajectories=records, test_idx=list(other.frames))
    files = "of .*split.npz' and .*both.npz'"
    with pytest.raises(
        ValueError, match=rf"no frame .*mine.db' is in the partition 'test' {files}\. Name .*: --split all\."
    ):
        read_partition(data, "test", [file, both])


def test_what_is_not_known_is_said(data, tmp_path, caplog):
    """Without partitions there is a warning, a name is refused, and a run on other data tells nothing."""
    foreign = tmp_path / "foreign.npz"
    np.savez(foreign, trajectories="[]", test_idx=[0])
    partition = read_partition(data, None, [foreign, tmp_path / "none.npz"])
    assert partition.name == "all"
    assert frames_of(partition) == set(range(4 * LENGTH))
    assert "all 4 trajectories are used, also those that a model may have been trained on" in caplog.text
    with pytest.raises(ValueError, match=r"has no partitions.*split 'all'"):
        read_partition(data, "test", [foreign])


def test_frames_for_simulations(data, tmp_path):
    module, file = trained(data, tmp_path / "run")
    result = CliRunner().invoke(
        app, ["frames", str(tmp_path / "a.traj"), "--data", str(data), "--run", str(file.parent)]
    )
    assert result.exit_code == 0, result.stderr
    tested = module.test_idx[0] // LENGTH
    assert f"run_{tested} (0)" in result.stdout
    assert result.stdout.count("run_") == 1
    none = CliRunner().invoke(app, ["frames", str(tmp_path / "b.traj"), "--data", str(data), "--run", str(tmp_path)])
    assert none.exit_code == 1
    assert "split.npz" in none.stderr
