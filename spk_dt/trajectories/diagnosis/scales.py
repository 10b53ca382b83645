r"""Time step and units from the frames themselves: regressions whose slopes are one where everything is as it says.

For frames T apart with n steps of the simulation between, and accelerations a from the forces of the database,

.. math::
    x_{k+1} - 2 x_k + x_{k-1} &= T^2 \left[ \alpha a_k + \alpha \lambda (a_{k+1} - 2 a_k + a_{k-1}) \right],
    & \alpha &= \frac{\eta^2 \phi}{\ell}, \quad \lambda = \frac{1 - 1/n^2}{12} \\
    \tfrac12 (x_{k+1} - x_{k-1}) &= T \beta v_k + T^2 \left[ \alpha \tau a_k + \alpha \lambda (a_{k+1} - a_{k-1}) \right],
    & \beta &= \frac{\eta \nu}{\ell} \\
    E_{k+1} - E_k &= -\gamma\, \tfrac12 (F_k + F_{k+1}) \cdot (x_{k+1} - x_k),
    & \gamma &= \frac{\phi \ell}{\epsilon}

where :math:`\eta, \nu, \phi, \epsilon, \ell` are the true time between frames, velocities, forces, energies, lengths over
those of the database, and :math:`\tau T` the time by which velocities are too early (one half for those of a leapfrog
integrator). The first comes from positions and forces, the second from positions and velocities, the third from energies
and forces alone; what they say together is in `spk_dt.trajectories.diagnosis.causes`.

Least squares weighted with the masses, over the atoms that can be followed and the steps that are not strange; of several
forms of an equation the simplest that explains as much as the others is taken. Errors by leaving out blocks of frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite, sqrt

import numpy as np

from spk_dt.trajectories.diagnosis.pieces import PieceReader
from spk_dt.trajectories.diagnosis.rounding import measure_rounding
from spk_dt.trajectories.diagnosis.survey import Survey

__all__ = ["EnergyFit", "Fit", "Scales", "fit_energy", "fit_scales"]

#: blocks of frames, each left out in turn
_BLOCKS = 20
#: what is summed: rows and columns of the Gram matrices
_D, _C, _BEFORE, _NOW, _AFTER, _V = range(6)

#: logarithm of the smallest ratio of slopes that are of two masses
_APART = 0.05
#: range of lambda with steps of the simulation between frames: (1 - 1/n²)/12, and more for fast vibrations
_SPACED = (0.04, 0.15)
#: combinations of the accelerations before, now and after
_EARLY, _ACCELERATION, _LATE = np.eye(3)
_CURVATURE, _SLOPE = np.array([1.0, -2.0, 1.0]), np.array([-0.5, 0.0, 0.5])


@dataclass(frozen=True)
class Fit:
    """One equation.

    Args:
        value: slope of its first term; NaN if that term is zero.
        error: standard error of it; infinite if there are too few frames to say.
        form: name of the form that was taken.
        second: coefficient of its second term, alpha lambda or alpha tau; 0 if the form has none.
        unexplained: part of the squared left side that is not explained.
        rounding: error of the slope that the digits of the numbers make.
    """

    value: float
    error: float
    form: str
    second: float
    unexplained: float
    rounding: float = 0.0

    @property
    def relative_error(self) -> float:
        """Larger of both errors over the slope; infinite if there are too few frames to say."""
        return max(self.error, self.rounding) / abs(self.value) if self.value and isfinite(self.error) else float("inf")


@dataclass(frozen=True)
class Scales:
    """Slopes of the first two equations.

    Args:
        force: alpha; forms "now", "spaced" (lambda is not zero), "early" and "late" (the forces of a frame are found at
            the frame before, after).
        velocity: beta; forms "now", "shifted" (tau is not zero), "spaced", "shifted and spaced".
        groups: atoms of one element and one mass that have the same alpha; see `_groups`.
        force_of: alpha of each group.
        velocity_of: beta of each group.
        by_group: part that the first equation leaves unexplained with an alpha for each group.
        n_frames: frames that were used.
    """

    force: Fit
    velocity: Fit
    groups: tuple[np.ndarray, ...]
    force_of: tuple[Fit, ...]
    velocity_of: tuple[Fit, ...]
    by_group: float
    n_frames: int


def fit_scales(reader: PieceReader, survey: Survey, strange: np.ndarray) -> Scales | None:
    """Fit the first two equations; None if no frame has good neighbours.

    Args:
        reader: the trajectory.
        survey: what `survey` found.
        strange: [n_frames - 1] steps to leave out.
    """
    clean = ~(strange[1:] | strange[:-1])  # of frames 1 to n_frames - 2
    atoms = np.flatnonzero(survey.followed)
    blocks, n_frames = [], 0
    for first, last in reader.ranges(1, len(reader) - 1, _BLOCKS):
        use = clean[first - 1 : last - 1]
        if use.any():
            blocks.append(_gram(reader, atoms, first, last, use))
            n_frames += int(use.sum())
    if not blocks:
        return None
    gram = np.array(blocks)  # [n_blocks, n_atoms, 6, 6]
    total = gram.sum(axis=1)  # over atoms: [n_blocks, 6, 6]
    freedom = 3 * n_frames * int(survey.followed.sum())
    forms = {
        "now": (_ACCELERATION,),
        "early": (_EARLY,),
        "late": (_LATE,),
        "spaced": (_ACCELERATION, _CURVATURE),
    }
    force = _choose([_fit(total, _D, _rows(terms), name) for name, terms in forms.items()], freedom)
    v = np.eye(6)[[_V]]
    rows_of = {
        "now": v,
        "shifted": np.vstack([v, _rows([_ACCELERATION])]),
        "spaced": np.vstack([v, _rows([_SLOPE])]),
        "shifted and spaced": np.vstack([v, _rows([_ACCELERATION, _SLOPE])]),
    }
    velocity = _choose([_fit(total, _C, rows, name) for name, rows in rows_of.items()], freedom, force.value)
    best = rows_of[velocity.form]
    terms = {"early": [_EARLY], "late": [_LATE]}.get(
        force.form, [_ACCELERATION, _CURVATURE][: 1 + (force.form == "spaced")]
    )
    slopes = [_solve(one, _D, _rows(terms))[0] for one in gram.sum(axis=0)]
    places = _groups(reader.numbers[atoms], reader.masses[atoms], np.array(slopes))
    of_group = [gram[:, place].sum(axis=1) for place in places]
    digits = measure_rounding(reader, atoms).position
    masses = reader.masses[atoms]

    def rounded(fit: Fit, side: int, place: np.ndarray) -> Fit:
        """With the error that rounding of the positions makes; of second differences or of central ones."""
        known = gram[:, place][..., _NOW, _NOW] if side == _D else gram[:, place][..., _V, _V]
        size = float(known.sum())
        noise = digits * (sqrt(6.0) if side == _D else sqrt(0.5))
        spread = noise * sqrt(float((masses[place] * known.sum(axis=0)).sum())) / size if size > 0.0 else 0.0
        return replace(fit, rounding=spread)

    everywhere = np.arange(len(atoms))
    force, velocity = rounded(force, _D, everywhere), rounded(velocity, _C, everywhere)
    force_of = tuple(
        rounded(_fit(one, _D, _rows(terms), force.form), _D, p) for one, p in zip(of_group, places, strict=True)
    )
    velocity_of = tuple(
        rounded(_fit(one, _C, best, velocity.form), _C, p) for one, p in zip(of_group, places, strict=True)
    )
    sizes = total.sum(axis=0)[_D, _D]
    left = sum(fit.unexplained * one[:, _D, _D].sum() for fit, one in zip(force_of, of_group, strict=True))
    by_group = float(left / sizes) if sizes > 0.0 else 0.0
    return Scales(force, velocity, tuple(atoms[place] for place in places), force_of, velocity_of, by_group, n_frames)


def _groups(numbers: np.ndarray, masses: np.ndarray, slopes: np.ndarray) -> list[np.ndarray]:
    """Places of the atoms that have one element and mass, and slopes that do not fall apart.

    Slopes fall apart where the gap between two of them, in order, is wider than the width of both sides: isotopes of one
    element, written with the same mass.
    """
    found = []
    for z, mass in np.unique(np.stack([numbers, masses], axis=1), axis=0):
        members = np.flatnonzero((numbers == z) & (masses == mass))
        members = members[np.argsort(slopes[members])]
        todo = [members]
        while todo:
            part = todo.pop()
            values = slopes[part]
            if len(part) > 1 and np.all(values > 0.0):
                values = np.log(values)
                gap = int(np.argmax(np.diff(values)))
                width = values[gap + 1] - values[gap]
                if width > max(_APART, 2.0 * (values[gap] - values[0]), 2.0 * (values[-1] - values[gap + 1])):
                    todo += [part[gap + 1 :], part[: gap + 1]]
                    continue
            found.append(np.sort(part))
    return found


def _gram(reader: PieceReader, atoms: np.ndarray, first: int, last: int, use: np.ndarray) -> np.ndarray:
    """Products of left and right sides of both equations: [n_atoms, 6, 6], frames `first` to `last`."""
    piece = reader.read(first - 1, last + 1)
    step = reader.step_fs
    a = step**2 * piece.accelerations
    sides = (
        piece.moved[1:] - piece.moved[:-1],
        0.5 * (piece.moved[1:] + piece.moved[:-1]),
        a[:-2],
        a[1:-1],
        a[2:],
        step * piece.velocities[1:-1],
    )
    rows = np.array([side[use][:, atoms].transpose(1, 0, 2).reshape(len(atoms), -1) for side in sides]).swapaxes(0, 1)
    return reader.masses[atoms, None, None] * (rows @ rows.swapaxes(1, 2))


def _rows(terms: Sequence[np.ndarray]) -> np.ndarray:
    """Combinations of the accelerations as rows over all that is summed."""
    rows = np.zeros((len(terms), 6))
    rows[:, _BEFORE : _AFTER + 1] = terms
    return rows


def _choose(fits: list[Fit], freedom: int, alpha: float | None = None) -> Fit:
    """The simplest form that explains as much as the best of those that can be meant.

    Noise and thermostats make any further term explain a little more; a form is meant only if its coefficient is about what
    it must be (lambda from 0.06, and up to 0.12 for fast vibrations), and if it explains most of what is left.
    """
    simplest = fits[0]
    meant = [simplest]
    for fit in fits[1:]:
        second = fit.second / (fit.value if alpha is None else alpha)
        if fit.form in ("early", "late"):
            plausible = fit.unexplained < 0.05 * simplest.unexplained
        elif fit.form == "spaced":
            plausible = _SPACED[0] < second / (1.0 if alpha is None else 2.0) < _SPACED[1]
            plausible &= fit.unexplained < 0.1 * simplest.unexplained
        else:
            plausible = 0.3 < abs(second) < 1.3 and fit.unexplained < 0.3 * simplest.unexplained
        if plausible:
            meant.append(fit)
    enough = 1.1 * min(fit.unexplained for fit in meant) * (1.0 + 30.0 / freedom) + 1e-13
    return next(fit for fit in meant if fit.unexplained <= enough)


def _fit(gram: np.ndarray, side: int, rows: np.ndarray, form: str) -> Fit:
    """Least squares with [n_blocks, 6, 6] products."""
    total = gram.sum(axis=0)
    if not rows[0] @ total @ rows[0] > 0.0:  # no forces, or no velocities
        return Fit(float("nan"), float("inf"), form, 0.0, 1.0)
    values = _solve(total, side, rows)
    error = float("inf")
    if len(gram) > 1:
        others = np.array([_solve(total - block, side, rows)[0] for block in gram])
        error = float(np.sqrt((len(gram) - 1) * np.mean((others - others.mean()) ** 2)))
    size = total[side, side]
    explained = values @ rows @ total[:, side]
    unexplained = float(max(1.0 - explained / size, 0.0)) if size > 0.0 else 0.0
    return Fit(float(values[0]), error, form, float(values[1]) if len(values) > 1 else 0.0, unexplained)


def _solve(gram: np.ndarray, side: int, rows: np.ndarray) -> np.ndarray:
    return np.linalg.lstsq(rows @ gram @ rows.T, rows @ gram[:, side], rcond=1e-12)[0]


@dataclass(frozen=True)
class EnergyFit:
    """The third equation.

    Args:
        value: gamma, the slope.
        error: standard error of it.
        unexplained: part of the squared changes of energy that is not explained.
        energy_shift: frames by which energies come too late; 0 if they are where they belong.
        force_shift: the same for forces.
        kinetic: whether the change of the kinetic energy explains more than the path, as it does where forces change much
            between frames; `value` is then of minus that change, nu²/epsilon.
    """

    value: float
    error: float
    unexplained: float
    energy_shift: int
    force_shift: int
    kinetic: bool


def fit_energy(survey: Survey, strange: np.ndarray, cell_work: np.ndarray) -> EnergyFit | None:
    """Fit the third equation; None if there are not three good steps or the energy does not change.

    Args:
        survey: what `survey` found.
        strange: [n_frames - 1] steps to leave out.
        cell_work: [n_frames - 1] work of the stress, eV.
    """
    clean = ~strange
    change, work = survey.energy_change, survey.work + cell_work
    shifted = {(0, 0): (change, work[1])}
    for by in (1, -1):
        shifted[by, 0] = (np.roll(change, -by), work[1])  # the energy of frame k is found at k + by
        shifted[0, by] = (change, work[1 + by])
    fits = {}
    for shifts, (y, x) in shifted.items():
        use = clean & np.isfinite(x)
        if shifts != (0, 0):
            use[[0, -1]] = False
        if use.sum() >= 3:
            fits[shifts] = _line(x[use], y[use])
    if (0, 0) not in fits or not np.isfinite(fits[0, 0][0]):
        return None
    here = fits[0, 0]
    best = min(fits, key=lambda shifts: fits[shifts][2])
    if not (here[2] > 0.01 and fits[best][2] < min(0.3 * here[2], 0.5)):
        best = (0, 0)
    kinetic = _line(-np.diff(survey.kinetic)[clean], change[clean])
    if kinetic[2] < min(fits[best][2], 0.1):
        return EnergyFit(*kinetic, 0, 0, True)
    return EnergyFit(*fits[best], *best, False)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Slope through the origin, its error and the part of y unexplained; a few outliers do not count."""
    for _ in range(3):
        xx, xy, yy = x @ x, x @ y, y @ y
        if xx == 0.0 or yy == 0.0:
            return float("nan"), float("inf"), 1.0
        off = y - xy / xx * x
        spread = 1.4826 * np.median(np.abs(off))
        keep = np.abs(off) <= max(10.0 * spread, 1e-9 * np.abs(y).max())
        if keep.all() or keep.sum() < 3:
            break
        x, y = x[keep], y[keep]
    unexplained = max(1.0 - xy**2 / (xx * yy), 0.0)
    error = np.sqrt(unexplained * yy / xx / max(len(x) - 1, 1))
    return float(xy / xx), float(error), float(unexplained)
