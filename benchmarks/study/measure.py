"""Numbers of a trained model, as `spktrain` and `spkdt evaluate` give them."""

import csv
import json
import shutil
from collections import defaultdict
from itertools import combinations
from math import inf, isfinite
from pathlib import Path
from statistics import fmean, median
from typing import Any

import ase.units

from benchmarks.study.hydrogen import hydrogen_beside_reference
from benchmarks.study.train import Study
from spk_dt.data.continuation import spread_continuations
from spk_dt.data.partition import ALL, read_partition
from spk_dt.evaluation.distributions import distance_distribution, distance_mae
from spk_dt.evaluation.evaluate import evaluate
from spk_dt.evaluation.simulate import Protocol
from spk_dt.evaluation.training_curve import logged_metrics
from spk_dt.evaluation.true_error import true_errors

__all__ = ["ASTRAY", "LOST", "beside", "follow", "long_run", "simulate", "training"]

#: eV/Å; with a true error above it, summed over elements, a simulation is lost, and larger errors count as this
LOST = 2.0

#: meV per atom; the thermal energy at 300 K. A simulation whose energy since the start is off by more has failed by energy
ASTRAY = 1000.0 * 1.5 * ase.units.kB * 300.0

_FIRST_FS = 1000.0  # long simulations count from here on
STEPS_PER_PS = 2000  # of the embedded data


def training(run: Path) -> dict[str, Any]:
    """What a run of `spktrain` has logged: compute, validation, and errors along unseen trajectories.

    Args:
        run: folder of the run.
    """
    rows = logged_metrics(run)
    last = {key: value for row in rows for key, value in row.items() if value not in ("", None)}
    found = {key: float(last[f"train_{key}"]) for key in ("seconds", "updates", "frames")}
    found["val_loss"] = min(float(row["val_loss"]) for row in rows if row.get("val_loss"))
    found["snapshots"] = float(last["test_forces_mae_step_0"])
    prefix = "test_forces_mae_step_"
    steps = sorted(int(key.removeprefix(prefix)) for key in last if key.startswith(prefix))
    found["along_by_step"] = [(step, float(last[f"{prefix}{step}"])) for step in steps]
    found["along_reference"] = sum(float(last[f"test_forces_mae_{element}"]) for element in ("H", "C", "Pd"))
    found["elements"] = {element: float(last[f"test_forces_mae_{element}"]) for element in ("H", "C", "Pd")}
    found["labels"] = sum(len(file.read_text().splitlines()) - 1 for file in run.glob("visited/round_*.jsonl"))
    return found


def follow(study: Study, run: Path) -> dict[str, Any]:
    """Simulations of 300 steps beside the whole unseen trajectories and from their middle, relabelled every 100 steps.

    Args:
        study: the study.
        run: folder of a run.

    Returns:
        true_error: at the visited geometries, mean over starts and times, summed over elements, eV/Å.
        h_of_r: MAE of the distribution of distances against that of the reference, without unit.
        drift: largest of the total energy, meV/atom/ps; infinite where a simulation exploded at once.
        phase, ends, same_state: see `benchmarks.study.hydrogen.hydrogen_beside_reference`.
    """
    out = study.folder / "simulations" / f"{run.name}-150fs"
    _evaluate(study, run, out, Protocol(300, device=study.device), starts=2, every=100)
    metrics = json.loads((out / "metrics.json").read_text())[run.name]
    drift = metrics["conservation"]["largest_drift_mev_per_atom_per_ps"]
    return {
        "true_error": metrics["true_error"]["sum_over_elements"],
        "h_of_r": metrics["structure"]["mae_of_h_of_r"],
        "drift": inf if drift is None else drift,
        **hydrogen_beside_reference(out, run.name, times_fs=(25.0, 50.0, 75.0)),
    }


def beside(study: Study, run: Path, data: Path) -> dict[str, Any]:
    """Simulations beside reference trajectories that are none of the data of the study, from their beginning to their end.

    Args:
        study: the study.
        run: folder of a run.
        data: database of trajectories, all of the same length and with every step.

    Returns:
        simulations: their number.
        exploded: how many of them exploded.
        h_of_r: MAE of the distribution of distances against that of the reference from the same start, without unit.
        h_of_r_of_others: the same between two reference trajectories, mean over all pairs.
        keep_bonds: share of the simulations in which no bond breaks that the reference keeps.
        ends: see `benchmarks.study.hydrogen.hydrogen_beside_reference`.

    Raises:
        ValueError: if there is but one trajectory.
    """
    out = study.folder / "simulations" / f"{run.name}-beside-{data.stem}"
    references = spread_continuations(read_partition(data, ALL))
    if len(references) < 2:
        raise ValueError(f"'{data}' has one trajectory; h(r) of two is compared to see what its error means.")
    if not (out / "metrics.json").exists():
        shutil.rmtree(out, ignore_errors=True)
        evaluate(
            data, {run.name: run / "best_model"}, out, Protocol(references[0].steps, device=study.device), split=ALL
        )
    metrics = json.loads((out / "metrics.json").read_text())[run.name]
    structures = [distance_distribution(one.positions, one.start.cell.array, one.start.pbc) for one in references]
    return {
        "simulations": len(structures),
        "exploded": len(metrics["exploded"]),
        "h_of_r": metrics["structure"]["mae_of_h_of_r"],
        "h_of_r_of_others": fmean(distance_mae(one, other) for one, other in combinations(structures, 2)),
        "keep_bonds": metrics["stability"]["part_that_keeps_the_bonds_that_the_reference_keeps"],
        "ends": hydrogen_beside_reference(out, run.name, times_fs=())["ends"],
    }


def simulate(
    study: Study, run: Path, picoseconds: float, starts: int, every_ps: float, temperature: float | None = None
) -> Path:
    """Long simulations from unseen trajectories, relabelled by the reference method; done if not done yet.

    Args:
        study: the study.
        run: folder of a run.
        picoseconds: length of each simulation.
        starts: start frames of each of the five test trajectories.
        every_ps: time from one relabelled geometry to the next.
        temperature: of a Langevin thermostat, K; None keeps the energy constant.

    Returns:
        folder of the evaluation.
    """
    name = f"{run.name}-{picoseconds:g}ps-{starts}" + (f"-{temperature:g}K" if temperature is not None else "")
    out, every = study.folder / "simulations" / name, round(every_ps * STEPS_PER_PS)
    steps, stored = round(picoseconds * STEPS_PER_PS), max(1, every // 10)
    protocol = Protocol(steps, stored, temperature, device=study.device, precision=32, compile=True)
    _evaluate(study, run, out, protocol, starts, every)
    return out


def _evaluate(study: Study, run: Path, out: Path, protocol: Protocol, starts: int, every: int) -> None:
    """Simulations and true errors, as far as they are not there; simulations are not continued."""
    if (out / "true_energy_error_by_start.csv").exists():
        return
    if not (out / "metrics.json").exists():
        shutil.rmtree(out, ignore_errors=True)
        evaluate(study.database, {run.name: run / "best_model"}, out, protocol, starts_per_trajectory=starts)
    true_errors(out, study.reference, every)


def long_run(folder: Path) -> dict[str, Any]:
    """True errors of long simulations, in eV/Å, and of their energy.

    Args:
        folder: of an evaluation that was relabelled.

    Returns:
        mean: over starts and times from 1 ps on (in a shorter simulation from the middle on), summed over elements, at
            most `LOST` for each geometry; a geometry that is not there, since the simulation exploded or the reference
            method failed, counts as `LOST`.
        uncapped: mean of the errors as they are, of the geometries that are there.
        missing: number of those that are not.
        median: of the same values as the mean.
        lost: share of the simulations with an error of `LOST` at any time.
        elements: mean by element of the geometries that are there, each at most `LOST`.
        by_start: [n_starts] the mean of each start.
        lost_fs: [n_starts] time at which it was found lost, None if it is not.
        over_time: (time in fs, mean, median, share of simulations lost until then) from the start on.
        energy: median of the absolute error of the energy since the start, meV per atom, of the same geometries as the mean;
            infinite for one that is not there.
        astray_fs: [n_starts] time at which the energy was found off by more than `ASTRAY`, None if it is not.
    """
    errors: dict[tuple[int, float], dict[str, float]] = defaultdict(dict)
    for row in _rows(folder / "true_error_by_start.csv"):
        errors[int(row["start"]), float(row["time_fs"])][row["element"]] = float(row["mae"] or "inf")
    energies = {
        (int(row["start"]), float(row["time_fs"])): abs(float(row["error_mev_per_atom"] or "inf"))
        for row in _rows(folder / "true_energy_error_by_start.csv")
    }
    settings = json.loads((folder / "settings.json").read_text())
    starts = sorted({start for start, _ in errors})
    times = sorted({time for _, time in errors})
    assert len(starts) == len(settings["starts"])
    summed = {
        (start, time): min(LOST, sum(errors[start, time].values())) if errors.get((start, time)) else LOST
        for start in starts
        for time in times
    }
    first = min(_FIRST_FS, times[-1] / 2)
    late = [value for (_, time), value in summed.items() if time >= first]
    there = [value for (_, time), one in errors.items() if time >= first and isfinite(value := sum(one.values()))]
    elements = {
        element: fmean(min(LOST, one[element]) for (_, time), one in errors.items() if one and time >= first)
        for element in next(iter(errors.values()))
    }
    off = {(start, time): energies.get((start, time), inf) for start, time in summed}
    astray = {start: min((t for t in times if off[start, t] > ASTRAY), default=None) for start in starts}
    lost, over_time = {}, []
    for time in times:
        values = [summed[start, time] for start in starts]
        lost = {start: time for start in starts if summed[start, time] >= LOST} | lost
        over_time.append((time, fmean(values), median(values), len(lost) / len(starts)))
    return {
        "mean": fmean(late),
        "uncapped": fmean(there),
        "missing": len(late) - len(there),
        "median": median(late),
        "lost": len(lost) / len(starts),
        "elements": elements,
        "by_start": [fmean(summed[start, time] for time in times if time >= first) for start in starts],
        "lost_fs": [lost.get(start) for start in starts],
        "over_time": over_time,
        "energy": median(error for (_, time), error in off.items() if time >= first),
        "astray_fs": [astray[start] for start in starts],
    }


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
