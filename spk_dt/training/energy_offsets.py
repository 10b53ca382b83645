r"""Do energies of data and of a model differ by their zero only? An offset per element, and whether it explains them.

Energies of two codes, or of two sets of pseudopotentials, differ by a constant for each atom of an element, which no force
shows. The difference of the energies is fitted by such offsets a,

.. math:: E^\mathrm{data}_i - E^\mathrm{model}_i = \sum_z n_{iz} a_z + r_i ,

with the least sum of :math:`|r_i| / \sqrt{N_i}`, so that single wrong energies do not matter. What is left must be what a
model with such errors of its forces leaves. Changes of the energy are sums of forces over displacements, so their relative
errors are alike; and errors s of the forces in each of 3 N coordinates, independent, along displacements l, make an error of
:math:`s l \sqrt{3N}` of the energy.
"""

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from spk_dt.labels.unit_check import ENERGY_UNITS
from spk_dt.units import conversion

__all__ = ["Difference", "energy_difference"]

#: eV per atom, below which the energies of a model are off, but not from another zero
_SAME_ZERO = 0.1

#: in units of what the offsets leave, below which they are no offsets but errors of the model
_ABOVE_REST = 10.0

#: rest relative to the changes of the energy that is always allowed, and in units of the relative error of the forces
_REST, _REST_OF_FORCES = 0.5, 3.0

#: the least rest that is looked at, in eV per root of the degrees of freedom: rounding of energies, convergence
_NOISE = 2e-3

#: Å in each coordinate over which errors of forces add up to one of the energy: some amplitudes of thermal vibrations
_LENGTH = 0.3

#: in units of the rest that is allowed: such a frame is an outlier; and the share of them that is too many
_OUTLIER, _TOO_MANY = 5.0, 0.1

#: a factor between energies is that between two units, if it is within this part of it
_SAME_FACTOR = 0.25

#: correlation of changes that differ by a factor only; and changes so small beside the model's are none
_FOLLOWS, _CONSTANT = 0.7, 0.01

#: of the fit, after which it has converged
_ITERATIONS = 60


@dataclass(frozen=True)
class Difference:
    """How the energies of data differ from those of a model.

    Args:
        offsets: [n_elements] offset of each element, eV; where the compositions do not tell elements apart, those nearest to
            one value for all atoms.
        determined: whether the compositions tell all elements apart.
        shift: the largest offset of a frame, eV per atom.
        another_zero: whether the offsets are larger than errors of the model.
        explained: whether the offsets explain the difference.
        few: whether there are too few frames to tell.
        mixed: whether they explain it at most frames, but not at many others.
        rest: what they leave, eV in a frame of usual size.
        change: by how much the energies of the data change otherwise, likewise.
        model_change: by how much those of the model do.
        correlation: of these changes.
        outliers: [n_frames] whether the energy of a frame is far off after the offsets.
        force_error: mean absolute error of the model's forces, eV/Å.
    """

    offsets: np.ndarray
    determined: bool
    shift: float
    another_zero: bool
    explained: bool
    few: bool
    mixed: bool
    rest: float
    change: float
    model_change: float
    correlation: float
    outliers: np.ndarray
    force_error: float

    def reason(self) -> str:
        """What may be wrong with energies that offsets do not explain."""
        if self.few:
            return f"at {len(self.outliers)} training frames, too few to tell another zero from another cause"
        if self.mixed:
            return "but for some that are far off: they have more than one zero, of two codes or settings"
        ratio = self.change / max(self.model_change, 1e-12)
        pairs = [
            f"those in {data} do that are taken for {taken}"
            for data, taken in permutations(ENERGY_UNITS, 2)
            if abs(ratio * conversion(ENERGY_UNITS[data], ENERGY_UNITS[taken], "energy") - 1.0) < _SAME_FACTOR
        ]
        if pairs and self.correlation > _FOLLOWS:
            return f"and change {ratio:.3g} times as much as the model's, as {' or '.join(pairs)}"
        if ratio < _CONSTANT:
            return "and hardly change: they have the kinetic energy in them, or are in another unit"
        return (
            "and do not change as the model's do: they have more than one zero (of two codes or settings), are of other "
            "frames, or in another unit"
        )


def energy_difference(
    data: np.ndarray, model: np.ndarray, counts: np.ndarray, force_error: float, force: float
) -> Difference:
    """Fit offsets per element to the difference of energies, and see whether they explain it.

    Args:
        data: [n_frames] energies of the data, eV.
        model: [n_frames] of the model for the same structures, eV.
        counts: [n_frames, n_elements] atoms of each element.
        force_error: mean absolute error of the model's forces there, eV/Å.
        force: mean absolute component of the forces of the data, eV/Å.
    """
    n_atoms = counts.sum(axis=1)
    freedom = 3.0 * float(np.median(n_atoms))  # of a frame of usual size, to which errors are scaled
    root = np.sqrt(3.0 * n_atoms / freedom)
    offsets, rank = _fit(counts, data - model)
    rest = (data - model - counts @ offsets) / root
    changes = [(energies - counts @ _fit(counts, energies)[0]) / root for energies in (data, model)]
    left, change, model_change = (_scale(values, rank) for values in (rest, *changes))

    relative = force_error / force if force > 0.0 else 1.0
    allowed = max(
        _NOISE * np.sqrt(freedom),
        force_error * _LENGTH * np.sqrt(freedom),
        max(_REST, _REST_OF_FORCES * relative) * min(change, model_change),
    )
    outliers = np.abs(rest) > _OUTLIER * allowed
    many = bool(outliers.mean() > _TOO_MANY)
    of_frames = counts @ offsets
    shift = float(np.abs(of_frames / n_atoms).max())
    another_zero = shift > _SAME_ZERO and bool((np.abs(of_frames) > _ABOVE_REST * left * root).any())
    few = another_zero and len(data) - rank < 2
    return Difference(
        offsets=offsets,
        determined=rank == counts.shape[1],
        shift=shift,
        another_zero=another_zero,
        explained=left <= allowed and not many and not few,
        few=few,
        mixed=left <= allowed and many,
        rest=left,
        change=change,
        model_change=model_change,
        correlation=_correlation(*changes),
        outliers=outliers,
        force_error=force_error,
    )


def _fit(counts: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, int]:
    """Values per element with the least sum of absolute errors over the root of the number of atoms, and the rank.

    By reweighted least squares. What is undetermined is as near as possible to one value for all atoms.
    """
    n_atoms = counts.sum(axis=1)
    constant = np.median(values / n_atoms)
    rows, wanted = counts / np.sqrt(n_atoms)[:, None], (values - constant * n_atoms) / np.sqrt(n_atoms)
    weights, tiny = np.ones(len(values)), 1e-12 * (np.abs(wanted).max() + 1.0)
    for _ in range(_ITERATIONS):
        found, *_ = np.linalg.lstsq(rows * weights[:, None], wanted * weights, rcond=1e-10)
        weights = 1.0 / np.sqrt(np.maximum(np.abs(wanted - rows @ found), tiny))
        weights /= weights.max()
    return constant + found, int(np.linalg.matrix_rank(counts))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Of ranks, in which outliers do not count."""
    ranks = [np.argsort(np.argsort(values)) - (len(values) - 1) / 2 for values in (first, second)]
    return float(ranks[0] @ ranks[1] / max(ranks[0] @ ranks[0], 1.0))


def _scale(values: np.ndarray, rank: int) -> float:
    """Standard deviation of values to which `rank` parameters were fitted; outliers do not count."""
    freedom = max(len(values) - rank, 1)
    return float(1.4826 * np.median(np.abs(values)) * np.sqrt(len(values) / freedom))
