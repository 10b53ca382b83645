"""What a CP2K input or restart file says about a trajectory: cell, ensemble, masses, names and units of the printed files.

Sections and keywords are those of https://manual.cp2k.org: ``&FORCE_EVAL &SUBSYS`` with ``&CELL``, ``&KIND`` and
``&COORD``, and ``&MOTION`` with ``&MD`` and ``&PRINT``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import ase.units
import numpy as np
from ase.data import atomic_numbers
from ase.geometry import cellpar_to_cell

from spk_dt.trajectories.readers.compressed import plain_name, plain_or_packed
from spk_dt.trajectories.readers.cp2k_kinds import Kind
from spk_dt.trajectories.readers.text import open_text

__all__ = ["DEFAULT_UNITS", "PrintedUnits", "RunInput", "find_input", "read_input", "unit_factor"]

#: units in which CP2K prints positions, velocities and forces, by print key, unless the keyword UNIT says otherwise
DEFAULT_UNITS = {"TRAJECTORY": "angstrom", "VELOCITIES": "bohr*au_t^-1", "FORCES": "hartree*bohr^-1"}

#: CP2K's names of units (its ``cp_units.F``), in ASE's
_UNITS = {
    "ANGSTROM": 1.0,
    "BOHR": ase.units.Bohr,
    "NM": ase.units.nm,
    "PM": 1e-3 * ase.units.nm,
    "HARTREE": ase.units.Hartree,
    "RY": ase.units.Rydberg,
    "EV": ase.units.eV,
    "KCALMOL": ase.units.kcal / ase.units.mol,
    "KJMOL": ase.units.kJ / ase.units.mol,
    "AU_T": ase.units.AUT,
    "FS": ase.units.fs,
    "PS": 1e3 * ase.units.fs,
}

PrintedUnits = dict[str, str]

#: names that CP2K's keyword MASS of &KIND has beside
_MASS_NAMES = {"ATOMIC_MASS": "MASS", "ATOMIC_WEIGHT": "MASS", "WEIGHT": "MASS"}

_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")


@dataclass(frozen=True)
class RunInput:
    """What an input file says.

    Args:
        file: the file.
        project: name of the project.
        cell: [3, 3] lattice vectors in Å as rows; None if the file gives no cell, or one that is not understood.
        problem: why the cell is not understood.
        pbc: [3] whether it is periodic.
        units: units of the printed files, by print key.
        filenames: FILENAME of the printed files, by print key, where it is said.
        ensemble: ENSEMBLE of &MD, empty if it is not said.
        kinds: kinds of atoms, by name in capitals.
        coordinates: names of the kinds of the atoms under &COORD, in order.
    """

    file: Path
    project: str = "PROJECT"
    cell: np.ndarray | None = None
    problem: str | None = None
    pbc: tuple[bool, bool, bool] = (True, True, True)
    units: PrintedUnits = field(default_factory=lambda: dict(DEFAULT_UNITS))
    filenames: dict[str, str] = field(default_factory=dict)
    ensemble: str = ""
    kinds: dict[str, Kind] = field(default_factory=dict)
    coordinates: tuple[str, ...] = ()


def unit_factor(unit: str, source: str) -> float:
    """The size of a CP2K unit, such as ``hartree*bohr^-1``, in ASE's units.

    Args:
        unit: powers of units, joined by ``*``.
        source: where the unit is written, for the error message.

    Raises:
        ValueError: if a unit is not known.
    """
    try:
        terms = [term.partition("^") for term in unit.upper().split("*")]
        return prod(_UNITS[name.strip()] ** int(power or 1) for name, _, power in terms)
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{source} has unit '{unit}', which is not understood. Known are powers of {', '.join(_UNITS).lower()}, joined "
            "by *; print with the unit that CP2K takes if the keyword UNIT is left out."
        ) from error


def find_input(folder: Path, project: str, number: str) -> RunInput | None:
    """The input that a trajectory was made with.

    The restart file of the run comes first, then an ``.inp`` of that project, then any ``.inp`` of the folder.

    Raises:
        ValueError: if the file found is not understood, or there are several that say different things.
    """
    restart = plain_or_packed(folder / f"{project}-{number}.restart")
    if restart.is_file():
        return read_input(restart)
    inputs = [read_input(path) for path in sorted(folder.glob("*.inp*")) if plain_name(path).suffix == ".inp"]
    matching = [one for one in inputs if one.project == project] or inputs
    for other in matching[1:]:
        differing = " and ".join(name for name, value in _said(matching[0]).items() if value != _said(other)[name])
        if differing:
            raise ValueError(
                f"'{matching[0].file}' and '{other.file}' may both be the input of project '{project}', and differ in "
                f"{differing}. Leave only that of the run in the folder, or put the restart file '{restart.name}' beside it."
            )
    return matching[0] if matching else None


def _said(one: RunInput) -> dict[str, object]:
    """What a trajectory takes from an input."""
    cell = None if one.cell is None else one.cell.round(6).tolist()
    masses = {name: (kind.element, kind.mass) for name, kind in one.kinds.items() if kind.mass is not None}
    units = [unit.upper() for unit in one.units.values()]
    said = {"cell": cell, "PERIODIC": one.pbc, "units": units, "ENSEMBLE": one.ensemble, "MASS": masses}
    return said | {"FILENAME": one.filenames}


def read_input(path: Path) -> RunInput:
    """Read a CP2K input or restart file.

    Raises:
        ValueError: if PERIODIC is not understood. A cell that is not is told by `RunInput.problem`, since it may be printed.
    """
    found: dict[str, list[str]] = {}
    cell, problem = None, None
    project, units, filenames, ensemble = "PROJECT", dict(DEFAULT_UNITS), {}, ""
    kinds: dict[str, dict[str, str]] = {}
    coordinates = []
    for sections, name, keyword, values in _statements(path):
        section = sections[-1] if sections else ""
        if sections == ("GLOBAL",) and keyword in ("PROJECT", "PROJECT_NAME") and values:
            project = values[0].strip("\"'")
        elif sections == ("FORCE_EVAL", "SUBSYS", "CELL"):
            if found.setdefault(keyword, values) != values:
                problem = f"&CELL of '{path}' has {keyword} twice, and differently."
        elif sections == ("FORCE_EVAL", "SUBSYS", "KIND"):
            kind = kinds.setdefault(name.upper(), {"NAME": name})
            if values:
                kind[_MASS_NAMES.get(keyword, keyword)] = values[-1]
        elif sections == ("FORCE_EVAL", "SUBSYS", "COORD") and len(values) >= 3:
            coordinates.append(keyword.capitalize())
        elif sections == ("MOTION", "MD") and keyword == "ENSEMBLE" and values:
            ensemble = values[0].upper()
        elif sections[:2] == ("MOTION", "PRINT") and len(sections) == 3 and values:
            if section in units and keyword == "UNIT":
                units[section] = "".join(values).strip("[]\"'")
            elif keyword == "FILENAME":
                filenames[section] = values[0].strip("\"'")
    if problem is None:
        try:
            cell = _cell(found)
        except ValueError as error:
            problem = f"&CELL of '{path}' is not understood ({error})."
    return RunInput(
        path,
        project,
        cell,
        problem,
        _periodic(found, path),
        units,
        filenames,
        ensemble,
        {name: _kind(said, path) for name, said in kinds.items()},
        tuple(coordinates),
    )


def _kind(said: dict[str, str], path: Path) -> Kind:
    """A kind of atoms; its element is said, or is what the name begins with."""
    name = said["NAME"]
    symbols = [text.capitalize() for text in (said.get("ELEMENT", ""), name[:2], name[:1])]
    try:
        mass = float(said["MASS"].upper().replace("D", "E")) if "MASS" in said else None
    except ValueError:
        mass = np.nan
    if mass is not None and not 0.0 < mass < 1e4:
        raise ValueError(f"'{path}' has MASS {said['MASS']} in &KIND {name}, which is not a positive number.")
    return Kind(name, next((symbol for symbol in symbols if symbol in atomic_numbers), None), mass)


def _statements(path: Path) -> Iterator[tuple[tuple[str, ...], str, str, list[str]]]:
    """Enclosing sections, parameter of the innermost, keyword and values of each keyword; names in capitals.

    Of the preprocessor, variables (``@SET NAME VALUE``, ``${NAME}``) are replaced.
    """
    sections: list[tuple[str, str]] = []
    variables: dict[str, str] = {}
    with open_text(path) as lines:
        for line in lines:
            text = _VARIABLE.sub(lambda match: variables.get(match[1] or match[2], match[0]), line)
            words = re.split(r"[!#]", text, maxsplit=1)[0].split()
            if not words:
                continue
            if words[0].startswith("@"):
                if words[0].upper() == "@SET" and len(words) > 2:
                    variables[words[1]] = " ".join(words[2:])
            elif not words[0].startswith("&"):
                parameter = sections[-1][1] if sections else ""
                yield tuple(name for name, _ in sections), parameter, words[0].upper(), words[1:]
            elif words[0].upper() != "&END":
                sections.append((words[0][1:].upper(), " ".join(words[1:2])))
            elif sections:
                sections.pop()


def _vector(values: list[str]) -> np.ndarray:
    """Three numbers, [3]; lengths in Å, from Å or the unit in brackets before them."""
    unit = 1.0
    if values and values[0].startswith("["):
        unit = unit_factor(values[0].strip("[]"), "a length")
        values = values[1:]
    vector = np.array([float(value.upper().replace("D", "E")) for value in values])
    if vector.shape != (3,) or not np.isfinite(vector).all():
        raise ValueError(f"'{' '.join(values)}' is not three numbers")
    return unit * vector


def _cell(found: dict[str, list[str]]) -> np.ndarray | None:
    """Lattice vectors in Å from the keywords of &CELL; a along x and b in the plane of x and y if lengths are given."""
    if "ABC" in found:
        angles = found.get("ALPHA_BETA_GAMMA", found.get("ANGLES", ["90", "90", "90"]))
        angles = angles[1:] if angles[:1] == ["[deg]"] else angles
        cell = cellpar_to_cell([*_vector(found["ABC"]), *_vector(angles)])
    elif all(name in found for name in "ABC"):
        cell = np.array([_vector(found[name]) for name in "ABC"])
    else:
        return None
    cell = cell * _vector(found.get("MULTIPLE_UNIT_CELL", ["1", "1", "1"]))[:, None]
    if not abs(np.linalg.det(cell)) > 0.0:
        raise ValueError("its vectors span no volume")
    return cell


def _periodic(found: dict[str, list[str]], path: Path) -> tuple[bool, bool, bool]:
    """Whether the three directions are periodic; CP2K's default is XYZ."""
    value = "".join(found.get("PERIODIC", ["XYZ"])).upper()
    if value != "NONE" and (not value or set(value) - set("XYZ")):
        raise ValueError(f"'{path}' has PERIODIC {value} in &CELL; it is NONE, or some of X, Y, Z.")
    x, y, z = (value != "NONE" and axis in value for axis in "XYZ")
    return x, y, z
