r"""Masses of the simulation that are not those of the database, group by group.

Forces on atoms of mass :math:`m_g` that was :math:`\mu_g m_g` in the simulation lead to the slope :math:`\alpha / \mu_g` of
their group, where :math:`\alpha` is that of all (see `spk_dt.trajectories.diagnosis.causes`). One of the groups has a mass
that is known: that of the database, of the element, or of one of its isotopes; then the others follow. Where velocities were
made of momenta with the wrong masses, their slopes are :math:`\beta / \mu_g`, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import atomic_masses, chemical_symbols

from spk_dt.trajectories.diagnosis.finding import Finding
from spk_dt.trajectories.diagnosis.pieces import PieceReader
from spk_dt.trajectories.diagnosis.remedy import shortest
from spk_dt.trajectories.diagnosis.scales import Fit, Scales
from spk_dt.trajectories.stated import ISOTOPES

__all__ = ["OtherMasses", "apart", "masses_finding", "measured_masses", "other_masses"]

#: cost of masses that are known, and of one that is not, in units of one cause
_KNOWN, _UNKNOWN = 1.0, 1.8
#: relative difference of slopes of groups that means another mass
_APART = 0.02


@dataclass(frozen=True)
class OtherMasses:
    """Masses that explain the slopes of the groups.

    Args:
        masses: Dalton, by group; None where it is that of the database.
        momenta: whether velocities are momenta over the masses of the database.
        force: slope alpha that is left.
        velocity: slope beta that is left.
        cost: how much speaks against it, in units of one cause.
    """

    masses: tuple[float | None, ...]
    momenta: bool
    force: float
    velocity: float
    cost: float


def apart(scales: Scales) -> bool:
    """Whether groups of atoms have other slopes than others."""
    slopes = np.array([fit.value for fit in scales.force_of])
    allowed = [max(_APART, 5.0 * _error(fit)) for fit in scales.force_of]
    middle = scales.force.value
    return bool(
        len(slopes) > 1
        and np.all(slopes * middle > 0.0)
        and np.any(np.abs(slopes[:, None] / slopes - 1.0) > np.add.outer(allowed, allowed))
        and scales.by_group < 0.3 * scales.force.unexplained
    )


def other_masses(reader: PieceReader, scales: Scales) -> list[OtherMasses]:
    """All choices of masses that explain the slopes of the groups; the masses of the database where they do."""
    own = [float(reader.masses[atoms[0]]) for atoms in scales.groups]
    alpha = np.array([fit.value for fit in scales.force_of])
    together = not apart(scales)
    found: dict[Any, OtherMasses] = {}
    if together:
        same = OtherMasses((None,) * len(own), False, scales.force.value, scales.velocity.value, 0.0)
        found[same.masses] = same
    if not np.all(alpha * scales.force.value > 0.0):
        return list(found.values())
    elements = [int(reader.numbers[atoms[0]]) for atoms in scales.groups]
    known = [
        (i, mass) for i, mass in enumerate(own)
    ]  # first, so that of masses that are the same those measured are kept
    known += [(i, float(atomic_masses[z])) for i, z in enumerate(elements)]
    known += [(i, mass) for i, z in enumerate(elements) for mass in _isotopes(z)]
    for first, target in known:
        common = alpha[first] * target / own[first]
        ratios = np.full(len(own), target / own[first]) if together else common / alpha
        masses = [
            _meant(reader, group, mass, mass * ratio, _error(fit))
            for group, mass, ratio, fit in zip(scales.groups, own, ratios, scales.force_of, strict=True)
        ]
        changed = [one for one in masses if one is not None]
        cost = _KNOWN + (_UNKNOWN - _KNOWN) * sum(not known for _, known in changed)
        values = tuple(None if one is None else one[0] for one in masses)
        if not changed or (together and cost > _KNOWN):
            continue
        alike = tuple(None if value is None else f"{value:.3g}" for value in values)
        mu = np.array([1.0 if value is None else value / mass for value, mass in zip(values, own, strict=True)])
        momenta, velocity = _velocities(reader, scales, mu)
        if alike not in found or cost < found[alike].cost:
            force = scales.force.value * mu[0] if together else common
            found[alike] = OtherMasses(values, momenta, float(force), velocity, cost)
    return list(found.values())


def _isotopes(z: int) -> tuple[float, ...]:
    """Masses that atoms of an element have in simulations."""
    return float(atomic_masses[z]), *ISOTOPES.get(chemical_symbols[z], {}).values()


def _meant(reader: PieceReader, atoms: np.ndarray, own: float, value: float, error: float) -> tuple[float, bool] | None:
    """The mass that is meant by a measured one, and whether it is that of an isotope; None for that of the database."""
    within = min(max(5.0 * error, 1e-6), _APART)
    if abs(value / own - 1.0) <= max(within, 2e-3):
        return None
    z = int(reader.numbers[atoms[0]])
    near = min(_isotopes(z), key=lambda mass: abs(mass / value - 1.0))
    known = abs(near / value - 1.0) < max(within, 2e-3)
    return (near if abs(near / value - 1.0) <= within else shortest(value, within)), known


def _velocities(reader: PieceReader, scales: Scales, mu: np.ndarray) -> tuple[bool, float]:
    """Whether velocities are momenta over wrong masses, and the slope of all of them."""
    beta = np.array([fit.value for fit in scales.velocity_of])
    if reader.recovered_velocities or not np.all(np.isfinite(beta)):
        return False, scales.velocity.value
    spread = [np.ptp(slopes) / np.abs(slopes).mean() for slopes in (beta, beta * mu)]
    if len(beta) == 1:
        nearer = [abs(np.log(abs(slope))) for slope in (beta[0], beta[0] * mu[0])]
        momenta = nearer[1] < nearer[0] - _APART
    else:
        momenta = spread[1] < spread[0] - _APART
    return bool(momenta), float(np.median(beta * mu)) if momenta else scales.velocity.value


def _error(fit: Fit) -> float:
    return (
        fit.relative_error if np.isfinite(fit.relative_error) else max(0.02, fit.rounding / max(abs(fit.value), 1e-300))
    )


def _said(reader: PieceReader, scales: Scales, masses: tuple[float | None, ...]) -> str:
    """Masses in words."""
    parts = []
    for atoms, mass in zip(scales.groups, masses, strict=True):
        if mass is not None:
            symbol = chemical_symbols[reader.numbers[atoms[0]]]
            who = symbol if _whole(reader, atoms) else f"{symbol} (atoms {_ranges(atoms)})"
            label = next((f" ({name})" for name, one in ISOTOPES.get(symbol, {}).items() if abs(one - mass) < 2e-3), "")
            parts.append(f"{who} {mass:.7g}{label} instead of {float(reader.masses[atoms[0]]):.4g}")
    return ", ".join(parts)


def _stated(reader: PieceReader, scales: Scales, masses: tuple[float | None, ...]) -> dict[str | int, float]:
    """Masses as `convert` takes them: by element, or by atom where an element has several."""
    found: dict[str | int, float] = {}
    for atoms, mass in zip(scales.groups, masses, strict=True):
        if mass is not None:
            whole = _whole(reader, atoms)
            found |= (
                {chemical_symbols[reader.numbers[atoms[0]]]: mass} if whole else dict.fromkeys(atoms.tolist(), mass)
            )
    return found


def measured_masses(
    reader: PieceReader, scales: Scales, measured: tuple[float | None, ...]
) -> tuple[float | None, ...]:
    """Masses that are meant by measured ones."""
    found: list[float | None] = []
    for atoms, value, fit in zip(scales.groups, measured, scales.force_of, strict=True):
        meant = None if value is None else _meant(reader, atoms, float(reader.masses[atoms[0]]), value, _error(fit))
        found.append(value if meant is None else meant[0])
    return tuple(found)


def masses_finding(
    reader: PieceReader,
    scales: Scales,
    masses: tuple[float | None, ...],
    momenta: bool,
    severity: str,
    why: str,
    values: Mapping[str, Any],
) -> Finding:
    """What is said of other masses.

    Args:
        reader: the trajectory.
        scales: slopes of the groups.
        masses: of the groups; None where it is that of the database.
        momenta: whether velocities are momenta over the masses of the database.
        severity: of the finding.
        why: end of the sentence.
        values: what else was measured.
    """
    text = f"atoms move as if they had other masses ({_said(reader, scales, masses)} Dalton){why}"
    text += "; velocities were made of momenta with the wrong masses." if momenta else "."
    meant = _stated(reader, scales, masses)
    options: dict[str, Any] = {"masses": meant}
    if not reader.recovered_velocities:
        options["keep_momenta"] = momenta
    values = {**values, "masses": {str(who): mass for who, mass in meant.items()}}
    remedy = "State the masses of the simulation (Atoms.set_masses)."
    return Finding("masses", severity, text, remedy, (), values, options)


def _whole(reader: PieceReader, atoms: np.ndarray) -> bool:
    """Whether these are all atoms of their element, or all but those that say nothing."""
    return len(atoms) == int(np.sum(reader.numbers == reader.numbers[atoms[0]]))


def _ranges(atoms: np.ndarray) -> str:
    shown = ", ".join(map(str, atoms[:5].tolist()))
    return shown if len(atoms) <= 5 else f"{shown} and {len(atoms) - 5} more"
