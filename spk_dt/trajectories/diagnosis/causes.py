r"""From measured slopes to what is wrong: the explanation with the fewest causes.

Three slopes are measured (see `spk_dt.trajectories.diagnosis.scales`), of five factors,

.. math:: \alpha = \eta^2 \phi / \ell, \qquad \beta = \eta \nu / \ell, \qquad \gamma = \phi \ell / \epsilon .

All that explains them is one choice of :math:`\eta` (time step) and :math:`\ell` (length), from which
:math:`\phi` (forces), :math:`\nu` (velocities) and :math:`\epsilon` (energies) follow. Lengths are those of known units, of
which bonds tell (`spk_dt.trajectories.diagnosis.bonds`). Among the choices in which a factor is that of a known unit, that
with the fewest causes is the explanation; a factor that is known, because a pair of units is often confused, counts less
than any other, and units that go together, as atomic units do, are little more than one mistake. Where another explanation
is as good, both are told.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, sqrt

import ase.units

from spk_dt.trajectories.diagnosis.bonds import Bonds
from spk_dt.trajectories.diagnosis.known_units import QUANTITIES, Unit, known_unit
from spk_dt.trajectories.stated import UNITS

__all__ = ["Cause", "Explanation", "Known", "Measured", "explain"]

#: relative difference within which a factor is recognised that is measured from forces or energies
_MEASURED = 0.025
#: factors on the time step: atomic units, ps and the unit of ASE, taken for fs, and fs taken for the last
_TIMES = (ase.units.AUT / ase.units.fs, 1e3, 1.0 / ase.units.fs, ase.units.fs)
#: costs of causes: a known unit, another factor on the time step, any other factor, a conversion from a unit
_KNOWN, _TIME, _UNKNOWN, _CONVERTED = 1.0, 1.2, 1.5, 1.1
#: of a unit that goes with that of the lengths, or with those of lengths and energies
_BESIDE, _FOLLOWS = 0.3, 0.0
#: of temperatures and time steps that no simulation has
_STRANGE = 0.5
_KELVIN, _STEP_FS = (1.0, 2e4), (0.02, 25.0)


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
        name: its name for `convert`, if it has one.
    """

    key: str
    factor: float
    unit: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Known:
    """What is known beside the slopes.

    Args:
        bonds: distances to nearest neighbours.
        kelvin: temperature.
        step_fs: time step of the simulation as it is said.
    """

    bonds: Bonds | None = None
    kelvin: float | None = None
    step_fs: float | None = None


@dataclass(frozen=True)
class Explanation:
    """Causes that together explain the slopes.

    Args:
        causes: what is wrong; nothing if all slopes are one.
        cost: how much speaks against it, about the number of causes.
        kelvin: temperature, if they are the causes.
    """

    causes: list[Cause]
    cost: float
    kelvin: float | None = None


def explain(
    measured: Mapping[str, Measured], recovered_velocities: bool, atoms: int, known: Known | None = None
) -> list[Explanation]:
    """Explanations of slopes, the best first, others as good after it; one without causes if all slopes are one.

    Args:
        measured: "force" (alpha), "velocity" (beta), "energy" (gamma), as far as they are known; without alpha, time step
            and unit of the velocities cannot be told apart.
        recovered_velocities: velocities are central differences of the positions: what is wrong with them follows from
            the time step and the positions.
        atoms: number of atoms.
        known: what else is known.
    """
    known = known or Known()
    tolerance = {key: one.tolerance for key, one in measured.items()}
    beta = measured["velocity"].value if "velocity" in measured else 1.0
    gamma = measured["energy"].value if "energy" in measured else 1.0
    alpha = measured["force"].value if "force" in measured else None
    if all(abs(one.value - 1.0) <= one.tolerance for one in measured.values()):
        return [Explanation([], 0.0, known.kelvin)]
    found: dict[frozenset[tuple[str, str]], Explanation] = {}
    for length in _lengths():
        for time in _times(length, alpha, beta, gamma, recovered_velocities):
            force = gamma / length if alpha is None else alpha * length / time**2
            speed = length / time if recovered_velocities else beta * length / time
            factors = {
                "length_unit": length,
                "time_step": time,
                "velocity": 1.0 if recovered_velocities else speed,
                "force": force,
                "energy": force * length / gamma if "energy" in measured else 1.0,
            }
            causes = _causes(factors, tolerance, atoms, "energy" in measured)
            kelvin = None if known.kelvin is None else known.kelvin * speed**2
            cost = _cost(causes) + (known.bonds.cost(length) if known.bonds is not None else 0.0)
            cost += _STRANGE * _outside(kelvin, _KELVIN)
            cost += _STRANGE * _outside(None if known.step_fs is None else known.step_fs * time, _STEP_FS)
            keys = frozenset((cause.key, cause.name or f"{cause.factor:.2g}") for cause in causes)
            if keys not in found or cost < found[keys].cost - 1e-6:
                found[keys] = Explanation(causes, cost, kelvin)
    ranked = sorted(found.values(), key=lambda one: one.cost)
    alike = ranked[0].cost + (0.6 if recovered_velocities or alpha is None else 0.25)
    kinds: dict[frozenset[str], Explanation] = {}
    for one in ranked:
        if one.cost <= alike:
            kinds.setdefault(frozenset(cause.key for cause in one.causes), one)
    return list(kinds.values())


def _outside(value: float | None, ends: tuple[float, float]) -> bool:
    return value is not None and value > 0.0 and not ends[0] < value < ends[1]


def _lengths() -> list[float]:
    """Factors of positions: of known units, and of conversions from them."""
    others = [value for value in UNITS["positions"].values() if value != 1.0]
    return [1.0, *others, *(1.0 / value for value in others)]


def _times(length: float, alpha: float | None, beta: float, gamma: float, recovered: bool) -> list[float]:
    """Factors of the time step with which another factor is one, or that of a known unit; those known best come first."""
    times = [1.0]
    if alpha is not None:
        forces = [1.0, *(energy / length for energy in UNITS["energy"].values()), abs(gamma) / length]
        times += [sqrt(abs(alpha) * length / force) for force in forces if force > 0.0]
    if not recovered:
        times += [abs(beta) * length / speed for speed in (1.0, *UNITS["velocities"].values())]
    return [time for time in times if isfinite(time) and time > 0.0]


def _cost(causes: list[Cause]) -> float:
    """One for what is often confused, more for what is not, less for units that belong together."""
    name = {quantity: cause.name for cause in causes for quantity in QUANTITIES.get(cause.key, ())}
    length, energy = name.get("positions", "Ang"), name.get("energy", "eV")
    total = 0.0
    for cause in causes:
        if cause.key == "time_step":
            total += _KNOWN if _known_time(cause.factor) else _TIME
        elif cause.key.endswith("_sign"):
            total += _KNOWN
        elif cause.name is None:
            total += _UNKNOWN if cause.unit is None else _CONVERTED
        elif "positions" not in name:
            total += _KNOWN
        elif cause.key == "force_unit":
            total += _FOLLOWS if cause.name == f"{energy}/{length}" else _KNOWN
        elif cause.key == "energy_unit":
            total += _BESIDE if name.get("forces") == f"{energy}/{length}" else _KNOWN
        elif cause.key == "velocity_unit":
            total += _BESIDE if cause.name.startswith(f"{length}/") else _KNOWN
        else:
            total += _KNOWN
    return total


def _known_time(factor: float) -> bool:
    """Whether it is that of a unit of time; a stride is as good as a wrong time step."""
    return any(abs(factor / known - 1.0) < 1e-3 for known in _TIMES)


def _causes(factors: Mapping[str, float], tolerance: Mapping[str, float], atoms: int, energies: bool) -> list[Cause]:
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

    def unit_of(key: str, factor: float, within: float) -> Cause:
        unit: Unit | None = known_unit(key, factor, atoms, within)
        return Cause(key, factor) if unit is None else Cause(key, unit.factor, unit.words, unit.name)

    causes: list[Cause] = []
    if "length_unit" in wrong:
        causes.append(unit_of("length_unit", wrong["length_unit"], _MEASURED))
    if "time_step" in wrong:
        time = wrong["time_step"]
        known = min(_TIMES, key=lambda one: abs(time / one - 1.0))
        causes.append(Cause("time_step", known if abs(time / known - 1.0) < 1e-4 else time))
    for key in ("velocity", "force"):
        if wrong.get(key, 1.0) < 0.0:
            causes.append(Cause(f"{key}_sign", -1.0))
            wrong[key] = -wrong[key]
            if abs(wrong[key] - 1.0) <= allowed[key]:
                del wrong[key]
    if "velocity" in wrong:
        causes.append(unit_of("velocity_unit", wrong["velocity"], allowed["velocity"]))
    force, energy = abs(factors["force"]), factors["energy"]
    same = energy > 0.0 and abs(force / energy - 1.0) <= tolerance.get("energy", 0.1)
    if energies and "length_unit" not in wrong and "force" in wrong and "energy" in wrong and same:
        causes.append(unit_of("energy_and_force_unit", force, _MEASURED))
        return causes
    for key in ("force", "energy"):
        if key in wrong:
            causes.append(unit_of(f"{key}_unit", wrong[key], _MEASURED))
    return causes
