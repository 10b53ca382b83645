"""The XYZ files of CP2K: where their frames are, and what a frame holds.

A comment is ``i = 3, time = 1.500, E = -1.0`` (FORMAT XMOL), or, since 2024, extended XYZ (FORMAT EXTXYZ), whose
units are those of CP2K, too: ``Lattice="..." Properties=species:S:1:force:R:3 pbc="T T T" Step=3 Time=1.500 Energy=-1.0``.
"""

import logging
import re
from collections.abc import Generator
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path

import numpy as np

from spk_dt.trajectories.readers.text import open_text

__all__ = ["Block", "XyzIndex", "blocks", "in_common", "index_of", "is_title", "time_step"]

log = logging.getLogger(__name__)

_XMOL = re.compile(r"\s*i\s*=\s*(\d+),\s*(?:time\s*=\s*([^\s,]+),\s*)?E\s*=\s*(\S+)")
_EXTXYZ = re.compile(
    r'\s*Lattice="(?P<cell>[^"]*)"\s+Properties=species:S:1:(?:pos|velo|force):R:3\s+pbc="(?P<pbc>[TF] [TF] [TF])"'
    r"\s+Step=\s*(?P<step>\d+)(?:\s+Time=\s*(?P<time>\S+))?\s+Energy=\s*(?P<energy>\S+)"
)


@dataclass(frozen=True)
class XyzIndex:
    """Where the frames of a file are.

    Args:
        path: the file.
        n_atoms: number of atoms.
        step: [n] number of the step of each frame in the file.
        time: [n] its time, in fs.
        keep: [n] whether it is used.
        cut_off: whether the file ends within the frame after these.
        has_cells: whether its comments say the cell.
    """

    path: Path
    n_atoms: int
    step: np.ndarray
    time: np.ndarray
    keep: np.ndarray
    cut_off: bool
    has_cells: bool = False


@dataclass(frozen=True)
class Block:
    """A frame of a file.

    Args:
        step: number of the step.
        time: its time, in fs.
        energy: Hartree.
        cell: [3, 3] Å, None if the comment does not say it.
        pbc: [3] whether it is periodic, None if the comment does not say it.
        symbols: [n_atoms] names of the atoms.
        values: [n_atoms, 3] as they are written.
    """

    step: int
    time: float
    energy: float
    cell: np.ndarray | None
    pbc: tuple[bool, bool, bool] | None
    symbols: list[str]
    values: np.ndarray


def is_title(line: str) -> bool:
    """Whether it is the comment line of a frame."""
    return _XMOL.match(line) is not None or _EXTXYZ.match(line) is not None


def _whole(path: Path, frame: int, lines: int) -> str:
    """What to do about a file that is good up to a frame."""
    return f"Keep the {frame} frames before it, for example with: head -n {lines} {path.name} > whole.xyz"


def index_of(path: Path) -> XyzIndex:
    """Step and time of each frame of a file; the atoms are skipped.

    Raises:
        ValueError: if there is no frame, or one that is not understood; names the frame and a remedy.
    """
    steps: list[int] = []
    times: list[float] = []
    n_atoms, width, cut_off, has_cells = 0, 0, False, False
    with open_text(path) as lines:
        for frame in count():
            head = lines.readline()
            cut_off = bool(head) and not head.endswith("\n") and bool(steps)
            if cut_off:
                break
            if not head.strip() and not lines.read(1000).strip():  # at most empty lines are left
                break
            remedy = _whole(path, frame, frame * (n_atoms + 2))
            number = head.strip()
            if not (number.isdecimal() and number.isascii() and 0 < len(number) < 10 and int(number) > 0):
                raise ValueError(f"frame {frame} of '{path}' does not start with the number of atoms. {remedy}")
            if n_atoms not in (0, int(number)):
                raise ValueError(f"frame {frame} of '{path}' has {int(number)} atoms, not {n_atoms}. {remedy}")
            comment = lines.readline()
            cut_off = not comment.endswith("\n")
            if cut_off:
                break
            title = _comment(comment, frame, path, remedy)
            has_cells = title.cell is not None
            n_atoms = int(number)
            last, found = "", 0
            for last in islice(lines, n_atoms):
                found += 1
                width = width or len(last.rstrip())
            cut_off = found < n_atoms or (not last.endswith("\n") and len(last.rstrip()) < width)
            if cut_off:
                break
            steps.append(title.step)
            times.append(title.time)
    if not steps:
        raise ValueError(f"'{path}' has no whole frame. Print them with &MOTION &PRINT, and run again.")
    numbers = np.array(steps)
    later = np.minimum.accumulate(numbers[::-1])[::-1]
    keep = numbers < np.append(later[1:], np.iinfo(numbers.dtype).max)
    if not keep.all():
        log.warning(
            "'%s' has %d frames of steps that a restart has made again; the last ones count", path, (~keep).sum()
        )
    return XyzIndex(path, n_atoms, numbers, np.array(times), keep, cut_off, has_cells)


def _comment(line: str, frame: int, path: Path, remedy: str) -> Block:
    """What the comment of a frame says, without its atoms."""
    extended = _EXTXYZ.match(line)
    match = extended or _XMOL.match(line)
    if match is None:
        raise ValueError(f"frame {frame} of '{path}' has no line 'i = ..., time = ..., E = ...'. {remedy}")
    step, time, energy = match.group("step", "time", "energy") if extended else match.groups()
    if time is None:
        raise ValueError(f"frame {frame} of '{path}' has no time: it is not of molecular dynamics (&MOTION &MD).")
    cell, pbc = None, None
    try:
        numbers = float(time), float(energy)
        if extended:
            cell = np.array([float(word) for word in extended["cell"].split()]).reshape(3, 3)
            x, y, z = (flag == "T" for flag in extended["pbc"].split())
            pbc = (x, y, z)
        if len(step) > 18 or not np.isfinite(numbers).all() or not np.isfinite(0.0 if cell is None else cell).all():
            raise ValueError
    except ValueError:
        raise ValueError(
            f"frame {frame} of '{path}' has no readable step, time and energy: '{line.strip()}'. {remedy}"
        ) from None
    return Block(int(step), *numbers, cell, pbc, [], np.zeros((0, 3)))


def in_common(indices: list[XyzIndex]) -> list[XyzIndex]:
    """The files with the frames that all of them have; steps may be missing at the ends only.

    Raises:
        ValueError: if they are not of the same run.
    """
    first = max(index.step[index.keep][0] for index in indices)
    last = min(index.step[index.keep][-1] for index in indices)
    trimmed = []
    for index in indices:
        keep = index.keep & (index.step >= first) & (index.step <= last)
        if keep.sum() < index.keep.sum():
            log.warning("%d frames of '%s' are left out, other files lack them", (index.keep & ~keep).sum(), index.path)
        trimmed.append(replace(index, keep=keep))
    one = trimmed[0]
    for other in trimmed[1:]:
        if other.n_atoms != one.n_atoms:
            raise ValueError(f"'{one.path}' has {one.n_atoms} atoms, but '{other.path}' has {other.n_atoms}.")
        if not np.array_equal(one.step[one.keep], other.step[other.keep]):
            missing = np.setxor1d(one.step[one.keep], other.step[other.keep])
            which = f"step {missing[0]} is only in one of them" if len(missing) else "they have no step in common"
            raise ValueError(
                f"'{one.path}' and '{other.path}' do not have the same frames: {which}. Print positions, forces and "
                "velocities with the same &EACH MD; after a restart, do not remove frames from one file alone."
            )
        if np.abs(one.time[one.keep] - other.time[other.keep]).max(initial=0.0) > 1.5e-3:
            raise ValueError(f"'{one.path}' and '{other.path}' have different times; they are not of the same run.")
    return trimmed


def time_step(path: Path, step: np.ndarray, time: np.ndarray) -> float:
    """Time between frames in fs, from the whole length of the file, since its times are rounded to 0.001 fs.

    Raises:
        ValueError: if there are fewer than two frames, or they are not evenly spaced.
    """
    if len(step) < 2:
        raise ValueError(f"'{path}' has one frame in common with the other files; a trajectory has at least two.")
    gaps = np.diff(step)
    if (gaps != gaps[0]).any():
        frame = int(np.argmax(gaps != gaps[0])) + 1
        raise ValueError(
            f"frames of '{path}' are not evenly spaced: step {step[frame]} comes after {step[frame - 1]}, but earlier "
            f"frames are {gaps[0]} steps apart. Cut the files there, and convert the parts one by one."
        )
    steps = len(step) - 1
    found = (time[-1] - time[0]) / steps
    away = np.abs(time - time[0] - found * np.arange(len(time)))
    if found <= 0.0 or away.max() > 2e-3:
        raise ValueError(
            f"times of '{path}' do not advance evenly (see step {step[int(away.argmax())]}): the time step changes. Cut the "
            "files where it does, and convert the parts one by one."
        )
    rounded = round(found, 3)
    return float(rounded if abs(found - rounded) * steps <= 1.1e-3 else found)


def blocks(index: XyzIndex) -> Generator[Block, None, None]:
    """The frames of a file that are used, in order.

    Raises:
        ValueError: if one is not understood; names the frame and a remedy.
    """
    with open_text(index.path) as lines:
        for frame, keep in enumerate(index.keep):
            found = list(islice(lines, index.n_atoms + 2))
            if not keep:
                continue
            where = f"frame {frame} of '{index.path}'"
            remedy = _whole(index.path, frame, frame * (index.n_atoms + 2))
            if len(found) < index.n_atoms + 2:
                raise ValueError(f"{where} is cut off. {remedy}")
            title = _comment(found[1], frame, index.path, remedy)
            rows = [line.split() for line in found[2:]]
            try:
                if any(len(row) != 4 for row in rows):
                    raise ValueError
                values = np.array([[float(word) for word in row[1:]] for row in rows])
                if title.step != index.step[frame] or not np.isfinite(values).all():
                    raise ValueError
            except ValueError:
                raise ValueError(
                    f"{where} (step {title.step}) has a line that is not a name and three numbers. {remedy}"
                ) from None
            yield replace(title, symbols=[row[0] for row in rows], values=values)
