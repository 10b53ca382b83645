"""Trajectories of CP2K: the XYZ files of positions, forces and velocities that ``&MOTION &PRINT`` writes.

=======================  ===================  ========================================================
file                     print key            unit, unless the input or restart file beside it says otherwise
=======================  ===================  ========================================================
``PROJECT-pos-1.xyz``    ``&TRAJECTORY``      Å; the comment has step, time (fs) and energy (Hartree)
``PROJECT-frc-1.xyz``    ``&FORCES``          Hartree/Bohr
``PROJECT-vel-1.xyz``    ``&VELOCITIES``      Bohr per atomic unit of time; need not be there
``PROJECT-1.cell``       ``&CELL``            Å; otherwise ``&CELL`` of ``PROJECT-1.restart`` or of the input
=======================  ===================  ========================================================

Formats and units are those of CP2K's ``motion_utils.F`` and of https://manual.cp2k.org. A restarted run appends, and repeats
the steps since its restart file was written: of a repeated step the last frame counts. Steps at either end that one of
the files lacks are left out.
"""

import logging
import re
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers

from spk_dt.trajectories.readers.base import RawTrajectory
from spk_dt.trajectories.readers.cp2k_cell import cell_of
from spk_dt.trajectories.readers.cp2k_fixed import fixed_atoms
from spk_dt.trajectories.readers.cp2k_input import DEFAULT_UNITS, find_input, unit_factor
from spk_dt.trajectories.readers.incomplete import IncompleteFrameError

__all__ = ["read", "recognises"]

log = logging.getLogger(__name__)

_NAME = re.compile(r"(?P<project>.+?)-(?P<kind>(?:pos|frc|vel)-)?(?P<number>\d+)\.(?P<suffix>xyz|ener)")
_COMMENT = re.compile(r"\s*i\s*=\s*(\d+),\s*(?:time\s*=\s*([^\s,]+),\s*)?E\s*=\s*(\S+)")
_SYMBOL = re.compile(r"([A-Z][a-z]?)\d*")

_PRINT_FORCES = "print them with\n&MOTION\n  &PRINT\n    &FORCES\n      &EACH\n        MD 1\nand run again"


@dataclass(frozen=True)
class _Index:
    """Where the frames of an XYZ file are.

    Args:
        path: the file.
        n_atoms: number of atoms.
        step: [n] number of the step of each frame in the file.
        time: [n] its time, in fs.
        keep: [n] whether it is used.
        cut_off: whether the file ends within the frame after these.
    """

    path: Path
    n_atoms: int
    step: np.ndarray
    time: np.ndarray
    keep: np.ndarray
    cut_off: bool


@dataclass(frozen=True)
class _Run:
    """Everything that belongs to a run: files of positions, forces and velocities, and what is known about the cell."""

    pos: _Index
    frc: _Index
    vel: _Index | None
    cells: dict[int, np.ndarray] | np.ndarray | None
    pbc: tuple[bool, bool, bool]
    units: dict[str, float]


def recognises(path: Path) -> bool:
    """Whether it is one of the files of a run, named as CP2K does, or a folder with a file of positions."""
    try:
        if path.is_dir():
            return any(recognises(file) for file in path.glob("*-pos-*.xyz"))
        name = _NAME.fullmatch(path.name)
        if name is None or (name["suffix"] == "xyz") != (name["kind"] is not None) or not path.is_file():
            return False
        with path.open(encoding="utf-8", errors="replace") as lines:
            first, second = lines.readline(1000), lines.readline(1000)
    except OSError:
        return False
    if path.suffix == ".ener":
        return first.startswith("#") and "Time[fs]" in first
    return first.strip().isdigit() and _COMMENT.match(second) is not None


def read(path: Path) -> list[RawTrajectory]:
    """The trajectory that a file belongs to, or all trajectories of a folder.

    Raises:
        ValueError: if positions, forces or the cell are missing, or the files do not belong together.
    """
    files = sorted(filter(recognises, path.glob("*-pos-*.xyz"))) if path.is_dir() else [path]
    return [_read(file) for file in files]


def _read(file: Path) -> RawTrajectory:
    """The trajectory of a project."""
    name = _NAME.fullmatch(file.name)
    assert name is not None  # it was recognised
    folder, project, number = file.parent, name["project"], name["number"]
    paths = {kind: folder / f"{project}-{kind}-{number}.xyz" for kind in ("pos", "frc", "vel")}
    if not paths["pos"].is_file():
        raise ValueError(f"there is no '{paths['pos']}': the positions, printed with &MOTION &PRINT &TRAJECTORY.")
    if not paths["frc"].is_file():
        raise ValueError(
            f"there is no '{paths['frc']}': dynamic training needs forces of every frame; {_PRINT_FORCES}."
        )
    indices = _in_common([_index(file) for file in paths.values() if file.is_file()])
    step, time = indices[0].step[indices[0].keep], indices[0].time[indices[0].keep]
    run_input = find_input(folder, project, number)
    cells, pbc, said = cell_of(folder, project, number, step, run_input)
    names = run_input.units if run_input is not None else DEFAULT_UNITS
    source = f"'{run_input.file}'" if run_input is not None else "CP2K"
    units = {key: unit_factor(unit, source) for key, unit in names.items()}
    vel = indices[2] if len(indices) == 3 else None
    return RawTrajectory(
        name=project,
        files=(*(index.path for index in indices), *said),
        frames=partial(_frames, _Run(indices[0], indices[1], vel, cells, pbc, units)),
        timestep_fs=_time_step(indices[0].path, step, time),
        n_frames=len(step),
        inner_steps=int(step[1] - step[0]),
        mobile=None if run_input is None else partial(fixed_atoms, run_input.file, indices[0].n_atoms),
    )


def _whole(path: Path, frame: int, lines: int) -> str:
    """What to do about a file that is good up to a frame."""
    return f"Keep the {frame} frames before it, for example with: head -n {lines} {path.name} > whole.xyz"


def _index(path: Path) -> _Index:
    """Step and time of each frame of an XYZ file; the atoms are skipped."""
    steps: list[int] = []
    times: list[float] = []
    n_atoms, width, cut_off = 0, 0, False
    with path.open(encoding="utf-8", errors="replace") as lines:
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
            step, time, _ = _comment(comment, frame, path, remedy)
            n_atoms = int(number)
            last, found = "", 0
            for last in islice(lines, n_atoms):
                found += 1
                width = width or len(last.rstrip())
            cut_off = found < n_atoms or (not last.endswith("\n") and len(last.rstrip()) < width)
            if cut_off:
                break
            steps.append(step)
            times.append(time)
    if not steps:
        raise ValueError(f"'{path}' has no whole frame. Print them with &MOTION &PRINT, and run again.")
    numbers = np.array(steps)
    later = np.minimum.accumulate(numbers[::-1])[::-1]
    keep = numbers < np.append(later[1:], np.iinfo(numbers.dtype).max)
    if not keep.all():
        log.warning(
            "'%s' has %d frames of steps that a restart has made again; the last ones count", path, (~keep).sum()
        )
    return _Index(path, n_atoms, numbers, np.array(times), keep, cut_off)


def _comment(line: str, frame: int, path: Path, remedy: str) -> tuple[int, float, float]:
    """Step, time in fs and energy in Hartree of a frame."""
    match = _COMMENT.match(line)
    if match is None:
        raise ValueError(f"frame {frame} of '{path}' has no line 'i = ..., time = ..., E = ...'. {remedy}")
    if match[2] is None:
        raise ValueError(f"frame {frame} of '{path}' has no time: it is not of molecular dynamics (&MOTION &MD).")
    try:
        values = int(match[1]), float(match[2]), float(match[3])
    except ValueError:
        values = 0, np.nan, np.nan
    if len(match[1]) > 18 or not np.isfinite(values[1:]).all():
        raise ValueError(f"frame {frame} of '{path}' has no readable step, time and energy: '{line.strip()}'. {remedy}")
    return values


def _in_common(indices: list[_Index]) -> list[_Index]:
    """The files with the frames that all of them have; steps may be missing at the ends only."""
    first = max(index.step[index.keep][0] for index in indices)
    last = min(index.step[index.keep][-1] for index in indices)
    trimmed = []
    for index in indices:
        keep = index.keep & (index.step >= first) & (index.step <= last)
        if keep.sum() < index.keep.sum():
            log.warning("%d frames of '%s' are left out, other files lack them", (index.keep & ~keep).sum(), index.path)
        trimmed.append(_Index(index.path, index.n_atoms, index.step, index.time, keep, index.cut_off))
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


def _time_step(path: Path, step: np.ndarray, time: np.ndarray) -> float:
    """Time between frames in fs, from the whole length of the file, since its times are rounded to 0.001 fs."""
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


def _numbers(symbols: list[str], path: Path) -> list[int]:
    """Atomic numbers of element symbols, which may have a number behind them."""
    elements = [match[1] if (match := _SYMBOL.fullmatch(symbol)) else "" for symbol in symbols]
    unknown = [s for s, element in zip(symbols, elements, strict=True) if element not in atomic_numbers]
    if unknown:
        raise ValueError(
            f"'{path}' has atoms named '{unknown[0]}', which is not an element. Print without PRINT_ATOM_KIND, or "
            "replace the name by that of the element."
        )
    return [atomic_numbers[element] for element in elements]


def _blocks(index: _Index) -> Generator[tuple[int, float, list[str], np.ndarray], None, None]:
    """Step, energy (Hartree), symbols and [n_atoms, 3] values of the frames of a file that are used."""
    with index.path.open(encoding="utf-8", errors="replace") as lines:
        for frame, keep in enumerate(index.keep):
            block = list(islice(lines, index.n_atoms + 2))
            if not keep:
                continue
            where = f"frame {frame} of '{index.path}'"
            remedy = _whole(index.path, frame, frame * (index.n_atoms + 2))
            if len(block) < index.n_atoms + 2:
                raise ValueError(f"{where} is cut off. {remedy}")
            step, _, energy = _comment(block[1], frame, index.path, remedy)
            rows = [line.split() for line in block[2:]]
            try:
                if any(len(row) != 4 for row in rows):
                    raise ValueError
                values = np.array([[float(word) for word in row[1:]] for row in rows])
                if step != index.step[frame] or not np.isfinite(values).all():
                    raise ValueError
            except ValueError:
                raise ValueError(
                    f"{where} (step {step}) has a line that is not a name and three numbers. {remedy}"
                ) from None
            yield step, energy, [row[0] for row in rows], values


def _frames(run: _Run) -> Iterator[Atoms]:
    """The frames of a run."""
    indices = [index for index in (run.pos, run.frc, run.vel) if index is not None]
    first: list[str] = []
    with ExitStack() as stack:
        streams = [_blocks(index) for index in indices]
        for stream in streams:
            stack.callback(stream.close)
        for (step, energy, symbols, positions), *others in zip(*streams, strict=True):
            if not first:
                first, numbers = symbols, _numbers(symbols, run.pos.path)
            for index, found in zip(indices, [symbols, *(other[2] for other in others)], strict=True):
                if found != first:
                    raise ValueError(
                        f"step {step} of '{index.path}' has other atoms, or another order of atoms, than the first frame of "
                        f"'{run.pos.path}'; the files are not of the same run."
                    )
            cell = run.cells[step] if isinstance(run.cells, dict) else run.cells
            atoms = Atoms(numbers, run.units["TRAJECTORY"] * positions, cell=cell, pbc=run.pbc)
            if run.vel is not None:
                atoms.set_velocities(run.units["VELOCITIES"] * others[1][3])
            forces = run.units["FORCES"] * others[0][3]
            atoms.calc = SinglePointCalculator(atoms, energy=energy * ase.units.Hartree, forces=forces)
            yield atoms
    for index in indices:
        if index.cut_off:
            raise IncompleteFrameError(index.path, len(index.step), "the lines of some atoms are missing")
