r"""Does the stress belong to the energies? Where the cell changes, its work says so.

With the work W of the forces and :math:`V \sigma : \varepsilon` of the stress (`spk_dt.trajectories.diagnosis.survey`),

.. math:: \Delta E_k = \gamma \left( W_k + \kappa\, V \sigma_k : \varepsilon_k \right)

with kappa = 1 for a stress in the unit of the database, positive where the cell would contract. At a constant cell the
stress does no work, and nothing is said.
"""

from dataclasses import dataclass

import numpy as np

from spk_dt.trajectories.diagnosis.finding import Finding
from spk_dt.trajectories.diagnosis.survey import Survey
from spk_dt.trajectories.stated import UNITS

__all__ = ["Stress", "measure_stress", "of_stress"]

_OURS = "eV/Ang^3"
#: part of the squared changes of energy that may stay unexplained for kappa to be known
_UNEXPLAINED = 0.05
#: relative error of kappa beyond which nothing is said of it, and by how much it may be off
_KNOWN, _OFF = 0.05, 0.1


@dataclass(frozen=True)
class Stress:
    """The stress that the energies would have, over that of the database.

    Args:
        value: kappa.
        error: standard error of it.
    """

    value: float
    error: float


def measure_stress(survey: Survey, strange: np.ndarray) -> Stress | None:
    """Kappa; None where the cell or the energy does not change, there is no stress, or it cannot be told.

    Args:
        survey: what `survey` found.
        strange: [n_frames - 1] steps to leave out.
    """
    rows = np.stack([survey.work[1], survey.cell_work])[:, ~strange]
    change = survey.energy_change[~strange]
    if not np.isfinite(rows).all() or not rows[1].any() or rows.shape[1] < 4 or not change.any():
        return None
    slopes, *_ = np.linalg.lstsq(rows.T, change)
    rest = change - slopes @ rows
    if rest @ rest > _UNEXPLAINED * (change @ change) or slopes[0] == 0.0:
        return None
    covariance = np.linalg.pinv(rows @ rows.T) * (rest @ rest) / (rows.shape[1] - 2)
    error = float(np.sqrt(covariance[1, 1]) / abs(slopes[0]))
    value = float(slopes[1] / slopes[0])
    return Stress(value, error) if error < _KNOWN * max(abs(value), 1.0) else None


def of_stress(stress: Stress | None) -> list[Finding]:
    """A stress in another unit, or of the opposite sign."""
    if stress is None or abs(stress.value - 1.0) < max(_OFF, 5.0 * stress.error):
        return []
    sign = "-" if stress.value < 0.0 else ""
    near = (name for name, one in UNITS["stress"].items() if abs(abs(stress.value) / one - 1.0) < _OFF)
    unit = next(near, None) if 5.0 * stress.error < abs(stress.value) else None
    text = (
        f"where the cell changes, energies change as if the stress were {stress.value:.4g} times that of the database: "
    )
    values = {"ratio": stress.value}
    if unit is None:
        text += "it is in another unit, or not of the method of the energies."
        return [
            Finding("stress", "refused", text, "State its unit (spkdt convert --units stress=UNIT).", values=values)
        ]
    unit = f"{sign}1" if unit == _OURS else f"{sign}{unit}"
    meant = [
        *(["it has the opposite sign, that of a pressure"] if sign else []),
        *([f"it is in {unit.lstrip('-')}"] if unit[-1] != "1" else []),
    ]
    options = {"units": {"stress": unit}}
    return [Finding("stress", "refused", f"{text}{' and '.join(meant)}.", "State its unit.", (), values, options)]
