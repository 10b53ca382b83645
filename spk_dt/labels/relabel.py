"""Energies and forces of the reference method at given geometries, computed in parallel and kept as they come."""

import json
import os
import pickle
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from spk_dt.folders.hold import hold
from spk_dt.labels.calculator import TBLITE_SETTINGS, reference_calculator
from spk_dt.labels.label_file import LABEL_FORMAT, geometry_hash, open_labels

__all__ = ["Labels", "relabel"]


@dataclass(frozen=True)
class Labels:
    """Energies and forces of the reference method.

    Args:
        ids: [n_frames] name of each geometry.
        energy: [n_frames] eV; NaN where the reference method failed.
        forces: [n_frames] arrays [n_atoms, 3] eV/Å; NaN where it failed.
        failures: what went wrong, by name of the geometry.
        n_computed: number of geometries computed in this call; the others were in the file.
    """

    ids: tuple[str, ...]
    energy: np.ndarray
    forces: tuple[np.ndarray, ...]
    failures: dict[str, str]
    n_computed: int

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
) -> Labels:
    """Compute energy and forces of geometries with a reference method; continue where an earlier call stopped.

    Results are appended to `path` as they come, one line of JSON each, so that an interruption costs no more than what was
    being computed. A geometry at which the reference method fails (no self-consistent field for an exploded geometry) is
    recorded with the message, and is not tried again.

    Each geometry has a new calculator, so that its result does not depend on which others were computed before, or by
    how many processes. Constraints of the frames are ignored: the forces are those of the potential.

    Args:
        frames: geometries, or an iterator over them, read as they are needed.
        reference: calculator, see `spk_dt.labels.calculator.reference_calculator`.
        path: file with the results, created or continued. Give each reference method its own.
        n_processes: 1 computes in this process; more start as many processes with one thread each (OMP_NUM_THREADS=1). They
            import the main module, so a script needs the usual ``if __name__ == "__main__":``.
        ids: name of each geometry, unique; None counts from 0.
        progress: called with the number of geometries done so far, those found in the file included.
        sound: names of geometries at which the reference method must succeed. If it does not, something is wrong with the
            program and not with the geometry: nothing is recorded, and the error is raised.

    Raises:
        ValueError: if the reference method fails at a geometry of `sound`, the file was made with another reference
            method, has another geometry under one of the names, is damaged before its last line or not ours, another
            process is at work on it, or a name comes twice.
        ImportError: if the package of the reference calculator is not installed.
        RuntimeError: if a process dies (out of memory, crash of the reference program).
    """
    if n_processes < 1:
        raise ValueError(f"n_processes={n_processes}: it takes one at least.")
    header: dict[str, Any] = {"format": LABEL_FORMAT, "reference": reference}
    if reference.startswith("tblite:"):
        header["settings"] = dict(TBLITE_SETTINGS)
    make = partial(reference_calculator, reference)
    make()  # a wrong name shall not wait for the file
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold(path.with_name(f"{path.name}.lock"), f"is at work on '{path}'; wait for it, or choose another name."):
        known = open_labels(path, header)
        n_known = len(known)
        names: dict[str, int] = {}  # number of atoms of each geometry, in order
        number = count(1)

        def advance() -> None:
            if progress is not None:
                progress(next(number))

        todo = _missing(frames, ids, known, names, str(path), advance)
        computed = _in_this_process(todo, make) if n_processes == 1 else _in_processes(todo, make(), n_processes)
        with path.open("a", encoding="utf-8") as stream, closing(computed):
            for record in computed:
                if record["error"] is not None and record["id"] in sound:
                    raise ValueError(
                        f"the reference '{reference}' fails at the sound geometry '{record['id']}': {record['error']}. It "
                        "is not recorded; repair this and start again."
                    )
                known[record["id"]] = record
                stream.write(json.dumps(record) + "\n")
                stream.flush()
                advance()
        return _labels(names, known, len(known) - n_known)


def _missing(
    frames: Iterable[Atoms],
    ids: Iterable[str] | None,
    known: Mapping[str, Mapping[str, Any]],
    names: dict[str, int],
    source: str,
    advance: Callable[[], None],
) -> Iterator[tuple[str, str, Atoms]]:
    """Id, hash and bare structure of each geometry that is not in the file, for the others `advance` is called.

    All of them are entered in `names` on the way.
    """
    named = ((str(i), atoms) for i, atoms in enumerate(frames)) if ids is None else zip(ids, frames, strict=True)
    for name, atoms in named:
        if name in names:
            raise ValueError(f"the id '{name}' comes twice; give each geometry its own.")
        names[name] = len(atoms)
        geometry = geometry_hash(atoms)
        if name not in known:
            bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
            bare.set_initial_charges(atoms.get_initial_charges())
            bare.set_initial_magnetic_moments(atoms.get_initial_magnetic_moments())
            yield name, geometry, bare
        elif known[name]["geometry"] != geometry:
            raise ValueError(
                f"'{source}' has another geometry under the id '{name}' (hash {known[name]['geometry']}, not {geometry}). "
                "Choose another file, or other ids."
            )
        else:
            advance()


def _in_this_process(
    todo: Iterable[tuple[str, str, Atoms]], make: Callable[[], Calculator]
) -> Generator[dict[str, Any], None, None]:
    """Records of the geometries, one after the other."""
    for name, geometry, atoms in todo:
        yield _record(name, geometry, atoms, make)


def _in_processes(
    todo: Iterable[tuple[str, str, Atoms]], calculator: Calculator, n_processes: int
) -> Generator[dict[str, Any], None, None]:
    """Records of the geometries, in the order in which the processes finish them."""
    try:
        packed = pickle.dumps(calculator)
    except Exception as error:  # pickle has no common type of error
        raise ValueError(
            f"the calculator {type(calculator).__name__} cannot be sent to other processes ({error}); use n_processes=1."
        ) from error
    make = partial(pickle.loads, packed)
    with _single_threaded(), ProcessPoolExecutor(n_processes, mp_context=get_context("spawn")) as pool:
        pending: dict[Future[dict[str, Any]], str] = {}
        try:
            for name, geometry, atoms in todo:
                pending[pool.submit(_record, name, geometry, atoms, make)] = name
                while len(pending) >= 4 * n_processes:
                    yield from _finished(pending)
            while pending:
                yield from _finished(pending)
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"a process died while computing one of {', '.join(pending.values())}; what was finished before is kept. "
                "Try again with fewer processes, or leave out the geometry that does it."
            ) from error
        finally:
            for future in pending:
                future.cancel()


def _finished(pending: dict[Future[dict[str, Any]], str]) -> Iterator[dict[str, Any]]:
    """Records that are ready, at least one; they are removed from `pending`."""
    for future in wait(pending, return_when=FIRST_COMPLETED).done:
        record = future.result()
        del pending[future]
        yield record


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Processes started meanwhile have one thread; numerical libraries read this when they are loaded."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _record(name: str, geometry: str, atoms: Atoms, make: Callable[[], Calculator]) -> dict[str, Any]:
    """What goes into the file about a geometry: energy and forces, or what went wrong."""
    energy, forces, message = None, None, None
    try:
        if not np.isfinite(atoms.positions).all():
            raise ValueError("a position is not finite")
        atoms.calc = make()
        energy, forces = float(atoms.get_potential_energy()), atoms.get_forces()
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise ValueError("energy or forces are not finite")
    except Exception as error:  # every calculator has its own; at an impossible geometry any of them is a result
        energy, forces, message = None, None, f"{type(error).__name__}: {error}"
    forces = None if forces is None else np.asarray(forces, dtype=float).tolist()
    return {"id": name, "geometry": geometry, "energy": energy, "forces": forces, "error": message}


def _labels(names: Mapping[str, int], known: Mapping[str, Mapping[str, Any]], n_computed: int) -> Labels:
    """The records of the geometries asked for, in their order."""
    records = [known[name] for name in names]
    return Labels(
        ids=tuple(names),
        energy=np.array([np.nan if record["energy"] is None else record["energy"] for record in records]),
        forces=tuple(
            np.full((n_atoms, 3), np.nan) if record["forces"] is None else np.array(record["forces"]).reshape(-1, 3)
            for record, n_atoms in zip(records, names.values(), strict=True)
        ),
        failures={record["id"]: record["error"] for record in records if record["error"] is not None},
        n_computed=n_computed,
    )
