"""The trajectories that a command is given, each with the options of its reader: what `spkdt convert` and `evaluate` share.

What a file leaves open, such as units, elements or masses, is stated by options and never guessed. An option that no
input can take is refused.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from ase import Atoms

from spk_dt.trajectories.fixed_atoms import FixedSelection
from spk_dt.trajectories.readers import READERS, IncompleteFrameError, RawTrajectory, find_reader, lammps, options_of
from spk_dt.trajectories.readers.compressed import plain_name
from spk_dt.trajectories.stated import Masses, restated
from spk_dt.trajectories.stored_properties import with_charge_and_spin

__all__ = ["Job", "Reading", "whole_frames"]

#: options on which frames do not depend, but their times, their end, and what else they are read with
_NOT_OF_FRAMES = ("timestep_fs", "drop_incomplete", "lammps_logs", "fixed")

#: options that do not depend on the reader, but on which frames do
_STATED = ("units", "masses", "keep_momenta", "charge", "spin")


@dataclass(frozen=True)
class Reading:
    """What is stated of files, each where they do not say it, and what of them is wanted; None or empty states nothing.

    Args:
        timestep_fs: time step of the simulation, fs.
        save_every: steps of the simulation between two frames; None for one.
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
            files say.
        units: units that numbers are in, whatever the reader takes them for, by quantity (`spk_dt.trajectories.stated`).
        masses: masses of the simulation in Dalton, by element or by index of the atom.
        charge: total charge of all inputs in e.
        spin: their spin multiplicity.
        vasp_mlff: take the frames of VASP's machine-learned force field, not those ab initio.
        keep_momenta: whether momenta stay as they are where masses are stated, else velocities; None for what the file has.
        take: names of the trajectories to take from a trajectory database.
        cut: frames after which a trajectory of a database is cut in two.
        leave_out: frames of it to leave out.
        reverse: turn the order of its frames round.
        shift: by how many frames its ``forces`` or ``energy`` come too late.

    Raises:
        ValueError: if a time step, or a number of steps, is not positive, or `keep_momenta` is stated without masses.
    """

    timestep_fs: float | None = None
    save_every: int | None = None
    recover_velocities: bool = False
    drop_incomplete: bool = False
    energy_key: str | None = None
    forces_key: str | None = None
    velocities_key: str | None = None
    velocity_unit: str | None = None
    lammps_units: str | None = None
    lammps_elements: Sequence[str] | None = None
    lammps_logs: Sequence[str | Path] = ()
    fixed: str | None = None
    units: Mapping[str, str] | None = None
    masses: Masses | None = None
    charge: float | None = None
    spin: float | None = None
    vasp_mlff: bool = False
    keep_momenta: bool | None = None
    take: Sequence[str] | None = None
    cut: Sequence[int] | None = None
    leave_out: Sequence[int] | None = None
    reverse: bool = False
    shift: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.timestep_fs is not None and not 0.0 < self.timestep_fs < float("inf"):
            raise ValueError(f"--timestep-fs {self.timestep_fs:g}: a time step is positive.")
        if self.save_every is not None and self.save_every < 1:
            raise ValueError(f"--save-every {self.save_every}: there is at least one step between frames.")
        if self.keep_momenta is not None and not self.masses:
            raise ValueError(
                "--keep-momenta and --keep-velocities say what stays where --masses changes masses; give both."
            )

    def options(self) -> dict[str, Any]:
        """What is stated, other than by default, on which frames depend, by name."""
        stated = {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != one.default}
        return {name: value for name, value in stated.items() if name not in _NOT_OF_FRAMES}

    def jobs(self, inputs: Sequence[str | Path], lenient: bool = False) -> list["Job"]:
        """The trajectories of inputs as stated, with names of their own.

        Args:
            inputs: files, or folders.
            lenient: whether energies and forces may be missing, as far as a reader can do without.

        Raises:
            FileNotFoundError: if an input does not exist.
            ValueError: if an input is given twice or cannot be understood, or an option belongs to no input.
        """
        selection = None if self.fixed is None else FixedSelection(self.fixed)
        paths, logs = [Path(path) for path in inputs], [Path(path) for path in self.lammps_logs]
        return [_stated(job) for job in _jobs(paths, self.options(), logs, selection, lenient)]


@dataclass(frozen=True)
class Job:
    """A trajectory of an input.

    Args:
        name: a name that no other has.
        path: the input.
        raw: the trajectory.
        options: those that were stated for it.
        fixed: what is stated to be fixed, None for what the files say.
    """

    name: str
    path: Path
    raw: RawTrajectory
    options: Mapping[str, Any]
    fixed: FixedSelection | None

    @property
    def source(self) -> str:
        """The file, for messages, with the name of the trajectory where that is another."""
        raw = self.raw
        return f"'{raw.files[0]}'" + ("" if raw.name == plain_name(raw.files[0]).stem else f" ({raw.name})")

    def depends_on(self) -> list[Any]:
        """All that its frames depend on."""
        stats = [(file.resolve(), file.stat()) for file in self.raw.files]
        files = [[str(file), stat.st_size, stat.st_mtime_ns] for file, stat in stats]
        options = dict(self.options)
        if "masses" in options:  # JSON sorts names of one type alone
            options["masses"] = {str(who): mass for who, mass in options["masses"].items()}
        return [version("spk_dt"), version("ase"), files, options, None if self.fixed is None else self.fixed.text]


def _stated(job: Job) -> Job:
    """The trajectory with what is stated: units, masses, total charge and spin multiplicity."""
    raw, options, source = job.raw, job.options, f"'{job.raw.files[0]}'"

    def frames() -> Iterator[Atoms]:
        found = raw.frames()
        if "units" in options or "masses" in options:
            units, masses = options.get("units", {}), options.get("masses", {})
            found = restated(found, units, masses, options.get("keep_momenta", raw.momenta), source)
        return with_charge_and_spin(found, options.get("charge"), options.get("spin"), source)

    return replace(job, raw=replace(raw, frames=frames))


def _jobs(
    inputs: Sequence[Path],
    options: Mapping[str, Any],
    logs: Sequence[Path],
    fixed: FixedSelection | None,
    lenient: bool = False,
) -> list[Job]:
    """The trajectories of all inputs, with names of their own."""
    twice = [str(path) for path, n in Counter(path.resolve() for path in inputs).items() if n > 1]
    if twice:
        raise ValueError(f"'{twice[0]}' is given twice.")
    readers = [find_reader(path) for path in inputs]
    _refuse_unused(readers, options, len(logs))
    unread = iter(logs)
    found: list[tuple[Path, RawTrajectory, Mapping[str, Any]]] = []
    for path, reader in zip(inputs, readers, strict=True):
        own = {name: value for name, value in options.items() if name in options_of(reader) or name in _STATED}
        log = next(unread, None) if reader is lammps else None
        try:
            keywords = {name: value for name, value in own.items() if name not in _STATED}
            if reader is lammps:
                keywords["lammps_log"] = log
            if lenient and "lenient" in options_of(reader):
                keywords["lenient"] = True
            raws = reader.read(path, **keywords)
        except IncompleteFrameError as error:
            raise ValueError(f"'{path}' has no complete frame: {error.detail}.") from None
        found += [(path, raw, own) for raw in raws]
    names = _unique_names([(path, raw.name) for path, raw, _ in found])
    _refuse_repeated([(path, raw) for path, raw, _ in found])
    return [Job(name, path, raw, own, fixed) for name, (path, raw, own) in zip(names, found, strict=True)]


def _refuse_repeated(found: Sequence[tuple[Path, RawTrajectory]]) -> None:
    """Refuse trajectories that two inputs bring, as two beads of a run do, of which either brings all."""
    inputs: dict[Path, Path] = {}
    for path, raw in found:
        other = inputs.setdefault(raw.files[0].resolve(), path) if raw.beads > 1 else path
        if other != path:
            raise ValueError(f"'{path}' is a bead of the run of '{other}', which brings all beads; give one of them.")


def _refuse_unused(readers: Sequence[ModuleType], options: Collection[str], n_logs: int) -> None:
    """Refuse options that would have no effect."""
    general = ("save_every", "recover_velocities", *_STATED)
    for name in options:
        if name not in general and not any(name in options_of(reader) for reader in readers):
            takers = ", ".join(reader.__name__.rpartition(".")[2] for reader in READERS if name in options_of(reader))
            raise ValueError(f"--{name.replace('_', '-')} is for {takers} only, and no input is of this format.")
    dumps = sum(reader is lammps for reader in readers)
    if n_logs not in (0, dumps):
        raise ValueError(
            f"--lammps-log is given {n_logs} times for {dumps} LAMMPS dumps; give one for each, in their order."
        )


def _unique_names(named: Sequence[tuple[Path, str]]) -> list[str]:
    """Names of trajectories: with the folder in front, and then a number behind, where they would not differ."""
    names = [name for _, name in named]
    count = Counter(names)
    names = [
        f"{path.resolve().parent.name}_{name}" if count[name] > 1 else name
        for (path, _), name in zip(named, names, strict=True)
    ]
    taken: set[str] = set()
    for i, name in enumerate(names):
        number = 2
        while names[i] in taken:
            names[i] = f"{name}_{number}"
            number += 1
        taken.add(names[i])
    return names


def whole_frames(raw: RawTrajectory, drop_incomplete: bool, notes: list[str]) -> Iterator[Atoms]:
    """Frames of a trajectory; with `drop_incomplete`, those before the one that its file ends within, which is noted."""
    try:
        yield from raw.frames()
    except IncompleteFrameError as error:
        if not drop_incomplete:
            raise
        notes.append(f"frame {error.index}, within which the file ends, was left out: {error.detail}")
