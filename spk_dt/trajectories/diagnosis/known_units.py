"""Factors of units that are often confused, with the names under which `spkdt convert` takes them."""

from dataclasses import dataclass
from functools import cache

import ase.units

from spk_dt.trajectories.stated import UNITS

__all__ = ["QUANTITIES", "Unit", "known_unit"]

#: relative difference within which a factor is recognised
_SAME = 0.008
#: by key of a cause, the quantities whose unit it is
QUANTITIES = {
    "length_unit": ("positions",),
    "energy_unit": ("energy",),
    "force_unit": ("forces",),
    "energy_and_force_unit": ("energy", "forces"),
    "velocity_unit": ("velocities",),
}
_IN_WORDS = {
    "ASE": "the unit of ASE (Å per 10.18 fs)",
    "Bohr/aut": "atomic units (Bohr per atomic unit of time)",
    "Rydberg": "Rydberg atomic units",
}


@dataclass(frozen=True)
class Unit:
    """What values are in.

    Args:
        factor: of the true value over that of the database.
        words: name of the unit, as it is said.
        name: name of the unit for `convert`; None if there is none, and the factor is to be used.
    """

    factor: float
    words: str
    name: str | None = None


def known_unit(key: str, factor: float, atoms: int = 1, tolerance: float = _SAME) -> Unit | None:
    """The unit in which values are, if the factor is that of an often confused pair.

    Args:
        key: one of `QUANTITIES`.
        factor: of the true value over that of the database.
        atoms: number of atoms, of an energy per atom.
        tolerance: relative.
    """
    mistakes = [*_mistakes(key)]
    if key == "energy_unit" and atoms > 1:
        mistakes.append(Unit(float(atoms), "eV per atom"))
    within = max(_SAME, tolerance)
    fits = [one for one in mistakes if abs(factor / one.factor - 1.0) < within]
    # a unit is meant rather than a conversion from one, which few make
    return min(fits, key=lambda one: (one.name is None, abs(factor / one.factor - 1.0)), default=None)


@cache
def _mistakes(key: str) -> tuple[Unit, ...]:
    """Units, and conversions from units that values were not in."""
    ours, *others = UNITS[QUANTITIES[key][0]].items()
    right = ours[0].replace("Ang", "Å")
    plain = [Unit(value, _words(name), name) for name, value in others]
    if key == "velocity_unit":
        taken = [ours, *((name, value) for name, value in others if name != "ASE")]
        found = [Unit(value / ase.units.fs, f"{_words(name)}, taken for the unit of ASE") for name, value in taken]
    else:
        found = [Unit(1.0 / value, f"{right}, converted as if from {_words(name)}") for name, value in others]
    return (*plain, *found)


def _words(name: str) -> str:
    return _IN_WORDS.get(name, name.replace("Ang", "Å"))
