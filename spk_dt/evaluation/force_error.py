r"""Error of the forces of a simulation along the reference trajectory that it should follow.

At step k the model's forces, at the positions that the model's own simulation has reached, are compared with the forces of
the k-th reference frame:

.. math:: e_Z(k) = \frac{1}{3 N_Z} \sum_{i \in Z} \sum_c \left| F_{ic}(x_k) - F_{ic}^{ref}(k) \right|

for each element Z. This is the measure of Dynamic Training: it counts errors of the forces, and that the simulation has
left the trajectory.

Žugec et al., J. Chem. Inf. Model. 2025, doi 10.1021/acs.jcim.5c01180.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols

__all__ = ["ErrorCurve", "average_curves", "element_errors", "rows", "summary"]


class ErrorCurve(NamedTuple):
    """Force error of one simulation, or the average of several.

    Args:
        steps: [n] steps, from 0.
        time_fs: [n] time of each step.
        mae: by element [n] mean absolute error of a force component, eV/Å; NaN where it is not defined.
        std: by element [n] standard deviation over simulations, eV/Å; zero for one simulation.
    """

    steps: np.ndarray
    time_fs: np.ndarray
    mae: dict[str, np.ndarray]
    std: dict[str, np.ndarray]


def element_errors(
    predicted: np.ndarray, reference: np.ndarray, numbers: np.ndarray, counted: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Mean absolute error of a force component, for each element.

    Args:
        predicted: [n, n_atoms, 3].
        reference: [n, n_atoms, 3], in the same unit.
        numbers: [n_atoms] atomic numbers.
        counted: [n_atoms, 3] which components count; None if all do.

    Returns:
        symbol of the element, by atomic number, to [n]; NaN where a predicted component is. Elements of which no component
        counts are left out.

    Raises:
        ValueError: if shapes do not match.
    """
    if predicted.shape != reference.shape or predicted.shape[1:] != (len(numbers), 3):
        raise ValueError(
            f"forces of shapes {predicted.shape} and {reference.shape} do not belong to {len(numbers)} atoms; both must "
            "be [n, n_atoms, 3]."
        )
    errors = np.abs(predicted - reference)
    counted = np.ones((len(numbers), 3), dtype=bool) if counted is None else counted
    own = {z: counted & (numbers == z)[:, None] for z in np.unique(numbers)}
    return {chemical_symbols[z]: errors[:, which].mean(axis=1) for z, which in own.items() if which.any()}


def average_curves(curves: Sequence[ErrorCurve]) -> ErrorCurve:
    """Mean and standard deviation over simulations with the same time step.

    At each step over those simulations whose reference goes on and that have not exploded; an element that is not in all
    systems counts where it is.

    Args:
        curves: of single simulations; some may end earlier, or have a reference at fewer steps.

    Returns:
        at all steps of all of them; NaN where no simulation is left.
    """
    steps, first = np.unique(np.concatenate([curve.steps for curve in curves]), return_index=True)
    time_fs = np.concatenate([curve.time_fs for curve in curves])[first]
    mae, std = {}, {}
    for element in _elements(curves):
        values = np.full((len(curves), len(steps)), np.nan)
        for row, curve in zip(values, curves, strict=True):
            if element in curve.mae:
                row[np.searchsorted(steps, curve.steps)] = curve.mae[element]
        left = np.isfinite(values)
        count = left.sum(axis=0)
        total = np.where(left, values, 0.0).sum(axis=0)
        mean = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
        squares = np.where(left, (values - mean) ** 2, 0.0).sum(axis=0)
        variance = np.divide(squares, count, out=np.full(len(count), np.nan), where=count > 0)
        mae[element], std[element] = mean, np.sqrt(variance)
    return ErrorCurve(steps, time_fs, mae, std)


def summary(averages: Sequence[ErrorCurve]) -> dict[str, object]:
    """Numbers that stand for whole curves.

    Args:
        averages: one for each time step.

    Returns:
        ``mean_over_steps`` by element, over all steps of all curves; ``sum_over_elements`` of these; ``step_0`` by element.
    """
    elements = _elements(averages)
    means = {element: _mean([curve.mae[element] for curve in averages if element in curve.mae]) for element in elements}
    first = {
        element: _mean([curve.mae[element][:1] for curve in averages if element in curve.mae]) for element in elements
    }
    return {"mean_over_steps": means, "sum_over_elements": float(sum(means.values())), "step_0": first}


def _elements(curves: Sequence[ErrorCurve]) -> list[str]:
    """Elements of all curves, by atomic number."""
    found: set[str] = set().union(*(curve.mae for curve in curves))
    return sorted(found, key=chemical_symbols.index)


def _mean(parts: Sequence[np.ndarray]) -> float:
    """Mean over what is finite in all parts together; NaN if nothing is."""
    values = np.concatenate(parts)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def rows(curve: ErrorCurve, with_std: bool) -> list[dict[str, object]]:
    """The curve as rows of a table: step, time_fs, element, mae, and std if asked for."""
    return [
        {"step": int(step), "time_fs": float(time), "element": element, "mae": float(curve.mae[element][i])}
        | ({"std": float(curve.std[element][i])} if with_std else {})
        for i, (step, time) in enumerate(zip(curve.steps, curve.time_fs, strict=True))
        for element in curve.mae
    ]
