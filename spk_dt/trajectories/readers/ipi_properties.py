"""The file of properties of i-PI: a header that names each column and its unit, and a row for each step that was written.

Units are those of i-PI: a name, perhaps with a prefix as in ``femtosecond``, and atomic units where none is said. They are
converted with the constants of ASE.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import ase.units
import numpy as np

from spk_dt.trajectories.readers.text import beginning, floats, open_text

__all__ = ["IpiProperties", "in_ase_units", "read_properties"]

#: number of the column, or first and last; then, as ``potential{electronvolt}(bead=0)``, a name, and unit and arguments
_COLUMN = re.compile(
    r"^#\s*(?:column|cols\.)\s+(?P<first>\d+)(?:\s*-\s*(?P<last>\d+))?\s*-->\s*(?P<name>\w+)\s*"
    r"(?P<rest>(?:\{[^}]*\}|\([^)]*\)|\s)*)(?::|$)"
)
_UNIT = re.compile(r"\{([^}]*)\}")
_ARGUMENTS = re.compile(r"\([^)]*\)")

_PREFIXES = {
    "": 1.0, "tera": 1e12, "giga": 1e9, "mega": 1e6, "kilo": 1e3, "milli": 1e-3, "micro": 1e-6, "nano": 1e-9, "pico": 1e-12,
    "femto": 1e-15, "atto": 1e-18,
}  # fmt: skip

#: what is atomic units in i-PI
_ATOMIC = ("", "automatic", "atomic_unit")

_MOL = 1.0 / ase.units.mol
_AUT = ase.units._aut * ase.units.second  # atomic unit of time, in that of ASE
_ME = ase.units._me / ase.units._amu  # mass of the electron, in Dalton

#: unit of each dimension, in those of ASE; the atomic one first
_UNITS = {
    "length": {"atomic_unit": ase.units.Bohr, "angstrom": 1.0, "meter": 1e10, "ase": 1.0},
    "energy": {
        "atomic_unit": ase.units.Hartree, "electronvolt": 1.0, "j/mol": ase.units.J * _MOL,
        "cal/mol": 1e-3 * ase.units.kcal * _MOL, "kelvin": ase.units.kB, "ase": 1.0,
    },
    "time": {"atomic_unit": _AUT, "second": ase.units.second, "ase": 1.0},
    "velocity": {"atomic_unit": ase.units.Bohr / _AUT, "m/s": ase.units.m / ase.units.second, "ase": 1.0},
    "momentum": {"atomic_unit": _ME * ase.units.Bohr / _AUT, "ase": 1.0},
    "force": {
        "atomic_unit": ase.units.Hartree / ase.units.Bohr, "newton": ase.units.J / ase.units.m, "ev/ang": 1.0, "ase": 1.0,
    },
}  # fmt: skip


@dataclass(frozen=True)
class IpiProperties:
    """The content of a file of properties.

    Args:
        path: the file.
        names: of the columns, as ``potential`` or ``potential(bead=0)``.
        units: of the columns.
        table: [n_rows, n_columns].
    """

    path: Path
    names: tuple[str, ...]
    units: tuple[str, ...]
    table: np.ndarray

    def _column(self, name: str, dimension: str | None = None) -> np.ndarray:
        """[n_rows] a column, in the unit of ASE."""
        index = self.names.index(name)
        factor = 1.0 if dimension is None else in_ase_units(dimension, self.units[index], f"'{self.path}', {name}")
        return self.table[:, index] * factor

    def timestep_fs(self) -> float | None:
        """Time step in fs; None if there are no two rows with a step and a time.

        Raises:
            ValueError: if the time does not grow evenly with the steps.
        """
        if not {"step", "time"} <= set(self.names) or len(self.table) < 2:
            return None
        steps, times = self._column("step"), self._column("time", "time") / ase.units.fs
        moved = np.diff(steps) > 0
        if not moved.any():
            return None
        found = np.diff(times)[moved] / np.diff(steps)[moved]
        if not np.allclose(found, found[0], rtol=1e-3, atol=0.0) or not found[0] > 0.0:
            raise ValueError(
                f"'{self.path}': the time step changes from {found.min():g} to {found.max():g} fs. Cut the parts into files "
                "of their own."
            )
        return float((times[-1] - times[0]) / (steps[-1] - steps[0])) if steps[-1] > steps[0] else float(found[0])

    def energy(self, column: str, step: int, where: str) -> float:
        """An energy at a step, eV.

        Raises:
            ValueError: if there is none, or there are several that differ; `where` names the frame.
        """
        found = self._column(column, "energy")[self._column("step") == step]
        if len(found) == 0:
            raise ValueError(
                f"{where}: '{self.path}' has no energy of step {step}. Let i-PI write properties at least as often as "
                "positions (stride)."
            )
        if np.ptp(found) > 1e-6 * abs(found[0]):
            raise ValueError(
                f"{where}: '{self.path}' has several energies of step {step}, of several runs. Cut the file, so that it has "
                "only one run."
            )
        return float(found[-1])


def read_properties(path: Path) -> IpiProperties | None:
    """A file of properties; None if it is another one.

    A last line without line feed, which may be cut off, is left out.

    Raises:
        ValueError: if a row does not have the columns that are named.
    """
    if not any(_COLUMN.match(line) for line in beginning(path, 40)):
        return None
    names: dict[int, tuple[str, str]] = {}
    rows: list[list[str]] = []
    with open_text(path) as file:
        for line in file:
            column = _COLUMN.match(line)
            if column is not None:
                first, last = int(column["first"]), int(column["last"] or column["first"])
                unit, arguments = _UNIT.search(column["rest"]), _ARGUMENTS.search(column["rest"])
                name = column["name"] + ("" if arguments is None else arguments[0].replace(" ", ""))
                said = "" if unit is None else unit[1]
                names |= {
                    k: (name if first == last else f"{name}[{k - first + 1}]", said) for k in range(first - 1, last)
                }
            elif line.strip() and not line.lstrip().startswith("#") and line.endswith("\n"):
                rows.append(line.split())
    width = max(names, default=-1) + 1
    if sorted(names) != list(range(width)) or any(len(row) != width for row in rows):
        raise ValueError(
            f"'{path}' does not have the {width} columns that its header names in each row; it is damaged."
        )
    table = floats(rows, path, 0, "the properties") if rows else np.empty((0, width))
    columns = [names[k] for k in range(width)]
    return IpiProperties(path, tuple(name for name, _ in columns), tuple(unit for _, unit in columns), table)


def in_ase_units(dimension: str, unit: str, where: str) -> float:
    """A unit of i-PI in that of ASE.

    Args:
        dimension: one of ``length``, ``energy``, ``time``, ``velocity``, ``momentum``, ``force``.
        unit: as i-PI writes it, in braces; empty for atomic units.
        where: it stands, for the error message.

    Raises:
        ValueError: if it is not known.
    """
    known = _UNITS[dimension]
    name = "atomic_unit" if unit.strip().lower() in _ATOMIC else unit.strip().lower()
    for prefix, factor in _PREFIXES.items():
        base = name.removeprefix(prefix)
        if name.startswith(prefix) and base in known:
            return factor * known[base]
    raise ValueError(f"{where}: '{unit}' is not a unit of {dimension} that is known; known are {', '.join(known)}.")
