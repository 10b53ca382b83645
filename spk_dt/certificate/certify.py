"""A certificate of a potential: simulations from starts it has not seen, judged by the reference method.

The folder that is written:

    settings.json              what was done; the same command goes on where it was interrupted, another one is refused
    certificate.json           for each model: statement, survival, bounds, outcome of each simulation, labels used
    survival.png, .pdf, .svg   share of the simulations that have not failed against time
    <model>/batch_<b>/         the simulations (`spk_dt.certificate.simulations`)
    <model>/labels.jsonl       energies and forces of the reference method (`spk_dt.labels.relabel`)
    <model>/first_wrong.traj   first wrong state of each simulation that failed, forces of model and reference
"""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms

from spk_dt.certificate.committee import CommitteeEngine, too_uncertain, uncertainty_record
from spk_dt.certificate.conditions import Conditions
from spk_dt.certificate.criteria import Criteria, Scales
from spk_dt.certificate.engines import AseEngine, Engine, ModelEngine, ModelOptions
from spk_dt.certificate.model_check import check_model, check_time_step
from spk_dt.certificate.novelty import N_KNOWN, NOVELTY
from spk_dt.certificate.record import model_record, sign_record
from spk_dt.certificate.scales_of_data import scales_of_data
from spk_dt.certificate.simulations import batches, read_states, run_simulations
from spk_dt.certificate.verdict import Label, Outcome, judge_all, judged
from spk_dt.data.continuation import spread_continuations, trajectory_database
from spk_dt.data.partition import SPLIT_FILE, read_partition
from spk_dt.data.start_frames import spread_frames
from spk_dt.folders.file_hash import file_hash
from spk_dt.folders.hold import LOCK, hold
from spk_dt.labels.reference_check import check_reference
from spk_dt.labels.reference_of_data import OF_DATA, reference_of_data
from spk_dt.labels.reference_process import reference_processes
from spk_dt.labels.relabel import relabel
from spk_dt.labels.unit_check import Unit, parse_unit

__all__ = ["ASE_PREFIX", "COMMITTEE", "Computing", "certify"]

#: a model that is an ASE calculator is named with this before its import path
ASE_PREFIX = "ase:"

#: name of the certificate of several models as one
COMMITTEE = "committee"


@dataclass(frozen=True)
class Computing:
    """How a certificate is computed; its results hardly depend on it.

    Args:
        n_processes: processes that simulate, and then run the reference method.
        scratch: see `spk_dt.labels.relabel.relabel`.
        time_limit: see `spk_dt.labels.relabel.relabel`.
        batch_size: simulations side by side in a process.
        precision: bits of the floating-point numbers in simulations; states are evaluated with 64.
        compile: compile the models.
        device: where models are evaluated.
        pool: where the reference method runs, see `spk_dt.labels.pools`.
    """

    n_processes: int = 1
    batch_size: int = 10
    precision: int = 32
    compile: bool = True
    device: str = "cpu"
    scratch: Path | None = None
    time_limit: float | None = None
    pool: str = "processes"


def certify(
    models: Mapping[str, str | Path],
    data: str | Path,
    out: str | Path,
    reference: str = OF_DATA,
    number: int = 20,
    conditions: Conditions | None = None,
    criteria: Criteria | None = None,
    computing: Computing | None = None,
    split: str | None = None,
    energy_unit: str = "eV",
    position_unit: str = "Angstrom",
    another_reference: bool = False,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
    committee: bool = False,
) -> dict[str, dict[str, Any]]:
    """Simulate with each model from unseen frames, and find with few reference calculations when simulations go wrong.

    Args:
        models: name and file of each model; ``ase:package.module:Class`` is an ASE calculator in place of a model.
        data: trajectory database, or the word ``embedded``.
        out: folder to write, or to go on with.
        reference: reference calculator, see `spk_dt.labels.calculator.reference_calculator`; ``data`` stands for the one
            that the data name, see `spk_dt.labels.reference_of_data`.
        number: simulations of each model, from frames evenly spaced over the trajectories of the partition.
        conditions: of the simulations.
        criteria: when a state is wrong.
        computing: how it is computed.
        split: partition that the start frames are taken from, see `spk_dt.evaluation.evaluate.evaluate`.
        energy_unit: unit of the energies of the models.
        position_unit: unit of length of the models.
        another_reference: whether the reference method may be another one than that of the data.
        progress: called with what is done, how much of it, and how much there is; labels are asked for in several rounds.
        committee: certify the mean of all models as one, called ``committee`` (`spk_dt.certificate.committee`).

    Returns:
        for each model what stands in ``certificate.json``.

    Raises:
        ValueError: if the folder is of another certificate or another process is at work in it, there are fewer frames than
            simulations, no reference method is named, it is not that of the data, a model does not fit the data, most
            likely because of its units, or a time step longer than that of the data conserves no energy with it.
        FileNotFoundError: if data or a model are not there.
    """
    conditions, criteria, computing = conditions or Conditions(), criteria or Criteria(), computing or Computing()
    units = parse_unit(energy_unit, "eV"), parse_unit(position_unit, "Ang")
    out = Path(out)
    _check_committee(models, committee, criteria)
    files = [Path(file) for file in models.values() if not str(file).startswith(ASE_PREFIX)]
    with trajectory_database(data) as database:
        if reference == OF_DATA:
            reference = reference_of_data(database, "--reference ")
        partition = read_partition(database, split, [file.parent / SPLIT_FILE for file in files])
        n_parts = len(partition.parts)
        spread = spread_continuations(partition, None, -(-number // n_parts), steps=0)
        scales = scales_of_data(partition, -(-number // n_parts))
        starts = [spread[i * len(spread) // number] for i in range(number)]
        known = spread_frames(database, N_KNOWN)
    frames = [one.start for one in starts]
    timesteps = [conditions.time_step or one.timestep_fs for one in starts]
    settings = {
        "data": str(data),
        "split": partition.name,
        "models": {name: str(file) for name, file in models.items()},
        "model_sha256": {
            name: file_hash(file) for name, file in models.items() if not str(file).startswith(ASE_PREFIX)
        },
        "reference": reference,
        "number": number,
        "conditions": asdict(conditions),
        "batch_size": computing.batch_size,
        "precision": computing.precision,
        "energy_unit": energy_unit,
        "position_unit": position_unit,
        **({"committee": True} if committee else {}),
    }
    for name, file in models.items():
        if not str(file).startswith(ASE_PREFIX):
            check_model(name, file, starts, units)
            if conditions.time_step and conditions.time_step > min(one.timestep_fs for one in starts):
                check_time_step(name, file, frames, units, conditions.time_step)
    if criteria.uncertainty is not None:
        at_starts = _engine(tuple(models.values()), *units, computing)().evaluated(frames)
        if useless := too_uncertain(at_starts, criteria.uncertainty):
            raise ValueError(f"--uncertainty-limit {criteria.uncertainty:g}: {useless}")
    check = check_reference(
        frames,
        reference,
        str(data),
        another=another_reference,
        scratch=computing.scratch,
        time_limit=computing.time_limit,
    )
    with hold(out / LOCK, f"certifies in '{out}'; wait for it, or choose another folder."):
        _same_settings(out / "settings.json", settings)
        found = {}
        certified: dict[str, str | Path | tuple[str | Path, ...]] = dict(models)
        if committee:
            certified = {COMMITTEE: tuple(models.values())}
        for name, what in certified.items():
            make_engine = _engine(what, *units, computing, known)
            all_batches = batches(out / name, timesteps, computing.batch_size)
            run_simulations(
                all_batches,
                make_engine,
                frames,
                conditions,
                computing.n_processes,
                partial(progress, f"simulating {name}"),
            )
            states = dict(read_states(all_batches))
            judging = partial(progress, f"judging {name}")
            how = (conditions, criteria, scales, reference, computing, judging)
            outcomes, n_labels, wrong = _judge(out / name, states, *how)
            (out / name / "first_wrong.traj").unlink(missing_ok=True)  # of other limits
            if wrong:
                ase.io.write(out / name / "first_wrong.traj", wrong)
            found[name] = model_record(conditions, criteria, scales, outcomes, n_labels)
            if all(NOVELTY in atoms.info for one in states.values() for atoms in one):
                found[name][NOVELTY] = sign_record(NOVELTY, states, outcomes)
            if committee:
                found[name]["committee"] = {"members": list(models), **uncertainty_record(states, outcomes)}
        packages = ("spk_dt", "schnetpack", "torch", "ase")
        versions = {one: version(one) for one in packages} | {"python": platform.python_version()}
        text = json.dumps(
            {"settings": settings, "versions": versions, "reference_check": check.as_dict(), "models": found}, indent=2
        )
        (out / "certificate.json").write_text(text + "\n")
        return found


def _check_committee(models: Mapping[str, str | Path], committee: bool, criteria: Criteria) -> None:
    """Refuse a committee of one, or of calculators, and a limit that nothing is compared with."""
    if not committee and criteria.uncertainty is not None:
        raise ValueError(
            f"--uncertainty-limit {criteria.uncertainty:g}: one model has no uncertainty; name several, with --committee."
        )
    if committee and len(models) < 2:
        raise ValueError("--committee: a committee has two models at least; name another one.")
    calculators = [name for name, file in models.items() if str(file).startswith(ASE_PREFIX)]
    if committee and calculators:
        raise ValueError(f"--committee: '{calculators[0]}' is an ASE calculator; a committee is of stored models.")


def _engine(
    file: str | Path | tuple[str | Path, ...],
    energy_unit: Unit,
    position_unit: Unit,
    computing: Computing,
    known: Sequence[Atoms] = (),
) -> Callable[[], Engine]:
    """What makes the potential, in any process."""
    if str(file).startswith(ASE_PREFIX):
        return partial(AseEngine, str(file).removeprefix(ASE_PREFIX))
    how = ModelOptions(
        energy_unit=energy_unit,
        position_unit=position_unit,
        precision=computing.precision,
        compile=computing.compile,
        device=computing.device,
    )
    if isinstance(file, tuple):
        return partial(CommitteeEngine, file, **how)
    return partial(ModelEngine, file, known=known, **how)


def _same_settings(file: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings, or refuse other ones than are there."""
    if file.exists():
        before = json.loads(file.read_text())
        keys = dict.fromkeys([*settings, *before])
        others = [key for key in keys if json.loads(json.dumps(settings.get(key))) != before.get(key)]
        if "model_sha256" in others and "model_sha256" not in before:
            others.remove("model_sha256")  # of a version that did not write it
        if others == ["model_sha256"]:
            raise ValueError(
                f"the simulations in '{file.parent}' are of other model files than are there now: the models have been "
                "trained since. Choose another folder."
            )
        if others:
            told = "; ".join(f"{key}: {before.get(key)} there, {settings.get(key)} now" for key in others)
            raise ValueError(
                f"'{file}' is of another certificate ({told}). Choose another folder, or the settings of this one."
            )
    file.write_text(json.dumps(settings, indent=2) + "\n")


def _judge(
    folder: Path,
    states: Mapping[int, Sequence[Atoms]],
    conditions: Conditions,
    criteria: Criteria,
    scales: Scales,
    reference: str,
    computing: Computing,
    progress: Callable[[int, int], None],
) -> tuple[dict[int, Outcome], int, list[Atoms]]:
    """Outcome of each simulation, number of labels, and the first wrong states."""
    temperatures = [conditions.thermostat_before(k) for k in range(conditions.n_states + 1)]
    judges = {i: judged(one, temperatures, criteria, scales, conditions.friction) for i, one in states.items()}

    def label(pairs: list[tuple[int, int]]) -> dict[tuple[int, int], Label]:
        found = relabel(
            [states[i][k] for i, k in pairs],
            reference,
            folder / "labels.jsonl",
            ids=[f"{i}:{k}" for i, k in pairs],
            sound={f"{i}:0" for i in states},
            processes=processes,
            progress=lambda done: progress(done, len(pairs)),
        )
        return dict(zip(pairs, zip(map(float, found.energy), found.forces, strict=True), strict=True))

    how = (computing.n_processes, computing.scratch, computing.time_limit, computing.pool)
    with reference_processes(reference, *how) as processes:
        outcomes, labels = judge_all(judges, label)
    wrong = []
    for i, outcome in sorted(outcomes.items()):
        if outcome.state is not None:
            atoms = states[i][outcome.state].copy()
            atoms.calc = states[i][outcome.state].calc
            atoms.info |= {"reason": outcome.reason}
            if outcome.state in labels[i]:
                energy, forces = labels[i][outcome.state]
                atoms.info |= {"reference_energy": energy, "reference_forces": forces}  # .traj keeps no other arrays
            wrong.append(atoms)
    return outcomes, sum(map(len, labels.values())), wrong
