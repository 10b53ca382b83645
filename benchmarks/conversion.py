"""Time and memory of `spkdt convert` for a long trajectory: python benchmarks/conversion.py [--frames 100000]

Writes extended XYZ of 39 atoms without velocities, converts a tenth of it and all of it, each in a process of its own, and
prints wall time, CPU time and the largest memory of each. If memory does not depend on the number of frames, the two agree.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SYMBOLS = ["C"] * 31 + ["Pd"] * 6 + ["H"] * 2
CELL = np.diag([9.84, 8.52, 20.0])
COMMENT = f'Lattice="{" ".join(map(str, CELL.ravel()))}" Properties=species:S:1:pos:R:3:forces:R:3 pbc="T T T"'


def write(path: Path, n_frames: int) -> None:
    """Atoms that oscillate about random places, wrapped into the cell."""
    rng = np.random.default_rng(0)
    start, phase = rng.random((39, 3)) @ CELL, rng.random((39, 3))
    row = "".join(f"{symbol:2s}" + 6 * " %16.8f" + "\n" for symbol in SYMBOLS)
    with path.open("w") as file:
        for k in range(n_frames):
            wave = np.sin(0.05 * k + 6.0 * phase)
            positions = (start + 0.1 * wave) % np.diag(CELL)
            file.write(f"39\n{COMMENT} energy={-100.0 - wave.mean():.8f}\n")
            file.write(row % tuple(np.hstack([positions, -wave]).ravel()))


def convert(source: Path) -> tuple[float, float, float]:
    """Wall time and CPU time in s, largest memory in MiB."""
    out = source.with_suffix(".db")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        "from spk_dt.cli import app; app()",
        "convert",
        str(source),
        str(out),
    ]
    begin = time.perf_counter()
    process = subprocess.Popen([*command, "--timestep-fs", "0.5"], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"the conversion of {source} failed")
    out.unlink()
    return time.perf_counter() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100_000)
    n_frames = parser.parse_args().frames
    print(f"{'frames':>8} {'MB':>7} {'wall / s':>9} {'CPU / s':>9} {'CPU per frame / ms':>19} {'memory / MiB':>13}")
    with tempfile.TemporaryDirectory() as folder:
        for n in (n_frames // 10, n_frames):
            source = Path(folder) / f"{n}.extxyz"
            write(source, n)
            wall, cpu, memory = convert(source)
            size = source.stat().st_size / 1e6
            print(f"{n:8d} {size:7.0f} {wall:9.1f} {cpu:9.1f} {1e3 * cpu / n:19.3f} {memory:13.0f}", flush=True)


if __name__ == "__main__":
    main()
