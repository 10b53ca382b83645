"""The figures of RESULTS.md."""

from collections.abc import Collection, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.study.arms import ARMS
from benchmarks.study.measure import LOST
from benchmarks.study.rows import Row, by_arm, grouped, longest, several_seeds, usual
from spk_dt.certificate.survival import survival
from spk_dt.evaluation.plot_style import REFERENCE, band, legend, panels, styles

__all__ = ["plot_along", "plot_ensembles", "plot_lasting", "plot_true_error"]


def plot_true_error(rows: list[Row]) -> Figure:
    """True error against simulated time, and how many simulations are lost, a column for each model.

    Of the usual training; arms with several seeds, if there are any.
    """
    rows = several_seeds(longest(usual(rows)))
    models = grouped(rows, "model")
    figure, grid = _panels(2, models, 4.6, 5.2, sharex="col")
    style = _styles(rows)
    for column, (model, of_model) in zip(grid.T, models.items(), strict=True):
        for arm, same in by_arm(of_model).items():
            curves = [row["long_run"]["over_time"] for row in same]
            times = [point[0] / 1000.0 for point in curves[0]]
            _mean_line(column[0], times, [[point[1] for point in curve] for curve in curves], style[arm], arm)
            lost = [100.0 * fmean(curve[i][3] for curve in curves) for i in range(len(times))]
            column[1].plot(times, lost, **style[arm])
        column[0].set_title(model)
        column[0].set_yscale("log")
        column[0].set_yticks([0.1, 0.2, 0.5, 1.0, 2.0], ["0.1", "0.2", "0.5", "1", "2"], minor=False)
        column[0].set_yticks([], minor=True)
        column[0].set_ylim(0.1, LOST)
        column[1].set_xlabel("simulated time (ps)")
        column[1].set_ylim(-3, 103)
    grid[0, 0].set_ylabel(f"true force error (eV/Å,\nat most {LOST:g}), mean over starts")
    grid[1, 0].set_ylabel("simulations lost (%)")
    _legend(figure)
    return figure


def plot_along(rows: list[Row]) -> Figure:
    """Force error along the reference against the step, a panel for each model.

    Of the usual training; arms with several seeds, if there are any.
    """
    once = {(row["model"], row["arm"], row["seed"]): row for row in usual(rows)}  # its long simulations are many
    rows = several_seeds([*once.values()])
    models = grouped(rows, "model")
    figure, grid = _panels(1, models, 4.6, 3.2)
    style = _styles(rows)
    for axes, (model, of_model) in zip(grid[0], models.items(), strict=True):
        for arm, same in by_arm(of_model).items():
            curves = [row["along_by_step"] for row in same]
            steps = [point[0] for point in curves[0]]
            _mean_line(axes, steps, [[point[1] for point in curve] for curve in curves], style[arm], arm)
        axes.set_title(model)
        axes.set_xlabel("simulation step")
    grid[0, 0].set_ylabel("force error along\nthe reference (eV/Å)")
    _legend(figure)
    return figure


def plot_ensembles(rows: list[Row]) -> Figure:
    """Survival against time, a panel for each model, temperature and length."""
    settings = grouped(rows, "model", "temperature", "picoseconds")
    figure, grid = _panels(1, settings, 3.4, 3.0, sharey=True)
    style = _styles(rows)
    for axes, ((model, temperature, _), of_setting) in zip(grid[0], settings.items(), strict=True):
        for arm, same in by_arm(of_setting).items():
            curves = [row["long_run"]["over_time"] for row in same]
            times = [point[0] / 1000.0 for point in curves[0]]
            sizes = [len(row["long_run"]["by_start"]) for row in same]
            alive = [100.0 * fmean((1.0 - curve[i][3] for curve in curves), sizes) for i in range(len(times))]
            axes.step(times, alive, where="post", label=ARMS[arm].title, **style[arm])
        axes.set_title(f"{model}, {'NVE' if temperature is None else f'{temperature:g} K'}")
        axes.set_xlabel("simulated time (ps)")
        axes.set_ylim(-3, 103)
    grid[0, 0].set_ylabel("simulations that survive (%)")
    _legend(figure)
    return figure


def plot_lasting(rows: list[Row], arms: Collection[str] = tuple(ARMS)) -> Figure:
    """Share of the simulations that have not failed against time, with its 95 % band; all seeds together.

    A panel for each model of which several arms have been certified.

    Args:
        rows: of certificates, those of an arm of one length, see `benchmarks.study.lasting`.
        arms: those to show.
    """
    rows = [row for row in rows if row["arm"] in arms]
    models = {model: same for model, same in grouped(rows, "model").items() if len(by_arm(same)) > 1}
    figure, grid = _panels(1, models, 4.2, 3.2, sharey=True)
    style = _styles([row for same in models.values() for row in same])
    for axes, (model, of_model) in zip(grid[0], models.items(), strict=True):
        for arm, same in by_arm(of_model).items():
            end = same[0]["picoseconds"]
            failed = [time for row in same for time in row["failures"]]
            number = sum(row["number"] for row in same)
            curve = survival([*failed, *[None] * (number - len(failed))], [end] * number)
            times = np.append(curve.time_ps, end)
            share, low, high = (100.0 * np.append(values, values[-1]) for values in curve[1:])
            axes.step(times, share, where="post", label=ARMS[arm].title, **style[arm])
            axes.fill_between(times, low, high, step="post", color=style[arm]["color"], alpha=0.12, linewidth=0)
        axes.set_title(model)
        axes.set_xlim(0.0, max(row["picoseconds"] for row in of_model))
        axes.set_ylim(0.0, 103.0)
        axes.set_xlabel("simulated time (ps)")
    grid[0, 0].set_ylabel("simulations not failed (%)")
    _legend(figure)
    return figure


def _mean_line(
    axes: Axes, x: Sequence[float], curves: Sequence[Sequence[float]], look: dict[str, Any], arm: str
) -> None:
    """The mean of the curves of several seeds, and from the lowest to the highest of them."""
    axes.plot(x, np.mean(curves, axis=0), label=ARMS[arm].title, **look)
    band(axes, x, np.min(curves, axis=0), np.max(curves, axis=0), look["color"])


def _panels(
    rows: int, columns: Collection[Any], width: float, height: float, **shared: Any
) -> tuple[Figure, np.ndarray]:
    """A column of panels for each of some things, with room for the names of the arms beside them."""
    return panels(rows, len(columns), (width * len(columns) + 2.4, height), **shared)


def _styles(rows: list[Row]) -> dict[str, dict[str, Any]]:
    """Of each arm in all panels."""
    return {"control": REFERENCE, **styles([arm for arm in by_arm(rows) if arm != "control"], markers=False)}


def _legend(figure: Figure) -> None:
    legend(figure, [arm.title for arm in ARMS.values()], beside=True)
