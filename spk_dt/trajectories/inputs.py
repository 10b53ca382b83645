"""The trajectories that a command is given, each with the options of its reader: what `spkdt convert` and `evaluate` share.

What a file leaves open, such as units, elements or masses, is stated by options and never guessed. An option that no
input can take is refused.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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

#: options that do not depend on the reader, but on which frames do
_STATED = ("units", "masses", "keep_momenta", "charge", "spin")


@dataclass(frozen=True)
class Reading:
    """What is stated of files, each where they do not say it; None or empty states nothing.

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

    Raises:
        ValueError: if a time step, or a number of steps, is not positive.
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

    def __post_init__(self) -> None:
        """Refuse times that make no sense."""
        if self.timestep_fs is not None and not 0.0 < self.timestep_fs < float("inf"):
            raise ValueError(f"--timestep-fs {self.timestep_fs:g}: a time step is positive.")
        if self.save_every is not None and self.save_every < 1:
            raise ValueError(f"--save-every {self.save_every}: there is at least one step between frames.")

    def options(self) -> dict[str, Any]:
        """All on which frames depend, by name; None where nothing is stated."""
        return {
            "energy_key": self.energy_key,
            "forces_key": self.forces_key,
            "velocities_key": self.velocities_key,
            "velocity_unit": self.velocity_unit,
            "lammps_units": self.lammps_units,
            "lammps_elements": None if self.lammps_elements is None else list(self.lammps_elements),
            "save_every": self.save_every,
            "recover_velocities": self.recover_velocities or None,
            "units": dict(self.units) if self.units else None,
            "masses": {str(who): mass for who, mass in self.masses.items()} if self.masses else None,
            "charge": self.charge,
            "spin": self.spin,
        }

    def jobs(
        self, inputs: Sequence[str | Path], more: Mapping[str, Any] | None = None, lenient: bool = False
    ) -> list["Job"]:
        """The trajectories of inputs as stated, with names of their own.

        Args:
            inputs: files, or folders.
            more: further options of readers, by name; None where nothing is stated.
            lenient: whether energies and forces may be missing, as far as a reader can do without.

        Raises:
            FileNotFoundError: if an input does not exist.
            ValueError: if an input is given twice or cannot be understood, or an option belongs to no input.
        """
        selection = None if self.fixed is None else FixedSelection(self.fixed)
        paths, logs = [Path(path) for path in inputs], [Path(path) for path in self.lammps_logs]
        found = _jobs(paths, self.options() | dict(more or {}), logs, selection, lenient)
        return [_stated(job, self.masses or {}) for job in found]


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
        return [
            version("spk_dt"),
            version("ase"),
            files,
            dict(self.options),
            None if self.fixed is None else self.fixed.text,
        ]


def _stated(job: Job, masses: Masses) -> Job:
    """The trajectory with what is stated: units, masses, total charge and spin multiplicity."""
    raw, options, source = job.raw, job.options, f"'{job.raw.files[0]}'"

    def frames() -> Iterator[Atoms]:
        found = raw.frames()
        if "units" in options or masses:
            found = restated(found, options.get("units", {}), masses, options.get("keep_momenta", raw.momenta), source)
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
        own: dict[str, Any] = {
            name: value
            for name, value in options.items()
            if value is not None and (name in options_of(reader) or name in _STATED)
        }
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


def _refuse_unused(readers: Sequence[ModuleType], options: Mapping[str, Any], n_logs: int) -> None:
    """Refuse options that would have no effect."""
    general = ("save_every", "recover_velocities", *_STATED)
    for name, value in options.items():
        if value is not None and name not in general and not any(name in options_of(reader) for reader in readers):
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
