"""Trajectories on disk: SchNetPack's ASE database, with what is needed to know which frames follow each other.

A trajectory database is a valid SchNetPack data set: `schnetpack.data.ASEAtomsData` reads it, and static training uses it
as it is. Its properties are energy, forces and velocities, and what else all frames have of
`spk_dt.trajectories.stored_properties.OPTIONAL_UNITS`, each with its unit. Beyond these its metadata holds

    trajectories   one record per trajectory, see `Trajectory`
    groups_ids     {"trajectory": [trajectory of each frame]}, what `schnetpack.data.GroupSplit` reads
    splits         optional, {"train": [[frames]], "val": ...}, what `schnetpack.data.SubsamplePartitions` reads

Atoms, or components of their positions, that a trajectory holds fixed are in the constraints of its rows, as ASE keeps them.

Frames of a trajectory are consecutive rows, `timestep_fs` apart, with `inner_steps` steps of the simulation from one to the
next.
"""

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ase.units
import numpy as np
from ase import Atoms

from spk_dt import properties
from spk_dt.folders.damage import reading
from spk_dt.trajectories.fixed_atoms import mobile_of
from spk_dt.trajectories.part_file import PartFile, Row, fingerprint
from spk_dt.trajectories.stored_properties import OPTIONAL_UNITS, stored_properties

__all__ = ["PROPERTY_UNITS", "VELOCITIES", "Trajectory", "TrajectoryWriter", "elements_of", "read_trajectories"]

log = logging.getLogger(__name__)

#: units in which a `TrajectoryWriter` stores what each frame must have
PROPERTY_UNITS = {
    properties.energy: "eV",
    properties.forces: "eV/Ang",
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


def elements_of(database: str | Path, rows: np.ndarray | None = None) -> list[int]:
    """Atomic numbers of the elements in a database, or in some of its rows.

    Only the column of the numbers is read, one row after the other, so that a million rows take seconds and no memory.

    Args:
        database: of ASE, in SQLite.
        rows: [n] indices, counted from 0; None takes all.

    Returns:
        in ascending order.

    Raises:
        ValueError: if it is no such database.
    """
    wanted = None if rows is None else set(np.asarray(rows).tolist())
    found: set[bytes] = set()
    with reading(database, "database of ASE", "Give a file of spkdt convert."):
        with closing(sqlite3.connect(f"{Path(database).resolve().as_uri()}?mode=ro", uri=True)) as connection:
            for row, numbers in connection.execute("SELECT id, numbers FROM systems"):
                if wanted is None or row - 1 in wanted:
                    found.add(numbers)
        return sorted({int(number) for one in found for number in np.unique(np.frombuffer(one, dtype="<i4"))})


class TrajectoryWriter:
    """Writes a trajectory database; the file appears under its name only when everything is in it.

    Use as a context manager.

        with TrajectoryWriter("my_aimd.db") as writer:
            writer.add("run_1", ase.io.iread("run_1.extxyz"), timestep_fs=0.5)

    What an error leaves behind is removed. With `resume` what was written is kept instead (see
    `spk_dt.trajectories.part_file`), be the program interrupted, killed, or stopped by an error; the same calls then
    continue it. Only a trajectory whose frames raise ValueError is removed: it is to be repaired, and those before it stay.

    Stress, charges, dipole and magnetic moments among the results of the calculators, and total charge and spin multiplicity
    in `Atoms.info`, are stored too (see `spk_dt.trajectories.stored_properties`). SchNetPack reads only what all frames of a
    database have: a property that a frame lacks is left out of the database, and a warning names the trajectories.

    Args:
        path: database to create, ending in ``.db``.
        splits: optional mapping from partition (``"train"``, ``"val"``, ``"test"``) to names of trajectories.
        resume: whether to continue what an interrupted writer of the same database has left.
        inputs: name and unit of further properties to store, from `Atoms.arrays` (of atoms) or `Atoms.info` (of the system).
        metadata: what else shall be in the metadata, for example where the labels come from.

    Raises:
        FileExistsError: if `path` exists, also on entry and exit; nothing is overwritten.
        ValueError: if `path` does not end in ``.db``; on entry, if another process is writing it.
    """

    def __init__(
        self,
        path: str | Path,
        splits: Mapping[str, Sequence[str]] | None = None,
        resume: bool = False,
        inputs: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        if self.path.suffix != ".db":
            raise ValueError(f"'{path}': the name of a trajectory database ends in .db")
        self._part = PartFile(self.path, resume, PROPERTY_UNITS)
        self._part.check_target()
        self._resume = resume
        self._splits = splits
        self._inputs = dict(inputs or {})
        self.metadata = dict(metadata or {})
        self._trajectories: list[Trajectory] = []

    @property
    def trajectories(self) -> tuple[Trajectory, ...]:
        """The trajectories that are written."""
        return tuple(self._trajectories)

    @property
    def part(self) -> Path:
        """The hidden file that holds them until all are written."""
        return self._part.path

    def __enter__(self) -> Self:
        self._part.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                metadata = self._metadata()
                self._part.finish(sum(trajectory.length for trajectory in self._trajectories), metadata)
        finally:
            self._part.close()

    def add(
        self,
        name: str,
        frames: Iterable[Atoms],
        timestep_fs: float,
        inner_steps: int = 1,
        velocities: str = VELOCITIES[0],
        source: Any = None,
    ) -> Trajectory:
        """Append a trajectory.

        Args:
            name: name, unique within the database.
            frames: frames in order of time; each carries velocities (or momenta), and energy and forces from a
                calculator, in the units of ASE.
            timestep_fs: time between two frames, in fs.
            inner_steps: steps of the simulation between two frames.
            velocities: where the velocities come from, one of `VELOCITIES`.
            source: with `resume`, all that the frames depend on, as JSON can hold it. Rows that an interrupted writer has
                written from an equal source are kept; `frames` are then read from the first one on, but not written
                again, and not even read if all of them are there.

        Returns:
            the record of the trajectory.

        Raises:
            ValueError: if the name is taken, time step or number of inner steps is not positive, there is no frame, or a
                frame lacks velocities, energy or forces, is not of the composition of the first, or holds other atoms fixed.
        """
        if any(trajectory.name == name for trajectory in self._trajectories):
            raise ValueError(f"trajectory '{name}' is in '{self.path}' already; give each trajectory its own name.")
        if not timestep_fs > 0.0:
            raise ValueError(
                f"time step {timestep_fs} fs of trajectory '{name}': the time between two frames must be positive."
            )
        if inner_steps < 1 or velocities not in VELOCITIES:
            raise ValueError(
                f"inner_steps={inner_steps}, velocities='{velocities}' of trajectory '{name}': there is at least one "
                f"step between frames, and velocities come from {' or '.join(VELOCITIES)}."
            )
        start = sum(trajectory.length for trajectory in self._trajectories)
        key = fingerprint([name, float(timestep_fs), int(inner_steps), velocities, source])
        length = self._part.begin(len(self._trajectories), start, key)
        if length is None:
            try:
                written = self._part.n_rows - start
                length = written + self._part.write(islice(self._rows(name, frames), written, None))
                if length == 0:
                    raise ValueError(f"trajectory '{name}' has no frames.")
            except BaseException as error:
                if isinstance(error, ValueError) or not self._resume:
                    self._part.cut(start)
                raise
        trajectory = Trajectory(name, start, length, float(timestep_fs), int(inner_steps), velocities)
        self._trajectories.append(trajectory)
        return trajectory

    def _rows(self, name: str, frames: Iterable[Atoms]) -> Iterator[Row]:
        """Rows of the database, one for each frame."""
        numbers, mobile = None, None
        for index, atoms in enumerate(frames):
            numbers = atoms.numbers if numbers is None else numbers
            row = self._row(name, index, atoms, numbers)
            own = mobile_of(atoms)
            mobile = own if mobile is None else mobile
            if not np.array_equal(own, mobile):
                raise ValueError(
                    f"frame {index} of trajectory '{name}' holds other atoms fixed than the first frame. Set the same "
                    "constraints in all frames (Atoms.set_constraint), or write them as two trajectories."
                )
            yield row

    def _row(self, name: str, index: int, atoms: Atoms, numbers: np.ndarray) -> Row:
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
        missing = [key for key in (properties.energy, properties.forces) if key not in results]
        if missing:
            raise ValueError(f"{where} has no {' and no '.join(missing)}; each frame needs energy and forces.")
        data = stored_properties(atoms, where, self._inputs) | {
            properties.energy: np.array([results["energy"]], dtype=np.float64),
            properties.forces: np.asarray(results["forces"], dtype=np.float64),
            properties.velocities: atoms.get_velocities() * ase.units.fs,
        }
        structure = atoms.copy()  # without its calculator: energy and forces are in `data`
        structure.info = {}
        return structure, {}, data

    def _metadata(self) -> dict[str, Any]:
        """Properties, trajectories, groups and splits."""
        if not self._trajectories:
            raise ValueError(f"no trajectory was added to '{self.path}'.")
        frames_of = {trajectory.name: list(trajectory.frames) for trajectory in self._trajectories}
        metadata: dict[str, Any] = self.metadata | {
            "_property_unit_dict": self._units(),
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
        return metadata

    def _units(self) -> dict[str, str]:
        """Unit of each property that all frames have; says which are left out because some frames lack them."""
        units = PROPERTY_UNITS | OPTIONAL_UNITS | self._inputs
        found = self._part.found[: len(self._trajectories)]
        in_all = frozenset.intersection(*(each for each, _ in found))
        for key in sorted(frozenset.union(*(some for _, some in found)) - in_all):
            lacking = [t.name for t, (each, _) in zip(self._trajectories, found, strict=True) if key not in each]
            names = ", ".join(f"'{name}'" for name in lacking[:5]) + (", ..." if len(lacking) > 5 else "")
            log.warning(
                f"'{self.path}' is written without {key}, since frames of {len(lacking)} of {len(found)} trajectories "
                f"lack it ({names}). To keep it, add it to each of their frames, or leave these trajectories out."
            )
        return {key: unit for key, unit in units.items() if key in in_all}
