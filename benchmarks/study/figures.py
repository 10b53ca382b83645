"""The figures of RESULTS.md."""

from statistics import fmean
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from benchmarks.study.arms import ARMS
from benchmarks.study.measure import LOST
from benchmarks.study.rows import Row, by_arm, grouped, longest, several_seeds, usual

__all__ = ["plot_along", "plot_ensembles", "plot_true_error"]


def plot_true_error(rows: list[Row]) -> Figure:
    """True error against simulated time, and how many simulations are lost, a column for each model.

    Of the usual training; arms with several seeds, if there are any.
    """
    rows = several_seeds(longest(usual(rows)))
    models = grouped(rows, "model")
    figure, grid = plt.subplots(
        2, len(models), figsize=(4.6 * len(models) + 2.4, 5.2), layout="constrained", squeeze=False, sharex="col"
    )
    style = _styles(rows)
    for column, (model, of_model) in zip(grid.T, models.items(), strict=True):
        for arm, same in by_arm(of_model).items():
            curves = [row["long_run"]["over_time"] for row in same]
            times = [point[0] / 1000.0 for point in curves[0]]
            values = [[curve[i][1] for curve in curves] for i in range(len(times))]
            column[0].plot(times, [fmean(v) for v in values], label=ARMS[arm].title, **style[arm])
            column[0].fill_between(
                times, [*map(min, values)], [*map(max, values)], alpha=0.15, color=style[arm]["color"], lw=0
            )
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
    figure, grid = plt.subplots(
        1, len(models), figsize=(4.6 * len(models) + 2.4, 3.2), layout="constrained", squeeze=False
    )
    style = _styles(rows)
    for axes, (model, of_model) in zip(grid[0], models.items(), strict=True):
        for arm, same in by_arm(of_model).items():
            curves = [row["along_by_step"] for row in same]
            steps = [point[0] for point in curves[0]]
            values = [[curve[i][1] for curve in curves] for i in range(len(steps))]
            axes.plot(steps, [fmean(v) for v in values], label=ARMS[arm].title, **style[arm])
            axes.fill_between(
                steps, [*map(min, values)], [*map(max, values)], alpha=0.15, color=style[arm]["color"], lw=0
            )
        axes.set_title(model)
        axes.set_xlabel("simulation step")
    grid[0, 0].set_ylabel("force error along\nthe reference (eV/Å)")
    _legend(figure)
    return figure


def plot_ensembles(rows: list[Row]) -> Figure:
    """Survival against time, a panel for each model, temperature and length."""
    settings = grouped(rows, "model", "temperature", "picoseconds")
    figure, grid = plt.subplots(
        1, len(settings), figsize=(3.4 * len(settings) + 2.4, 3.0), layout="constrained", squeeze=False, sharey=True
    )
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


def _styles(rows: list[Row]) -> dict[str, dict[str, Any]]:
    """Of each arm in all panels: the control black, then the colours of the style."""
    colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    lines = [{"color": colour, "ls": mark, "lw": 1.3} for mark in ("-", "--", "-.") for colour in colours]
    others = [arm for arm in by_arm(rows) if arm != "control"]
    return {"control": {"color": "black", "ls": "-", "lw": 1.6}, **dict(zip(others, lines, strict=False))}


def _legend(figure: Figure) -> None:
    """One for all panels, each arm once."""
    found = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    order = [arm.title for arm in ARMS.values() if arm.title in found]
    figure.legend([found[title] for title in order], order, loc="outside right upper", frameon=False, fontsize=8)
