"""What a user states about numbers that are read: their units, and the masses of the atoms.

A reader gives Å, eV, eV/Å and Å/fs, as its format has them or as the user has said. Where the numbers are of other units all
the same, `restated` multiplies them; where the simulation had other masses, it sets them. The units and their names are
those that a check names (`spk_dt.trajectories.diagnosis`), so that what it says can be done as it stands.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from math import isfinite

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers

from spk_dt.trajectories.stored_properties import carry_over

__all__ = [
    "ISOTOPES",
    "UNITS",
    "Masses",
    "parse_indices",
    "parse_masses",
    "parse_shift",
    "parse_units",
    "restated",
    "unit_value",
]

#: mass in Dalton by element, or by index of the atom, counted from 0
Masses = Mapping[str | int, float]

#: isotopes that simulations use, by symbol of their element: relative atomic masses in Dalton (AME2020, Wang et al., Chin.
#: Phys. C 45, 030003, doi 10.1088/1674-1137/abddaf)
ISOTOPES = {
    "H": {"H-1": 1.007825, "D": 2.014102, "T": 3.016049},
    "Li": {"Li-6": 6.015123, "Li-7": 7.016003},
    "B": {"B-10": 10.012937, "B-11": 11.009305},
    "C": {"C-12": 12.0, "C-13": 13.003355},
    "N": {"N-15": 15.000109},
    "O": {"O-17": 16.999132, "O-18": 17.999160},
}

_ENERGIES = {
    "eV": 1.0,
    "Hartree": ase.units.Hartree,
    "Rydberg": ase.units.Rydberg,
    "kcal/mol": ase.units.kcal / ase.units.mol,
    "kJ/mol": ase.units.kJ / ase.units.mol,
    "meV": 1e-3,
}
_LENGTHS = {"Ang": 1.0, "Bohr": ase.units.Bohr, "nm": ase.units.nm}
_BOHR_PER_ATOMIC_TIME = ase.units.Bohr / (ase.units.AUT / ase.units.fs)

#: by quantity, names of units and their values in Å, eV, eV/Å, Å/fs, eV/Å³, e Å
UNITS: dict[str, dict[str, float]] = {
    "positions": _LENGTHS,
    "energy": _ENERGIES,
    "forces": {f"{e}/{x}": v / y for e, v in _ENERGIES.items() for x, y in _LENGTHS.items()},
    "velocities": {
        "Ang/fs": 1.0,
        "Ang/ps": 1e-3,
        "nm/ps": 1e-2,
        "m/s": 1e-5,
        "Bohr/fs": ase.units.Bohr,
        "nm/fs": ase.units.nm,
        "Bohr/aut": _BOHR_PER_ATOMIC_TIME,
        "Rydberg": 0.5 * _BOHR_PER_ATOMIC_TIME,
        "ASE": ase.units.fs,
    },
    "stress": {"eV/Ang^3": 1.0, "GPa": ase.units.GPa, "kbar": 0.1 * ase.units.GPa, "bar": ase.units.bar},
    "dipole": {"e*Ang": 1.0, "Debye": ase.units.Debye, "e*Bohr": ase.units.Bohr},
}
#: quantities that have to be stated as well where frames have them, by those that are stated
_GO_ALONG = {"stress": {"positions", "energy", "forces"}, "dipole": {"positions"}}


def unit_value(quantity: str, name: str) -> float:
    """A unit in Å, eV, eV/Å or Å/fs.

    Args:
        quantity: one of `UNITS`.
        name: name of the unit, or its value; with a minus in front, values change their sign.

    Raises:
        ValueError: if the quantity or the unit is not known.
    """
    if quantity not in UNITS:
        raise ValueError(f"--units {quantity}={name}: '{quantity}' is not one of {', '.join(UNITS)}.")
    sign, plain = (-1.0, name[1:]) if name.startswith("-") else (1.0, name)
    plain = plain.replace("Å", "Ang")
    known = {unit.lower(): value for unit, value in UNITS[quantity].items()}
    value = known.get(plain.lower())
    if value is None:
        try:
            value = float(plain)
        except ValueError:
            raise ValueError(
                f"--units {quantity}={name}: the unit is one of {', '.join(UNITS[quantity])}, or a number to multiply with."
            ) from None
    if not (isfinite(value) and value > 0.0):
        raise ValueError(f"--units {quantity}={name}: a number to multiply with is finite and not zero.")
    return sign * value


def parse_units(text: str) -> dict[str, str]:
    """``"positions=Bohr,energy=Hartree"`` as a mapping; the units are looked up.

    Raises:
        ValueError: if it cannot be understood.
    """
    found: dict[str, str] = {}
    for quantity, name in _pairs(text, "--units", "positions=Bohr,forces=Hartree/Bohr"):
        unit_value(quantity, name)
        if quantity in found:
            raise ValueError(f"--units {text}: '{quantity}' is given twice.")
        found[quantity] = name
    return found


def parse_masses(text: str) -> dict[str | int, float]:
    """``"H=2.014,7=15.0,8-10=18.0"``, Dalton by element or by index of the atom, as a mapping.

    Raises:
        ValueError: if it cannot be understood.
    """
    found: dict[str | int, float] = {}
    for who, value in _pairs(text, "--masses", "H=2.014, or with indices of atoms 4=2.014,8-11=18.0"):
        try:
            mass = float(value)
        except ValueError:
            mass = float("nan")
        if not (isfinite(mass) and mass > 0.0):
            raise ValueError(f"--masses {who}={value}: a mass is a positive number, in Dalton.")
        keys: list[str | int] = [who]
        if who[0].isdigit():
            keys = list(parse_indices(who, "--masses"))
        elif who not in atomic_numbers and who not in ISOTOPES["H"]:
            raise ValueError(f"--masses {who}={value}: '{who}' is neither an element nor the index of an atom.")
        if not keys or any(key in found for key in keys):
            raise ValueError(f"--masses {text}: '{who}' names no atom, or one twice.")
        found |= dict.fromkeys(keys, mass)
    return found


def parse_indices(text: str, option: str) -> list[int]:
    """``"3,8-11"`` as a list of numbers from 0.

    Raises:
        ValueError: if it cannot be understood.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise ValueError(f"{option} {text}: write numbers from 0 and ranges of them, as {option} 3,8-11.")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return found


def parse_shift(text: str) -> dict[str, int]:
    """``"forces=1,energy=1"`` as a mapping.

    Raises:
        ValueError: if it cannot be understood.
    """
    try:
        return {name: int(value) for name, value in _pairs(text, "--shift", "forces=1")}
    except ValueError:
        raise ValueError(f"--shift {text}: write a whole number of frames, as --shift forces=1,energy=1.") from None


def _pairs(text: str, option: str, example: str) -> list[tuple[str, str]]:
    """Names and values of an option."""
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and equals and value.strip() for name, equals, value in pairs):
        raise ValueError(f"{option} {text}: write names and values, as {option} {example}.")
    return [(name.strip(), value.strip()) for name, _, value in pairs]


def restated(
    frames: Iterable[Atoms], units: Mapping[str, str], masses: Masses, keep_momenta: bool, source: str
) -> Iterator[Atoms]:
    """Frames with the numbers in other units than were read, and with other masses.

    Args:
        frames: frames in Å, eV and the units of ASE that follow, with a calculator.
        units: by quantity, the unit in which the numbers are; see `unit_value`.
        masses: Dalton, by symbol of the element or by index of the atom; an index goes before an element.
        keep_momenta: whether momenta stay as they are where masses change; else velocities do.
        source: where the frames are from, for error messages.

    Raises:
        ValueError: if frames have a stress or a dipole whose unit would have to be stated too, lack what is stated, or have
            no atom with a mass that is stated.
    """
    factors = {quantity: unit_value(quantity, name) for quantity, name in units.items()}
    for index, frame in enumerate(frames):
        yield _restated(frame, factors, masses, keep_momenta, f"{source}, frame {index}")


def _restated(frame: Atoms, factors: Mapping[str, float], masses: Masses, keep_momenta: bool, where: str) -> Atoms:
    """One frame."""
    results = {} if frame.calc is None else frame.calc.results
    for name, with_these in _GO_ALONG.items():
        if name in results and name not in factors and with_these & set(factors):
            raise ValueError(
                f"{where}: it has a {name}, whose unit has to be stated with the others: --units {name}=UNIT, with 1 if it "
                f"is right ({', '.join(UNITS[name])})."
            )
    names = {"free_energy": "energy"}
    present = {"positions", *(names.get(name, name) for name in results)}
    present |= {"velocities"} if frame.has("momenta") else set()
    if absent := set(factors) - present:
        raise ValueError(f"{where}: there is no {', no '.join(sorted(absent))}, for which --units names a unit.")
    new = frame.copy()
    new.set_constraint()
    length = factors.get("positions", 1.0)
    new.set_cell(frame.cell.array * length)
    new.positions = frame.positions * length
    velocities = frame.get_velocities() if frame.has("momenta") else None
    if masses:
        new.set_masses(_masses(frame, masses, where))
    if velocities is not None:
        moving = frame.get_momenta() if keep_momenta else velocities * new.get_masses()[:, None]
        new.set_momenta(moving * factors.get("velocities", 1.0))
    new.set_constraint(frame.constraints)
    new.calc = SinglePointCalculator(new)
    carry_over(frame, new) if frame.calc is not None else None
    for name, value in results.items():
        factor = factors.get(names.get(name, name), 1.0)
        new.calc.results[name] = value if value is None else np.asarray(value) * factor if factor != 1.0 else value
    return new


def _masses(frame: Atoms, masses: Masses, where: str) -> np.ndarray:
    """[n_atoms] Dalton."""
    found = frame.get_masses()
    symbols = np.array(frame.get_chemical_symbols())
    labelled = np.round(found).astype(int)
    for who, mass in sorted(masses.items(), key=lambda item: isinstance(item[0], int)):
        if isinstance(who, int):
            atoms = np.array([who] if who < len(frame) else [], dtype=int)
        elif who in ("D", "T"):
            atoms = np.flatnonzero((symbols == "H") & (labelled == (2 if who == "D" else 3)))
        else:
            atoms = np.flatnonzero(symbols == who)
        if len(atoms) == 0:
            hint = f" Where {who} is written as hydrogen, state H={mass:g}." if who in ("D", "T") else ""
            raise ValueError(f"{where}: there is no atom '{who}', of which --masses states the mass.{hint}")
        found[atoms] = mass
    return found
