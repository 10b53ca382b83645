"""Models against reference trajectories: simulations from frames of the data, and how far they follow them.

The folder that is written::

    settings.json            what was done, and the start frames in order
    start.traj               the start frames: positions, momenta, energy, forces
    <model>/simulation_<g>.hdf5   the simulations, one for each group of start frames (`spk_dt.evaluation.simulation_file`)
    force_error.csv          force error along the reference trajectory, mean over start frames, for each time step
    force_error_by_start.csv the same for each start frame
    metrics.json             numbers for each model, see `all_metrics`
    reference_check.json     whether the reference method is that of the data (`spk_dt.evaluation.reference`)
    distributions.json       h(r) and g(r) of each model and of the reference, `spk_dt.evaluation.distributions`
    motion.json              vibrations, displacements and forces at short distances, `spk_dt.evaluation.motion`
    true_error.csv           force error at the visited geometries, if they are relabelled (`spk_dt.evaluation.true_error`),
                             true_error_by_start.csv, and of energies true_energy_error_by_start.csv
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from math import gcd
from pathlib import Path
from typing import Any, Unpack

import ase.io
import numpy as np

from spk_dt.certificate.engines import ModelEngine
from spk_dt.certificate.model_check import check_model
from spk_dt.data.continuation import Continuation, spread_continuations, trajectory_database
from spk_dt.data.partition import SPLIT_FILE, read_partition
from spk_dt.evaluation import force_error
from spk_dt.evaluation.bonds import TOLERANCE_ANG
from spk_dt.evaluation.failures import noted_scales
from spk_dt.evaluation.force_error import ErrorCurve
from spk_dt.evaluation.judge import curves_by_name, judge, mean_distributions
from spk_dt.evaluation.motion import motion, pair_numbers
from spk_dt.evaluation.output import new_folder, settings, write_curves, write_numbers
from spk_dt.evaluation.reference import ByReference, check_asked_for, write_check
from spk_dt.evaluation.sample import Sample
from spk_dt.evaluation.simulate import Group, Protocol, group_starts, simulate
from spk_dt.evaluation.simulated_trajectory import SimulatedTrajectory
from spk_dt.evaluation.simulation_file import SimulationFile, Simulations
from spk_dt.evaluation.stress_error import stress_error
from spk_dt.labels.unit_check import Unit, parse_unit
from spk_dt.md import MAX_DISPLACEMENT, ModelCalculator
from spk_dt.trajectories.fixed_atoms import forces_held, mobile_of

__all__ = ["Evaluation", "all_metrics", "evaluate"]

#: frames of each trajectory at which a model is compared with the reference before it simulates: first and middle one
_CHECKED_FRAMES = 2

#: frames of each trajectory at which the stress is compared, where model and data have it
_STRESS_FRAMES = 10


@dataclass(frozen=True)
class Evaluation:
    """What is known of one model once its simulations are done; from this its metrics are made.

    Args:
        name: name of the model.
        simulations: its simulations, their start frames with what the reference does.
        curves: [n_starts] force error of each start frame.
        averages: averages of the curves, one for each time step.
        exploded_step: [n_starts] first step that a molecule could not make, -1 if it has not exploded.
        tolerance: deviation from its usual length beyond which a bond is broken, Å.
        thermostat: whether there was one; then nothing is compared with the reference trajectories, and energy is no
            constant.
        speeds: of the groups of start frames that were simulated side by side, see `spk_dt.evaluation.simulate.Speed`.
        stress: error of its stress at frames of the data, see `spk_dt.evaluation.stress_error`; None if there is none.
    """

    name: str
    simulations: Simulations
    curves: Sequence[ErrorCurve]
    averages: Sequence[ErrorCurve]
    exploded_step: np.ndarray
    tolerance: float
    thermostat: bool = False
    speeds: Sequence[Mapping[str, Any]] = ()
    stress: Mapping[str, float | int] | None = None


def all_metrics(evaluation: Evaluation) -> dict[str, Any]:
    """All numbers that stand for one model in ``metrics.json``.

    Args:
        evaluation: simulations of one model.

    Returns:
        ``along_reference``, see `spk_dt.evaluation.force_error.summary`; ``exploded``, the start frames whose simulation
        has exploded: from then on they do not count in means; ``stress``, if there is one; and what
        `spk_dt.evaluation.judge.judge` tells.
    """
    exploded = zip(evaluation.simulations.starts, evaluation.exploded_step, strict=True)
    return {
        "along_reference": force_error.summary(evaluation.averages),
        "exploded": [
            {
                "start": index,
                "trajectory": one.trajectory,
                "frame": one.frame,
                "step": int(step),
                "time_fs": float(step * one.timestep_fs),
            }
            for index, (one, step) in enumerate(exploded)
            if step >= 0
        ],
        **({} if evaluation.stress is None else {"stress": dict(evaluation.stress)}),
        **judge(evaluation.simulations, evaluation.tolerance, evaluation.thermostat),
        "speed": dict(max(evaluation.speeds, key=lambda one: one["systems_side_by_side"], default={})),
    }


def evaluate(
    data: str | Path,
    models: Mapping[str, str | Path],
    out: str | Path,
    protocol: Protocol | None = None,
    split: str | None = None,
    number: int | None = None,
    starts_per_trajectory: int = 1,
    energy_unit: str = "eV",
    position_unit: str = "Angstrom",
    tolerance: float = TOLERANCE_ANG,
    command: Sequence[str] = (),
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
    **by: Unpack[ByReference],
) -> dict[str, dict[str, Any]]:
    """Simulate from frames of the data with each model, compare with the reference, and write everything to a folder.

    With a thermostat, simulations do not follow the reference trajectories, and nothing but the start frames is compared
    with them; relabelled, they are judged as others are (`spk_dt.evaluation.true_error`).

    Args:
        data: trajectory database, or the word ``embedded``.
        models: name and file of each model.
        out: folder to write; it must not exist, or be empty.
        protocol: how simulations are made; default 300 steps at constant energy.
        split: partition to take trajectories from, of the database and of the runs that the models are in; None takes
            ``test``, or all if none is known, see `spk_dt.data.partition.read_partition`.
        number: number of trajectories; None takes all.
        starts_per_trajectory: start frames of each trajectory, evenly spaced.
        energy_unit: unit of the energies of all models, a name of ase.units or a number in eV.
        position_unit: unit of length of all models, a name of ase.units or a number in Å.
        tolerance: deviation from its usual length beyond which a bond is broken, Å.
        command: the command line, for the record.
        progress: called with what is done, steps done, and steps in all.
        by: the reference method with which visited geometries will be relabelled
            (`spk_dt.evaluation.reference.ByReference`).

    Returns:
        metrics of each model, as in ``metrics.json``.

    Raises:
        FileExistsError: if the folder is not empty.
        FileNotFoundError: if data or a model are not there.
        ValueError: if a model does not agree with the reference at frames of the data, most likely because of its units, or
            an option does not fit the data, or the reference method is not that of the data; if another process
            evaluates to this folder.
    """
    out, protocol = Path(out), protocol or Protocol()
    with new_folder(out):
        units = parse_unit(energy_unit, "eV"), parse_unit(position_unit, "Ang")
        thermostat = protocol.temperature is not None
        with trajectory_database(data) as database:
            partition = read_partition(database, split, [Path(file).parent / SPLIT_FILE for file in models.values()])
            starts = spread_continuations(partition, number, starts_per_trajectory, 0 if thermostat else protocol.steps)
            shortest = min(len(part.frames) for part in partition.first(number).parts)
            checked = spread_continuations(partition, number, min(_CHECKED_FRAMES, shortest), steps=0)
            stressed = spread_continuations(partition, number, min(_STRESS_FRAMES, shortest), steps=0)
            names = [one.trajectory for one in starts]
            thermal = noted_scales(partition)
            check = check_asked_for(database, names, str(data), **by)
        if thermostat:
            starts = [replace(one, following=0) for one in starts]
        else:
            _check_every(protocol.every, starts)
        groups = group_starts(starts)
        for name, file in models.items():
            check_model(name, file, checked, units, protocol.device)

        done = settings(data, models, starts, groups) | {
            "split": partition.name,
            **asdict(protocol),
            "energy_unit": energy_unit,
            "distance_unit": "Ang" if position_unit == "Angstrom" else position_unit,
            "max_displacement_Ang": MAX_DISPLACEMENT,
            "bond_tolerance_Ang": tolerance,
            "thermal": thermal,
            "command": list(command),
        }
        (out / "settings.json").write_text(json.dumps(done, indent=2) + "\n")
        write_check(out, check)
        ase.io.write(out / "start.traj", [one.start for one in starts])
        found = [
            replace(
                _evaluate_model(name, file, out, starts, groups, units, protocol, tolerance, progress),
                stress=stress_error(file, units, stressed, protocol.device),
            )
            for name, file in models.items()
        ]
        write_curves(out, {one.name: one.averages for one in found}, {one.name: one.curves for one in found})
        metrics = {one.name: all_metrics(one) for one in found}
        engines = {name: ModelEngine(file, *units, compile=False) for name, file in models.items()}
        moving = motion({one.name: one.simulations for one in found}, engines, starts)
        for name, curves in moving["pairs"].items():
            metrics[name]["repulsion"] = pair_numbers(curves)
        write_numbers(out, metrics, _distributions(found), moving)
        return metrics


def _distributions(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """h(r) and g(r) of models and reference, over the time that the reference lasts, by pair of elements and by name.

    With a thermostat of the models alone, over the whole time.
    """
    starts, thermostat = evaluations[0].simulations.starts, evaluations[0].thermostat

    def sample(positions: np.ndarray, one: Continuation) -> Sample:
        return Sample(one.start.numbers, positions, one.start.cell.array, one.start.pbc)

    curves = {} if thermostat else {"reference": mean_distributions([sample(one.positions, one) for one in starts])}
    for model in evaluations:
        followed = [
            sample(simulation.positions[thermostat | (simulation.step <= starts[index].steps)], starts[index])
            for index, simulation in model.simulations
        ]
        curves[model.name] = mean_distributions(followed)
    return curves_by_name(curves)


def _check_every(every: int, starts: Sequence[Continuation]) -> None:
    """Refuse to keep steps of which none has a frame in a thinned trajectory."""
    inner_steps = {one.inner_steps: one.trajectory for one in starts}
    for inner, trajectory in inner_steps.items():
        if gcd(every, inner) > 1:
            other = next(n for n in count(every + 1) if all(gcd(n, one) == 1 for one in inner_steps))
            raise ValueError(
                f"every={every}: of each simulation the steps 1, 1 + {every}, ... are kept, none of which is one of every "
                f"{inner} steps of which trajectory '{trajectory}' has frames. Take every={other}, or every=1."
            )


def _evaluate_model(
    name: str,
    file: str | Path,
    out: Path,
    starts: Sequence[Continuation],
    groups: Sequence[Group],
    units: tuple[Unit, Unit],
    protocol: Protocol,
    tolerance: float,
    progress: Callable[[str, int, int], None],
) -> Evaluation:
    """Simulations of one model, and their force errors."""
    folder = out / name
    folder.mkdir()
    files = [SimulationFile.of(folder, g, *units) for g in range(len(groups))]
    simulations = Simulations(starts, [group.members for group in groups], files)
    curves: dict[int, ErrorCurve] = {}
    exploded_step = np.full(len(starts), -1)
    speeds: list[dict[str, Any]] = []

    def report(done: int) -> None:
        progress(f"simulating {name}", done, protocol.steps)

    for g, group in enumerate(groups):
        calculator = ModelCalculator(file, *units, protocol.compile)
        exploded_step[list(group.members)], speed = simulate(calculator, starts, group, files[g].path, protocol, report)
        speeds.append(speed.as_dict())
        curves.update({index: _curve(trajectory, starts[index]) for index, trajectory in simulations.of_group(g)})
    ordered = [curves[index] for index in range(len(starts))]
    comparable: dict[float, list[ErrorCurve]] = {}
    for curve, one in zip(ordered, starts, strict=True):
        comparable.setdefault(one.timestep_fs, []).append(curve)
    averages = [force_error.average_curves(same) for same in comparable.values()]
    thermostat = protocol.temperature is not None
    return Evaluation(name, simulations, ordered, averages, exploded_step, tolerance, thermostat, speeds)


def _curve(trajectory: SimulatedTrajectory, start: Continuation) -> ErrorCurve:
    """Force error of a simulation, step 0 included."""
    with_frame = (trajectory.step <= start.steps) & (trajectory.step % start.inner_steps == 0)
    assert trajectory.forces is not None  # of a model
    steps, forces = trajectory.step[with_frame], start.forces[trajectory.step[with_frame] // start.inner_steps]
    counted = forces_held(start.forces, mobile_of(start.start))
    errors = force_error.element_errors(trajectory.forces[with_frame], forces, start.start.numbers, counted)
    none = {element: np.zeros(len(steps)) for element in errors}
    return ErrorCurve(steps, steps * start.timestep_fs, errors, none)
