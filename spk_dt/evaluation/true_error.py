"""The true force error of an evaluation: visited geometries relabelled with the reference method.

This is another number than the error along the reference, see `spk_dt.evaluation.relabel`. It needs no reference trajectory,
so it goes on where that ends.
"""

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms

from spk_dt.data.continuation import Continuation
from spk_dt.evaluation.judge import simulated_trajectories
from spk_dt.evaluation.relabel import Labels, relabel, true_force_error
from spk_dt.evaluation.results import Results, read_results
from spk_dt.evaluation.unit_check import parse_unit
from spk_dt.units import conversion

__all__ = ["true_errors"]

#: errors of the start frames at one time step of the simulation: by step, then by element
_Curve = dict[int, dict[str, list[float]]]

#: reports progress: model, geometries done, geometries in all
Progress = Callable[[str, int, int], None]


def true_errors(
    directory: str | Path,
    reference: str,
    every: int = 50,
    n_processes: int = 1,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Relabel the geometries that all models of an evaluation have visited, and write what their forces are off by.

    ``true_error.csv`` has means and deviations over the start frames, ``true_error_by_start.csv`` the error of each.

    Labels are kept in ``<model>/labels.jsonl``; a call that was interrupted is continued by the same call.

    Args:
        directory: folder that ``spkdt evaluate`` wrote.
        reference: reference calculator, see `spk_dt.data.reference.reference_calculator`.
        every: relabel every so many steps, the start frame included.
        n_processes: number of processes.
        progress: called after each geometry.

    Returns:
        for each model, what is added to ``metrics.json`` under ``true_error``: the mean absolute error of a force component
        in eV/Å, mean over start frames and times, by element and their sum; the same for the last time; counts.

    Raises:
        FileNotFoundError: if the folder is not that of an evaluation.
        ValueError: if `every` is not positive, labels of another reference method are there, or the reference method fails
            at a start frame.
    """
    if every < 1:
        raise ValueError(f"every={every}: geometries are relabelled at every so many steps, at least 1.")
    directory = Path(directory)
    results = read_results(directory)
    rows, by_start, found = [], [], {}
    for model in results.models:
        visited = _visited(results, model, every)
        frames = [atoms for _, _, atoms, _ in visited]
        ids = [f"{start}:{step}" for start, step, _, _ in visited]
        done = None if progress is None else partial(_report, progress, model, len(frames))
        start_frames = {name for name, (_, step, _, _) in zip(ids, visited, strict=True) if step == 0}
        labels = relabel(frames, reference, directory / model / "labels.jsonl", n_processes, ids, done, start_frames)
        each = list(_rows_by_start(results, visited, labels))
        errors = _errors(results, each)
        rows += [{"model": model, **row} for row in _rows(errors)]
        by_start += [{"model": model, **row} for row in each]
        found[model] = {"reference": reference, "every": every, **_summary(errors), "labels": labels.as_dict()}
    _write(directory / "true_error.csv", ["model", "step", "time_fs", "element", "mae", "std"], rows)
    _write(directory / "true_error_by_start.csv", ["model", "start", "step", "time_fs", "element", "mae"], by_start)
    metrics = {model: {**results.metrics.get(model, {}), "true_error": found[model]} for model in results.models}
    (directory / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    return found


def _write(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _report(progress: Progress, model: str, total: int, done: int) -> None:
    progress(model, done, total)


def _visited(results: Results, model: str, every: int) -> list[tuple[int, int, Atoms, np.ndarray]]:
    """Start, step, geometry and forces of the model [n_atoms, 3] eV/Å, for the steps to be relabelled."""
    energy_unit = conversion(parse_unit(results.settings["energy_unit"], "eV"), "eV", "energy")
    position_unit = conversion(parse_unit(results.settings["distance_unit"], "Ang"), "Ang", "length")
    starts = _starts(results)
    members: dict[int, list[int]] = defaultdict(list)
    for index, start in enumerate(results.starts):
        members[start.group].append(index)
    groups = [sorted(members[g], key=lambda index: results.starts[index].molecule) for g in sorted(members)]
    visited = []
    for index, trajectory, steps in simulated_trajectories(
        results.directory / model, starts, groups, energy_unit, energy_unit / position_unit
    ):
        chosen = np.unique(np.searchsorted(steps, np.arange(0, steps[-1] + 1, every)))
        for frame in chosen:
            if not np.isfinite(trajectory.positions[frame]).all():
                continue  # exploded before
            atoms = starts[index].start.copy()
            atoms.positions = trajectory.positions[frame]
            visited.append((index, int(steps[frame]), atoms, trajectory.forces[frame]))
    return visited


def _starts(results: Results) -> list[Continuation]:
    """The start frames, without the reference that follows them."""
    frames = ase.io.read(results.directory / "start.traj", ":")
    nothing = np.empty((0, 0, 3))
    return [
        Continuation(start.trajectory, start.frame, start.timestep_fs, atoms, nothing, np.empty(0), nothing, 0)
        for start, atoms in zip(results.starts, frames, strict=True)
    ]


def _errors(results: Results, rows: list[dict[str, Any]]) -> dict[float, _Curve]:
    """Errors of the start frames, for each time step; geometries that could not be labelled are left out."""
    errors: dict[float, _Curve] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in rows:
        if row["mae"] is not None:
            errors[results.starts[row["start"]].timestep_fs][row["step"]][row["element"]].append(row["mae"])
    return {timestep: dict(sorted(curve.items())) for timestep, curve in sorted(errors.items())}


def _rows_by_start(
    results: Results, visited: list[tuple[int, int, Atoms, np.ndarray]], labels: Labels
) -> Iterator[dict[str, Any]]:
    """One row for each geometry and element; an error that could not be had is empty."""
    for (start, step, atoms, forces), reference in zip(visited, labels.forces, strict=True):
        time_fs = step * results.starts[start].timestep_fs
        found = true_force_error(forces[None], reference[None], atoms.numbers)["mae_ev_per_ang"]
        for element, error in found.items():
            yield {"start": start, "step": step, "time_fs": time_fs, "element": element, "mae": error}


def _rows(errors: dict[float, _Curve]) -> Iterator[dict[str, Any]]:
    """One curve after the other, each by step."""
    for timestep, curve in errors.items():
        for step, elements in curve.items():
            for element, values in elements.items():
                mean, std = float(np.mean(values)), float(np.std(values))
                yield {"step": step, "time_fs": step * timestep, "element": element, "mae": mean, "std": std}


def _summary(errors: dict[float, _Curve]) -> dict[str, Any]:
    """Means over start frames and times, and over start frames at the last time, which depends on the time step."""
    over_time: dict[str, list[float]] = defaultdict(list)
    at_end: dict[str, list[float]] = defaultdict(list)
    for curve in errors.values():
        for elements in curve.values():
            for element, values in elements.items():
                over_time[element].append(float(np.mean(values)))
        for element, values in curve[max(curve)].items():
            at_end[element] += values
    means = {element: float(np.mean(values)) for element, values in over_time.items()}
    return {
        "mean_over_time": means,
        "sum_over_elements": sum(means.values()),
        "last_time_fs": max((timestep * max(curve) for timestep, curve in errors.items()), default=0.0),
        "at_last_time": {element: float(np.mean(values)) for element, values in at_end.items()},
        "n_geometries": sum(
            len(next(iter(elements.values()))) for curve in errors.values() for elements in curve.values()
        ),
    }
