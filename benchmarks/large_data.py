"""Time and memory of large data, to training: python benchmarks/large_data.py [--frames 1000000] [--trajectories 1]

Writes extended XYZ of made-up trajectories: oscillators of 39 atoms (or, of several trajectories, 20 to 58), with the forces
of their motion. Converts them, checks the database, and makes some training steps with frames mapped from files, each in a
process of its own: wall time, CPU time, and the largest memory of the process, mapped pages that it has used included.
With a tenth of the frames first: what does not depend on their number, does not grow.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ase.units
import numpy as np
from ase.data import atomic_masses, chemical_symbols

TIMESTEP_FS = 0.5
CELL = np.diag([9.84, 8.52, 20.0])
STEPS = 20


def numbers_of(trajectory: int, several: bool) -> np.ndarray:
    """Carbon, palladium and hydrogen; of several trajectories each has another composition."""
    n_carbon = 12 + trajectory % 39 if several else 31
    return np.repeat([6, 46, 1], [n_carbon, 6, 2])


def write(path: Path, n_frames: int, numbers: np.ndarray, seed: int) -> None:
    """Oscillators around places of a lattice, with the energies and forces of their motion."""
    rng = np.random.default_rng(seed)
    n_atoms, masses = len(numbers), atomic_masses[numbers][:, None]
    lattice = np.stack(np.meshgrid(*3 * [np.arange(4) / 4.0]), axis=-1).reshape(-1, 3) @ CELL  # at least 2.1 Å apart
    place, phase = rng.permutation(lattice)[:n_atoms], 2.0 * np.pi * rng.random((n_atoms, 3))
    omega = 0.1 / np.sqrt(masses)  # 1/fs
    spring = masses * (omega / ase.units.fs) ** 2  # eV/Å^2
    cell = " ".join(map(str, CELL.ravel()))
    comment = f'Lattice="{cell}" Properties=species:S:1:pos:R:3:forces:R:3 pbc="T T T"'
    row = "".join(f"{chemical_symbols[z]:2s}" + 6 * " %16.8f" + "\n" for z in numbers)
    with path.open("w") as file:
        for k in range(n_frames):
            shift = 0.1 * np.sin(omega * TIMESTEP_FS * k + phase)
            energy = 0.5 * float(np.sum(spring * shift**2))
            file.write(f"{n_atoms}\n{comment} energy={energy:.8f}\n")
            file.write(row % tuple(np.hstack([place + shift, -spring * shift]).ravel()))


def measured(command: list[str], folder: Path, allowed: tuple[int, ...] = (0,)) -> tuple[float, float, float]:
    """Wall time and CPU time in s, largest memory in MiB."""
    begin = time.perf_counter()
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in allowed:
        raise SystemExit(f"{' '.join(command[-6:])} failed: {(folder / 'output').read_text()[-2000:]}")
    return time.perf_counter() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def stages(folder: Path, files: list[Path]) -> list[tuple[str, tuple[float, float, float]]]:
    """Conversion, check and training."""
    programs = Path(sys.executable).parent
    spkdt = [sys.executable, "-W", "ignore", "-c", "from spk_dt.cli import app; app()"]
    data = folder / "data.db"
    train = [
        *(str(programs / "spktrain"), "experiment=dt_egnn", "data=trajectory", f"data.datapath={data}", "run.id=run"),
        *("data.max_memory_gb=0.1", "data.val_window=3", "data.max_val_windows=4", "data.max_test_windows=4"),
        *(f"trainer.limit_train_batches={STEPS}", "trainer.max_epochs=1", "~callbacks.on_policy", "print_config=false"),
        *(
            "data.num_val=0.1",
            "data.num_test=0.1",
            f"data/splitting={'trajectory' if len(files) > 9 else 'time_block'}",
        ),
    ]
    return [
        (
            "convert",
            measured([*spkdt, "convert", *map(str, files), str(data), "--timestep-fs", f"{TIMESTEP_FS}"], folder),
        ),
        ("check", measured([*spkdt, "check", str(data)], folder, (0, 1))),
        (f"train, {STEPS} steps", measured(train, folder)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--trajectories", type=int, default=1)
    given = parser.parse_args()
    print(f"{'frames':>9} {'stage':>18} {'wall / s':>9} {'CPU / s':>9} {'memory / MiB':>13} {'database / GB':>14}")
    for n_frames in (given.frames // 10, given.frames):
        with tempfile.TemporaryDirectory() as name:
            folder, files = Path(name), []
            for trajectory in range(given.trajectories):
                numbers = numbers_of(trajectory, given.trajectories > 1)
                files.append(folder / f"run_{trajectory}.extxyz")
                write(files[-1], max(3, n_frames // given.trajectories), numbers, trajectory)
            for stage, (wall, cpu, memory) in stages(folder, files):
                size = (folder / "data.db").stat().st_size / 1e9
                print(f"{n_frames:9d} {stage:>18} {wall:9.1f} {cpu:9.1f} {memory:13.0f} {size:14.2f}", flush=True)


if __name__ == "__main__":
    main()
