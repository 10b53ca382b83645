"""Names in extended XYZ: which key is the energy, which columns are forces and velocities.

Names that differ in upper and lower case only, and ``force``, are taken for the usual ones. Others, as ``REF_forces``, are
offered where the usual ones are missing, with the options that take them: whether they are of the method that is wanted is
for the user to say.
"""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from ase.io.extxyz import key_val_str_to_dict

from spk_dt.trajectories.readers.pressure import nine_components

__all__ = [
    "INPUTS",
    "MOMENTA",
    "Table",
    "contents",
    "energies",
    "forces_key",
    "parse_comment",
    "usual_names",
    "velocities_key",
]

Table = dict[str, tuple[int, int]]  # first column and number of columns of each property

MOMENTA = ("momenta", "momentum")
_VELOCITIES = ("velocities", "velocity", "velo", "vel")

#: names of values and of columns that are known, as they are usually written
INPUTS = ("total_charge", "charge", "spin_multiplicity", "multiplicity", "spin")
_VALUES = ("energy", "free_energy", "dipole", "time_fs", *INPUTS)
_COLUMNS = ("forces", "pos", "species", "Z", "masses", *MOMENTA, *_VELOCITIES)
_SPELT = {
    "lattice": "Lattice",
    "pbc": "pbc",
    "properties": "Properties",
    "stress": "stress",
    "virial": "virial",
    "virials": "virials",
}
_STRUCTURE = re.compile(r"(?<!\w)(lattice|pbc|properties|stress|virials?)\s*=", re.IGNORECASE)
_SYNONYMS = {"force": "forces"}


def parse_comment(line: str) -> dict[str, Any]:
    """Values of a comment line; the names that ASE reads in a way of their own, in any case."""
    return key_val_str_to_dict(nine_components(_STRUCTURE.sub(lambda match: _SPELT[match[1].lower()] + "=", line)))


def usual_names(names: Iterable[str], columns: bool) -> dict[str, str]:
    """Usual name of each name that is another way to write it, where the usual one is not there.

    Args:
        names: names of values, or of columns.
        columns: whether they are of columns.
    """
    names = list(names)
    lower = {name.lower(): name for name in (_COLUMNS if columns else _VALUES)}
    lower |= _SYNONYMS if columns else {}
    found = {name: lower[name.lower()] for name in names if name.lower() in lower}
    return {name: usual for name, usual in found.items() if list(found.values()).count(usual) == 1 and name != usual}


def forces_key(key: str | None, info: dict[str, Any], table: Table, where: str) -> str:
    """Name of the column of forces.

    Args:
        key: name that the user gave.
        info: values of the comment line.
        table: columns.
        where: file and frame, for the error message.

    Raises:
        ValueError: if it is not there; names those that may be meant.
    """
    name = key or "forces"
    if name not in table:
        raise ValueError(f"{where}: there are no forces '{name}'{_offer(key is None, info, table)}")
    return name


def energies(key: str | None, info: dict[str, Any], table: Table, where: str) -> dict[str, float]:
    """Energy, and free energy if there is one and no name was given; arguments as those of `forces_key`."""
    name = key or ("energy" if "energy" in info else "free_energy")
    wanted = {"energy": name}
    if key is None and "free_energy" in info:
        wanted["free_energy"] = "free_energy"
    if name not in info:
        raise ValueError(f"{where}: there is no energy '{key or 'energy'}'{_offer(key is None, info, table)}")
    for one in wanted.values():
        if not _is_number(info[one]):
            raise ValueError(f"{where}: {one}={info[one]} is not a number.")
    return {kind: float(info[one]) for kind, one in wanted.items()}


def lacks_forces(table: Table) -> bool:
    """Whether there is no column that may be meant by forces."""
    return not _like_forces(table) and not any("grad" in name.lower() for name in table)


def lacks_energy(info: dict[str, Any]) -> bool:
    """Whether there is no value that may be meant by the energy."""
    return not _like_energy(info)


def velocities_key(key: str | None, unit: str | None, info: dict[str, Any], table: Table, where: str) -> str | None:
    """Name of the column of momenta or velocities, if there is one; `unit` is what the user gave, the others as before."""
    if key is not None and key not in table:
        raise ValueError(f"{where}: there are no velocities '{key}'. {contents(info, table)}")
    key = key or next((name for name in (*MOMENTA, *_VELOCITIES) if name in table), None)
    if key is not None and key not in MOMENTA and unit is None:
        raise ValueError(
            f"{where}: the unit of the velocities '{key}' is not in the file. Give it with --velocity-unit, one of "
            "Ang/fs (as GPUMD writes them), Ang/ps, nm/ps, m/s, Bohr/aut, ASE; or take the velocities from the positions "
            "with --recover-velocities."
        )
    return key


def contents(info: dict[str, Any], table: Table) -> str:
    """What a frame has, for error messages."""
    values = ", ".join(key for key in info if key not in ("Lattice", "pbc")) or "no values"
    return f"The comment line has {values}; the columns are {', '.join(table)}."


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float | np.number)


def _offer(usual: bool, info: dict[str, Any], table: Table) -> str:
    """Options that take what is there, and what is there."""
    forces, found = _like_forces(table), _like_energy(info)
    options = [
        f"--{option} {names[0]}{''.join(f' (or {name})' for name in names[1:])}"
        for option, names in (("forces-key", forces), ("energy-key", found))
        if names and names[0] not in ("forces", "energy", "free_energy")
    ]
    remedy = "; name them with --forces-key and --energy-key."
    if options and usual:
        remedy = f". If they are those of the simulation, in eV and Å, say so: {' '.join(options)}."
    elif not forces and any("grad" in name.lower() for name in table):
        remedy = "; a gradient is minus the forces: write them with the other sign, in a column 'forces'."
    elif not forces:
        remedy = ", and no other column of forces: the file has no forces. Write it with those of the simulation."
    return f"{remedy} {contents(info, table)}"


def _like_forces(table: Table) -> list[str]:
    """Columns that may be forces."""
    return [name for name, (_, n) in table.items() if n == 3 and ("force" in name.lower() or "frc" in name.lower())]


def _like_energy(info: dict[str, Any]) -> list[str]:
    """Values that may be the energy."""
    return [name for name, value in info.items() if _is_number(value) and "energy" in name.lower()]
