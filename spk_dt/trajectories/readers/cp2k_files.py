"""Which files belong to a run of CP2K: by their names, by its input, or since there is only one of the kind."""

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from spk_dt.trajectories.readers.compressed import SUFFIXES, plain_name, plain_or_packed
from spk_dt.trajectories.readers.text import open_text

__all__ = ["NAME", "PRINT_KEYS", "find_forces_or_velocities", "find_positions", "printed_name", "tensors"]

log = logging.getLogger(__name__)

#: name of a file of a run: the project, what it holds, the number of the run
NAME = re.compile(r"(?P<project>.+?)-(?P<kind>(?:pos|frc|vel)-)?(?P<number>\d+)\.(?P<suffix>xyz|ener)")

#: print keys of &MOTION &PRINT, by what their files hold
PRINT_KEYS = {"pos": "TRAJECTORY", "frc": "FORCES", "vel": "VELOCITIES"}


def tensors(file: Path, what: str, remedy: str, regular: bool = False) -> dict[int, np.ndarray]:
    """The tensor [3, 3] of each step, of a file with lines of step, time and nine numbers.

    Args:
        file: the file.
        what: what the numbers are, for the error message.
        remedy: what to do about a line that is not understood, likewise.
        regular: whether a determinant of zero is not understood.

    Raises:
        ValueError: if a line is not understood.
    """
    found = {}
    with open_text(file) as lines:
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            try:
                tensor = np.array([float(word) for word in words[2:11]]).reshape(3, 3)
                if not np.isfinite(tensor).all() or (regular and np.linalg.det(tensor) == 0.0):
                    raise ValueError
                found[int(words[0])] = tensor
            except ValueError:
                raise ValueError(
                    f"line {number} of '{file}' is not step, time and nine components of the {what}. {remedy}"
                ) from None
    return found


def printed_name(project: str, filename: str | None, ending: str) -> str:
    """The name that CP2K gives to a printed file.

    Args:
        project: name of the project.
        filename: value of the keyword FILENAME of the print key, None without: ``NAME`` stands for ``PROJECT-NAME``,
            ``./NAME`` for ``NAME``, both with the ending; ``=NAME`` is the whole name.
        ending: what is put behind, as ``-frc-1.xyz``.
    """
    if filename is None:
        return f"{project}{ending}"
    if filename.startswith("="):
        return filename[1:]
    return f"{filename}{ending}" if "/" in filename else f"{project}-{filename}{ending}"


def _of_kind(folder: Path, kind: str, number: str, recognises: Callable[[Path], bool]) -> dict[str, Path]:
    """The files of a kind in a folder, by project; a file that is there packed, too, counts once."""
    found = {}
    for suffix in (*SUFFIXES, ""):
        for path in sorted(folder.glob(f"*-{kind}-{number}.xyz{suffix}")):
            if (match := NAME.fullmatch(plain_name(path).name)) is not None and recognises(path):
                found[match["project"]] = path
    return found


def find_positions(folder: Path, project: str, number: str, recognises: Callable[[Path], bool]) -> tuple[Path, str]:
    """The file of positions, and the project that it is named after.

    Raises:
        ValueError: if there is none, or several that may be meant.
    """
    usual = plain_or_packed(folder / f"{project}-pos-{number}.xyz")
    if usual.is_file():
        return usual, project
    found = _of_kind(folder, "pos", number, recognises)
    matching = {name: path for name, path in found.items() if project.startswith(name)} or found
    if len(matching) == 1:
        name, path = next(iter(matching.items()))
        return path, name
    names = (
        f" There are {', '.join(path.name for path in found.values())}; give the one that is meant." if found else ""
    )
    raise ValueError(f"there is no '{usual}': the positions, printed with &MOTION &PRINT &TRAJECTORY.{names}")


def find_forces_or_velocities(
    kind: str,
    folder: Path,
    project: str,
    number: str,
    filenames: Mapping[str, str],
    recognises: Callable[[Path], bool],
) -> Path | None:
    """The file of forces or velocities of a run, None if there is none.

    Args:
        kind: ``frc`` or ``vel``.
        folder: of the run.
        project: what the file of positions is named after.
        number: of the run.
        filenames: what the input says under FILENAME, by print key.
        recognises: whether a file is of CP2K.

    Raises:
        ValueError: if several may be meant; names them.
    """
    ending = f"-{kind}-{number}.xyz"
    usual = folder / f"{project}{ending}"
    said = folder / printed_name(project, filenames.get(PRINT_KEYS[kind]), ending)
    for name in (said, usual):
        if (path := plain_or_packed(name)).is_file():
            return path
    positions = _of_kind(folder, "pos", number, recognises)
    others = {name: path for name, path in _of_kind(folder, kind, number, recognises).items() if name not in positions}
    if len(others) > 1:
        names = ", ".join(path.name for path in others.values())
        raise ValueError(
            f"there is no '{usual}', and it is not clear which of {names} is of this run. Give it that name, for "
            f"example with: ln -s {next(iter(others.values())).name} {usual.name}"
        )
    for path in others.values():
        log.warning("there is no '%s': '%s' is taken, the only file of its kind", usual, path.name)
        return path
    return None
