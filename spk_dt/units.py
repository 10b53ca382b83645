"""Units at the border: femtoseconds, and the unit of time that follows from length, energy and Dalton.

Inside, positions, energies and masses come in the units of the model (by default Å, eV, Dalton), and time in the unit in
which F = m a holds without a factor, t = l sqrt(m / E); for Å, eV and Dalton this is the time unit of ASE, about 10.18 fs.
"""

from math import sqrt

import ase.units
from schnetpack.units import convert_units

__all__ = ["conversion", "time_unit_in_fs"]


def conversion(source: str, target: str, what: str) -> float:
    """Factor from unit `source` to unit `target`.

    Args:
        source: unit as SchNetPack writes it, for example ``"kcal/mol/Ang"``.
        target: unit to convert to.
        what: what the units belong to, for the error message.

    Raises:
        ValueError: if ASE does not know one of the units.
    """
    try:
        return convert_units(source, target)
    except (AttributeError, Warning) as error:
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
