"""What an evaluation left in its folder, read once for figures and report: settings, tables, metrics, trajectories.

The folder holds ``settings.json``, ``force_error.csv``, ``start.traj`` and, for each model, ``NAME/simulation_<g>.hdf5``;
and, depending on what was asked for, ``force_error_by_start.csv``, ``true_error.csv``, ``metrics.json``,
``distributions.json`` and ``motion.json``. Of trajectories that other programs made there are ``NAME/trajectory_<g>.hdf5``
(`spk_dt.evaluation.trajectory_file`) in place of the simulations, and no ``force_error.csv``: they follow no reference.
"""

import csv
import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ase.io
import numpy as np

from spk_dt.data.continuation import Continuation
from spk_dt.evaluation.simulated_trajectory import SimulatedTrajectory
from spk_dt.evaluation.simulation_file import ReadsSimulations, SimulationFile, Simulations
from spk_dt.evaluation.trajectory_file import TrajectoryFile
from spk_dt.labels.unit_check import parse_unit

__all__ = ["Errors", "Results", "Start", "read_results", "read_simulation"]


@dataclass(frozen=True)
class Start:
    """Where a simulation starts, and which simulation it is.

    Args:
        trajectory: name of the reference trajectory.
        frame: frame of the trajectory at which the simulation starts.
        group: number g of the file ``simulation_<g>.hdf5``.
        molecule: index of the system in the file.
        timestep_fs: time step, in fs.
        reference_steps: number of steps for which there is a reference.
        inner_steps: steps from one frame of the reference to the next.
        model: name that the simulation belongs to; None if all models have one from this start.
        steps: length of the simulation; None if that is in the settings.
    """

    trajectory: str
    frame: int
    group: int
    molecule: int
    timestep_fs: float
    reference_steps: int
    inner_steps: int
    model: str | None = None
    steps: int | None = None


@dataclass(frozen=True)
class Errors:
    """Force error of one element against simulated time.

    Args:
        step: [n] simulation step.
        time_fs: [n] simulated time, in fs.
        mae: [n] mean absolute error of a force component, mean over starting points, in eV/Å.
        low: [n] lower edge of the spread over starting points, in eV/Å; None where it is not known.
        high: [n] upper edge.
    """

    step: np.ndarray
    time_fs: np.ndarray
    mae: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


@dataclass(frozen=True)
class Results:
    """An evaluation as it lies in its folder.

    Args:
        directory: its folder.
        settings: content of ``settings.json``.
        models: path of each model, by name, in the order in which they were named.
        elements: symbols, in the order of the settings.
        starts: where simulations start.
        along_reference: force errors along the reference, by model and element.
        true_errors: true force errors of the geometries that the models visit, by model and element; empty if the
            geometries were not relabelled.
        metrics: content of ``metrics.json``; empty without.
        distributions: content of ``distributions.json``; empty without.
        motion: content of ``motion.json``; empty without.
    """

    directory: Path
    settings: dict[str, Any]
    models: dict[str, str]
    elements: list[str]
    starts: list[Start]
    along_reference: dict[str, dict[str, Errors]]
    true_errors: dict[str, dict[str, Errors]]
    metrics: dict[str, Any]
    distributions: dict[str, Any]
    motion: dict[str, Any]

    @property
    def thermostat(self) -> bool:
        """Whether simulations had a thermostat; then they follow no reference."""
        return self.settings.get("temperature") is not None

    @property
    def of_trajectories(self) -> bool:
        """Whether trajectories that other programs made were judged, not simulations from frames of the data."""
        return "trajectories" in self.settings

    @property
    def follows_reference(self) -> bool:
        """Whether simulations start in the data, and go on beside the reference."""
        return not (self.thermostat or self.of_trajectories)

    def of_model(self, model: str) -> list[int]:
        """Numbers of the starts of a model."""
        return [index for index, start in enumerate(self.starts) if start.model in (None, model)]

    def simulated_fs(self, start: int) -> float:
        """Planned length of a simulation, fs."""
        one = self.starts[start]
        return float(one.timestep_fs * (self.settings["steps"] if one.steps is None else one.steps))

    @cached_property
    def continuations(self) -> list[Continuation]:
        """The start frames, without the reference that follows them."""
        frames = ase.io.read(self.directory / "start.traj", ":")
        nothing = np.empty((0, 0, 3))
        return [
            Continuation(start.trajectory, start.frame, start.timestep_fs, atoms, nothing, np.empty(0), nothing, 0)
            for start, atoms in zip(self.starts, frames, strict=True)
        ]

    def simulations(self, model: str) -> Simulations:
        """The simulations of a model."""
        members: dict[int, dict[int, int]] = defaultdict(dict)
        for index in self.of_model(model):
            members[self.starts[index].group][self.starts[index].molecule] = index
        groups = sorted(members)
        indices = [[index for _, index in sorted(members[group].items())] for group in groups]
        return Simulations(self.continuations, indices, [self.file(model, group) for group in groups])

    def file(self, model: str, group: int) -> ReadsSimulations:
        """The file with the simulations of a model from a group of start frames."""
        if self.of_trajectories:
            return TrajectoryFile.of(self.directory / model, group)
        units = parse_unit(self.settings["energy_unit"], "eV"), parse_unit(self.settings["distance_unit"], "Ang")
        return SimulationFile.of(self.directory / model, group, *units)


def read_results(directory: str | Path) -> Results:
    """Read the folder that ``spkdt evaluate`` wrote.

    Raises:
        FileNotFoundError: if the folder has no ``settings.json`` or no ``force_error.csv``.
        ValueError: if one of the files is not what an evaluation writes.
    """
    directory = Path(directory)
    settings = _json(directory / "settings.json") if (directory / "settings.json").is_file() else {}
    needed = ["settings.json", *([] if "trajectories" in settings else ["force_error.csv"])]
    for name in needed:
        if not (directory / name).is_file():
            raise FileNotFoundError(
                f"'{directory}' is not the folder of an evaluation: it has no {name}. Make one with "
                "spkdt evaluate DATA.db [NAME=]MODEL ... --out DIR."
            )
    missing = [key for key in ("models", "elements", "starts") if key not in settings]
    if missing:
        raise ValueError(f"'{directory / 'settings.json'}' lacks {', '.join(missing)}; it is not of an evaluation.")
    models = {str(name): str(path) for name, path in settings["models"].items()}
    along = _errors(directory / "force_error.csv") if len(needed) > 1 else {}
    absent = set(models) - set(along)
    if absent and len(needed) > 1:
        raise ValueError(f"'{directory / 'force_error.csv'}' has no errors of {', '.join(sorted(absent))}.")
    names = Start.__dataclass_fields__

    def optional(name: str) -> dict[str, Any]:
        return _json(directory / name) if (directory / name).is_file() else {}

    by_start = directory / "force_error_by_start.csv"
    true = directory / "true_error.csv"
    return Results(
        directory=directory,
        settings=settings,
        models=models,
        elements=[str(element) for element in settings["elements"]],
        starts=[Start(**{key: start[key] for key in names if key in start}) for start in settings["starts"]],
        along_reference=_with_spread(along, by_start) if by_start.is_file() else along,
        true_errors=_errors(true, spread=True) if true.is_file() else {},
        metrics=optional("metrics.json"),
        distributions=optional("distributions.json"),
        motion=optional("motion.json"),
    )


def read_simulation(results: Results, model: str, start: Start, most: int | None = None) -> SimulatedTrajectory | None:
    """Simulation of a model from a start, without the start frame itself and without frames from an explosion on.

    Args:
        results: what was evaluated.
        model: name of the model.
        start: where the simulation starts.
        most: number of frames to keep at most, evenly spaced; None keeps all.

    Returns:
        None if its file is not there, or nothing is left.
    """
    file = results.file(model, start.group)
    if start.model not in (None, model) or not file.path.is_file():
        return None
    (trajectory,) = file.read({start.molecule: results.continuations[results.starts.index(start)]})
    kept = np.flatnonzero(trajectory.intact)[1:]
    kept = kept[:: 1 if most is None else max(1, -(-len(kept) // most))]
    return trajectory[kept] if len(kept) else None


def _json(path: Path) -> dict[str, Any]:
    """Content of a JSON file that holds a dictionary."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"'{path}' is not readable JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"'{path}' holds no dictionary; it is not of an evaluation.")
    return content


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows of a table that has the columns."""
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"'{path}' has no column {', '.join(missing)}; it is not of an evaluation.")
        return list(reader)


def _errors(path: Path, spread: bool = False) -> dict[str, dict[str, Errors]]:
    """Errors by model and element; with `spread`, mean plus and minus column ``std`` as edges."""
    columns = ("step", "time_fs", "mae", "std")
    groups: dict[str, dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for row in _rows(path, ("model", "element", *columns)):
        values = [float(row[column] or "nan") for column in columns]
        found = groups[row["model"]][row["element"]]
        if found and not values[0] > found[-1][0]:
            found.append([values[0], *[np.nan] * 3])  # another curve begins, of another time step: a gap in the line
        found.append(values)
    errors: dict[str, dict[str, Errors]] = {}
    for model, elements in groups.items():
        errors[model] = {}
        for element, found in elements.items():
            step, time_fs, mae, std = np.array(found).T
            low, high = (np.maximum(mae - std, 0.0), mae + std) if spread and (std > 0).any() else (None, None)
            errors[model][element] = Errors(step.astype(int), time_fs, mae, low, high)
    return errors


def _with_spread(errors: dict[str, dict[str, Errors]], path: Path) -> dict[str, dict[str, Errors]]:
    """The errors with the 16th and 84th percentile over starting points as edges."""
    values: dict[tuple[str, str, int, float], list[float]] = defaultdict(list)
    for row in _rows(path, ("model", "start", "step", "time_fs", "element", "mae")):
        if np.isfinite(mae := float(row["mae"] or "nan")):
            values[row["model"], row["element"], int(row["step"]), float(row["time_fs"])].append(mae)
    if max(map(len, values.values()), default=0) < 2:
        return errors
    result: dict[str, dict[str, Errors]] = {}
    for model, elements in errors.items():
        result[model] = {}
        for element, curve in elements.items():
            points = zip(curve.step, curve.time_fs, strict=True)
            found = [values.get((model, element, step, time), [np.nan]) for step, time in points]
            edges = np.array([np.percentile(of_starts, (16, 84)) for of_starts in found])
            result[model][element] = Errors(curve.step, curve.time_fs, curve.mae, edges[:, 0], edges[:, 1])
    return result
