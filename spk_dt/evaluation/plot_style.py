"""The look of our figures: colours and lines that differ in print and for colour-blind readers, and how they are saved."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

__all__ = ["COLOURS", "GREY", "REFERENCE", "WIDTH", "band", "legend", "panels", "save_figure", "styles", "time_unit"]

#: width of a figure, in inches
WIDTH = 6.0
#: line of the reference, or of whatever others are compared with
REFERENCE = {"color": "#000000", "linestyle": "-", "linewidth": 1.6}
#: Okabe and Ito's colours, ordered such that the first ones differ most, also in grey
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
GREY = "#999999"
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def styles(models: Iterable[str], markers: bool = True) -> dict[str, dict[str, Any]]:
    """Colour, line and marker of each model, the same in all figures; up to 49 models differ."""
    found: dict[str, dict[str, Any]] = {}
    for i, model in enumerate(models):
        line = (i + i // len(COLOURS)) % len(_LINES)  # another one when the colours come again
        found[model] = {"color": COLOURS[i % len(COLOURS)], "linestyle": _LINES[line], "linewidth": 1.2}
        if markers:
            found[model]["marker"] = _MARKERS[line]
    return found


def panels(rows: int, columns: int, size: tuple[float, float], used: int | None = None, **shared: Any) -> Any:
    """A figure with panels.

    Args:
        rows: rows of panels.
        columns: columns of panels.
        size: width and height in inches.
        used: number of panels that are needed; the last ones are taken away. None needs all.
        shared: ``sharex``, ``sharey`` of `matplotlib.pyplot.subplots`.

    Returns:
        figure, and its panels [rows, columns].
    """
    figure, grid = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **shared)
    for axes in grid.flat[rows * columns if used is None else used :]:
        axes.remove()
    return figure, grid


def band(axes: Axes, x: ArrayLike, low: ArrayLike, high: ArrayLike, color: str) -> None:
    """The spread about a curve, in its colour."""
    axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)


def legend(figure: Figure, order: Sequence[str] | None = None, beside: bool = False) -> None:
    """One legend for all panels, each name once.

    Args:
        figure: a figure with labelled lines.
        order: names in their order; None takes that of the panels.
        beside: to the right of the panels, not below.
    """
    found = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    names = [name for name in order or found if name in found]
    figure.legend(
        [found[name] for name in names],
        names,
        loc="outside right upper" if beside else "outside lower center",
        fontsize=8 if beside else 9,
        ncols=1 if beside else min(4, len(names)),
        frameon=False,
    )


def time_unit(longest_fs: float) -> tuple[str, float]:
    """Unit for an axis of time, and the factor from fs: ps from 2 ps on."""
    return ("ps", 1e-3) if longest_fs >= 2000.0 else ("fs", 1.0)


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as vector PDF, SVG and PNG (200 dpi), and close it.

    Args:
        figure: what to write.
        path: name without ending; the folder is made.

    Returns:
        the files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_name(f"{path.name}.{ending}") for ending in ("pdf", "svg", "png")]
    for file in files:
        figure.savefig(file, dpi=200)
    plt.close(figure)
    return files
