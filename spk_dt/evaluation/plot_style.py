"""The look of our figures: colours and lines that differ in print and for colour-blind readers, and how they are saved."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

__all__ = ["REFERENCE", "WIDTH", "save_figure", "styles", "time_unit"]

#: width of a figure, in inches
WIDTH = 6.0
#: line of the reference
REFERENCE = {"color": "#000000", "linestyle": "-", "linewidth": 1.6}

# Okabe and Ito's colours, ordered such that the first ones differ most, also in grey
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def styles(models: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, line style and marker of each model, the same in all figures."""
    return {
        model: {
            "color": _COLOURS[i % len(_COLOURS)],
            "linestyle": _LINES[i % len(_LINES)],
            "marker": _MARKERS[i % len(_MARKERS)],
        }
        for i, model in enumerate(models)
    }


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
