"""What a trajectory database holds, in words and numbers, from its metadata and one row of each trajectory."""

from pathlib import Path
from typing import Any

from ase.data import chemical_symbols
from ase.db import connect

from spk_dt.trajectories.checked_database import read_metadata
from spk_dt.trajectories.database import elements_of, read_trajectories

__all__ = ["contents"]


def contents(database: Path) -> dict[str, Any]:
    """Plain data that tell what is in a database.

    Args:
        database: of `TrajectoryWriter`.

    Raises:
        ValueError: if it is no trajectory database.
    """
    metadata = read_metadata(database)
    connection = connect(database, use_lock_file=False)
    trajectories = read_trajectories(metadata, str(database))
    shown = trajectories[:20]
    more = {"more": len(trajectories) - len(shown)} if len(trajectories) > len(shown) else {}
    return {
        "frames": sum(one.length for one in trajectories),
        "elements": [chemical_symbols[number] for number in elements_of(database)],
        "units": {"length": metadata.get("_distance_unit", "Ang"), **metadata.get("_property_unit_dict", {})},
        "reference": metadata.get("reference"),
        "partitions": {name: sum(map(len, frames)) for name, frames in metadata.get("splits", {}).items()},
        "trajectories": {
            one.name: {
                "formula": connection.get(one.start + 1).formula,
                "frames": one.length,
                "time_step_fs": one.timestep_fs,
                "velocities": one.velocities,
            }
            for one in shown
        }
        | more,
    }
