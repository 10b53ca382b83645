"""Trajectories that other programs made, judged as simulations of our own are.

The folder that is written is that of `spk_dt.evaluation.evaluate`, with these differences:

    <name>/trajectory_<k>.hdf5   trajectory k (`spk_dt.evaluation.trajectory_file`), in place of simulations
    metrics.json                 stability, structure beside that of the data, energy; and what is not known, and why
    no force_error.csv           trajectories follow no reference, wherever they began

Bonds are those of the first frame of each trajectory. h(r) and g(r) of a trajectory are compared over its whole length with
those of the frames of the data, if they are of the same atoms, in whatever order. True errors, and which trajectories
fail by the criteria of certificates, come from relabelling (`spk_dt.evaluation.true_error`), which takes energies and
forces of the files.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import ase.io
import numpy as np

from spk_dt.data.continuation import Continuation, spread_continuations, trajectory_database
from spk_dt.data.partition import Partition, read_partition
from spk_dt.evaluation.bonds import TOLERANCE_ANG
from spk_dt.evaluation.failures import noted_scales
from spk_dt.evaluation.foreign_trajectory import ForeignTrajectory, read_foreign
from spk_dt.evaluation.judge import curves_by_name, judge_alone, mean_distributions
from spk_dt.evaluation.motion import motion_of
from spk_dt.evaluation.output import new_folder, settings, write_numbers
from spk_dt.evaluation.reference import ByReference, check_asked_for, write_check
from spk_dt.evaluation.sample import Sample
from spk_dt.evaluation.simulate import Group
from spk_dt.evaluation.trajectory_file import TrajectoryFile
from spk_dt.trajectories.inputs import Reading

__all__ = ["evaluate_trajectories"]

#: positions, energies and forces of a reference that there is not
_NOTHING = (np.empty((0, 0, 3)), np.empty(0), np.empty((0, 0, 3)))


def evaluate_trajectories(
    data: str | Path,
    trajectories: Mapping[str, Sequence[str | Path]],
    out: str | Path,
    reading: Reading | None = None,
    split: str | None = None,
    number: int | None = None,
    temperature: float | None = None,
    tolerance: float = TOLERANCE_ANG,
    command: Sequence[str] = (),
    **by: Unpack[ByReference],
) -> dict[str, dict[str, Any]]:
    """Judge trajectories of any format that `spkdt convert` reads, and write everything to a folder.

    Args:
        data: trajectory database, or the word ``embedded``; what structures and errors are measured by.
        trajectories: files of each name; a file may hold several trajectories.
        out: folder to write; it must not exist, or be empty.
        reading: what is stated of the files.
        split: partition of the data, see `spk_dt.data.partition.read_partition`.
        number: number of trajectories of the data; None takes all.
        temperature: of the thermostat that the simulations had, K; None takes them to be at constant energy.
        tolerance: deviation from its usual length beyond which a bond is broken, Å.
        command: the command line, for the record.
        by: the reference method with which frames will be relabelled (`spk_dt.evaluation.reference.ByReference`).

    Returns:
        metrics of each name, as in ``metrics.json``.

    Raises:
        FileExistsError: if the folder is not empty.
        FileNotFoundError: if data or a file are not there.
        ValueError: if a file cannot be understood, its time step or units are not known or contradict its motion, it has
            elements that the data do not have; the reference method is not that of the data; if another process evaluates
            to this folder.
    """
    out, reading = Path(out), reading or Reading()
    if temperature is not None and not 0.0 < temperature < float("inf"):
        raise ValueError(f"temperature={temperature} K: a thermostat has a positive temperature.")
    with new_folder(out):
        inputs = [file for files in trajectories.values() for file in files]
        jobs = reading.jobs(inputs, lenient=True)
        names = {Path(file): name for name, files in trajectories.items() for file in files}
        with trajectory_database(data) as database:
            partition = read_partition(database, split).first(number)
            frames = [one.start for one in spread_continuations(partition, None, 1, steps=0)]
            periodic = any(atoms.pbc.any() for atoms in frames)
            elements = {int(z) for atoms in frames for z in atoms.numbers}
            found = [read_foreign(job, reading, elements, str(data), periodic) for job in jobs]
            samples = [Sample.of(partition, one.start.numbers, one.start.pbc) for one in found]
            thermal = noted_scales(partition)
            of_data = [part.trajectory.name for part in partition.parts]
            check = check_asked_for(database, of_data, str(data), **by)
        own = {name: [k for k, one in enumerate(found) if names[one.job.path] == name] for name in trajectories}
        _write_settings(out, data, own, found, partition, temperature, tolerance, thermal, command)
        write_check(out, check)
        metrics = {name: _metrics(own[name], found, samples, temperature, tolerance) for name in trajectories}
        curves = {name: mean_distributions([Sample.along(found[k].trajectory) for k in own[name]]) for name in own}
        known = next((one for one in samples if one is not None), None)
        reference_curves = {} if known is None else {"reference": mean_distributions([known])}
        moving = motion_of({name: [(k, found[k].trajectory) for k in own[name]] for name in own})
        write_numbers(out, metrics, curves_by_name(reference_curves | curves), moving)
        return metrics


def _write_settings(
    out: Path,
    data: str | Path,
    own: Mapping[str, Sequence[int]],
    found: Sequence[ForeignTrajectory],
    partition: Partition,
    temperature: float | None,
    tolerance: float,
    thermal: dict[str, Any] | None,
    command: Sequence[str],
) -> None:
    """``settings.json``, ``start.traj`` and the trajectories themselves."""
    starts = [
        Continuation(one.job.name, 0, one.timestep_fs, one.start, *_NOTHING, following=0, inner_steps=one.inner_steps)
        for one in found
    ]
    models = {name: found[numbers[0]].job.path for name, numbers in own.items()}
    groups = [Group((k,), one.timestep_fs) for k, one in enumerate(found)]
    done = settings(data, models, starts, groups, hashed=False)  # of the models that made them nothing is known
    model_of = {k: name for name, numbers in own.items() for k in numbers}
    for k, start in enumerate(done["starts"]):
        start |= {"model": model_of[k], "steps": int(found[k].trajectory.step[-1])}
    done |= {
        "trajectories": {
            name: {
                "files": [str(file.resolve()) for k in numbers for file in found[k].job.raw.files],
                "notes": list(dict.fromkeys(note for k in numbers for note in found[k].notes)),
            }
            for name, numbers in own.items()
        },
        "split": partition.name,
        "reference_trajectories": [part.trajectory.name for part in partition.parts],
        "temperature": temperature,
        "without_signs": [k for k, one in enumerate(found) if not _has_signs(one, temperature)],
        "bond_tolerance_Ang": tolerance,
        "energy_unit": "eV",
        "distance_unit": "Ang",
        "thermal": thermal,
        "command": list(command),
    }
    for name, numbers in own.items():
        (out / name).mkdir()
        for k in numbers:
            TrajectoryFile.of(out / name, k).write(found[k].trajectory)
    ase.io.write(out / "start.traj", [one.start for one in found])
    (out / "settings.json").write_text(json.dumps(done, indent=2) + "\n")


def _has_signs(one: ForeignTrajectory, temperature: float | None) -> bool:
    """Whether total energy, or with a thermostat the temperature, can tell that a trajectory goes wrong."""
    return one.conserving if temperature is None else one.trajectory.velocities is not None


def _metrics(
    numbers: Sequence[int],
    found: Sequence[ForeignTrajectory],
    samples: Sequence[Sample | None],
    temperature: float | None,
    tolerance: float,
) -> dict[str, Any]:
    """All numbers that stand for the trajectories of a name."""
    own = [found[k] for k in numbers]
    judged = judge_alone(
        [one.trajectory for one in own],
        [samples[k] for k in numbers],
        [one.conserving and temperature is None for one in own],
        tolerance,
    )
    reasons: dict[str, list[str]] = {}
    for k, one in zip(numbers, own, strict=True):
        missing = dict(one.not_known)
        if temperature is not None:
            missing["conservation of energy"] = "the simulation had a thermostat"
        sample = samples[k]
        if sample is None:
            missing["structure beside that of the data"] = "the data have no frames of the same atoms and periodicity"
        elif sample.distances is None:
            missing["h(r) beside that of the data"] = "there are too many atoms for the distances of all pairs"
        for what, why in missing.items():
            reasons.setdefault(what, []).append(why)
    exploded = [(k, one) for k, one in zip(numbers, own, strict=True) if one.exploded_step is not None]
    return {
        "exploded": [
            {
                "start": k,
                "trajectory": one.job.name,
                "frame": 0,
                "step": one.exploded_step,
                "time_fs": float(one.trajectory.time_fs[-1]),
            }
            for k, one in exploded
        ],
        **judged,
        "not_known": {what: "; ".join(dict.fromkeys(why)) for what, why in reasons.items()},
    }
