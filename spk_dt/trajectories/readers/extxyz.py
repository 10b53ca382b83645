"""Extended XYZ: energies and forces in eV and eV/Å, as ASE writes them, or under other names.

The specification is https://github.com/libAtoms/extxyz; the comment line is read by ASE. The format has no unit of
velocities: a column ``momenta`` is in the unit of ASE, which introduced it, and the unit of any other column is asked for.
A time is taken from the file only where its name says the unit, ``time_fs``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers

from spk_dt.trajectories.fixed_atoms import set_mobile
from spk_dt.trajectories.readers.base import RawTrajectory
from spk_dt.trajectories.readers.compressed import largest_size, plain_name
from spk_dt.trajectories.readers.extxyz_keys import (
    INPUTS,
    MOMENTA,
    Table,
    contents,
    energies,
    forces_key,
    lacks_energy,
    lacks_forces,
    parse_comment,
    usual_names,
    velocities_key,
)
from spk_dt.trajectories.readers.incomplete import IncompleteFrameError, first_two
from spk_dt.trajectories.readers.pressure import stress_or_virial
from spk_dt.trajectories.readers.text import beginning, count_lines, floats, following_lines, open_text
from spk_dt.trajectories.readers.ways_out import plain_xyz
from spk_dt.trajectories.stated import ISOTOPES

__all__ = ["OPTIONS", "VELOCITY_UNITS", "read", "recognises"]

#: keywords of `read`
OPTIONS = ("energy_key", "forces_key", "velocities_key", "velocity_unit", "recover_velocities", "lenient")

#: units of a column of velocities, in that of ASE
VELOCITY_UNITS = {
    "Ang/fs": 1.0 / ase.units.fs,
    "Ang/ps": 1e-3 / ase.units.fs,
    "nm/ps": 1e-2 / ase.units.fs,
    "m/s": 1e-5 / ase.units.fs,
    "Bohr/aut": ase.units.Bohr / ase.units.AUT,
    "ASE": 1.0,
}


@dataclass(frozen=True)
class _Columns:
    """Names of what is to be read, None where the usual names are tried."""

    energy_key: str | None = None
    forces_key: str | None = None
    velocities_key: str | None = None
    velocity_unit: str | None = None
    recover_velocities: bool = False
    lenient: bool = False


def recognises(path: Path) -> bool:
    """Whether it is an (extended) XYZ file: a number of atoms, then a comment, and the name or the comment says so."""
    lines = beginning(path)
    if len(lines) < 2 or not lines[0].strip().isdigit():
        return False
    return plain_name(path).suffix.lower() in (".xyz", ".extxyz") or "properties=" in lines[1].lower()


def read(path: Path, **options: Any) -> list[RawTrajectory]:
    """The trajectory in a file.

    Args:
        path: the file.
        options: ``energy_key``, ``forces_key`` and ``velocities_key`` are names in the file, where they are not ``energy``
            and ``forces``, and ``momenta`` or one of the usual names of velocities; ``velocity_unit`` is one of
            `VELOCITY_UNITS`; ``recover_velocities`` leaves velocities out; with ``lenient``, frames may be without
            energy, or forces, as long as nothing in the file may be meant by them.

    Raises:
        ValueError: if the first frame lacks energy or forces, or velocities are of unknown unit.
    """
    columns = _Columns(**options)
    if columns.velocity_unit is not None and columns.velocity_unit not in VELOCITY_UNITS:
        raise ValueError(f"velocity unit '{columns.velocity_unit}' is not one of {', '.join(VELOCITY_UNITS)}.")
    n_atoms, comment = beginning(path)[:2]
    if "properties=" not in comment.lower() and comment.endswith("\n"):
        raise plain_xyz(path)
    with_time = takewhile(lambda atoms: "time_fs" in atoms.info, _frames(path, columns))
    times = [atoms.info["time_fs"] for atoms in first_two(with_time)]
    interval_fs = times[1] - times[0] if len(times) == 2 else None
    if interval_fs is not None and not interval_fs > 0.0:
        raise ValueError(f"'{path}', frame 1: time_fs={times[1]:g} is not later than {times[0]:g} of frame 0.")
    return [
        RawTrajectory(
            name=plain_name(path).stem,
            files=(path,),
            frames=partial(_frames, path, columns, interval_fs),
            timestep_fs=interval_fs,
            n_frames=count_lines(path) // (int(n_atoms) + 2),
            notes=_renamed(path, columns),
            momenta=_holds_momenta(path, columns),
        )
    ]


def _renamed(path: Path, columns: _Columns) -> tuple[str, ...]:
    """Which energy and forces are taken under other names than the usual ones."""
    info = parse_comment(beginning(path)[1])
    usual_values = usual_names(info, columns=False)
    info |= {usual: info[name] for name, usual in usual_values.items()}
    table, _ = _layout(str(info["Properties"]))
    found = usual_names(table, columns=True) if columns.forces_key is None else {}
    found |= usual_values if columns.energy_key is None else {}
    return tuple(
        f"{usual} of '{path}' are '{name}'" if usual == "forces" else f"{usual} of '{path}' is '{name}'"
        for name, usual in found.items()
        if usual in ("forces", "energy", "free_energy")
    )


def _holds_momenta(path: Path, columns: _Columns) -> bool:
    """Whether what the first frame moves with are momenta."""
    info = parse_comment(beginning(path)[1])
    info |= {usual: info[name] for name, usual in usual_names(info, columns=False).items()}
    table, _ = _layout(str(info.get("Properties", "")))
    table |= {usual: table[name] for name, usual in usual_names(table, columns=True).items()}
    if columns.recover_velocities:
        return False
    key = velocities_key(columns.velocities_key, columns.velocity_unit, info, table, f"'{path}', frame 0")
    return key in MOMENTA


def _frames(path: Path, columns: _Columns, interval_fs: float | None = None) -> Iterator[Atoms]:
    """Frames of a file; where it says the time, they must be as far apart as the first two, or repeated."""
    n_atoms: int | None = None
    time: float | None = None
    index = 0
    with open_text(path) as file:
        while header := file.readline():
            if not header.strip():
                if file.read(1000).strip():
                    raise ValueError(
                        f"'{path}', frame {index}: it begins with an empty line, not with a number of atoms."
                    )
                return
            n_atoms = _n_atoms(header, path, index, n_atoms)
            lines = following_lines(file, n_atoms + 1, path, index)
            atoms = _frame(lines, columns, path, index)
            if interval_fs is not None:
                before, time = time, atoms.info.get("time_fs")
                if index > 0 and not _is_next(before, time, interval_fs):
                    raise ValueError(
                        f"'{path}', frame {index}: time_fs={time} follows {before}, but the first frames are "
                        f"{interval_fs:g} fs apart. Frames are missing; convert the parts before and after as files "
                        "of their own."
                    )
            yield atoms
            index += 1
    if index == 0:
        raise ValueError(f"'{path}' is empty; it should hold frames of a trajectory.")


def _is_next(before: Any, time: Any, interval_fs: float) -> bool:
    return time is not None and (time == before or abs(time - before - interval_fs) < 1e-3 * abs(interval_fs))


def _n_atoms(header: str, path: Path, index: int, before: int | None) -> int:
    """The number of atoms that a frame begins with."""
    if not header.endswith("\n"):
        raise IncompleteFrameError(path, index, "nothing follows its number of atoms")
    try:
        n_atoms = int(header)
    except ValueError:
        raise ValueError(
            f"'{path}', frame {index}: it begins with '{header.strip()[:40]}', not with a number of atoms. The frame "
            "before it has too many lines, or too few; the file is damaged there."
        ) from None
    if before is not None and n_atoms != before:
        raise ValueError(
            f"'{path}', frame {index}: it has {n_atoms} atoms, the first frame has {before}. Frames of a trajectory "
            "are of the same atoms; convert each trajectory as a file of its own."
        )
    if not 0 < n_atoms <= largest_size(path):
        raise ValueError(f"'{path}', frame {index}: a number of atoms of {n_atoms} cannot be; the file is damaged.")
    return n_atoms


def _frame(lines: list[str], columns: _Columns, path: Path, index: int) -> Atoms:
    """A frame from its comment and the lines of its atoms."""
    where = f"'{path}', frame {index}"
    try:
        info = parse_comment(lines[0])
        info |= {usual: info[name] for name, usual in usual_names(info, columns=False).items()}
        table, width = _layout(str(info.pop("Properties", "species:S:1:pos:R:3")))
        table |= {usual: table[name] for name, usual in usual_names(table, columns=True).items()}
    except Exception as error:  # whatever a damaged line leads to
        raise ValueError(f"{where}: its comment line cannot be understood ({error}).") from None
    rows = [line.split() for line in lines[1:]]
    for number, row in enumerate(rows):
        if len(row) != width:
            raise ValueError(f"{where}: atom {number} has {len(row)} columns, its comment line announces {width}.")

    def column(name: str, n: int) -> np.ndarray:
        start, found = table[name]
        if found != n:
            raise ValueError(f"{where}: '{name}' has {found} columns, not {n}.")
        return floats([row[start : start + n] for row in rows], path, index)

    cell, pbc = _cell(info, where)
    if "pos" not in table:
        raise ValueError(f"{where}: there are no positions, a column 'pos'; {contents(info, table)}")
    numbers, isotopes = _numbers(table, rows, where)
    atoms = Atoms(numbers=numbers, positions=column("pos", 3), cell=cell, pbc=pbc)
    if isotopes:
        atoms.set_masses([isotopes.get(i, mass) for i, mass in enumerate(atoms.get_masses())])
    for name in ("masses", "mass"):
        if name in table:
            atoms.set_masses(column(name, 1)[:, 0])
    results: dict[str, Any] = {}
    if not (columns.lenient and columns.forces_key is None and lacks_forces(table)):
        results["forces"] = column(forces_key(columns.forces_key, info, table, where), 3)
    if not (columns.lenient and columns.energy_key is None and lacks_energy(info)):
        results |= energies(columns.energy_key, info, table, where)
    results |= {name: np.asarray(info[name]) for name in ("dipole",) if name in info}
    results |= stress_or_virial(info, atoms, where)
    for name, result in (("charges", "charges"), ("charge", "charges"), ("magmoms", "magmoms")):  # ASE writes "charge"
        if name in table:
            values = column(name, table[name][1])
            results[result] = values[:, 0] if values.shape[1] == 1 else values
    velocities = None
    if not columns.recover_velocities:
        velocities = velocities_key(columns.velocities_key, columns.velocity_unit, info, table, where)
    if velocities in MOMENTA:
        atoms.set_momenta(column(velocities, 3))
    elif velocities is not None:
        assert columns.velocity_unit is not None  # `velocities_key` would have refused
        atoms.set_velocities(column(velocities, 3) * VELOCITY_UNITS[columns.velocity_unit])
    if isinstance(info.get("time_fs"), int | float | np.number):
        atoms.info["time_fs"] = float(info["time_fs"])
    atoms.info |= {name: info[name] for name in INPUTS if name in info}
    if "move_mask" in table:
        set_mobile(atoms, _move_mask(table, rows, where))
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def _move_mask(table: Table, rows: list[list[str]], where: str) -> np.ndarray:
    """[n_atoms, 3] true where an atom, or a component of its position, may move."""
    start, n = table["move_mask"]
    words = np.array([row[start : start + n] for row in rows])
    true, false = np.isin(words, ("T", "True", "1")), np.isin(words, ("F", "False", "0"))
    if n not in (1, 3) or not (true | false).all():
        raise ValueError(
            f"{where}: 'move_mask' is not one T or F for each atom, or three. Write it as ASE does, or remove the column "
            "and name fixed atoms with --fixed."
        )
    return np.broadcast_to(true, (len(rows), 3))


def _layout(properties: str) -> tuple[Table, int]:
    """First column and number of columns of each property, and the number of all columns."""
    words = properties.split(":")
    if len(words) % 3:
        raise ValueError(f"Properties={properties} are not triples name:type:columns")
    table: Table = {}
    width = 0
    for name, n in zip(words[::3], map(int, words[2::3]), strict=True):
        if n < 1 or name in table:
            raise ValueError(f"Properties={properties} have {n} columns of '{name}', or have it twice")
        table[name] = (width, n)
        width += n
    return table, width


def _cell(info: dict[str, Any], where: str) -> tuple[np.ndarray | None, Any]:
    """Cell, whose vectors are the rows, and periodicity: in all directions where only the cell is said."""
    cell = info.get("Lattice")
    pbc = info.get("pbc", cell is not None)
    pbc = np.broadcast_to(np.asarray(pbc), (3,)) if np.shape(pbc) in ((), (3,)) else None
    if pbc is None or pbc.dtype != bool:
        raise ValueError(f"{where}: pbc={info['pbc']} is not three times T or F.")
    if cell is not None and cell.dtype.kind not in "if":
        raise ValueError(f"{where}: Lattice={cell} is not nine numbers.")
    if cell is None and pbc.any():
        raise ValueError(f"{where}: it is periodic, but has no Lattice.")
    return None if cell is None else cell.T.astype(float), pbc


def _numbers(table: Table, rows: list[list[str]], where: str) -> tuple[list[int], dict[int, float]]:
    """Atomic numbers, and masses of the atoms that are written as D or T."""
    name = next((name for name in ("Z", "species") if name in table), None)
    if name is None:
        raise ValueError(f"{where}: there are no elements, a column 'species' or 'Z'.")
    start = table[name][0]
    words = [row[start] for row in rows]
    isotopes = {i: ISOTOPES["H"][word] for i, word in enumerate(words) if word in ("D", "T")}
    words = ["H" if i in isotopes else word for i, word in enumerate(words)]
    try:
        numbers = [int(word) if name == "Z" else atomic_numbers[word.capitalize()] for word in words]
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{where}: {error} is not an element. Isotopes are written as the element, with a column 'masses'."
        ) from None
    if not all(0 < number < 119 for number in numbers):
        raise ValueError(f"{where}: an atomic number is not between 1 and 118.")
    return numbers, isotopes
