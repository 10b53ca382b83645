"""From the files of a simulation to a trajectory database.

The readers (`spk_dt.trajectories.readers`) give frames one at a time; each passes through the checks, the unwrapping and,
where the file has no velocities, their recovery, straight into the database. So memory does not grow with the number of
frames. What an interrupted conversion has written is kept beside the database, in a hidden file (see
`spk_dt.trajectories.part_file`); the next one continues it, as far as files (path, size, time of change), options and
version are the same.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from ase import Atoms

from spk_dt.trajectories.database import VELOCITIES, Trajectory, TrajectoryWriter
from spk_dt.trajectories.held import Held
from spk_dt.trajectories.inputs import Job, Reading, whole_frames
from spk_dt.trajectories.timing import timing
from spk_dt.trajectories.unwrapping import checked_frames
from spk_dt.trajectories.velocities import recover_velocities

__all__ = ["Converted", "Progress", "convert"]

#: called with the name of the trajectory, the frames that are read, and their number if it is known
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Converted:
    """A trajectory that was written.

    Args:
        trajectory: its record in the database.
        formula: chemical formula.
        n_atoms: number of atoms.
        notes: what its user should know.
    """

    trajectory: Trajectory
    formula: str
    n_atoms: int
    notes: tuple[str, ...] = ()


def convert(
    inputs: Sequence[str | Path],
    out: str | Path,
    reading: Reading | None = None,
    progress: Progress | None = None,
) -> list[Converted]:
    """Write the trajectories of files to a database.

    Positions are unwrapped along each trajectory. Of energies, the free energy is taken where there is one, since the forces
    are its gradient. Velocities come from the file, or from the positions (`spk_dt.trajectories.velocities`).

    Args:
        inputs: files, or folders, of any format of `spk_dt.trajectories.readers`.
        out: database to create, ending in ``.db``.
        reading: what is stated of the files.
        progress: called after each frame.

    Returns:
        the trajectories, in the order of the files.

    Raises:
        FileExistsError: if `out` exists.
        FileNotFoundError: if an input does not exist.
        ValueError: if an input cannot be understood, lacks something, or contradicts an option; if an option belongs to no
            input; if another process writes `out`.
    """
    reading = reading or Reading()
    writer = TrajectoryWriter(out, resume=True)
    jobs = reading.jobs(inputs)
    timings = [timing(job.raw, reading.timestep_fs, reading.save_every) for job in jobs]
    found = []
    try:
        with writer:
            for job, times in zip(jobs, timings, strict=True):
                found.append(_write(writer, job, times, reading, progress or _silent))
    except ValueError as error:
        n = len(writer.trajectories)
        if n == 0:
            raise
        raise ValueError(
            f"{error} The trajectories before it ({n}) are kept in '{writer.part}': repair this file or leave it out, "
            "and the command goes on from there."
        ) from error
    except sqlite3.OperationalError as error:
        raise ValueError(
            f"'{out}' cannot be written: {error}. What was written before is kept in '{writer.part}'; the same "
            "command goes on from there."
        ) from error
    return found


@dataclass
class _Seen:
    """What is learnt of a trajectory while its frames pass."""

    first: Atoms | None = None
    frames: int = 0
    free_energy: bool = False
    notes: list[str] = field(default_factory=list)


def _write(
    writer: TrajectoryWriter, job: Job, times: tuple[float, int], reading: Reading, progress: Progress
) -> Converted:
    """Write one trajectory; `times` are those of `spk_dt.trajectories.timing`."""
    raw, (interval_fs, inner_steps) = job.raw, times
    seen = _Seen(notes=list(raw.notes))
    held = Held(raw, job.fixed, job.source)
    whole = whole_frames(raw, reading.drop_incomplete, seen.notes)
    frames = held.watched(checked_frames(_noted(whole, seen), job.source))
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{job.source} has no complete frame.")
    has_velocities = first.has("momenta") and not reading.recover_velocities
    frames = _watched(chain([first], frames), job.name, seen, raw.n_frames, progress)
    if not has_velocities:
        frames = recover_velocities(frames, interval_fs, inner_steps, job.source)
    trajectory = writer.add(
        job.name, frames, interval_fs, inner_steps, VELOCITIES[0] if has_velocities else VELOCITIES[1], job.depends_on()
    )
    progress(job.name, trajectory.length, trajectory.length)
    if seen.free_energy:
        seen.notes.append("the energy is the free energy, which the forces are the gradient of")
    return Converted(trajectory, first.get_chemical_formula(), len(first), (*seen.notes, *held.notes()))


def _noted(frames: Iterable[Atoms], seen: _Seen) -> Iterator[Atoms]:
    """The frames, of which the first tells whether the energy is a free energy."""
    for index, frame in enumerate(frames):
        if index == 0:
            results = {} if frame.calc is None else frame.calc.results
            seen.free_energy = results.get("free_energy") not in (None, results.get("energy"))
        yield frame


def _watched(
    frames: Iterable[Atoms], name: str, seen: _Seen, n_frames: int | None, progress: Progress
) -> Iterator[Atoms]:
    """The frames, while progress is shown."""
    for frame in frames:
        if seen.first is None:
            seen.first = frame
        seen.frames += 1
        yield frame
        progress(name, seen.frames, n_frames)


def _silent(name: str, done: int, total: int | None) -> None:
    """No progress shown."""
