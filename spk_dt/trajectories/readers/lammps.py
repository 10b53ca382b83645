"""Text dumps of LAMMPS with forces; the energies come from the log of the same run.

https://docs.lammps.org/dump.html. Positions may be plain (``x``), scaled (``xs``) or unwrapped (``xu``, ``xsu``); atoms are
put in the order of their ``id``. The step of each frame is in the dump, so the number of steps between two frames is known,
and with the time step of the log, or the time in the dump (``dump_modify time yes``), the time between them.

Masses are those of the column ``mass``, or of the commands ``mass`` in the log. The stress comes from the pressure
tensor of the log, from which the part of the momenta is taken; so it needs velocities in the dump, and is left out
without them, for boxes that are not periodic, and for general triclinic ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers

from spk_dt.trajectories.readers.base import RawTrajectory
from spk_dt.trajectories.readers.compressed import largest_size, plain_name, plain_or_packed
from spk_dt.trajectories.readers.incomplete import IncompleteFrameError, first_two
from spk_dt.trajectories.readers.lammps_log import LammpsLog, read_lammps_log
from spk_dt.trajectories.readers.pressure import without_momenta
from spk_dt.trajectories.readers.text import beginning, count_lines, floats, following_lines, open_text

__all__ = ["OPTIONS", "UNITS", "read", "recognises"]

#: keywords of `read`
OPTIONS = ("lammps_units", "lammps_elements", "lammps_log", "lenient")

_KCAL_PER_MOL = ase.units.kcal / ase.units.mol

#: styles of units: that of energy in eV, of time in fs; velocities are in Å per it
UNITS = {"metal": (1.0, 1000.0), "real": (_KCAL_PER_MOL, 1.0)}

#: unit of pressure in eV/Å^3, by style
_PRESSURE = {"metal": ase.units.bar, "real": 1.01325 * ase.units.bar}


@dataclass(frozen=True)
class _Snapshot:
    """A frame of a dump, as it is written."""

    step: int
    time: float | None  # in the unit of the style
    units: str | None
    cell: np.ndarray  # [3, 3]
    origin: np.ndarray  # [3]
    pbc: list[bool]
    general: bool  # whether the box is general triclinic
    columns: list[str]
    rows: list[list[str]]


def recognises(path: Path) -> bool:
    """Whether it is a text dump of LAMMPS."""
    lines = beginning(path, 1)
    return bool(lines) and lines[0].startswith(("ITEM: TIMESTEP", "ITEM: UNITS", "ITEM: TIME"))


def read(
    path: Path,
    lammps_units: str | None = None,
    lammps_elements: Sequence[str] | None = None,
    lammps_log: Path | None = None,
    lenient: bool = False,
) -> list[RawTrajectory]:
    """The trajectory in a dump.

    Args:
        path: the dump.
        lammps_units: style of units, one of `UNITS`; None to take it from dump or log.
        lammps_elements: elements of the types 1, 2, ..., where the dump has no column ``element``.
        lammps_log: log of the same run, which has the energies.
        lenient: whether there may be no log, and no columns of forces; frames are then without.

    Raises:
        ValueError: if units, elements, energies or forces are not known; names the option, or the setting of LAMMPS.
        FileNotFoundError: if the log does not exist.
    """
    if lammps_log is None and not lenient:
        beside = plain_or_packed(path.with_name("log.lammps"))
        raise ValueError(
            f"'{path}' is a dump of LAMMPS, which has no energies. Give the log of the same run, with thermodynamic "
            f"output at every step of the dump: --lammps-log {beside if beside.exists() else 'log.lammps'}"
        )
    log = None if lammps_log is None else read_lammps_log(lammps_log)
    snapshots = first_two(_snapshots(path))
    if not snapshots:
        raise ValueError(f"'{path}' is empty; it should hold frames of a trajectory.")
    first, second = snapshots[0], (snapshots[1] if len(snapshots) == 2 else None)
    said = {} if log is None else {f"'{log.path}'": log.units}
    style = _style(path, {"--lammps-units": lammps_units, f"'{path}'": first.units} | said)
    if log is not None and log.n_atoms is not None and log.n_atoms != len(first.rows):
        raise ValueError(
            f"'{path}' has {len(first.rows)} atoms, the run of '{log.path}' had {log.n_atoms}. Dump all atoms, and "
            "give the log of the same run."
        )
    stride = None
    if second is not None and (stride := second.step - first.step) < 1:
        raise ValueError(f"'{path}', frame 1: step {second.step} does not come after step {first.step} of frame 0.")
    interval = None if log is None or log.timestep is None or stride is None else log.timestep * stride
    if interval is None and second is not None and first.time is not None and second.time is not None:
        interval = second.time - first.time
    lines = len(first.rows) + 9 + (0 if first.time is None else 2)
    noise = None if log is None else log.noise(first.step)
    return [
        RawTrajectory(
            name=plain_name(path).stem,
            files=(path,) if log is None else (path, log.path),
            frames=partial(_frames, path, style, lammps_elements, log, stride, lenient),
            timestep_fs=None if interval is None else interval * UNITS[style][1],
            n_frames=count_lines(path) // lines,
            inner_steps=stride,
            notes=() if noise is None else (noise,),
        )
    ]


def _style(path: Path, said: dict[str, str | None]) -> str:
    """Style of units, on which all that say one agree."""
    found = {where: style for where, style in said.items() if style is not None}
    if not found:
        raise ValueError(
            f"neither '{path}' nor its log says the style of units. Give it with --lammps-units, one of "
            f"{', '.join(UNITS)}."
        )
    if len(set(found.values())) > 1:
        differing = ", ".join(f"{style} in {where}" for where, style in found.items())
        raise ValueError(f"the styles of units of '{path}' differ: {differing}.")
    style = next(iter(found.values()))
    if style not in UNITS:
        raise ValueError(f"units {style} of '{path}' are not known; known are {', '.join(UNITS)}.")
    return style


def _frames(
    path: Path, style: str, elements: Sequence[str] | None, log: LammpsLog | None, stride: int | None, lenient: bool
) -> Iterator[Atoms]:
    """Frames of a dump, in the units of ASE."""
    before = None
    for index, snapshot in enumerate(_snapshots(path)):
        where = f"'{path}', frame {index}"
        if before is not None and snapshot.step - before not in (0, stride):
            raise ValueError(
                f"{where}: step {snapshot.step} follows step {before}, but the first frames are {stride} steps apart. "
                "Frames are missing; convert the parts before and after as files of their own."
            )
        before = snapshot.step
        yield _atoms(snapshot, style, elements, log, path, index, lenient)


def _atoms(
    snapshot: _Snapshot,
    style: str,
    elements: Sequence[str] | None,
    log: LammpsLog | None,
    path: Path,
    index: int,
    lenient: bool,
) -> Atoms:
    """A frame in the units of ASE."""
    where = f"'{path}', frame {index}"
    energy_unit, time_unit = UNITS[style]
    columns = {name: number for number, name in enumerate(snapshot.columns)}

    def table(names: Sequence[str]) -> np.ndarray:
        return floats([[row[columns[name]] for name in names] for row in snapshot.rows], path, index)

    has_forces = {"fx", "fy", "fz"} <= set(columns)
    missing = [name for name in ("id", "fx", "fy", "fz") if name not in columns]
    if missing and not (lenient and missing == ["fx", "fy", "fz"]):
        raise ValueError(
            f"{where}: there are no columns {' '.join(missing)}. Write the dump with "
            "dump 1 all custom N FILE id element x y z vx vy vz fx fy fz"
        )
    kind = next((kind for kind in ("xu", "x", "xsu", "xs") if kind in columns), None)
    names = [] if kind is None else [kind.replace("x", axis, 1) for axis in "xyz"]
    if kind is None or not set(names) <= set(columns):
        raise ValueError(f"{where}: there are no positions, columns x y z.")
    positions = table(names)
    if "s" in kind:
        positions = snapshot.origin + positions @ snapshot.cell
    ids = table(["id"])[:, 0]
    order = np.argsort(ids, kind="stable")
    if len(np.unique(ids)) < len(ids):
        raise ValueError(f"{where}: the id of an atom occurs twice; the file is damaged there.")
    atoms = Atoms(
        _numbers(snapshot, columns, elements, where), positions=positions, cell=snapshot.cell, pbc=snapshot.pbc
    )
    if "mass" in columns:
        atoms.set_masses(table(["mass"])[:, 0])
    elif log is not None and log.masses and "type" in columns:
        standard = atoms.get_masses()
        types = [row[columns["type"]] for row in snapshot.rows]
        atoms.set_masses(
            [log.masses.get(kind, log.masses.get("*", m)) for kind, m in zip(types, standard, strict=True)]
        )
    if {"vx", "vy", "vz"} <= set(columns):
        atoms.set_velocities(table(["vx", "vy", "vz"]) / (time_unit * ase.units.fs))
    results: dict[str, object] = {}
    noise = None if log is None else log.noise(snapshot.step)
    if has_forces and noise is not None and not lenient:
        raise ValueError(f"{where}: {noise}")
    if has_forces and noise is None:
        results["forces"] = table(["fx", "fy", "fz"])[order] * energy_unit
    atoms = atoms[order]
    pressure = None
    if log is not None:
        results["energy"] = log.energy(snapshot.step, where) * energy_unit
        pressure = log.pressure(snapshot.step)
    if pressure is not None and atoms.has("momenta") and atoms.pbc.all() and not snapshot.general:
        results["stress"] = _stress(atoms, pressure * _PRESSURE[style])
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def _stress(atoms: Atoms, pressure: np.ndarray) -> np.ndarray:
    """[6] stress in the order and sign of ASE, from Pxx, Pyy, Pzz, Pxy, Pxz, Pyz with the part of the momenta, eV/Å^3."""
    xx, yy, zz, xy, xz, yz = pressure
    return without_momenta(atoms, np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]))


def _numbers(snapshot: _Snapshot, columns: dict[str, int], elements: Sequence[str] | None, where: str) -> list[int]:
    """Atomic numbers, from types and the option, or from elements; LAMMPS writes C for all that it was not told."""
    written = [row[columns["element"]] for row in snapshot.rows] if "element" in columns else None
    only_carbon = written is not None and set(written) == {"C"}
    if elements is not None and "type" in columns:
        by_type = {str(number): symbol for number, symbol in enumerate(elements, start=1)}
        types = [row[columns["type"]] for row in snapshot.rows]
        unknown = sorted(set(types) - set(by_type))
        if unknown:
            raise ValueError(
                f"{where}: it has atoms of type {unknown[0][:20]}, but --lammps-elements {','.join(elements)} has "
                f"{len(elements)} types."
            )
        symbols = [by_type[word] for word in types]
        different = None if written is None or only_carbon or written == symbols else set(written)
    elif written is not None and not (only_carbon and elements is None):
        symbols = written
        different = None if elements is None or set(written) <= set(elements) else set(written)
    else:
        carbon = ", and C, which is in the column element, is also what LAMMPS writes if no elements were given"
        raise ValueError(
            f"{where}: its elements are not known{carbon if only_carbon else ''}. Give those of the types 1, 2, ... "
            "with --lammps-elements, for example --lammps-elements Si,O"
        )
    if different is not None:
        raise ValueError(
            f"{where}: the column element has {', '.join(sorted(different))}, which differs from --lammps-elements "
            f"{','.join(elements or ())}; leave the option away, or correct it."
        )
    wrong = sorted({symbol for symbol in symbols if atomic_numbers.get(symbol, 0) == 0})
    if wrong:
        raise ValueError(
            f"{where}: '{wrong[0][:20]}' is not an element. Give those of the types 1, 2, ... with --lammps-elements; "
            "it needs the column type."
        )
    return [atomic_numbers[symbol] for symbol in symbols]


def _snapshots(path: Path) -> Iterator[_Snapshot]:
    """Frames of a dump, as they are written."""
    index, units, n_before = 0, None, None
    with open_text(path) as file:
        while True:
            items: dict[str, str] = {}
            box, bounds, n_atoms = None, [], None
            while box is None or not box.startswith("ITEM: ATOMS"):
                line = file.readline()
                if not line and not items:
                    return
                if not line.endswith("\n"):
                    raise IncompleteFrameError(path, index, "its header is not complete")
                if not line.startswith("ITEM: "):
                    raise ValueError(
                        f"'{path}', frame {index}: '{line.strip()[:40]}' stands where a line ITEM: is expected. The "
                        "frame before it has too many atoms, or too few; the file is damaged there."
                    )
                name = line[6:].strip()
                if name.startswith("ATOMS"):
                    box = line
                elif name.startswith("BOX BOUNDS"):
                    items["BOX"] = name
                    bounds = following_lines(file, 3, path, index)
                else:
                    items[name] = following_lines(file, 1, path, index)[0].strip()
            units = items.get("UNITS", units)
            n_atoms = _whole(items, "NUMBER OF ATOMS", path, index)
            if not 0 < n_atoms <= largest_size(path) or n_before not in (None, n_atoms):
                raise ValueError(
                    f"'{path}', frame {index}: it has {n_atoms} atoms, the first frame has "
                    f"{n_before or 'another number'}. "
                    "Frames of a trajectory are of the same atoms."
                )
            n_before = n_atoms
            columns = name.split()[1:]
            rows = [line.split() for line in following_lines(file, n_atoms, path, index)]
            if any(len(row) != len(columns) for row in rows):
                raise ValueError(
                    f"'{path}', frame {index}: an atom does not have {len(columns)} columns; the file is damaged there."
                )
            time = floats([[items["TIME"]]], path, index)[0, 0] if "TIME" in items else None
            cell, origin, pbc = _box(items.get("BOX", ""), bounds, path, index)
            general = len(bounds[0].split()) == 4
            step = _whole(items, "TIMESTEP", path, index)
            yield _Snapshot(step, time, units, cell, origin, pbc, general, columns, rows)
            index += 1


def _whole(items: dict[str, str], name: str, path: Path, index: int) -> int:
    try:
        return int(items[name])
    except (KeyError, ValueError):
        raise ValueError(
            f"'{path}', frame {index}: ITEM: {name} is '{items.get(name, 'not there')}', not a number; the file is "
            "damaged."
        ) from None


def _box(title: str, lines: list[str], path: Path, index: int) -> tuple[np.ndarray, np.ndarray, list[bool]]:
    """Cell, origin and periodicity of a box: orthogonal, restricted triclinic or general triclinic."""
    words = title.split()[2:]
    flags = words[-3:]
    rows = floats([line.split() for line in lines], path, index)
    if len(flags) < 3 or rows.shape not in ((3, 2), (3, 3), (3, 4)):
        raise ValueError(f"'{path}', frame {index}: '{title}' and the three lines after it are not a box.")
    pbc = [flag == "pp" for flag in flags]
    if rows.shape == (3, 4):
        return rows[:, :3], rows[:, 3], pbc
    xy, xz, yz = rows[:, 2] if rows.shape == (3, 3) else (0.0, 0.0, 0.0)
    low = rows[:, 0] - [min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0]
    high = rows[:, 1] - [max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0]
    lx, ly, lz = high - low
    return np.array([[lx, 0.0, 0.0], [xy, ly, 0.0], [xz, yz, lz]]), low, pbc
