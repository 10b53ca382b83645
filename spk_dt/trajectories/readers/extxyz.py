"""Extended XYZ: energies and forces in eV and eV/Å, as ASE writes them, or under other names.

The specification is https://github.com/libAtoms/extxyz; the comment line is read by ASE. The format has no unit of
velocities: a column ``momenta`` is in the unit of ASE, which introduced it, and the unit of any other column is asked for.
A time is taken from the file only where its name says the unit, ``time_fs``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers
from ase.io.extxyz import key_val_str_to_dict

from spk_dt.trajectories.fixed_atoms import set_mobile
from spk_dt.trajectories.readers.base import RawTrajectory
from spk_dt.trajectories.readers.compressed import largest_size, plain_name
from spk_dt.trajectories.readers.incomplete import IncompleteFrameError
from spk_dt.trajectories.readers.pressure import nine_components, stress_or_virial
from spk_dt.trajectories.readers.text import beginning, count_lines, floats, following_lines, open_text

__all__ = ["OPTIONS", "VELOCITY_UNITS", "read", "recognises"]

#: keywords of `read`
OPTIONS = ("energy_key", "forces_key", "velocities_key", "velocity_unit", "recover_velocities")

_MOMENTA = ("momenta", "momentum")
_INPUTS = ("total_charge", "charge", "spin_multiplicity", "spin")
_VELOCITIES = ("velocities", "velocity", "velo", "vel")

_Table = dict[str, tuple[int, int]]  # first column and number of columns of each property

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


def recognises(path: Path) -> bool:
    """Whether it is an (extended) XYZ file: a number of atoms, then a comment, and the name or the comment says so."""
    lines = beginning(path)
    if len(lines) < 2 or not lines[0].strip().isdigit():
        return False
    return plain_name(path).suffix.lower() in (".xyz", ".extxyz") or "Properties=" in lines[1]


def read(path: Path, **options: Any) -> list[RawTrajectory]:
    """The trajectory in a file.

    Args:
        path: the file.
        options: ``energy_key``, ``forces_key`` and ``velocities_key`` are names in the file, where they are not ``energy``
            and ``forces``, and ``momenta`` or one of the usual names of velocities; ``velocity_unit`` is one of
            `VELOCITY_UNITS`; ``recover_velocities`` leaves velocities out.

    Raises:
        ValueError: if the first frame lacks energy or forces, or velocities are of unknown unit.
    """
    columns = _Columns(**options)
    if columns.velocity_unit is not None and columns.velocity_unit not in VELOCITY_UNITS:
        raise ValueError(f"velocity unit '{columns.velocity_unit}' is not one of {', '.join(VELOCITY_UNITS)}.")
    times: list[float] = []
    try:
        for atoms in _frames(path, columns):
            if "time_fs" not in atoms.info:
                break
            times.append(atoms.info["time_fs"])
            if len(times) == 2:
                break
    except IncompleteFrameError as error:
        if error.index == 0:
            raise
    interval_fs = times[1] - times[0] if len(times) == 2 else None
    if interval_fs is not None and not interval_fs > 0.0:
        raise ValueError(f"'{path}', frame 1: time_fs={times[1]:g} is not later than {times[0]:g} of frame 0.")
    return [
        RawTrajectory(
            name=plain_name(path).stem,
            files=(path,),
            frames=partial(_frames, path, columns, interval_fs),
            timestep_fs=interval_fs,
            n_frames=count_lines(path) // (len(atoms) + 2),
        )
    ]


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
        info = key_val_str_to_dict(nine_components(lines[0]))
        table, width = _layout(str(info.pop("Properties", "species:S:1:pos:R:3")))
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
        raise ValueError(f"{where}: there are no positions, a column 'pos'; {_contents(info, table)}")
    atoms = Atoms(numbers=_numbers(table, rows, where), positions=column("pos", 3), cell=cell, pbc=pbc)
    for name in ("masses", "mass"):
        if name in table:
            atoms.set_masses(column(name, 1)[:, 0])
    results: dict[str, Any] = {"forces": column(_forces_key(columns, info, table, where), 3)}
    results |= _energies(columns, info, table, where)
    results |= {name: np.asarray(info[name]) for name in ("dipole",) if name in info}
    results |= stress_or_virial(info, atoms, where)
    for name, result in (("charges", "charges"), ("charge", "charges"), ("magmoms", "magmoms")):  # ASE writes "charge"
        if name in table:
            values = column(name, table[name][1])
            results[result] = values[:, 0] if values.shape[1] == 1 else values
    velocities = _velocities_key(columns, info, table, where)
    if velocities in _MOMENTA:
        atoms.set_momenta(column(velocities, 3))
    elif velocities is not None:
        assert columns.velocity_unit is not None  # `_velocities_key` would have refused
        atoms.set_velocities(column(velocities, 3) * VELOCITY_UNITS[columns.velocity_unit])
    if isinstance(info.get("time_fs"), int | float | np.number):
        atoms.info["time_fs"] = float(info["time_fs"])
    atoms.info |= {name: info[name] for name in _INPUTS if name in info}
    if "move_mask" in table:
        set_mobile(atoms, _move_mask(table, rows, where))
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def _move_mask(table: _Table, rows: list[list[str]], where: str) -> np.ndarray:
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


def _layout(properties: str) -> tuple[_Table, int]:
    """First column and number of columns of each property, and the number of all columns."""
    words = properties.split(":")
    if len(words) % 3:
        raise ValueError(f"Properties={properties} are not triples name:type:columns")
    table: _Table = {}
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


def _numbers(table: _Table, rows: list[list[str]], where: str) -> list[int]:
    """Atomic numbers."""
    name = next((name for name in ("Z", "species") if name in table), None)
    if name is None:
        raise ValueError(f"{where}: there are no elements, a column 'species' or 'Z'.")
    start = table[name][0]
    words = [row[start] for row in rows]
    try:
        numbers = [int(word) if name == "Z" else atomic_numbers[word.capitalize()] for word in words]
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{where}: {error} is not an element. Isotopes are written as the element, with a column 'masses'."
        ) from None
    if not all(0 < number < 119 for number in numbers):
        raise ValueError(f"{where}: an atomic number is not between 1 and 118.")
    return numbers


def _forces_key(columns: _Columns, info: dict[str, Any], table: _Table, where: str) -> str:
    key = columns.forces_key or "forces"
    if key not in table:
        raise ValueError(f"{where}: there are no forces '{key}'; name them with --forces-key. {_contents(info, table)}")
    return key


def _energies(columns: _Columns, info: dict[str, Any], table: _Table, where: str) -> dict[str, float]:
    """Energy, and free energy if there is one and no name was given."""
    key = columns.energy_key or ("energy" if "energy" in info else "free_energy")
    wanted = {"energy": key}
    if columns.energy_key is None and "free_energy" in info:
        wanted["free_energy"] = "free_energy"
    if key not in info:
        raise ValueError(
            f"{where}: there is no energy '{columns.energy_key or 'energy'}'; name it with --energy-key. "
            f"{_contents(info, table)}"
        )
    for name in wanted.values():
        if isinstance(info[name], bool) or not isinstance(info[name], int | float | np.number):
            raise ValueError(f"{where}: {name}={info[name]} is not a number.")
    return {kind: float(info[name]) for kind, name in wanted.items()}


def _velocities_key(columns: _Columns, info: dict[str, Any], table: _Table, where: str) -> str | None:
    """Name of the column of momenta or velocities, if there is one."""
    key = columns.velocities_key
    if columns.recover_velocities:
        return None
    if key is not None and key not in table:
        raise ValueError(f"{where}: there are no velocities '{key}'. {_contents(info, table)}")
    key = key or next((name for name in (*_MOMENTA, *_VELOCITIES) if name in table), None)
    if key is not None and key not in _MOMENTA and columns.velocity_unit is None:
        raise ValueError(
            f"{where}: the unit of the velocities '{key}' is not in the file. Give it with --velocity-unit, one of "
            f"{', '.join(VELOCITY_UNITS)}; or take the velocities from the positions with --recover-velocities."
        )
    return key


def _contents(info: dict[str, Any], table: _Table) -> str:
    """What a frame has, for error messages."""
    values = ", ".join(key for key in info if key not in ("Lattice", "pbc")) or "no values"
    return f"The comment line has {values}; the columns are {', '.join(table)}."
