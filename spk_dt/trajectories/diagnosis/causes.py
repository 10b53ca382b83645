r"""From measured slopes to what is wrong: the explanation with the fewest causes.

Three slopes are measured (see `spk_dt.trajectories.diagnosis.scales`), of five factors,

.. math:: \alpha = \eta^2 \phi / \ell, \qquad \beta = \eta \nu / \ell, \qquad \gamma = \phi \ell / \epsilon .

All that explains them is one choice of :math:`\eta` (time step) and :math:`\ell` (length), from which
:math:`\phi` (forces), :math:`\nu` (velocities) and :math:`\epsilon` (energies) follow. Among the choices in which a factor
is exactly one, that with the fewest factors beside one is the explanation; a factor that is known, because a pair of units
is often confused, counts less than any other. Energies and forces in the same wrong unit are one mistake. Where two
explanations are as good, both are told.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, sqrt

import ase.units

__all__ = ["Cause", "Measured", "explain", "known_unit"]

#: relative difference within which a factor is recognised
_SAME = 0.008
#: and one that is measured from forces or energies
_MEASURED = 0.025


@dataclass(frozen=True)
class Measured:
    """A slope and how far it may be from one, relative, without meaning anything."""

    value: float
    tolerance: float


@dataclass(frozen=True)
class Cause:
    """One thing that is wrong.

    Args:
        key: "time_step", "velocity_unit", "force_unit", "force_sign", "velocity_sign", "energy_unit",
            "energy_and_force_unit" or "length_unit".
        factor: of the true value over that of the database; exact where the unit is known.
        unit: what the values of the database are in, if it is known.
    """

    key: str
    factor: float
    unit: str | None = None


_ENERGIES = {
    "Hartree": ase.units.Hartree,
    "Rydberg": ase.units.Rydberg,
    "kcal/mol": ase.units.kcal / ase.units.mol,
    "kJ/mol": ase.units.kJ / ase.units.mol,
    "meV": 1e-3,
}
_LENGTHS = {"Å": 1.0, "Bohr": ase.units.Bohr, "nm": ase.units.nm}
_BOHR_PER_ATOMIC_TIME = ase.units.Bohr / (ase.units.AUT / ase.units.fs)  # Å/fs
_SPEEDS = {
    "atomic units (Bohr per atomic unit of time)": _BOHR_PER_ATOMIC_TIME,
    "Rydberg atomic units": 0.5 * _BOHR_PER_ATOMIC_TIME,
    "nm/ps": 1e-2,
    "Å/ps": 1e-3,
    "m/s": 1e-5,
    "Bohr/fs": ase.units.Bohr,
}


def _mistakes(kind: str, atoms: int) -> dict[str, float]:
    """Factors of often confused units, by what the values of the database are in."""
    if kind == "length_unit":
        wrong = {"Bohr": _LENGTHS["Bohr"], "nm": _LENGTHS["nm"]}
        return wrong | {f"Å, converted as if from {name}": 1.0 / value for name, value in wrong.items()}
    if kind == "velocity_unit":
        found = {
            "the unit of ASE (Å per 10.18 fs)": ase.units.fs,
            "Å/fs, taken for the unit of ASE": 1.0 / ase.units.fs,
        }
        found |= _SPEEDS
        return found | {f"{name}, taken for the unit of ASE": v / ase.units.fs for name, v in _SPEEDS.items()}
    if kind == "force_unit":
        found = {f"{e}/{x}": v / y for e, v in (("eV", 1.0), *_ENERGIES.items()) for x, y in _LENGTHS.items()}
        del found["eV/Å"]
        return found | {f"eV/Å, converted as if from {name}": 1.0 / value for name, value in found.items()}
    found = dict(_ENERGIES)
    found |= {f"eV, converted as if from {name}": 1.0 / value for name, value in found.items()}
    return found | ({"eV per atom": float(atoms)} if kind == "energy_unit" and atoms > 1 else {})


def known_unit(kind: str, factor: float, atoms: int = 1, tolerance: float = _SAME) -> Cause | None:
    """The cause, with the unit in which values are, if the factor is that of an often confused pair.

    Args:
        kind: key of the cause.
        factor: of the true value over that of the database.
        atoms: number of atoms, of an energy per atom.
        tolerance: relative.
    """
    mistakes = _mistakes(kind, atoms)
    best = min(mistakes, key=lambda name: abs(factor / mistakes[name] - 1.0))
    return Cause(kind, mistakes[best], best) if abs(factor / mistakes[best] - 1.0) < max(_SAME, tolerance) else None


def explain(measured: Mapping[str, Measured], recovered_velocities: bool, atoms: int) -> list[list[Cause]]:
    """Explanations of slopes, the best first, others as good after it; one without causes if all slopes are one.

    Args:
        measured: "force" (alpha), "velocity" (beta), "energy" (gamma), as far as they are known; without alpha, time step
            and unit of the velocities cannot be told apart.
        recovered_velocities: velocities are central differences of the positions: what is wrong with them follows from
            the time step and the positions.
        atoms: number of atoms.
    """
    tolerance = {key: one.tolerance for key, one in measured.items()}
    beta = measured["velocity"].value if "velocity" in measured else 1.0
    gamma = measured["energy"].value if "energy" in measured else 1.0
    alpha = measured["force"].value if "force" in measured else None
    if all(abs(one.value - 1.0) <= one.tolerance for one in measured.values()):
        return [[]]
    times = {1.0} if alpha is None else {1.0, sqrt(abs(alpha)), sqrt(abs(alpha / gamma))}
    if not recovered_velocities:
        times.add(abs(beta))
    found: dict[frozenset[str], tuple[float, list[Cause]]] = {}
    for length in (1.0, abs(gamma)):
        if length != 1.0 and known_unit("length_unit", length) is None:
            continue
        for time in times:
            if not (isfinite(time) and time > 0.0):
                continue
            force = gamma / length if alpha is None else alpha * length / time**2
            factors = {
                "length_unit": length,
                "time_step": time,
                "velocity": 1.0 if recovered_velocities else beta * length / time,
                "force": force,
                "energy": force * length / gamma,
            }
            causes = _causes(factors, tolerance, atoms)
            cost = sum(_cost(cause) for cause in causes)
            found.setdefault(frozenset(cause.key for cause in causes), (cost, causes))
    ranked = sorted(found.values(), key=lambda one: one[0])
    alike = ranked[0][0] + (0.6 if recovered_velocities or alpha is None else 0.25)
    return [causes for cost, causes in ranked if cost <= alike]


def _cost(cause: Cause) -> float:
    """One for what is often confused, more for what is not."""
    if cause.key == "time_step":
        return 1.2
    return 1.0 if cause.unit is not None or cause.key.endswith("_sign") else 1.5


def _causes(factors: Mapping[str, float], tolerance: Mapping[str, float], atoms: int) -> list[Cause]:
    """What differs from one."""
    force_tolerance = tolerance.get("force", tolerance.get("energy", 0.1))
    allowed = {
        "length_unit": 0.02,
        "time_step": 0.5 * force_tolerance,
        "velocity": tolerance.get("velocity", 0.0) + 0.5 * force_tolerance,
        "force": force_tolerance + tolerance.get("velocity", 0.0),
        "energy": force_tolerance + tolerance.get("energy", 0.1),
    }
    wrong = {key: value for key, value in factors.items() if abs(value - 1.0) > allowed[key]}

    def unit_of(kind: str, factor: float, within: float) -> Cause:
        return known_unit(kind, factor, atoms, within) or Cause(kind, factor)

    causes: list[Cause] = []
    if "length_unit" in wrong:
        causes.append(unit_of("length_unit", wrong["length_unit"], _MEASURED))
    if "time_step" in wrong:
        causes.append(Cause("time_step", wrong["time_step"]))
    for key in ("velocity", "force"):
        if wrong.get(key, 1.0) < 0.0:
            causes.append(Cause(f"{key}_sign", -1.0))
            wrong[key] = -wrong[key]
            if abs(wrong[key] - 1.0) <= allowed[key]:
                del wrong[key]
    if "velocity" in wrong:
        causes.append(unit_of("velocity_unit", wrong["velocity"], _SAME))
    force, energy = abs(factors["force"]), factors["energy"]
    same = energy > 0.0 and abs(force / energy - 1.0) <= tolerance.get("energy", 0.1)
    if "force" in wrong and "energy" in wrong and same:
        causes.append(unit_of("energy_and_force_unit", force, _MEASURED))
        return causes
    for key in ("force", "energy"):
        if key in wrong:
            causes.append(unit_of(f"{key}_unit", wrong[key], _MEASURED))
    return causes
