"""The figure of a certificate: which share of the simulations has not failed, against time, with its confidence band."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from spk_dt.evaluation.certificates import read_certificate, survival_of
from spk_dt.evaluation.plot_style import WIDTH, legend, panels, save_figure, styles

__all__ = ["draw_certificate", "plot_survival"]


def plot_survival(
    models: Mapping[str, Mapping[str, Any]], time_ps: float, order: Sequence[str] | None = None
) -> Figure:
    """Survival of the simulations of each model, with the band of `spk_dt.certificate.survival.survival`.

    Args:
        models: what `spk_dt.certificate.certify` found, by name.
        time_ps: length of the simulations, ps.
        order: names that determine the colours, if other models are in other figures.
    """
    figure, grid = panels(1, 1, (WIDTH, 3.2))
    axes = grid[0, 0]
    style = styles(dict.fromkeys([*(order or ()), *models]), markers=False)
    for name, record in models.items():
        curve = survival_of(record)
        time = np.append(curve.time_ps, time_ps)
        share, low, high = (100.0 * np.append(values, values[-1]) for values in curve[1:])
        axes.step(time, share, where="post", label=name, **style[name])
        axes.fill_between(time, low, high, step="post", color=style[name]["color"], alpha=0.15, linewidth=0)
    axes.set_xlim(0.0, time_ps)
    axes.set_ylim(0.0, 103.0)
    axes.set_xlabel("time (ps)")
    axes.set_ylabel("simulations not failed (%)")
    legend(figure)
    return figure


def draw_certificate(folder: Path) -> list[Path]:
    """Draw ``survival.pdf``, ``.svg`` and ``.png`` of a certificate.

    Args:
        folder: that `spk_dt.certificate.certify` wrote.
    """
    certificate = read_certificate(folder)
    figure = plot_survival(certificate.models, certificate.conditions.time_ps)
    figure.axes[0].set_title(certificate.title, fontsize=10)
    return save_figure(figure, folder / "survival")
