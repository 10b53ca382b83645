"""Validation error of a training run against the epoch, with the stages of the curriculum marked."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from spk_dt.evaluation.plot_style import COLOURS, GREY, WIDTH, legend, panels

__all__ = ["TrainingCurve", "logged_metrics", "plot_training_curve", "read_training_curve"]

_BLUE, _ORANGE = COLOURS[:2]


@dataclass(frozen=True)
class TrainingCurve:
    """Validation error and rollout length of each epoch of a run.

    Args:
        epochs: [n_epochs].
        error: [n_epochs] ``val_loss``, mean over a free rollout of the force MAE summed over elements, in the unit of force.
        length: [n_epochs] rollout length S in force.
    """

    epochs: np.ndarray
    error: np.ndarray
    length: np.ndarray

    def stages(self) -> list[tuple[int, int, float]]:
        """S, its last epoch and the validation error at its end, for each stage."""
        ends = np.flatnonzero(np.diff(self.length, append=np.inf) != 0)
        return [(int(self.length[i]), int(self.epochs[i]), float(self.error[i])) for i in ends]


def logged_metrics(run: str | Path) -> list[dict[str, str]]:
    """Rows that the CSV logger wrote during ``spktrain``, those of a run that was resumed one after the other.

    Raises:
        FileNotFoundError: if there are no metrics in the folder of the run.
    """
    files = sorted(Path(run).glob("csv/version_*/metrics.csv"), key=lambda file: int(file.parent.name.split("_")[1]))
    if not files:
        raise FileNotFoundError(
            f"'{run}' has no csv/version_*/metrics.csv; train with logger=csv, or logger=[tensorboard,csv]."
        )
    rows: list[dict[str, str]] = []
    for file in files:
        with file.open(newline="") as stream:
            rows += csv.DictReader(stream)
    return rows


def read_training_curve(run: str | Path) -> TrainingCurve:
    """Read the metrics that the CSV logger wrote during ``spktrain``.

    Args:
        run: folder of the run. Parts of a run that was resumed are put together.

    Raises:
        FileNotFoundError: if there are no metrics in the folder.
        ValueError: if no epoch has been finished.
    """
    error: dict[int, float] = {}
    length: dict[int, float] = {}
    for row in logged_metrics(run):
        for key, values in (("val_loss", error), ("S", length)):
            if row.get(key):
                values[int(row["epoch"])] = float(row[key])
    epochs = sorted(error.keys() & length.keys())
    if not epochs:
        raise ValueError(
            f"'{run}' has no finished epoch of a dynamic training (columns val_loss and S) in its metrics."
        )
    return TrainingCurve(
        np.array(epochs), np.array([error[e] for e in epochs]), np.array([length[e] for e in epochs]).astype(int)
    )


def plot_training_curve(curve: TrainingCurve) -> Figure:
    """Figure of the validation error, S marked above each stage, and the level at the end of the first stage, S = 1.

    An inset magnifies what follows the first stage.

    Args:
        curve: what to plot.
    """
    figure, ((axes,),) = panels(1, 1, (WIDTH, 3.7))
    axes.plot(curve.epochs, curve.error, color=_BLUE, marker="o", markersize=3, linewidth=1.2)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation error of free rollouts (eV/Å)")
    stages = curve.stages()
    begin = curve.epochs[0] - 0.5
    _shade_every_other(axes, stages)
    for i, (length, last, _) in enumerate(stages):
        axes.annotate(
            f"S = {length}" if i == 0 else f"{length}",
            ((begin + last + 0.5) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
        begin = last + 0.5
    axes.set_xlim(curve.epochs[0] - 0.5, curve.epochs[-1] + 0.5)
    if len(stages) > 1:
        first = stages[0]
        level = {"color": _ORANGE, "linestyle": "--", "linewidth": 1.2}
        axes.axhline(first[2], **level, label=f"end of S = {first[0]}: {first[2]:.3f}")
        label = f"last: {curve.error[-1]:.3f}, best: {curve.error.min():.3f}"
        axes.plot([], [], color=_BLUE, marker="o", markersize=3, label=label)
        legend(figure)
        _magnify(axes, curve, first, level)
    return figure


def _magnify(axes: Axes, curve: TrainingCurve, first: tuple[int, int, float], level: dict[str, Any]) -> None:
    """Inset with a linear axis of what follows the first stage, from its end on; the curve passes below it."""
    after = curve.epochs >= first[1]
    low, high = np.log(axes.get_ylim())
    later = np.append(curve.error[int(0.4 * len(curve.error)) :], first[2])
    below = np.log(later[np.isfinite(later)].max())
    axes.set_ylim(np.exp(low), np.exp(max(high, low + (below - low) / 0.4)))
    inset = axes.inset_axes((0.45, 0.46, 0.53, 0.48))
    inset.plot(curve.epochs[after], curve.error[after], color=_BLUE, marker="o", markersize=2.5, linewidth=1.0)
    inset.axhline(first[2], **level)
    # a rollout that explodes, as may happen where S has just grown, would leave nothing to see of the others
    shown = np.append(curve.error[after & (curve.error < 3.0 * first[2])], first[2])
    margin = 0.1 * max(np.ptp(shown), 0.02 * first[2])
    inset.set_ylim(shown.min() - margin, shown.max() + margin)
    _shade_every_other(inset, curve.stages())
    inset.set_xlim(first[1] - 0.5, curve.epochs[-1] + 0.5)
    inset.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    inset.tick_params(labelsize=8)
    inset.set_title("after the first convergence, linear axis", fontsize=8, pad=3)


def _shade_every_other(axes: Axes, stages: list[tuple[int, int, float]]) -> None:
    """Grey behind the second stage, the fourth, ..."""
    for (_, before, _), (_, last, _) in zip(stages[0::2], stages[1::2], strict=False):
        axes.axvspan(before + 0.5, last + 0.5, color=GREY, alpha=0.18, linewidth=0)
