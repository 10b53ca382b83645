"""Output of programs that is one text file with positions, forces and energies: the formats, and their time step.

A format is a function that yields the frames of a file. Where the file has a time, or a number of steps, each frame says it
in ``info["time_fs"]`` or ``info["step"]``; frames must be as far apart as the first two.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import isclose
from pathlib import Path
from typing import Any

from ase import Atoms

from spk_dt.trajectories.readers import abacus, aims, by_ase, openmx, pwmat, siesta
from spk_dt.trajectories.readers.base import RawTrajectory
from spk_dt.trajectories.readers.compressed import plain_name
from spk_dt.trajectories.readers.incomplete import first_two
from spk_dt.trajectories.readers.text import beginning

__all__ = ["FORMATS", "Format", "read", "recognises"]

_FIRST_LINES = 200  # within which a program says its name


@dataclass(frozen=True)
class Format:
    """A format.

    Args:
        name: program and file, for the table in docs/formats.md.
        recognises: whether a file, of which the first lines are given, is of this format.
        frames: opens a file and yields its frames, in the units of ASE.
        what: what comes from it besides positions, forces and energies, for the table in docs/formats.md.
    """

    name: str
    recognises: Callable[[Path, list[str]], bool]
    frames: Callable[[Path], Iterator[Atoms]]
    what: str


#: all formats
FORMATS: tuple[Format, ...] = (
    Format("PWmat, `MOVEMENT`", pwmat.recognises, pwmat.frames, "time, velocities"),
    Format("ABACUS, `MD_dump` beside `running_md.log`", abacus.recognises, abacus.frames, "steps, velocities"),
    Format("OpenMX, `.md`", openmx.recognises, openmx.frames, "time"),
    Format("SIESTA, output", siesta.recognises, siesta.frames, "time"),
    Format("CASTEP, `.md`", by_ase.is_castep, by_ase.castep, "time, velocities"),
    Format("FHI-aims, output", aims.recognises, aims.frames, "time, velocities"),
    Format("Quantum ESPRESSO, output of `pw.x`", by_ase.is_pwscf, by_ase.pwscf, "time, masses"),
    Format("Gaussian, output of BOMD and ADMP", by_ase.is_gaussian, by_ase.gaussian, "time"),
    Format("Qbox, output", by_ase.is_qbox, by_ase.qbox, "time, masses"),
)


def _format(path: Path) -> Format | None:
    lines = beginning(path, _FIRST_LINES)
    return next((one for one in FORMATS if lines and one.recognises(path, lines)), None)


def recognises(path: Path) -> bool:
    """Whether a file is of one of the formats."""
    return _format(path) is not None


def read(path: Path) -> list[RawTrajectory]:
    """The trajectory in a file.

    Raises:
        ValueError: if the first frame cannot be understood, or lacks energy or forces.
    """
    one = _format(path)
    assert one is not None  # `recognises` has said so
    first = first_two(one.frames(path))
    if not first:
        raise ValueError(f"'{path}' ({one.name}) has no frame with forces.")
    time_fs, step = (_between(first, key) for key in ("time_fs", "step"))
    for key, apart in (("time_fs", time_fs), ("step", step)):
        if apart is not None and not apart > 0:
            raise ValueError(f"'{path}', frame 1: {key} {first[1].info[key]:g} is not after {first[0].info[key]:g}.")
    return [
        RawTrajectory(
            name=plain_name(path).stem,
            files=(path, *first[0].info.get("files", ())),
            frames=partial(_evenly_spaced, one, path, time_fs, step),
            timestep_fs=time_fs,
            inner_steps=step,
        )
    ]


def _between(frames: list[Atoms], key: str) -> Any:
    return frames[1].info[key] - frames[0].info[key] if len(frames) == 2 and key in frames[0].info else None


def _evenly_spaced(one: Format, path: Path, time_fs: float | None, step: int | None) -> Iterator[Atoms]:
    """The frames, as far apart as the first two."""
    before: Atoms | None = None
    for index, atoms in enumerate(one.frames(path)):
        for key, apart in (("time_fs", time_fs), ("step", step)):
            if before is not None and apart is not None:
                found = atoms.info[key] - before.info[key]
                if not isclose(found, apart, rel_tol=1e-2):  # times are printed with few digits
                    raise ValueError(
                        f"'{path}', frame {index}: {key} {atoms.info[key]:g} follows {before.info[key]:g}, but the "
                        f"first frames are {apart:g} apart. Frames are missing, or the program was started again; "
                        "convert the parts before and after as files of their own."
                    )
        before = atoms.copy()
        atoms.info.pop("files", None)
        yield atoms
