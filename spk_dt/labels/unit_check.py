"""Are a model's forces in the unit that its user says? A wrong one is silent, in SchNetPack as here.

The forces of the model at reference frames are compared with the reference forces. A model in the right unit is better
than a model that predicts no forces at all; one in the wrong unit is off by the factor between the units, or, with a wrong
unit of length, sees other structures. Comparing with zero does not catch a unit that makes forces too small (Hartree read
as eV: 1/27), so where a model does not agree clearly, other units are tried too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from spk_dt.units import conversion

__all__ = ["ENERGY_UNITS", "POSITION_UNITS", "Agreement", "Unit", "agreement", "check_units", "parse_unit"]

#: a unit as SchNetPack takes it: a name of ase.units, or a number in the units of ASE (eV, Å)
Unit = str | float

#: energy units that are tried
ENERGY_UNITS: Mapping[str, Unit] = MappingProxyType(
    {name: name for name in ("eV", "kcal / mol", "kJ / mol", "Hartree", "Rydberg")} | {"meV": 1e-3}
)

#: length units that are tried; with a longer one than the model's its cutoff reaches far, and pairs fill the memory
POSITION_UNITS: Mapping[str, Unit] = MappingProxyType({name: name for name in ("Angstrom", "Bohr")})

#: below this part of the error of zero forces a model agrees, and no other unit is tried
_AGREES = 0.5

#: another unit is named if it makes the error smaller by this factor
_CLEARLY_BETTER = 0.5


def parse_unit(text: str, reference: str) -> Unit:
    """The unit that is written in a command: a name of ase.units, or a number.

    Args:
        text: for example ``eV``, ``kcal / mol`` or ``0.001``.
        reference: a unit of the same kind.

    Raises:
        ValueError: if it is neither, or not positive.
    """
    try:
        unit: Unit = float(text)
    except ValueError:
        unit = text
    if not conversion(unit, reference, "units") > 0.0:
        raise ValueError(
            f"unit '{text}': a unit is a positive number or a name of ase.units, for example '{reference}'."
        )
    return unit


@dataclass(frozen=True)
class Agreement:
    """How well forces of a model agree with reference forces, in the units that are stated and in those that fit best.

    Args:
        zero: mean absolute component of the reference forces, the error of a model that predicts no forces, eV/Å.
        stated: mean absolute error of a component in the units stated, eV/Å.
        best: the same in the units that fit best, eV/Å.
        energy_unit: unit of energy that fits best, a name of `ENERGY_UNITS`; the stated one if that agrees.
        position_unit: unit of length that fits best, a name of `POSITION_UNITS`; likewise.
    """

    zero: float
    stated: float
    best: float
    energy_unit: str
    position_unit: str

    @property
    def other_units(self) -> bool:
        """Whether the agreement points to other units than those stated."""
        return self.best < min(_CLEARLY_BETTER * self.stated, _AGREES * self.zero)


def agreement(
    reference: np.ndarray,
    forces_for: Callable[[Unit], np.ndarray],
    energy_unit: Unit,
    position_unit: Unit,
) -> Agreement:
    """Compare a model with reference forces; where it does not agree clearly, in other units too.

    Args:
        reference: [n, 3] reference forces, eV/Å.
        forces_for: gives the model's forces [n, 3] at the same structures, as the numbers that the model returns, when
            positions are handed to it in the given unit of length.
        energy_unit: unit of energy that is stated.
        position_unit: unit of length that is stated.
    """
    zero = float(np.abs(reference).mean())
    as_stated = forces_for(position_unit)
    stated = _error(as_stated, reference, energy_unit, position_unit)
    if zero == 0.0 or stated < _AGREES * zero:
        return Agreement(zero, stated, stated, str(energy_unit), str(position_unit))
    errors = {}
    for position, length in POSITION_UNITS.items():
        forces = as_stated if _same(length, position_unit) else forces_for(length)
        for energy, unit in ENERGY_UNITS.items():
            errors[energy, position] = _error(forces, reference, unit, length)
    (energy, position), best = min(errors.items(), key=lambda item: item[1])
    return Agreement(zero, stated, best, energy, position)


def check_units(
    name: str,
    reference: np.ndarray,
    forces_for: Callable[[Unit], np.ndarray],
    energy_unit: Unit,
    position_unit: Unit,
) -> None:
    """Refuse a model whose forces are not in the unit that they are said to be in.

    Args:
        name: name of the model, for the message.
        reference: see `agreement`.
        forces_for: likewise.
        energy_unit: unit of energy that the user says.
        position_unit: unit of length that the user says.

    Raises:
        ValueError: if another unit fits, which is named, or if the model is no better than zero forces.
    """
    found = agreement(reference, forces_for, energy_unit, position_unit)
    if found.other_units:
        _refuse(name, found, energy_unit, position_unit)
    if found.zero > 0.0 and not found.stated < found.zero:
        raise ValueError(
            f"model '{name}' is no better than zero forces: at frames of the data its forces are off by {found.stated:.3g} "
            f"eV/Å, and the reference forces themselves are {found.zero:.3g} eV/Å on average. None of the units "
            f"{', '.join(ENERGY_UNITS)} with {', '.join(POSITION_UNITS)} makes it agree. Was it trained on other "
            "elements, or another property?"
        )


def _refuse(name: str, found: Agreement, energy_unit: Unit, position_unit: Unit) -> None:
    """Say which units fit, and the options that set them."""
    names, advice = [], []
    if not _same(ENERGY_UNITS[found.energy_unit], energy_unit):
        names.append(found.energy_unit)
        advice.append(f"--energy-unit '{ENERGY_UNITS[found.energy_unit]}'")
    if not _same(POSITION_UNITS[found.position_unit], position_unit):
        names.append(found.position_unit)
        advice.append(f"--position-unit '{POSITION_UNITS[found.position_unit]}'")
    raise ValueError(
        f"model '{name}' looks like {' and '.join(names)}: use {' '.join(advice)}. At frames of the data its forces are off "
        f"by {found.stated:.3g} eV/Å if read in '{energy_unit}' and '{position_unit}', by {found.best:.3g} eV/Å in these "
        f"units; the reference forces themselves are {found.zero:.3g} eV/Å on average."
    )


def _error(forces: np.ndarray, reference: np.ndarray, energy_unit: Unit, position_unit: Unit) -> float:
    """Mean absolute error of a force component, eV/Å; infinite if a force is not finite."""
    factor = conversion(energy_unit, "eV", "energy") / conversion(position_unit, "Ang", "length")
    error = float(np.abs(forces * factor - reference).mean())
    return error if np.isfinite(error) else float("inf")


def _same(unit: Unit, other: Unit) -> bool:
    """Whether two units are one."""
    return abs(conversion(unit, other, "units") - 1.0) < 1e-9
