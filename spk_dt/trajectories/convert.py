"""From the files of a simulation to a trajectory database.

The readers (`spk_dt.trajectories.readers`) give frames one at a time; each passes through the checks, the unwrapping and,
where the file has no velocities, their recovery, straight into the database. So memory does not grow with the number of
frames. What an interrupted conversion has written is kept beside the database, in a hidden file (see
`spk_dt.trajectories.part_file`); the next one continues it, as far as files (path, size, time of change), options and
version are the same.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from ase import Atoms

from spk_dt.trajectories.database import VELOCITIES, Trajectory, TrajectoryWriter
from spk_dt.trajectories.held import Held
from spk_dt.trajectories.inputs import Job, Reading, whole_frames
from spk_dt.trajectories.stated import Masses
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
    *,
    timestep_fs: float | None = None,
    save_every: int | None = None,
    recover_velocities: bool = False,
    drop_incomplete: bool = False,
    energy_key: str | None = None,
    forces_key: str | None = None,
    velocities_key: str | None = None,
    velocity_unit: str | None = None,
    lammps_units: str | None = None,
    lammps_elements: Sequence[str] | None = None,
    lammps_logs: Sequence[str | Path] = (),
    fixed: str | None = None,
    vasp_mlff: bool = False,
    units: Mapping[str, str] | None = None,
    masses: Masses | None = None,
    keep_momenta: bool | None = None,
    charge: float | None = None,
    spin: float | None = None,
    take: Sequence[str] | None = None,
    cut: Sequence[int] | None = None,
    leave_out: Sequence[int] | None = None,
    reverse: bool = False,
    shift: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> list[Converted]:
    """Write the trajectories of files to a database.

    Positions are unwrapped along each trajectory. Of energies, the free energy is taken where there is one, since the forces
    are its gradient. Velocities come from the file, or from the positions (`spk_dt.trajectories.velocities`).

    Args:
        inputs: files, or folders, of any format of `spk_dt.trajectories.readers`.
        out: database to create, ending in ``.db``.
        timestep_fs: time step of the simulation in fs, where the files do not say it.
        save_every: steps of the simulation between two frames, where the files do not say it; None for one.
        recover_velocities: take velocities from the positions also where the files have them.
        drop_incomplete: leave out the last frame of a file that ends within it, or before the end of the run.
        energy_key: name of the energy in extended XYZ.
        forces_key: name of the forces in extended XYZ.
        velocities_key: name of the velocities in extended XYZ.
        velocity_unit: their unit, one of `spk_dt.trajectories.readers.extxyz.VELOCITY_UNITS`.
        lammps_units: style of units of a LAMMPS dump, ``metal`` or ``real``.
        lammps_elements: elements of the types 1, 2, ... of a LAMMPS dump.
        lammps_logs: log of each LAMMPS dump, in the order of the dumps.
        fixed: atoms that the simulations held fixed, see `spk_dt.trajectories.fixed_atoms.FixedSelection`, whatever the
            files say; None takes what they say.
        vasp_mlff: take the frames of VASP's machine-learned force field, not those ab initio.
        units: units that numbers are in, whatever the reader takes them for, by quantity (`spk_dt.trajectories.stated`).
        masses: masses of the simulation in Dalton, by element or by index of the atom.
        keep_momenta: whether momenta stay as they are where masses are stated, else velocities; None for what the file has.
        charge: total charge of all inputs in e, where the files do not say it.
        spin: their spin multiplicity, likewise.
        take: names of the trajectories to take from a trajectory database.
        cut: frames after which a trajectory of a database is cut in two.
        leave_out: frames of it to leave out.
        reverse: turn the order of its frames round.
        shift: by how many frames its ``forces`` or ``energy`` come too late.
        progress: called after each frame.

    Returns:
        the trajectories, in the order of the files.

    Raises:
        FileExistsError: if `out` exists.
        FileNotFoundError: if an input does not exist.
        ValueError: if an input cannot be understood, lacks something, or contradicts an option; if an option belongs to no
            input; if another process writes `out`.
    """
    reading = Reading(
        timestep_fs,
        save_every,
        recover_velocities,
        drop_incomplete,
        energy_key,
        forces_key,
        velocities_key,
        velocity_unit,
        lammps_units,
        lammps_elements,
        lammps_logs,
        fixed,
        units,
        masses,
        charge,
        spin,
    )
    more = {
        "vasp_mlff": vasp_mlff or None,
        "keep_momenta": keep_momenta,
        "take": take,
        "cut": cut,
        "leave_out": leave_out,
        "reverse": reverse or None,
        "shift": dict(shift) if shift else None,
    }
    if keep_momenta is not None and not masses:
        raise ValueError(
            "--keep-momenta and --keep-velocities say what stays where --masses changes masses; give both."
        )
    writer = TrajectoryWriter(out, resume=True)
    jobs = reading.jobs(inputs, more)
    timings = [timing(job.raw, timestep_fs, save_every) for job in jobs]
    found = []
    try:
        with writer:
            for job, (interval_fs, inner_steps) in zip(jobs, timings, strict=True):
                found.append(
                    _write(
                        writer,
                        job,
                        interval_fs,
                        inner_steps,
                        recover_velocities,
                        drop_incomplete,
                        progress or _silent,
                    )
                )
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
    writer: TrajectoryWriter,
    job: Job,
    interval_fs: float,
    inner_steps: int,
    recover: bool,
    drop_incomplete: bool,
    progress: Progress,
) -> Converted:
    """Write one trajectory."""
    raw = job.raw
    seen = _Seen(notes=list(raw.notes))
    held = Held(raw, job.fixed, job.source)
    frames = held.watched(checked_frames(_noted(whole_frames(raw, drop_incomplete, seen.notes), seen), job.source))
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{job.source} has no complete frame.")
    has_velocities = first.has("momenta") and not recover
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
