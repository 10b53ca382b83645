"""Time and memory of large data, to training: python benchmarks/large_data.py [--frames 100000 1000000] [--trajectories 1]

Writes extended XYZ of made-up trajectories: oscillators of 39 atoms (or, of several trajectories, 20 to 58), with the forces
of their motion. Converts them, checks the database, and makes some training steps with frames mapped from files, each in a
process of its own: wall time, CPU time, and the largest memory of the process, mapped pages that it has used included.
With several numbers of frames: what does not depend on it, does not grow.

With `--cells N` the system is repeated N times along its first axis, and frames are written as a database at once, without
text files.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from spk_dt.trajectories.database import TrajectoryWriter

TIMESTEP_FS = 0.5
CELL = np.diag([9.84, 8.52, 20.0])
STEPS = 20


def numbers_of(trajectory: int, several: bool) -> np.ndarray:
    """Carbon, palladium and hydrogen; of several trajectories each has another composition."""
    n_carbon = 12 + trajectory % 39 if several else 31
    return np.repeat([6, 46, 1], [n_carbon, 6, 2])


def frames_of(n_frames: int, numbers: np.ndarray, seed: int, cells: int = 1) -> Iterator[Atoms]:
    """Oscillators around places of a lattice, with the energies, forces and velocities of their motion."""
    rng = np.random.default_rng(seed)
    lattice = np.stack(np.meshgrid(*3 * [np.arange(4) / 4.0]), axis=-1).reshape(-1, 3) @ CELL  # at least 2.1 Å apart
    atoms = Atoms(numbers, rng.permutation(lattice)[: len(numbers)], cell=CELL, pbc=True).repeat((cells, 1, 1))
    place, masses, phase = (
        atoms.positions.copy(),
        atoms.get_masses()[:, None],
        2.0 * np.pi * rng.random((len(atoms), 3)),
    )
    omega = 0.1 / np.sqrt(masses)  # 1/fs
    spring = masses * (omega / ase.units.fs) ** 2  # eV/Å^2
    for k in range(n_frames):
        angle = omega * TIMESTEP_FS * k + phase
        shift = 0.1 * np.sin(angle)
        atoms.positions = place + shift
        atoms.set_velocities(0.1 * omega / ase.units.fs * np.cos(angle))
        atoms.calc = SinglePointCalculator(atoms, energy=0.5 * float(np.sum(spring * shift**2)), forces=-spring * shift)
        yield atoms


def write(path: Path, frames: Iterable[Atoms]) -> None:
    """Extended XYZ, faster than ASE writes it."""
    with path.open("w") as file:
        for atoms in frames:
            cell = " ".join(map(str, atoms.cell.array.ravel()))
            comment = f'Lattice="{cell}" Properties=species:S:1:pos:R:3:forces:R:3 pbc="T T T"'
            file.write(f"{len(atoms)}\n{comment} energy={atoms.calc.results['energy']:.8f}\n")
            row = "".join(f"{symbol:2s}" + 6 * " %16.8f" + "\n" for symbol in atoms.symbols)
            file.write(row % tuple(np.hstack([atoms.positions, atoms.calc.results["forces"]]).ravel()))


def measured(command: list[str], folder: Path, allowed: tuple[int, ...] = (0,)) -> tuple[float, float, float]:
    """Wall time and CPU time in s, largest memory in MiB."""
    begin = time.perf_counter()
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in allowed:
        raise SystemExit(f"{' '.join(command[-6:])} failed: {(folder / 'output').read_text()[-2000:]}")
    return time.perf_counter() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def stages(folder: Path, files: list[Path], cells: int) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Conversion, unless there is a database, check and training."""
    programs = Path(sys.executable).parent
    spkdt = [sys.executable, "-W", "ignore", "-c", "from spk_dt.cli import app; app()"]
    data = folder / "data.db"
    train = [
        *(str(programs / "spktrain"), "experiment=dt_egnn", "data=trajectory", f"data.datapath={data}", "run.id=run"),
        *("data.max_memory_gb=0.1", "data.val_window=3", "data.max_val_windows=4", "data.max_test_windows=4"),
        *(f"trainer.limit_train_batches={STEPS}", "trainer.max_epochs=1", "~callbacks.on_policy", "print_config=false"),
        *("data.num_val=0.1", "data.num_test=0.1", f"data.batch_size={max(1, 8 // cells)}"),
        f"data/splitting={'trajectory' if len(files) > 9 else 'time_block'}",
    ]
    if files:
        command = [*spkdt, "convert", *map(str, files), str(data), "--timestep-fs", f"{TIMESTEP_FS}"]
        yield "convert", measured(command, folder)
    yield "check", measured([*spkdt, "check", str(data)], folder, (0, 1))
    yield f"train, {STEPS} steps", measured(train, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=(100_000, 1_000_000))
    parser.add_argument("--trajectories", type=int, default=1)
    parser.add_argument("--cells", type=int, default=1)
    given = parser.parse_args()
    print(f"{'frames':>9} {'stage':>18} {'wall / s':>9} {'CPU / s':>9} {'memory / MiB':>13} {'database / GB':>14}")
    for n_frames in given.frames:
        with tempfile.TemporaryDirectory() as name:
            folder, files = Path(name), []
            each = max(3, n_frames // given.trajectories)
            runs = {
                f"run_{run}": frames_of(each, numbers_of(run, given.trajectories > 1), run, given.cells)
                for run in range(given.trajectories)
            }
            if given.cells == 1:
                for run, frames in runs.items():
                    files.append(folder / f"{run}.extxyz")
                    write(files[-1], frames)
            else:
                with TrajectoryWriter(folder / "data.db") as writer:
                    for run, frames in runs.items():
                        writer.add(run, frames, TIMESTEP_FS)
            for stage, (wall, cpu, memory) in stages(folder, files, given.cells):
                size = (folder / "data.db").stat().st_size / 1e9
                print(f"{n_frames:9d} {stage:>18} {wall:9.1f} {cpu:9.1f} {memory:13.0f} {size:14.2f}", flush=True)


if __name__ == "__main__":
    main()
