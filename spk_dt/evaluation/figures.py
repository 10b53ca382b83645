"""Figures of an evaluation: force errors against simulated time, structure, and conservation of energy.

Two force errors are drawn, and they are two different things. The error along the reference compares the force of the model
where it is with the force of the reference where that is, at the same time; it grows with any model, because trajectories
of a chaotic system part. The true error compares both forces at the same geometry, one that the model visits.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spk_dt.evaluation.plot_style import REFERENCE, WIDTH, band, legend, panels, styles, time_unit
from spk_dt.evaluation.results import Errors, Results, read_simulation

__all__ = ["plot_along_reference", "plot_distributions", "plot_energy_change", "plot_error_pairs"]

_MOST_POINTS = 2000  # of a line: more than a figure can show
_LOG_FROM = 30.0  # ratio of largest to smallest error from which the axis is logarithmic


def plot_along_reference(results: Results) -> Figure:
    """Force error along the reference against the simulation step, a panel for each element and a curve for each model."""
    elements = results.elements
    columns = min(3, len(elements))
    rows = -(-len(elements) // columns)
    figure, grid = panels(rows, columns, (WIDTH, 2.6 * rows + 0.3), len(elements))
    style = styles(results.models)
    for axes, element in zip(grid.flat, elements, strict=False):
        for model in results.models:
            errors = results.along_reference[model].get(element)
            if errors is not None:
                _line(axes, errors.step, errors, style[model], model)
        _error_axis(axes)
        axes.set_title(element, fontsize=10, fontweight="bold")
        axes.set_xlabel("simulation step")
        _time_on_top(axes, results)
    for axes in grid[:, 0]:
        axes.set_ylabel("force error along\nthe reference (eV/Å)")
    legend(figure)
    return figure


def plot_error_pairs(results: Results) -> Figure:
    """True error of visited geometries beside the error along the reference, a row for each element.

    Each panel has its own scale: the two errors may differ by an order of magnitude. Where simulations follow no reference
    there is only the true error.

    Raises:
        ValueError: if there are no true errors.
    """
    if not results.true_errors:
        raise ValueError(f"'{results.directory}' has no true_error.csv; only the error along the reference is known.")
    pairs = [("quality of the potential", "true error where the model goes", results.true_errors)]
    if results.follows_reference:
        pairs.append(("divergence of trajectories", "error along the reference", results.along_reference))
    elements = results.elements
    figure, grid = panels(len(elements), len(pairs), (WIDTH, 1.6 * len(elements) + 0.9), sharex="col")
    style = styles(results.models)
    factors = []
    for column, (meaning, name, errors) in enumerate(pairs):
        longest = max(np.nanmax(curve.time_fs) for curves in errors.values() for curve in curves.values())
        unit, factor = time_unit(longest)
        for row, element in enumerate(elements):
            axes = grid[row, column]
            for model in results.models:
                curve = errors.get(model, {}).get(element)
                if curve is not None:
                    _line(axes, curve.time_fs * factor, curve, style[model], model)
            axes.grid(axis="y", color="0.9", linewidth=0.6)
        grid[0, column].set_title(f"{name}:\n{meaning}", fontsize=10)
        grid[-1, column].set_xlabel(f"simulated time ({unit})")
        factors.append(factor)
    if results.follows_reference:
        last = max(start.reference_steps * start.timestep_fs for start in results.starts)
        _mark_end_of_reference(grid[:, 0], last * factors[0])
    for axes in grid.flat:
        _error_axis(axes)
    for row, element in enumerate(elements):
        grid[row, 0].set_ylabel(f"{element} (eV/Å)")
    figure.supylabel("mean absolute force error", fontsize=10)
    legend(figure)
    return figure


def plot_distributions(distributions: Mapping[str, Any], models: Sequence[str]) -> Figure:
    """Distances that occur in the simulations: h(r) over all pairs, and pair by pair, beside those of the reference.

    Args:
        distributions: content of ``distributions.json``: ``h_of_r`` and ``rdf``, curves by model or ``"reference"``.
        models: names, in the order that determines their styles.
    """
    shown = []
    if distributions.get("h_of_r"):
        shown.append(("all pairs", "h(r) (1/Å)", "h", distributions["h_of_r"]))
    for pair, curves in distributions.get("rdf", {}).items():
        shown.append((pair, "g(r)", "g", curves))
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    figure, grid = panels(rows, columns, (WIDTH, 2.2 * rows + 0.4), len(shown))
    style = {"reference": REFERENCE, **styles(models, markers=False)}
    for axes, (title, label, key, curves) in zip(grid.flat, shown, strict=False):
        for model in ["reference", *models]:
            if model in curves:
                axes.plot(curves[model]["r"], curves[model][key], **style[model], label=model)
        axes.set_title(title, fontsize=10, fontweight="bold")
        axes.set_xlabel("distance r (Å)")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0.0)
    legend(figure)
    return figure


def plot_energy_change(results: Results) -> Figure | None:
    """Change of the total energy per atom against simulated time, a line for each start; None without trajectories."""
    changes: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for model in results.models:
        for start in results.starts:
            simulation = read_simulation(results, model, start, _MOST_POINTS)
            energy = None if simulation is None else simulation.total_energy
            if simulation is not None and energy is not None and not simulation.cell_changes:
                change = 1e3 * (energy - energy[0]) / len(simulation.atomic_numbers)
                if np.isfinite(change).any():
                    changes.setdefault(model, []).append((simulation.time_fs, change))
    if not changes:
        return None
    figure, ((axes,),) = panels(1, 1, (WIDTH, 3.0))
    unit, factor = time_unit(max(time[-1] for lines in changes.values() for time, _ in lines))
    style = styles(results.models, markers=False)
    largest = []
    for model, lines in changes.items():
        look = style[model] | {"linewidth": 0.8}
        for i, (time, change) in enumerate(lines):
            axes.plot(time * factor, change, **look, label=model if i == 0 else None)
            largest.append(np.nanmax(np.abs(change)))
    if max(largest) > _LOG_FROM * max(np.median(largest), 1e-3):
        axes.set_yscale("symlog", linthresh=max(1.0, float(np.median(largest))))
    axes.axhline(0.0, color="0.6", linewidth=0.6)
    axes.set_xlabel(f"simulated time ({unit})")
    axes.set_ylabel("change of total energy\n(meV per atom)")
    legend(figure)
    return figure


def _mark_end_of_reference(panels: Sequence[Axes], time: float) -> None:
    """A dotted line at a time, named in the first panel."""
    for axes in panels:
        axes.axvline(time, color="0.4", linestyle=":", linewidth=1.0)
    on_the_right = time > np.mean(panels[0].get_xlim())
    panels[0].annotate(
        "end of reference",
        (time, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(-3 if on_the_right else 3, -3),
        textcoords="offset points",
        ha="right" if on_the_right else "left",
        va="top",
        fontsize=7,
        color="0.3",
    )


def _line(axes: Axes, x: np.ndarray, errors: Errors, style: Mapping[str, Any], label: str) -> None:
    """A curve, thinned to what can be seen, with its spread."""
    every = slice(None, None, max(1, len(x) // _MOST_POINTS))
    between = max(1, len(x[every]) // 8)
    axes.plot(x[every], errors.mae[every], **style, markevery=between, markersize=3.5, label=label)
    if errors.low is not None and errors.high is not None:
        band(axes, x[every], errors.low[every], errors.high[every], style["color"])


def _error_axis(axes: Axes) -> None:
    """From zero, or logarithmic where errors differ by more than an order of magnitude."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines] or [np.ones(1)])
    values = values[np.isfinite(values) & (values > 0)]
    if len(values) and np.percentile(values, 99.5) > _LOG_FROM * np.percentile(values, 0.5):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0.0)


def _time_on_top(axes: Axes, results: Results) -> None:
    """A second axis with the time, if all starts have one time step."""
    timesteps = {start.timestep_fs for start in results.starts}
    if len(timesteps) == 1:
        timestep = timesteps.pop()
        functions = (lambda step: np.multiply(step, timestep), lambda time: np.divide(time, timestep))
        top = axes.secondary_xaxis("top", functions=functions)
        top.set_xlabel("time (fs)")
