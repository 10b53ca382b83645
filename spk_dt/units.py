"""Units at the border: femtoseconds, and the unit of time that follows from length, energy and Dalton.

Inside, positions, energies and masses come in the units of the model (by default Å, eV, Dalton), and time in the unit in
which F = m a holds without a factor, t = l sqrt(m / E); for Å, eV and Dalton this is the time unit of ASE, about 10.18 fs.
"""

import re
from math import sqrt

import ase.units

__all__ = ["conversion", "time_unit_in_fs"]


def conversion(source: str | float, target: str | float, what: str) -> float:
    """Factor from unit `source` to unit `target`.

    The same as `schnetpack.units.convert_units`, without loading torch.

    Args:
        source: unit as SchNetPack writes it, for example ``"kcal/mol/Ang"``, or a number in the units of ASE.
        target: unit to convert to.
        what: what the units belong to, for the error message.

    Raises:
        ValueError: if ASE does not know one of the units.
    """
    try:
        return _in_ase_units(source) / _in_ase_units(target)
    except AttributeError as error:
        units = f"'{source}'" if source == target else f"'{source}' or '{target}'"
        raise ValueError(
            f"unknown unit {units} of {what} ({error}). Use names of ase.units, for example 'eV', 'kcal/mol', 'Ang', "
            "'eV/Ang', 'Ang/fs'."
        ) from error


def time_unit_in_fs(energy_unit: str = "eV", distance_unit: str = "Ang") -> float:
    """The unit of time that follows from an energy unit, a length unit and Dalton, in fs."""
    energy = conversion(energy_unit, "eV", "energy")
    length = conversion(distance_unit, "Ang", "distance")
    return length * sqrt(1.0 / energy) / ase.units.fs


def _in_ase_units(unit: str | float) -> float:
    """A unit in those of ASE, from names of `ase.units` that are multiplied, or divided by after a slash."""
    if not isinstance(unit, str):
        return unit
    factor, divide = 1.0, False
    for part in re.split(r"(\W)", unit):
        if part == "/":
            divide = True
        elif part.strip():
            if part == "A":
                raise AttributeError("'A' is the ampere; the ångström is 'Ang'")
            value = getattr(ase.units, part)
            factor, divide = factor / value if divide else factor * value, False
    return factor
