"""The simulations of a certificate: in batches, by several processes, piece by piece in files, so that they can go on.

In the folder of a model, ``batch_<b>/<k>.traj`` holds the states number k of the simulations of batch b that have come so
far, as ASE structures with momenta, and with energy and forces of the model; ``info`` has ``simulation``, ``time_ps`` and,
where a simulation has exploded on the way to this state, ``exploded_ps``. Files are written whole. What a batch does from
one file to the next depends on nothing but the file, the model and the conditions, so an interrupted certificate goes on as
if it had not been.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms

from spk_dt.certificate import worker
from spk_dt.certificate.conditions import Conditions
from spk_dt.certificate.engines import Engine, Motion
from spk_dt.folders.whole_file import whole_file

__all__ = ["Batch", "batches", "read_states", "run_simulations"]

_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Batch:
    """Simulations that are run side by side.

    Args:
        folder: with its files.
        number: of the batch.
        members: the simulations.
        timestep_fs: their time step, fs.
    """

    folder: Path
    number: int
    members: tuple[int, ...]
    timestep_fs: float

    @property
    def files(self) -> list[Path]:
        """In order of time."""
        return sorted(self.folder.glob("*.traj"))

    def run(
        self,
        make_engine: Callable[[], Engine],
        starts: Sequence[Atoms],
        conditions: Conditions,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Simulate from the last file on, or from the start frames.

        Args:
            make_engine: makes the potential.
            starts: of all simulations, with momenta.
            conditions: of the simulations.
            progress: called after each file.
        """
        engine = make_engine()
        if not self.files:
            self._write(0, engine.evaluated([_noted(starts[i], simulation=i, time_ps=0.0) for i in self.members]))
        n_steps = conditions.steps(self.timestep_fs)
        for number in range(len(self.files), conditions.n_states + 1):
            going = [atoms for atoms in ase.io.iread(self.files[-1]) if "exploded_ps" not in atoms.info]
            if not going:
                return
            self._write(number, self._next(engine, going, number, n_steps, conditions))
            progress()

    def _next(
        self, engine: Engine, states: Sequence[Atoms], number: int, n_steps: int, conditions: Conditions
    ) -> list[Atoms]:
        """The states of a file from those of the one before."""
        seed = int(np.random.SeedSequence([conditions.seed, self.number, number]).generate_state(1)[0])
        motion = Motion(n_steps, self.timestep_fs, conditions.thermostat(number - 1), conditions.friction, seed)
        moved, exploded = engine.moved(states, motion)
        ps = 1e-3 * self.timestep_fs
        for atoms, step in zip(moved, exploded, strict=True):
            before = (number - 1) * n_steps * ps
            if step < 0:
                atoms.info["time_ps"] = number * n_steps * ps
            else:
                atoms.info |= {"time_ps": before + (step - 1) * ps, "exploded_ps": before + step * ps}
        return engine.evaluated(moved)

    def _write(self, number: int, states: Sequence[Atoms]) -> None:
        with whole_file(self.folder / f"{number:05d}.traj") as part:
            ase.io.write(part, states, format="traj")


def batches(folder: Path, timesteps_fs: Sequence[float], size: int) -> list[Batch]:
    """Batches of simulations with the same time step.

    Args:
        folder: of the model.
        timesteps_fs: of each simulation, fs.
        size: largest number of simulations in a batch.
    """
    found: list[Batch] = []
    for step in dict.fromkeys(timesteps_fs):
        members = [i for i, one in enumerate(timesteps_fs) if one == step]
        for first in range(0, len(members), size):
            number = len(found)
            found.append(Batch(folder / f"batch_{number}", number, tuple(members[first : first + size]), step))
    return found


def run_simulations(
    all_batches: Sequence[Batch],
    make_engine: Callable[[], Engine],
    starts: Sequence[Atoms],
    conditions: Conditions,
    n_processes: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Simulate, or go on with simulations that are there.

    Args:
        all_batches: the simulations.
        make_engine: called in each process.
        starts: of all simulations, with momenta.
        conditions: of the simulations.
        n_processes: 1 computes in this process; more start as many with one thread each.
        progress: called with the number of states of all simulations that are there, and how many there will be.
    """
    for batch in all_batches:
        batch.folder.mkdir(parents=True, exist_ok=True)

    def report() -> None:
        done = sum(max(0, len(batch.files) - 1) * len(batch.members) for batch in all_batches)
        progress(done, conditions.n_states * len(starts))

    report()
    unfinished = [batch for batch in all_batches if len(batch.files) <= conditions.n_states]
    if n_processes == 1 or len(unfinished) == 1:
        for batch in unfinished:
            batch.run(make_engine, starts, conditions, report)
        return
    with ProcessPoolExecutor(n_processes, get_context("spawn"), worker.begin) as pool:
        pending: set[Future[None]] = {pool.submit(batch.run, make_engine, starts, conditions) for batch in unfinished}
        while pending:
            done, pending = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
            for future in done:
                future.result()
            report()


def read_states(all_batches: Sequence[Batch]) -> Iterator[tuple[int, list[Atoms]]]:
    """The states of each simulation in order of time, from its start on, one simulation after the other.

    Args:
        all_batches: the simulations.
    """
    for batch in all_batches:
        files = batch.files
        for i in batch.members:
            yield i, [atoms for file in files for atoms in ase.io.iread(file) if atoms.info["simulation"] == i]


def _noted(atoms: Atoms, **notes: float) -> Atoms:
    found = atoms.copy()
    found.info |= notes
    return found
