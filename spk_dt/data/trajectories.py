"""Trajectories on disk: SchNetPack's ASE database, with what is needed to know which frames follow each other.

A trajectory database is a valid SchNetPack data set: `schnetpack.data.ASEAtomsData` reads it, and static training uses it
as it is. Beyond the properties (energy, forces, velocities, each with its unit) its metadata holds

    trajectories   one record per trajectory, see `Trajectory`
    groups_ids     {"trajectory": [trajectory of each frame]}, what `schnetpack.data.GroupSplit` reads
    splits         optional, {"train": [[frames]], "val": ...}, what `schnetpack.data.SubsamplePartitions` reads

Frames of a trajectory are consecutive rows, `timestep_fs` apart, with `inner_steps` steps of the simulation from one to the
next.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ase.units
import numpy as np
from ase import Atoms
from ase.db import connect
from schnetpack import properties as spk_properties
from schnetpack.data import ASEAtomsData

from spk_dt import properties

__all__ = ["PROPERTY_UNITS", "VELOCITIES", "Trajectory", "TrajectoryWriter", "read_trajectories"]

#: units in which a `TrajectoryWriter` stores
PROPERTY_UNITS = {
    spk_properties.energy: "eV",
    spk_properties.forces: "eV/Ang",
    properties.velocities: "Ang/fs",
}

#: where velocities may come from: the simulation, or the positions of neighbouring frames
VELOCITIES = ("file", "central differences")


@dataclass(frozen=True)
class Trajectory:
    """One trajectory of a database.

    Args:
        name: name, unique within the database.
        start: index of its first frame, counted from 0 over the whole database.
        length: number of frames.
        timestep_fs: time between two frames, in fs.
        inner_steps: steps of the simulation between two frames, n; frames were saved every n steps of timestep_fs / n.
        velocities: where the velocities come from, one of `VELOCITIES`.
    """

    name: str
    start: int
    length: int
    timestep_fs: float
    inner_steps: int = 1
    velocities: str = VELOCITIES[0]

    @property
    def frames(self) -> range:
        """Indices of its frames in the database."""
        return range(self.start, self.start + self.length)


def read_trajectories(metadata: Mapping[str, Any], source: str) -> list[Trajectory]:
    """The trajectories named in the metadata of a database.

    Args:
        metadata: metadata of the ASE database.
        source: path of the database, for the error message.

    Raises:
        ValueError: if the database does not say which frames follow each other, or how far apart they are.
    """
    if "trajectories" not in metadata:
        raise ValueError(
            f"'{source}' has no 'trajectories' in its metadata, so it is not known which frames follow each other and "
            "at what time step. Write it with spk_dt.data.TrajectoryWriter."
        )
    trajectories = [Trajectory(**record) for record in metadata["trajectories"]]
    for trajectory in trajectories:
        if not trajectory.timestep_fs > 0.0:
            raise ValueError(
                f"trajectory '{trajectory.name}' of '{source}' has time step {trajectory.timestep_fs} fs; "
                "the time between two frames must be positive."
            )
        if not trajectory.inner_steps >= 1:
            raise ValueError(
                f"trajectory '{trajectory.name}' of '{source}' has {trajectory.inner_steps} steps between two frames; "
                "there is at least one."
            )
    return trajectories


class TrajectoryWriter:
    """Writes a trajectory database; the file appears under its name only when everything is in it.

    Use as a context manager. What an error leaves behind is removed.

        with TrajectoryWriter("my_aimd.db") as writer:
            writer.add("run_1", ase.io.iread("run_1.extxyz"), timestep_fs=0.5)

    Args:
        path: database to create, ending in ``.db``.
        splits: optional mapping from partition (``"train"``, ``"val"``, ``"test"``) to names of trajectories.

    Raises:
        FileExistsError: if `path` exists; nothing is overwritten.
        ValueError: if `path` does not end in ``.db``.
    """

    def __init__(self, path: str | Path, splits: Mapping[str, Sequence[str]] | None = None) -> None:
        self.path = Path(path)
        if self.path.suffix != ".db":
            raise ValueError(f"'{path}': the name of a trajectory database ends in .db")
        if self.path.exists():
            raise FileExistsError(f"'{path}' exists. Remove it or choose another name.")
        self._part = self.path.with_name(f".{self.path.stem}.part.db")
        self._splits = splits
        self._trajectories: list[Trajectory] = []

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._part.unlink(missing_ok=True)
        ASEAtomsData.create(str(self._part), distance_unit="Ang", property_unit_dict=PROPERTY_UNITS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._part.unlink(missing_ok=True)
            return
        try:
            self._write_metadata()
            self._part.rename(self.path)
        finally:
            self._part.unlink(missing_ok=True)

    def add(
        self,
        name: str,
        frames: Iterable[Atoms],
        timestep_fs: float,
        inner_steps: int = 1,
        velocities: str = VELOCITIES[0],
    ) -> Trajectory:
        """Append a trajectory.

        Args:
            name: name, unique within the database.
            frames: frames in order of time; each carries velocities (or momenta), and energy and forces from a
                calculator, in the units of ASE.
            timestep_fs: time between two frames, in fs.
            inner_steps: steps of the simulation between two frames.
            velocities: where the velocities come from, one of `VELOCITIES`.

        Returns:
            the record of the trajectory.

        Raises:
            ValueError: if the name is taken, time step or number of inner steps is not positive, there is no frame, or a
                frame lacks velocities, energy or forces, or is not of the composition of the first.
        """
        if any(trajectory.name == name for trajectory in self._trajectories):
            raise ValueError(f"trajectory '{name}' is in '{self.path}' already; give each trajectory its own name.")
        if not timestep_fs > 0.0:
            raise ValueError(
                f"time step {timestep_fs} fs of trajectory '{name}': the time between two frames must be positive."
            )
        if inner_steps < 1 or velocities not in VELOCITIES:
            raise ValueError(
                f"inner_steps={inner_steps}, velocities='{velocities}' of trajectory '{name}': there is at least one step "
                f"between frames, and velocities come from {' or '.join(VELOCITIES)}."
            )
        start = sum(trajectory.length for trajectory in self._trajectories)
        length = 0
        numbers = None
        with connect(self._part, use_lock_file=False) as database:
            for atoms in frames:
                numbers = atoms.numbers if numbers is None else numbers
                database.write(*self._row(name, length, atoms, numbers))
                length += 1
        if length == 0:
            raise ValueError(f"trajectory '{name}' has no frames.")
        trajectory = Trajectory(name, start, length, float(timestep_fs), int(inner_steps), velocities)
        self._trajectories.append(trajectory)
        return trajectory

    def _row(self, name: str, index: int, atoms: Atoms, numbers: np.ndarray) -> tuple[Atoms, dict, dict]:
        """Structure, key-value pairs and data of one row of the database."""
        where = f"frame {index} of trajectory '{name}'"
        if not np.array_equal(atoms.numbers, numbers):
            raise ValueError(f"{where} has other atoms, or another order of atoms, than the first frame.")
        if not atoms.has("momenta"):
            raise ValueError(
                f"{where} has no velocities. Set them with Atoms.set_velocities; for a trajectory made with velocity "
                "Verlet they are v(t) = (x(t + dt) - x(t - dt)) / (2 dt)."
            )
        results = atoms.calc.results if atoms.calc is not None else {}
        missing = [key for key in (spk_properties.energy, spk_properties.forces) if key not in results]
        if missing:
            raise ValueError(f"{where} has no {' and no '.join(missing)}; each frame needs energy and forces.")
        data = {
            spk_properties.energy: np.array([results["energy"]], dtype=np.float64),
            spk_properties.forces: np.asarray(results["forces"], dtype=np.float64),
            properties.velocities: atoms.get_velocities() * ase.units.fs,
        }
        structure = atoms.copy()  # without its calculator: energy and forces are in `data`
        structure.info = {}
        return structure, {}, data

    def _write_metadata(self) -> None:
        """Add trajectories, groups and splits to the metadata."""
        if not self._trajectories:
            raise ValueError(f"no trajectory was added to '{self.path}'.")
        frames_of = {trajectory.name: list(trajectory.frames) for trajectory in self._trajectories}
        metadata: dict[str, Any] = {
            "trajectories": [asdict(trajectory) for trajectory in self._trajectories],
            "groups_ids": {
                "trajectory": [i for i, t in enumerate(self._trajectories) for _ in range(t.length)],
            },
        }
        if self._splits is not None:
            unknown = {name for names in self._splits.values() for name in names} - set(frames_of)
            if unknown:
                raise ValueError(f"splits name trajectories that '{self.path}' does not have: {sorted(unknown)}")
            metadata["splits"] = {
                partition: [[frame for name in names for frame in frames_of[name]]]
                for partition, names in self._splits.items()
            }
        ASEAtomsData(str(self._part)).update_metadata(**metadata)
