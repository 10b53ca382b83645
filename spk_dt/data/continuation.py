"""What a reference trajectory does from a frame on: where simulations start, and what they are compared with."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from ase import Atoms
from schnetpack import properties as spk_properties
from schnetpack.data import ASEAtomsData

from spk_dt.data.embedded import unpack
from spk_dt.data.load import rows_of
from spk_dt.data.partition import Partition
from spk_dt.data.start_frames import open_dataset, read_frame
from spk_dt.trajectories.checked_database import read_metadata
from spk_dt.trajectories.database import Trajectory, read_trajectories
from spk_dt.trajectories.moves import same_cell

__all__ = ["EMBEDDED", "Continuation", "continuation", "spread_continuations", "trajectory_database"]

#: what stands for the embedded data set where a path is asked for
EMBEDDED = "embedded"


@dataclass(frozen=True)
class Continuation:
    """A frame of a trajectory, with what the reference does from there on, as long as its cell stays what it is.

    Args:
        trajectory: name of the trajectory.
        frame: index of the frame in the trajectory.
        timestep_fs: time step of the simulation, in fs.
        start: the frame in the units of ASE, with momenta, energy and forces.
        positions: [n_frames, n_atoms, 3] Å, the first ones of the start frame.
        energies: [n_frames] eV, likewise.
        forces: [n_frames, n_atoms, 3] eV/Å, likewise.
        following: number of steps for which the trajectory goes on; fewer may have been read.
        inner_steps: steps of the simulation from one frame to the next.
    """

    trajectory: str
    frame: int
    timestep_fs: float
    start: Atoms
    positions: np.ndarray
    energies: np.ndarray
    forces: np.ndarray
    following: int
    inner_steps: int = 1

    @property
    def steps(self) -> int:
        """Number of steps from the start frame to the last frame that has been read."""
        return (len(self.forces) - 1) * self.inner_steps

    @property
    def time_fs(self) -> np.ndarray:
        """[n_frames] time of each frame since the start frame, in fs."""
        return self.timestep_fs * self.inner_steps * np.arange(len(self.forces))


@contextmanager
def trajectory_database(data: str | Path) -> Iterator[Path]:
    """The database that `data` names; for the word ``embedded`` one in a temporary folder.

    Raises:
        FileNotFoundError: if there is no database.
    """
    if str(data) == EMBEDDED:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "h2_pd6_graphene.db"
            unpack(path)
            yield path
    elif not Path(data).is_file():
        raise FileNotFoundError(
            f"there is no trajectory database '{data}'; the word '{EMBEDDED}' stands for the data that come with spk_dt."
        )
    else:
        yield Path(data)


def continuation(database: str | Path, trajectory: str, frame: int, steps: int | None = None) -> Continuation:
    """A frame of a trajectory and what follows it.

    Args:
        database: trajectory database with energy, forces and velocities.
        trajectory: name of the trajectory.
        frame: index of the frame in the trajectory.
        steps: read no further than this number of steps; None reads all.

    Raises:
        ValueError: if there is no such trajectory or frame.
    """
    known = {record.name: record for record in read_trajectories(read_metadata(database), str(database))}
    if trajectory not in known:
        raise ValueError(f"'{database}' has no trajectory '{trajectory}'; it has {', '.join(known)}.")
    return _follow(open_dataset(database), known[trajectory], frame, steps)


def spread_continuations(
    partition: Partition,
    number: int | None = None,
    per_trajectory: int = 1,
    steps: int | None = None,
) -> list[Continuation]:
    """Start frames at equal distances along each trajectory of a partition, and what follows them.

    Args:
        partition: of a trajectory database.
        number: number of trajectories, the first ones; None takes all.
        per_trajectory: start frames of each trajectory; one is the first that is in the partition.
        steps: read no further than this number of steps from each of them.

    Returns:
        by trajectory, then by frame.

    Raises:
        ValueError: if there are fewer trajectories, one of them is shorter than the number of start frames, or the database
            lacks velocities, energy or forces.
    """
    dataset = open_dataset(partition.source)
    found = []
    for part in partition.first(number).parts:
        length = len(part.frames)
        if not 1 <= per_trajectory <= length:
            raise ValueError(
                f"starts_per_trajectory={per_trajectory}: trajectory '{part.trajectory.name}' of '{partition.source}' has "
                f"{length} frames in '{partition.name}'."
            )
        chosen = [part.frames[i * length // per_trajectory] for i in range(per_trajectory)]
        found += [_follow(dataset, part.trajectory, frame, steps) for frame in chosen]
    return found


def _follow(dataset: ASEAtomsData, trajectory: Trajectory, frame: int, steps: int | None) -> Continuation:
    """Read the frame, and positions, energies and forces from there on."""
    if not 0 <= frame < trajectory.length:
        raise ValueError(
            f"frame {frame}: trajectory '{trajectory.name}' of '{dataset.datapath}' has frames 0 to "
            f"{trajectory.length - 1}."
        )
    inner_steps = trajectory.inner_steps
    end = trajectory.length - 1
    last = end if steps is None else min(frame + steps // inner_steps, end)
    rows = rows_of(dataset, trajectory.start + frame, trajectory.start + last + 1)
    start = read_frame(dataset, trajectory, frame)
    positions: list[np.ndarray] = []
    energies, forces = [], []
    for row in rows:
        if not same_cell(row.cell * dataset.distance_conversion, start.cell.array, start.pbc):
            end = frame + len(positions) - 1
            break
        positions.append(row.positions)
        energies.append(float(np.sum(row.data[spk_properties.energy])))
        forces.append(np.asarray(row.data[spk_properties.forces]))
    return Continuation(
        trajectory=trajectory.name,
        frame=frame,
        timestep_fs=trajectory.timestep_fs / inner_steps,
        start=start,
        positions=np.array(positions) * dataset.distance_conversion,
        energies=np.array(energies) * dataset.conversions[spk_properties.energy],
        forces=np.array(forces) * dataset.conversions[spk_properties.forces],
        following=(end - frame) * inner_steps,
        inner_steps=inner_steps,
    )
