r"""The true error of an evaluation: visited geometries relabelled with the reference method.

Two errors of forces can be taken along a simulation, and they mean different things.

Along the reference frames, :math:`|F_\mathrm{model}(x_k) - F_\mathrm{ref}(x_k^\mathrm{ref})|`: the model's forces where it
is at step k against the reference forces where the reference is at step k (`spk_dt.evaluation.force_error`). This is what
dynamic training reduces. It measures how far the trajectories have come apart, which they do in any chaotic system, also
for a perfect model with a slightly different start.

At the visited geometries, :math:`|F_\mathrm{model}(x_k) - F_\mathrm{ref}(x_k)|`: both at the same place
(`true_force_error`). It measures the quality of the potential where the simulation goes, which no test set knows
beforehand, and needs the reference method (`spk_dt.labels.relabel`) but no reference trajectory, so it goes on where that
ends. A model may be far from the reference trajectory and still right, or close to it for a while on a wrong surface.

Forces that are nearly right can still lead to where no trajectory of the reference would come: a model whose barriers or
reaction energies are wrong, once it has crossed them, may have moderate force errors and lack several eV. This shows in the
energy error of a geometry,

.. math:: e(t) = \frac{1}{N} \bigl[ (E(x_t) - E(x_0)) - (E_\mathrm{ref}(x_t) - E_\mathrm{ref}(x_0)) \bigr],

which needs no common zero of energies. At constant energy e(t) is also what the kinetic energy is off by. The thermal energy
of an atom is a scale for it, 39 meV at 300 K.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols

from spk_dt.certificate.criteria import Scales
from spk_dt.certificate.verdict import Label
from spk_dt.evaluation.failures import failures, scales_from
from spk_dt.evaluation.output import write_table
from spk_dt.evaluation.reference import check_of_evaluation
from spk_dt.evaluation.results import Results, read_results
from spk_dt.labels.relabel import Labels, relabel

__all__ = ["true_errors", "true_force_error"]

#: errors of the start frames at one time step of the simulation: by step, then by element
_Curve = dict[int, dict[str, list[float]]]


class _Visited(NamedTuple):
    """A geometry that a model has visited, from the start frame `start` on at time step `step`.

    The atoms have momenta, and energy and forces of the model.
    """

    start: int
    step: int
    atoms: Atoms


_NO_LABELS = "its files have neither forces nor energies to compare with those of the reference method"

#: reports progress: what is done, geometries done, geometries in all
Progress = Callable[[str, int, int], None]


def true_errors(
    directory: str | Path,
    reference: str,
    every: int = 50,
    n_processes: int = 1,
    progress: Progress | None = None,
    another_reference: bool = False,
    scratch: str | Path | None = None,
    time_limit: float | None = None,
    pool: str = "processes",
) -> dict[str, dict[str, Any]]:
    """Relabel the geometries that all models of an evaluation have visited, and write what forces and energies are off by.

    ``true_error.csv`` has means and deviations over the start frames, ``true_error_by_start.csv`` the error of each, and
    ``true_energy_error_by_start.csv`` that of its energy since the start, meV per atom.

    Labels are kept in ``<model>/labels.jsonl``; a call that was interrupted is continued by the same call.

    Args:
        directory: folder that ``spkdt evaluate`` wrote.
        reference: reference calculator, see `spk_dt.labels.calculator.reference_calculator`.
        every: relabel every so many steps, the start frame included.
        n_processes: number of processes.
        progress: called after each geometry.
        another_reference: whether `reference` may be another method than that of the data.
        scratch: see `spk_dt.labels.relabel.relabel`.
        time_limit: see `spk_dt.labels.relabel.relabel`.
        pool: see `spk_dt.labels.relabel.relabel`.

    Returns:
        for each model, what is added to ``metrics.json`` under ``true_error``: the mean absolute error of a force component
        in eV/Å, mean over start frames and times, by element and their sum; the same for the last time; counts; and under
        ``energy`` the mean and largest absolute error of the energy since the start, meV per atom; under
        ``reference_check`` whether `reference` is the method of the data; under ``failures`` which simulations fail
        (`spk_dt.evaluation.failures`), if ``settings.json`` says what errors are measured by.

    Raises:
        FileNotFoundError: if the folder is not that of an evaluation.
        ValueError: if `every` is not positive, labels of another reference method are there, the reference method is not
            that of the data, or it fails at a start frame.
    """
    if every < 1:
        raise ValueError(f"every={every}: geometries are relabelled at every so many steps, at least 1.")
    directory = Path(directory)
    results = read_results(directory)
    check = check_of_evaluation(results, reference, another_reference, scratch=scratch, time_limit=time_limit)
    scales = scales_from(results.settings)
    rows: list[dict[str, Any]] = []
    by_start: list[dict[str, Any]] = []
    of_energy: list[dict[str, Any]] = []
    found: dict[str, dict[str, Any]] = {}
    for model in results.models:
        visited = _visited(results, model, every)
        if not visited:
            found[model] = {"reference": reference, "reference_check": check, "reason": _NO_LABELS}
            continue
        frames = [one.atoms for one in visited]
        ids = [f"{one.start}:{one.step}" for one in visited]
        done = None if progress is None else partial(_report, progress, model, len(frames))
        start_frames = {name for name, one in zip(ids, visited, strict=True) if one.step == 0}
        file = directory / model / "labels.jsonl"
        labels = relabel(frames, reference, file, n_processes, ids, done, start_frames, scratch, time_limit, pool=pool)
        each = list(_rows_by_start(visited, labels))
        errors = _errors(results, each)
        rows += [{"model": model, **row} for row in _rows(errors)]
        by_start += [{"model": model, **row} for row in each]
        energies = list(_energy_rows(visited, labels))
        of_energy += [{"model": model, **row} for row in energies]
        summary = {**_summary(errors), "energy": _energy_summary(energies)}
        if scales is not None and _comparable(visited):
            summary["failures"] = _failures(results, model, visited, labels, scales)
        found[model] = {
            "reference": reference,
            "reference_check": check,
            "every": every,
            **summary,
            "labels": labels.as_dict(),
        }
    write_table(directory / "true_error.csv", ["model", "step", "time_fs", "element", "mae", "std"], rows)
    write_table(
        directory / "true_error_by_start.csv", ["model", "start", "step", "time_fs", "element", "mae"], by_start
    )
    columns = ["model", "start", "step", "time_fs", "error_mev_per_atom"]
    write_table(directory / "true_energy_error_by_start.csv", columns, of_energy)
    metrics = {model: {**results.metrics.get(model, {}), "true_error": found[model]} for model in results.models}
    (directory / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    return found


def true_force_error(
    model_forces: np.ndarray, reference_forces: np.ndarray, atomic_numbers: np.ndarray
) -> dict[str, Any]:
    """Mean absolute error of force components for each element, at the geometries that the model visited.

    This is the quality of the potential where the simulation goes, not the distance from the reference trajectory (see the
    text at the top of this module).

    Args:
        model_forces: [n_frames, n_atoms, 3] eV/Å.
        reference_forces: [n_frames, n_atoms, 3] eV/Å at the same geometries; NaN where the reference method failed.
        atomic_numbers: [n_atoms].

    Returns:
        mae_ev_per_ang: by symbol of the element; None if no frame is left.
        n_frames: frames averaged over.
        n_left_out: frames in which a force is not finite. Read it together with the error: the worst geometries are here.

    Raises:
        ValueError: if the shapes differ.
    """
    model, labels = np.asarray(model_forces, dtype=float), np.asarray(reference_forces, dtype=float)
    expected = (len(labels), len(atomic_numbers), 3)
    if model.shape != expected or labels.shape != expected:
        raise ValueError(
            f"model forces {model.shape} and reference forces {labels.shape} should both have the shape {expected}."
        )
    used = (np.isfinite(model) & np.isfinite(labels)).all(axis=(1, 2))
    errors = np.abs(model[used] - labels[used])
    numbers = np.asarray(atomic_numbers)
    return {
        "mae_ev_per_ang": {
            chemical_symbols[number]: float(errors[:, numbers == number].mean()) if used.any() else None
            for number in np.unique(numbers)
        },
        "n_frames": int(used.sum()),
        "n_left_out": int((~used).sum()),
    }


def _report(progress: Progress, model: str, total: int, done: int) -> None:
    progress(f"relabelling {model}", done, total)


def _visited(results: Results, model: str, every: int) -> list[_Visited]:
    """The geometries at the steps to be relabelled, by start."""
    visited = []
    for index, trajectory in results.simulations(model):
        chosen = np.unique(np.searchsorted(trajectory.step, np.arange(0, trajectory.step[-1] + 1, every)))
        if trajectory.forces is None and trajectory.potential_energy is None:
            continue
        for frame in chosen[trajectory.intact[chosen]]:
            atoms = results.continuations[index].start.copy()
            if trajectory.cell_changes:
                atoms.set_cell(trajectory.cell[frame])
            atoms.positions = trajectory.positions[frame]
            if trajectory.velocities is not None:
                atoms.set_velocities(trajectory.velocities[frame] / ase.units.fs)
            time_fs = float(trajectory.time_fs[frame])
            atoms.info |= {"time_fs": time_fs, "time_ps": 1e-3 * time_fs}
            known: dict[str, Any] = {}
            if trajectory.potential_energy is not None:
                known["energy"] = float(trajectory.potential_energy[frame])
            if trajectory.forces is not None:
                known["forces"] = trajectory.forces[frame]
            atoms.calc = SinglePointCalculator(atoms, **known)
            visited.append(_Visited(index, int(trajectory.step[frame]), atoms))
    return visited


def _comparable(visited: list[_Visited]) -> bool:
    """Whether some simulation has both energies and forces."""
    return any({"energy", "forces"} <= one.atoms.calc.results.keys() for one in visited)


def _failures(results: Results, model: str, visited: list[_Visited], labels: Labels, scales: Scales) -> dict[str, Any]:
    """Which simulations of a model fail."""
    states: dict[int, list[Atoms]] = defaultdict(list)
    found: dict[int, list[Label]] = defaultdict(list)
    for one, energy, forces in zip(visited, labels.energy.tolist(), labels.forces, strict=True):
        if {"energy", "forces"} <= one.atoms.calc.results.keys():
            states[one.start].append(one.atoms)
            found[one.start].append((energy, forces))
    exploded = {one["start"]: one["time_fs"] for one in results.metrics.get(model, {}).get("exploded", [])}
    silent = results.settings.get("without_signs", ())
    bath, friction = results.settings.get("temperature"), results.settings.get("friction") or 0.0
    return failures(states, found, bath, friction, scales, exploded, silent)


def _errors(results: Results, rows: list[dict[str, Any]]) -> dict[float, _Curve]:
    """Errors of the start frames, for each time step; geometries that could not be labelled are left out."""
    errors: dict[float, _Curve] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in rows:
        if row["mae"] is not None:
            errors[results.starts[row["start"]].timestep_fs][row["step"]][row["element"]].append(row["mae"])
    return {timestep: dict(sorted(curve.items())) for timestep, curve in sorted(errors.items())}


def _rows_by_start(visited: list[_Visited], labels: Labels) -> Iterator[dict[str, Any]]:
    """One row for each geometry and element; an error that could not be had is empty."""
    for one, reference in zip(visited, labels.forces, strict=True):
        if "forces" not in one.atoms.calc.results:
            continue
        time_fs, forces = one.atoms.info["time_fs"], one.atoms.get_forces(apply_constraint=False)
        found = true_force_error(forces[None], reference[None], one.atoms.numbers)["mae_ev_per_ang"]
        for element, error in found.items():
            yield {"start": one.start, "step": one.step, "time_fs": time_fs, "element": element, "mae": error}


def _energy_rows(visited: list[_Visited], labels: Labels) -> Iterator[dict[str, Any]]:
    """One row for each geometry; an error that could not be had is empty."""
    pairs = [
        (one, one.atoms.get_potential_energy() - reference)
        for one, reference in zip(visited, labels.energy.tolist(), strict=True)
        if "energy" in one.atoms.calc.results
    ]
    at_start = {one.start: difference for one, difference in pairs if one.step == 0}
    for one, difference in pairs:
        error = 1000.0 * (difference - at_start[one.start]) / len(one.atoms)
        row = {"start": one.start, "step": one.step, "time_fs": one.atoms.info["time_fs"]}
        yield row | {"error_mev_per_atom": error if np.isfinite(error) else None}


def _energy_summary(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """Mean over times after the start and start frames, and the largest; None without any."""
    errors = [row["error_mev_per_atom"] for row in rows if row["step"] > 0]
    known = [abs(error) for error in errors if error is not None]
    return {
        "mae_mev_per_atom": float(np.mean(known)) if known else None,
        "largest_mev_per_atom": max(known, default=None),
    }


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
