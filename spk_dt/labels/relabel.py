"""Energies and forces of the reference method at given geometries, computed in parallel and kept as they come."""

import json
import logging
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from ase import Atoms

from spk_dt import properties
from spk_dt.folders.hold import hold
from spk_dt.labels.calculator import TBLITE_SETTINGS
from spk_dt.labels.label_file import LABEL_FORMAT, geometry_hash, open_labels
from spk_dt.labels.reference_process import NoLabelError, ReferenceProcess, reference_processes
from spk_dt.trajectories.stored_properties import charge_and_spin, set_spin_multiplicity, set_total_charge

__all__ = ["Labels", "bare_structure", "relabel"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labels:
    """Energies and forces of the reference method.

    Args:
        ids: [n_frames] name of each geometry.
        energy: [n_frames] eV; NaN where the reference method failed.
        forces: [n_frames] arrays [n_atoms, 3] eV/Å; NaN where it failed.
        stress: [n_frames] arrays [3, 3] eV/Å^3 with the sign of ASE, likewise; NaN as well where it is not known.
        failures: what went wrong, by name of the geometry.
        n_computed: number of geometries computed in this call; the others were in the file.
        made_by: the reference method with its versions and settings, see `spk_dt.labels.provenance`.
    """

    ids: tuple[str, ...]
    energy: np.ndarray
    forces: tuple[np.ndarray, ...]
    stress: tuple[np.ndarray, ...]
    failures: dict[str, str]
    n_computed: int
    made_by: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Counts and messages, for JSON; the labels themselves are in the file."""
        return {
            "n_frames": len(self.ids),
            "n_computed": self.n_computed,
            "n_failed": len(self.failures),
            "failures": dict(self.failures),
        }


def relabel(
    frames: Iterable[Atoms],
    reference: str,
    path: str | Path,
    n_processes: int = 1,
    ids: Iterable[str] | None = None,
    progress: Callable[[int], None] | None = None,
    sound: Container[str] = (),
    scratch: str | Path | None = None,
    time_limit: float | None = None,
    stress: bool = False,
    processes: Sequence[ReferenceProcess] = (),
    pool: str = "processes",
) -> Labels:
    """Compute energy and forces of geometries with a reference method; continue where an earlier call stopped.

    Results are appended to `path` as they come, one line of JSON each, so that an interruption costs no more than what was
    being computed. A geometry at which the reference method fails (no self-consistent field for an exploded geometry) is
    recorded with the message, and is not tried again.

    Each geometry has a new calculator in a new scratch folder, so that its result does not depend on which others were
    computed before, at the same time, or by how many processes. The folder is removed, or kept where the reference method
    fails, and then named in the message. All is computed in processes of its own (`spk_dt.labels.reference_process`): one
    that dies, or takes too long, costs its geometry a second try, and after that is a failure like others. Constraints of
    the frames are ignored: the forces are those of the potential.

    Args:
        frames: geometries, or an iterator over them, read as they are needed.
        reference: calculator, see `spk_dt.labels.calculator.reference_calculator`.
        path: file with the results, created or continued. Give each reference method its own.
        n_processes: number of processes. With more than one, each has one thread unless OMP_NUM_THREADS is set.
        ids: name of each geometry, unique; None counts from 0.
        progress: called with the number of geometries done so far, those found in the file included.
        sound: names of geometries at which the reference method must succeed. If it does not, something is wrong with the
            program and not with the geometry: nothing is recorded, and the error is raised.
        scratch: where the scratch folders are made; None takes the folder for temporary files (TMPDIR).
        time_limit: s, after which a calculation is ended with all its programs, and is a failure; None waits.
        stress: whether to compute the stress, too; geometries that have none in the file are computed again. A reference
            method that gives no stress fails.
        processes: processes of the reference method that are there already, see `reference_processes`; `n_processes`,
            `scratch`, `time_limit` and `pool` are theirs then.
        pool: where the processes run, see `spk_dt.labels.pools`.

    Raises:
        ValueError: if the reference method fails at a geometry of `sound`, the file was made with another reference
            method, or another version or setting of it, has another geometry under one of the names, is damaged before its
            last line or not ours, another process is at work on it, or a name comes twice; or the calculator cannot be made.
        ImportError: if the package of the reference calculator is not installed.
        RuntimeError: if no process can be started.
    """
    path = Path(path)
    with ExitStack() as stack:
        if not processes:
            processes = stack.enter_context(reference_processes(reference, n_processes, scratch, time_limit, pool))
        made_by: dict[str, Any] = {"reference": reference}
        if reference.startswith("tblite:"):
            made_by["settings"] = dict(TBLITE_SETTINGS)
        made_by |= processes[0].describe()  # a wrong name shall not wait for the file
        path.parent.mkdir(parents=True, exist_ok=True)
        busy = f"is at work on '{path}'; wait for it, or choose another name."
        stack.enter_context(hold(path.with_name(f"{path.name}.lock"), busy))
        known = open_labels(path, {"format": LABEL_FORMAT, **made_by})
        n_computed = 0
        names: dict[str, int] = {}  # number of atoms of each geometry, in order
        number = count(1)

        def advance() -> None:
            if progress is not None:
                progress(next(number))

        lacking = {name for name, one in known.items() if stress and one["error"] is None and one.get("stress") is None}
        todo = _missing(frames, ids, known, lacking, names, str(path), advance)
        computed = stack.enter_context(closing(_records(todo, processes, stress)))
        stream = stack.enter_context(path.open("a", encoding="utf-8"))
        program = next((one["program"] for one in known.values() if "program" in one), None)
        for record in computed:
            if record["error"] is not None and record["id"] in sound:
                raise ValueError(
                    f"the reference '{reference}' fails at the sound geometry '{record['id']}': {record['error']}. It "
                    "is not recorded; repair this and start again."
                )
            now = record.get("program")
            if None not in (program, now) and now != program:
                raise ValueError(
                    f"'{path}' was made with version {program} of the program, and now it is {now}. Go back to that "
                    "version, or begin in another folder."
                )
            program = program or now
            if record["error"] is not None:
                log.warning("'%s': geometry '%s' has no label: %s", path, record["id"], record["error"])
            known[record["id"]] = record
            n_computed += 1
            stream.write(json.dumps(record) + "\n")
            stream.flush()
            advance()
        return _labels(names, known, n_computed, made_by)


def _missing(
    frames: Iterable[Atoms],
    ids: Iterable[str] | None,
    known: Mapping[str, Mapping[str, Any]],
    lacking: Container[str],
    names: dict[str, int],
    source: str,
    advance: Callable[[], None],
) -> Iterator[tuple[str, str, Atoms]]:
    """Id, hash and bare structure of each geometry that is not in the file, or lacks something there.

    For the others `advance` is called.

    All of them are entered in `names` on the way.
    """
    named = ((str(i), atoms) for i, atoms in enumerate(frames)) if ids is None else zip(ids, frames, strict=True)
    for name, atoms in named:
        if name in names:
            raise ValueError(f"the id '{name}' comes twice; give each geometry its own.")
        names[name] = len(atoms)
        geometry = geometry_hash(atoms)
        if name not in known:
            yield name, geometry, bare_structure(atoms, name)
        elif known[name]["geometry"] != geometry:
            raise ValueError(
                f"'{source}' has another geometry under the id '{name}' (hash {known[name]['geometry']}, not {geometry}). "
                "Choose another file, or other ids."
            )
        elif name in lacking:
            yield name, geometry, bare_structure(atoms, name)
        else:
            advance()


def bare_structure(atoms: Atoms, name: str) -> Atoms:
    """What the reference method sees of a frame: the structure, initial charges and moments, total charge and spin.

    Total charge and spin multiplicity are in `Atoms.info` under the names that calculators read, and in the sums of the
    initial charges and moments, which calculators of ASE take.

    Raises:
        ValueError: if the total charge is not the sum of the initial charges.
    """
    bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    for key in {"initial_charges", "initial_magmoms"} & set(atoms.arrays):
        bare.set_array(key, atoms.arrays[key])
    known = charge_and_spin(atoms, f"geometry '{name}'")
    if properties.total_charge in known:
        set_total_charge(bare, known[properties.total_charge])
        charge = bare.get_initial_charges().sum()
        if abs(charge - known[properties.total_charge]) > 0.01:
            raise ValueError(
                f"geometry '{name}' has the total charge {known[properties.total_charge]:g} e, but the sum of its initial "
                f"charges is {charge:g} e, which calculators of ASE take; remove the initial charges from the frames."
            )
    if properties.spin_multiplicity in known:
        set_spin_multiplicity(bare, known[properties.spin_multiplicity])
    return bare


def _records(
    todo: Iterable[tuple[str, str, Atoms]], processes: Sequence[ReferenceProcess], stress: bool
) -> Generator[dict[str, Any], None, None]:
    """Records of the geometries, in the order in which the processes finish them."""
    idle: SimpleQueue[ReferenceProcess] = SimpleQueue()
    for process in processes:
        idle.put(process)

    def record(name: str, geometry: str, atoms: Atoms) -> dict[str, Any]:
        process = idle.get()
        try:
            return _record(name, geometry, atoms, process, stress)
        finally:
            process.rest()
            idle.put(process)

    with ThreadPoolExecutor(len(processes)) as threads:
        pending: set[Future[dict[str, Any]]] = set()
        try:
            for one in todo:
                pending.add(threads.submit(record, *one))
                while len(pending) >= len(processes):
                    yield from _finished(pending)
            while pending:
                yield from _finished(pending)
        finally:
            if pending:  # an error, or the user, has interrupted them
                for process in processes:
                    process.stop()


def _finished(pending: set[Future[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Records that are ready, at least one; they are removed from `pending`."""
    for future in wait(pending, return_when=FIRST_COMPLETED).done:
        pending.remove(future)
        yield future.result()


def _record(name: str, geometry: str, atoms: Atoms, process: ReferenceProcess, stress: bool) -> dict[str, Any]:
    """What goes into the file about a geometry: energy, forces and stress, or what went wrong."""
    record = {"id": name, "geometry": geometry, "energy": None, "forces": None, "error": None}
    if not np.isfinite(atoms.positions).all():
        return record | {"error": "ValueError: a position is not finite"}
    try:
        found = process.compute(atoms, stress=stress)
    except NoLabelError as error:
        return record | {"error": str(error)}
    told: dict[str, Any] = {} if found.program is None else {"program": found.program}
    if found.stress is not None:
        told["stress"] = found.stress.tolist()
    return record | {"energy": found.energy, "forces": found.forces.tolist()} | told


def _labels(
    names: Mapping[str, int], known: Mapping[str, Mapping[str, Any]], n_computed: int, made_by: dict[str, Any]
) -> Labels:
    """The records of the geometries asked for, in their order."""
    records = [known[name] for name in names]
    return Labels(
        ids=tuple(names),
        energy=np.array([np.nan if record["energy"] is None else record["energy"] for record in records]),
        forces=tuple(
            np.full((n_atoms, 3), np.nan) if record["forces"] is None else np.array(record["forces"]).reshape(-1, 3)
            for record, n_atoms in zip(records, names.values(), strict=True)
        ),
        stress=tuple(
            np.full((3, 3), np.nan) if record.get("stress") is None else np.array(record["stress"])
            for record in records
        ),
        failures={record["id"]: record["error"] for record in records if record["error"] is not None},
        n_computed=n_computed,
        made_by=made_by,
    )
