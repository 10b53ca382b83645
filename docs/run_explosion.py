"""Runs the commands of the page ``explosion.md`` and keeps what they print: ``python docs/run_explosion.py FOLDER``.

It takes one core for the better part of an hour. When it was interrupted, start it again: what is done is not done twice.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
#: what is kept
KEPT = HERE / "explosion"


def commands(page: Path = HERE / "explosion.md") -> list[list[str]]:
    """The words of each command of a page."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8").replace("\\\n", " "), re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def said(printed: str) -> str:
    """What a reader is shown: of a training its verdict and its summary, of others all but the warning about pickles."""
    summary = re.search(r"^ stage .*?(?=\n\n)", printed, re.MULTILINE | re.DOTALL)
    if summary:
        return "\n\n".join([*re.findall(r"hardening: .* after \d+ rounds.*", printed), summary[0]]) + "\n"
    return "".join(line for line in printed.splitlines(keepends=True) if "is a pickle" not in line)


def run(words: list[str], folder: Path) -> str:
    """Run a command of ours with one thread; what it prints."""
    program = str(Path(sys.executable).with_name(words[0]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run([program, *words[1:]], cwd=folder, capture_output=True, text=True, env=environment)
    if done.returncode not in ((0, 3) if words[1] == "certify" else (0,)):
        raise RuntimeError(f"{shlex.join(words)}: {done.stderr[-2000:]}")
    (folder / "all.log").open("a", encoding="utf-8").write(f"$ {shlex.join(words)}\n{done.stdout}{done.stderr}\n")
    return done.stdout + (done.stderr if words[0] == "spktrain" else "")


def main(folder: Path) -> None:
    """Run all commands in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    KEPT.mkdir(exist_ok=True)
    for number, words in enumerate(commands()):
        output = folder / f"{number}.txt"
        if not output.exists():
            output.write_text(run(words, folder), encoding="utf-8")
        if "report" not in words:  # it prints a path
            (KEPT / output.name).write_text(said(output.read_text(encoding="utf-8")), encoding="utf-8")
    shutil.copy(folder / "certificate" / "survival.png", KEPT)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
