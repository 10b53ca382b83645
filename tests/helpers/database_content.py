"""All that a trajectory database says, for comparisons."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from ase.db import connect

from spk_dt.data import read_trajectories


def content(path: Path) -> SimpleNamespace:
    """Trajectories, and arrays over all frames, which must be of one system."""
    database = connect(path)
    rows = list(database.select())
    assert [row.id for row in rows] == list(range(1, len(rows) + 1))
    trajectories = read_trajectories(database.metadata, str(path))
    assert sum(trajectory.length for trajectory in trajectories) == len(rows)
    assert len(database.metadata["groups_ids"]["trajectory"]) == len(rows)
    return SimpleNamespace(
        trajectories=trajectories,
        keys=sorted(database.metadata),
        numbers=np.array([row.numbers for row in rows]),
        positions=np.array([row.positions for row in rows]),
        cell=np.array([row.cell for row in rows]),
        pbc=np.array([row.pbc for row in rows]),
        masses=np.array([row.toatoms().get_masses() for row in rows]),
        energy=np.array([row.data["energy"][0] for row in rows]),
        forces=np.array([row.data["forces"] for row in rows]),
        velocities=np.array([row.data["velocities"] for row in rows]),
    )


def assert_same(one: Path, other: Path) -> None:
    """That two databases have the same content, to the last bit."""
    first, second = content(one), content(other)
    for name, value in vars(first).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(second, name), err_msg=name)
        else:
            assert value == getattr(second, name), name
