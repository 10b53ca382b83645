"""What runs in a process of the reference method; `spk_dt.labels.reference_process` starts it and talks to it.

A request is a dictionary, sent over a `multiprocessing.connection.Connection`, and each has one answer:

    task        "describe" or "compute"
    reference   name of the calculator
    folder      scratch folder, where the process works meanwhile
    fresh       whether to make a new calculator; False goes on with the one before
    atoms       for "compute": the geometry
    stress      for "compute": whether its stress is wanted, too

Whatever is printed goes to `LOG` in the scratch folder. When the other end is gone, the process ends all programs that it
has started, removes the scratch folder, and ends.
"""

import faulthandler
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import chdir, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from spk_dt.labels.calculator import reference_factory
from spk_dt.labels.convergence import NotConvergedError, refuse_unconverged, said_by_program
from spk_dt.labels.nested_calculators import put_into
from spk_dt.labels.process_tree import end_processes
from spk_dt.labels.provenance import provenance, version_after
from spk_dt.trajectories.stored_properties import usable_results

__all__ = ["LOG", "serve"]

#: file in the scratch folder with what was printed, and the traceback of an error
LOG = "spk_dt.log"


def serve(descriptor: int) -> None:
    """Answer requests until the other end of the connection is gone.

    Args:
        descriptor: file descriptor of the connection.
    """
    global _folder
    os.set_inheritable(descriptor, False)  # programs that are started here shall not hold it open
    faulthandler.enable(2)
    connection = Connection(descriptor)
    requests: SimpleQueue[dict[str, Any]] = SimpleQueue()
    Thread(target=_receive, args=(connection, requests), daemon=True).start()
    with suppress(OSError):
        connection.send({"ready": True})
    calculator: Calculator | None = None
    home = Path.cwd()
    while True:
        request = requests.get()
        answer: dict[str, Any] = {"error": None}
        with _working_in(Path(request["folder"])) as folder:
            try:
                if calculator is None or request["fresh"]:
                    calculator = None
                    with chdir(home):  # modules of the user are found where the command was given
                        make = reference_factory(request["reference"])
                    calculator = make()
                put_into(calculator, folder)
                if request["task"] == "describe":
                    answer["provenance"] = provenance(calculator, folder)
                else:
                    answer |= _computed(request["atoms"], calculator, folder, request["stress"])
            except (Exception, SystemExit) as error:  # every calculator has its own
                traceback.print_exc()
                said = None if isinstance(error, NotConvergedError) else said_by_program(folder)
                answer |= {"error": f"{error}" + (f"; {said}" if said else ""), "type": type(error).__name__}
                calculator = None
        if answer["error"] is not None:
            _folder = None  # it is kept
        with suppress(OSError):  # nobody is there any more: the other thread sees to the end
            connection.send(answer)


def _computed(atoms: Atoms, calculator: Calculator, folder: Path, with_stress: bool) -> dict[str, Any]:
    """Energy (eV), forces (eV/Å) and stress (eV/Å^3) of a geometry; the energy of which the forces are the gradient."""
    positions = atoms.positions.copy()
    atoms.calc = calculator
    forces = np.asarray(atoms.get_forces(), dtype=float)  # before the energy: a program gives it along with the forces
    energy = float(atoms.get_potential_energy())
    free_energy = getattr(calculator, "results", {}).get("free_energy")
    energy = energy if free_energy is None else float(free_energy)
    stress = _stress_of(atoms) if with_stress else None
    others, unusable = usable_results(getattr(calculator, "results", {}), atoms)
    atoms.calc = None
    refuse_unconverged(calculator, folder)
    if forces.shape != positions.shape or not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise ValueError("energy or forces are not finite")
    if stress is not None and not np.isfinite(stress).all():
        raise ValueError("the stress is not finite")
    if not np.array_equal(atoms.positions, positions):
        raise ValueError("the calculator has moved the atoms; switch its geometry optimisation off")
    answer = {"energy": energy, "forces": forces, "stress": stress, "program": version_after(calculator)}
    return answer | {"others": others, "unusable": unusable}


def _stress_of(atoms: Atoms) -> np.ndarray:
    """[3, 3] stress, with the sign of ASE."""
    try:
        return np.asarray(atoms.get_stress(voigt=False), dtype=float)
    except NotImplementedError as error:
        raise ValueError(
            f"the calculator gives no stress ({error}), which is to be trained on: name one that does, or train without the "
            "stress (leave task/stress=trained out)"
        ) from error


def _receive(connection: Connection, requests: SimpleQueue[dict[str, Any]]) -> None:
    """Hand requests over; without anybody who could send more, end."""
    while True:
        try:
            request = connection.recv()
        except (EOFError, OSError):
            end_processes(os.getpid(), spare=os.getpid())
            for _ in range(100):  # the calculator, in the other thread, may be writing just now
                if _folder is None or not _folder.exists():
                    break
                shutil.rmtree(_folder, ignore_errors=True)
            os.killpg(0, signal.SIGKILL)
        requests.put(request)


#: scratch folder of the last request, until it is known that it is kept
_folder: Path | None = None


@contextmanager
def _working_in(folder: Path) -> Iterator[Path]:
    """Work in a folder, and print to a file there."""
    global _folder
    home, _folder = Path.cwd(), folder
    kept = [(number, os.dup(number)) for number in (1, 2)]
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number, _ in kept:
        os.dup2(log, number)
    os.close(log)
    os.chdir(folder)
    try:
        yield folder
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # a calculator may have closed or replaced it
                stream.flush()
        for number, duplicate in kept:
            os.dup2(duplicate, number)
            os.close(duplicate)
        os.chdir(home)
