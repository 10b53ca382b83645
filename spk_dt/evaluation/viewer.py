"""What the report's 3D view needs: trajectories of models and reference, thinned, and the library that draws them.

The library is chemiscope (https://chemiscope.org, BSD licence). Its Python package brings the JavaScript that its Sphinx
extension serves; the report takes it from there, so that a page needs no network.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from spk_dt.data.continuation import continuation, trajectory_database
from spk_dt.evaluation.results import Results, Start, read_simulation
from spk_dt.evaluation.simulated_trajectory import SimulatedTrajectory

__all__ = ["chemiscope_script", "scenes"]

_MOST_FRAMES = 200  # of one scene
_MOST_COORDINATES = 1_500_000  # of all scenes; some 7 bytes each
_MOST_STARTS = 5
_FARTHEST = 1000.0  # coordinate in Å from which an atom is lost


def chemiscope_script() -> str | None:
    """JavaScript of chemiscope, fit to stand inside a page; None if the package is not installed."""
    package = importlib.util.find_spec("chemiscope")
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        path = Path(folder) / "sphinx" / "static" / "chemiscope.min.js"
        if path.is_file():
            return path.read_text(encoding="utf-8").replace("</script", "<\\/script")
    return None


def scenes(results: Results) -> dict[str, Any]:
    """Trajectories to show, for up to five starts.

    Args:
        results: what was evaluated.

    Returns:
        ``starts``: a list of ``name`` and ``symbols`` [n_atoms].
        ``runs``: a list of ``model``, ``start`` (index), ``part`` and frames: ``time`` [n] in fs, and ``positions``
        [n][3 n_atoms] in 1e-3 Å. A run over the time of the reference has the ``reference`` at the same times.
    """
    starts = results.starts[:_MOST_STARTS]
    references = _references(results, starts)
    names: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    share = _MOST_COORDINATES // (3 * len(starts) * len(results.models))
    for start, reference in zip(starts, references, strict=True):
        found = False
        for model in results.models:
            simulation = read_simulation(results, model, start)
            if simulation is None or len(usable := _usable(simulation)) == 0:
                continue
            symbols = [chemical_symbols[z] for z in simulation.atomic_numbers]
            most = max(2, min(_MOST_FRAMES, share // (3 * len(symbols))))
            together = _together(simulation.step, usable, start, len(reference))
            run = {"model": model, "start": len(names)}
            if len(together):
                chosen = _evenly(together, most)
                beside = {"reference": _integers(reference[simulation.step[chosen] // start.inner_steps])}
                runs.append(run | {"part": "beside the reference"} | _frames(simulation, chosen) | beside)
            if len(usable) > 1.05 * len(together):
                runs.append(run | {"part": "whole run"} | _frames(simulation, _evenly(usable, most)))
            found = True
        if found:
            names.append({"name": f"{start.trajectory}, frame {start.frame}", "symbols": symbols})
    return {"starts": names, "runs": runs}


def _references(results: Results, starts: Sequence[Start]) -> list[np.ndarray]:
    """Positions [n_frames, n_atoms, 3] of the reference of each start, in Å; empty where the database is not there."""
    found = []
    nothing = np.empty((0, 0, 3))
    if results.of_trajectories:
        return [nothing] * len(starts)
    try:
        with trajectory_database(results.settings.get("data", "")) as path:
            for start in starts:
                try:
                    found.append(continuation(path, start.trajectory, start.frame, start.reference_steps).positions)
                except ValueError:  # no such trajectory any more
                    found.append(nothing)
    except FileNotFoundError:
        return [nothing] * len(starts)
    return found


def _usable(simulation: SimulatedTrajectory) -> np.ndarray:
    """Indices of the frames before the first in which an atom is lost."""
    lost = ~(np.abs(simulation.positions) < _FARTHEST).all(axis=(1, 2))
    return np.arange(lost.argmax() if lost.any() else len(lost))


def _together(step: np.ndarray, usable: np.ndarray, start: Start, n_frames: int) -> np.ndarray:
    """Those of the usable frames beside which there is a frame of the reference."""
    step = step[usable]
    return usable[(step % start.inner_steps == 0) & (step // start.inner_steps < n_frames)]


def _evenly(indices: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the indices, evenly spaced, with the last."""
    return indices[np.unique(np.linspace(0, len(indices) - 1, min(len(indices), most)).round().astype(int))]


def _frames(simulation: SimulatedTrajectory, chosen: np.ndarray) -> dict[str, Any]:
    """Times and positions of the chosen frames."""
    time = np.round(simulation.time_fs[chosen], 3)
    return {"time": time.tolist(), "positions": _integers(simulation.positions[chosen])}


def _integers(positions: np.ndarray) -> list[list[int]]:
    """Positions in Å as integers of 1e-3 Å, which take less room in a page."""
    return np.round(1e3 * positions).astype(int).reshape(len(positions), -1).tolist()
