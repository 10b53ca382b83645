"""Many labels by a program that writes files: two commands side by side, one of them killed, against one process.

    python -m benchmarks.labels_side_by_side --out FOLDER --number 10000

The program is `tests/helpers/reference_programs.py`: it writes its input, waits, reads it, writes its output and waits.
Two commands in one folder, each with its own processes, compute half of the geometries each; the second one is killed
(kill -9) when a third of its labels are there, and started again. Then one process computes all. Exit code 1 if a number
differs, or a process or a scratch folder is left.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import ase.io
import numpy as np
import typer
from ase.build import bulk

HELPERS = Path(__file__).parents[1] / "tests"

LABEL = """
import sys
import ase.io
from spk_dt.labels.relabel import relabel
frames, file, processes, first, step = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
every = ase.io.read(frames, ":")
ids = [str(i) for i in range(first, len(every), step)]
labels = relabel(every[first::step], "helpers.reference_programs:FileProgram", file, processes, ids)
print(len(labels.failures))
"""


def main(
    out: Annotated[Path, typer.Option(help="Folder to write; it must not exist.")],
    number: Annotated[int, typer.Option(min=12, help="Number of geometries.")] = 600,
    processes: Annotated[int, typer.Option(min=1, help="Processes of each of the two commands.")] = 4,
    seconds: Annotated[
        float, typer.Option(min=0.0, help="Time that the program waits, twice for each geometry.")
    ] = 0.005,
) -> None:
    """Compare labels of two commands side by side, one of them killed and started again, with those of one process."""
    out.mkdir(parents=True)
    scratch = out / "scratch"
    scratch.mkdir()
    (out / "label.py").write_text(LABEL)
    rng, frames = np.random.default_rng(0), []
    for _ in range(number):
        atoms = bulk("Cu", cubic=True).repeat(2)
        atoms.positions += 0.1 * rng.standard_normal((32, 3))
        frames.append(atoms)
    ase.io.write(out / "frames.traj", frames)
    path = [str(HELPERS), *filter(None, sys.path)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path), "TMPDIR": str(scratch.absolute()), "PROGRAM_SECONDS": str(seconds),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip

    def start(name: str, n_processes: int, first: int, step: int) -> subprocess.Popen[str]:
        command = [sys.executable, "label.py", "frames.traj", f"{name}.jsonl", *map(str, (n_processes, first, step))]
        return subprocess.Popen(command, cwd=out, env=environment, stdout=subprocess.PIPE, text=True)

    begin = time.monotonic()
    first, second = start("first", processes, 0, 2), start("second", processes, 1, 2)
    while count(out / "second.jsonl") < number // 6:
        if second.poll() is not None:
            raise SystemExit("the command ended before it could be killed; ask for more geometries")
        time.sleep(0.01)
    second.send_signal(signal.SIGKILL)
    second.wait()
    typer.echo(f"killed with {count(out / 'second.jsonl')} labels, after {time.monotonic() - begin:.1f} s")
    second = start("second", processes, 1, 2)
    failed = sum(int(process.communicate()[0]) for process in (first, second))
    typer.echo(f"two commands with {processes} processes each: {time.monotonic() - begin:.1f} s, {failed} failures")
    begin = time.monotonic()
    failed += int(start("one", 1, 0, 1).communicate()[0])
    typer.echo(f"one process: {time.monotonic() - begin:.1f} s")
    one, two = labels(out / "one.jsonl"), labels(out / "first.jsonl") | labels(out / "second.jsonl")
    differing = [name for name in one if one[name] != two.get(name)]
    left = sorted(file.name for file in scratch.iterdir())
    other = sorted({file.name for file in out.iterdir()} - KNOWN)
    typer.echo(
        f"{len(one)} and {len(two)} labels, {len(differing)} differ, {len(left)} scratch folders left, other: {other}"
    )
    if failed or differing or left or other or not len(one) == len(two) == number:
        raise SystemExit(1)


#: what is in the folder in the end
KNOWN = {"scratch", "label.py", "frames.traj"} | {
    f"{name}.jsonl{end}" for name in ("one", "first", "second") for end in ("", ".lock")
}


def count(file: Path) -> int:
    return max(0, file.read_bytes().count(b"\n") - 1) if file.exists() else 0


def labels(file: Path) -> dict[str, tuple[float, list[list[float]]]]:
    """Energy and forces of each geometry; they are equal to the last digit."""
    records = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    return {record["id"]: (record["energy"], record["forces"]) for record in records}


if __name__ == "__main__":
    typer.run(main)
