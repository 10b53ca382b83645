"""Figures of what simulations do: vibrations, displacements, forces at short distances."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from spk_dt.evaluation.plot_style import REFERENCE, WIDTH, legend, panels, styles, time_unit

__all__ = ["plot_displacement", "plot_pairs", "plot_vibrations"]

_FORCES = (-10.0, 40.0)  # eV/Å; beyond them a curve is cut off


def plot_vibrations(curves: Mapping[str, Mapping[str, Any]], models: Sequence[str]) -> Figure | None:
    """Density of states of each element; None if there is none at all.

    Args:
        curves: by model or ``reference``, see `spk_dt.evaluation.vibrations.vibrational_density`.
        models: names, in the order that determines their styles.
    """
    figure = _by_element(curves, models, "density", "wavenumber", "wavenumber (cm⁻¹)", "density (cm)", columns=1)
    for axes in figure.axes if figure is not None else ():
        axes.set_ylim(bottom=0.0)
    return figure


def plot_displacement(curves: Mapping[str, Mapping[str, Any]], models: Sequence[str]) -> Figure | None:
    """Mean square displacement of each element, logarithmic: 2 is the slope of free flight, 1 that of diffusion.

    Args:
        curves: by model or ``reference``, see `spk_dt.evaluation.displacement.mean_square_displacement`.
        models: names, in the order that determines their styles.
    """
    times = [one["time_fs"][-1] for one in curves.values() if "time_fs" in one]
    unit, factor = time_unit(max(times, default=0.0))
    figure = _by_element(curves, models, "msd", "time_fs", f"time ({unit})", "MSD (Å²)", factor)
    for axes in figure.axes if figure is not None else ():
        axes.set(xscale="log", yscale="log")
    return figure


def plot_pairs(curves: Mapping[str, Mapping[str, Any]], models: Sequence[str]) -> Figure | None:
    """Force between two atoms that are pushed together, for each pair of elements; None without pairs.

    Args:
        curves: by model, then by pair, see `spk_dt.evaluation.pair_curves.pair_curves`.
        models: names, in the order that determines their styles.
    """
    pairs = list(dict.fromkeys(pair for one in curves.values() for pair in one))
    if not pairs:
        return None
    figure, grid = _grid(len(pairs))
    style = styles(models, markers=False)
    for axes, pair in zip(grid.flat, pairs, strict=False):
        for model in models:
            one = curves.get(model, {}).get(pair)
            if one is not None:
                force = np.array(one["force"], dtype=float)
                axes.plot(one["r"], np.clip(force, 2 * _FORCES[0], 2 * _FORCES[1]), **style[model], label=model)
                axes.axvline(one["shortest"], color="0.4", linestyle=":", linewidth=1.0)
        low, high = axes.dataLim.intervaly
        axes.set_ylim(max(1.1 * min(low, -1.0), _FORCES[0]), min(1.1 * max(high, 1.0), _FORCES[1]))
        axes.axhline(0.0, color="0.6", linewidth=0.6)
        axes.set_title(pair, fontsize=10, fontweight="bold")
        axes.set_xlabel("distance (Å)")
    for axes in grid[:, 0]:
        axes.set_ylabel("force (eV/Å)")
    legend(figure)
    return figure


def _by_element(
    curves: Mapping[str, Mapping[str, Any]],
    models: Sequence[str],
    key: str,
    along: str,
    xlabel: str,
    ylabel: str,
    factor: float = 1.0,
    columns: int = 3,
) -> Figure | None:
    """A panel for each element, a curve for each model and the reference."""
    elements = list(dict.fromkeys(element for one in curves.values() for element in one.get(key, ())))
    if not elements:
        return None
    figure, grid = _grid(len(elements), columns)
    style = {"reference": REFERENCE, **styles(models, markers=False)}
    for axes, element in zip(grid.flat, elements, strict=False):
        for name in ("reference", *models):
            values = curves.get(name, {}).get(key, {}).get(element)
            if values is not None:
                axes.plot(factor * np.array(curves[name][along]), values, **style[name], label=name)
        axes.set_title(element, fontsize=10, fontweight="bold")
        axes.set_xlabel(xlabel)
    for axes in grid[:, 0]:
        axes.set_ylabel(ylabel)
    legend(figure)
    return figure


def _grid(number: int, columns: int = 3) -> Any:
    """At most so many panels side by side; one column of flat ones shares its axis."""
    columns = min(columns, number)
    rows = -(-number // columns)
    return panels(rows, columns, (WIDTH, (2.2 if columns > 1 else 1.7) * rows + 0.4), number)
