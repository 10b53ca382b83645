"""Partitions never overlap in time."""

from itertools import chain, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from schnetpack.data import ASEAtomsData

from spk_dt.data import TimeBlockSplit, TrajectorySplit, window_starts
from spk_dt.trajectories.database import Trajectory


def dataset_of(lengths, splits=None):
    """What a splitting strategy reads of a database with trajectories of these lengths."""
    starts = np.cumsum([0, *lengths])[:-1]
    records = [{"name": f"t{i}", "start": int(s), "length": n, "timestep_fs": 0.5}
               for i, (s, n) in enumerate(zip(starts, lengths, strict=True))]  # fmt: skip
    metadata = {"trajectories": records}
    if splits is not None:
        metadata["splits"] = splits
    return SimpleNamespace(datapath="a.db", metadata=metadata)


def trajectories_in(partition, dataset):
    return [t["name"] for t in dataset.metadata["trajectories"] if t["start"] in set(partition)]


lengths = st.lists(st.integers(1, 60), min_size=1, max_size=5)


@given(lengths, st.integers(0, 10), st.integers(1, 8), st.floats(0.01, 0.98), st.floats(0.01, 0.98))
def test_blocks_in_time_never_overlap_and_keep_their_distance(lengths, guard, window, train, val):
    dataset = dataset_of(lengths)
    sizes = (train, val, None) if train + val < 1.0 else (train, None, 0.0)
    try:
        parts = TimeBlockSplit(guard).split(dataset, *sizes)
    except ValueError:  # a block that is not longer than its guard
        return
    records = [Trajectory(**r) for r in dataset.metadata["trajectories"]]
    cell, pbc = np.zeros((sum(record.length for record in records), 3, 3)), [np.zeros(3, dtype=bool)] * len(records)
    frames = SimpleNamespace(trajectories=records, source="a.db", cell=cell, pbc=pbc)
    for trajectory in frames.trajectories:
        blocks = [sorted(set(part) & set(trajectory.frames)) for part in parts]
        present = [block for block in blocks if block]
        assert all(block == list(range(block[0], block[-1] + 1)) for block in present)
        for earlier, later in pairwise(present):
            assert later[0] - earlier[-1] - 1 >= guard
    touched = []
    for name, part in zip(("train", "val", "test"), parts, strict=True):
        try:
            starts = window_starts(frames, part, window, name)
        except ValueError:
            continue
        touched.append({int(s) + k for s in starts for k in range(window)})
        assert touched[-1] <= set(part)
    assert sum(map(len, touched)) == len(set().union(*touched))


@given(lengths, st.data())
def test_whole_trajectories(lengths, data):
    dataset = dataset_of(lengths)
    train = data.draw(st.integers(0, len(lengths)))
    val = data.draw(st.integers(0, len(lengths) - train))
    parts = TrajectorySplit().split(dataset, train, val, None)
    assert sorted(chain.from_iterable(parts)) == list(range(sum(lengths)))
    assert [len(trajectories_in(part, dataset)) for part in parts] == [train, val, len(lengths) - train - val]
    assert parts == TrajectorySplit().split(dataset, train, val, None)


def test_fractions_of_trajectories():
    parts = TrajectorySplit().split(dataset_of([5] * 10), 0.7, 0.2, -1)
    assert [len(part) for part in parts] == [35, 10, 5]


def test_a_split_of_the_database_is_taken_and_only_shortened(database):
    dataset = ASEAtomsData(str(database))
    assert TrajectorySplit().split(dataset, None, None, None) == [
        part[0] for part in dataset.metadata["splits"].values()
    ]
    parts = TrajectorySplit().split(dataset, 2, 1, 0)
    assert [trajectories_in(part, dataset) for part in parts] == [["run_0", "run_2"], ["run_1"], []]
    with pytest.raises(ValueError, match=r"data\.num_val=2 trajectories, but .*cluster\.db' has only 1"):
        TrajectorySplit().split(dataset, 2, 2, 0)


def test_a_split_of_the_database_without_a_test_partition():
    dataset = dataset_of([4, 4], splits={"train": [[0, 1, 2, 3]], "val": [[4, 5, 6, 7]]})
    assert TrajectorySplit().split(dataset, None, None, None) == [[0, 1, 2, 3], [4, 5, 6, 7], []]


@pytest.mark.parametrize(
    ("strategy", "sizes", "message"),
    [
        (TrajectorySplit(), (None, None, 1), "only one of data.num_train"),
        (TrajectorySplit(), (2, 1, 1), "ask for 4 of 3"),
        (TimeBlockSplit(), (5, 0.1, 0.1), r"data\.num_train=5: TimeBlockSplit takes fractions"),
        (TimeBlockSplit(), (1.0, None, 0), r"data\.num_train=1\.0: TimeBlockSplit takes fractions"),
        (TimeBlockSplit(guard=20), (0.5, 0.2, None), r"val block of trajectory 't0' has 8 frames.*guard of 20"),
        (TimeBlockSplit(), (0.9, 0.9, None), "ask for"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(strategy, sizes, message):
    with pytest.raises(ValueError, match=message):
        strategy.split(dataset_of([40, 40, 40]), *sizes)


def test_a_negative_guard_is_refused():
    with pytest.raises(ValueError, match="guard=-1"):
        TimeBlockSplit(guard=-1)
