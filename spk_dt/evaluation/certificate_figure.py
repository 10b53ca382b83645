"""The figure of a certificate: which share of the simulations has not failed, against time, with its confidence band."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from spk_dt.evaluation.plot_style import WIDTH, legend, panels, save_figure, styles

__all__ = ["draw_certificate", "plot_survival"]


def plot_survival(models: Mapping[str, Mapping[str, Any]], time_ps: float) -> Figure:
    """Survival of the simulations of each model.

    Args:
        models: what `spk_dt.certificate.certify` found, by name.
        time_ps: length of the simulations, ps.
    """
    figure, grid = panels(1, 1, (WIDTH, 3.2))
    axes = grid[0, 0]
    for name, style in styles(models, markers=False).items():
        curve = {key: np.array(values, dtype=float) for key, values in models[name]["survival"].items()}
        time = np.append(curve["time_ps"], time_ps)
        share, low, high = (100.0 * np.append(curve[key], curve[key][-1]) for key in ("share", "low", "high"))
        axes.step(time, share, where="post", label=name, **style)
        if np.isfinite(low).any():
            axes.fill_between(time, low, high, step="post", color=style["color"], alpha=0.18, linewidth=0)
        else:  # without a failure the band is a point; the exact bound of the whole is what is known
            bound = 100.0 * (1.0 - models[name]["share_failing_at_most"])
            axes.plot(
                [time_ps, time_ps], [bound, share[-1]], color=style["color"], linewidth=4.0, alpha=0.4, clip_on=False
            )
    axes.set_xlim(0.0, time_ps)
    axes.set_ylim(0.0, 103.0)
    axes.set_xlabel("time (ps)")
    axes.set_ylabel("simulations that have not failed (%)")
    legend(figure)
    return figure


def draw_certificate(folder: Path) -> list[Path]:
    """Draw ``survival.pdf``, ``.svg`` and ``.png`` of a certificate.

    Args:
        folder: that `spk_dt.certificate.certify` wrote.
    """
    content = json.loads((folder / "certificate.json").read_text())
    figure = plot_survival(content["models"], content["settings"]["conditions"]["time_ps"])
    return save_figure(figure, folder / "survival")
