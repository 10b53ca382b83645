"""A trajectory that another program made, as an evaluation keeps it: Å, fs, eV and Dalton, in an HDF5 file of its own.

So the folder of an evaluation stays what it is when the files of the program are moved, and report and relabelling need not
be told again what those files leave open.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from spk_dt.data.continuation import Continuation
from spk_dt.evaluation.simulated_trajectory import SimulatedTrajectory

__all__ = ["TrajectoryFile"]

#: fields of `SimulatedTrajectory` that are stored where they are known
_FIELDS = (
    *("step", "time_fs", "positions", "velocities", "potential_energy", "forces"),
    *("atomic_numbers", "masses", "cell", "pbc", "mobile"),
)


@dataclass(frozen=True)
class TrajectoryFile:
    """The file of a trajectory.

    Args:
        path: the file.
    """

    path: Path

    @classmethod
    def of(cls, folder: Path, number: int) -> "TrajectoryFile":
        """That of a trajectory, by its number, in the folder of its name."""
        return cls(folder / f"trajectory_{number}.hdf5")

    def write(self, trajectory: SimulatedTrajectory) -> None:
        """Write the file, which must not exist."""
        with h5py.File(self.path, "x") as file:
            for name in _FIELDS:
                value = getattr(trajectory, name)
                if value is not None:
                    file[name] = value
            file.attrs["unwrapped"] = trajectory.unwrapped

    def read(self, starts: Mapping[int, Continuation]) -> Iterator[SimulatedTrajectory]:
        """The trajectory, once for each start frame, of which it has one."""
        for _ in starts:
            with h5py.File(self.path, "r") as file:
                fields: dict[str, Any] = {name: np.asarray(file[name]) if name in file else None for name in _FIELDS}
                yield SimulatedTrajectory(**fields, unwrapped=bool(file.attrs["unwrapped"]))
