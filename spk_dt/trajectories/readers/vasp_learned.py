"""Runs of VASP with its machine-learned force field (``ML_LMLFF``): which frames are taken, and which follow each other.

Where the force field learns while the simulation goes on, some steps are ab initio; of these each has a frame of the force
field, too. The two are never mixed: ab initio steps in a row are a trajectory, and what is between them is left out.
A run of the force field alone is taken only if asked for, as a teacher.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from ase import Atoms

from spk_dt.trajectories.readers.base import RawTrajectory
from spk_dt.trajectories.readers.incomplete import IncompleteFrameError

__all__ = ["VaspFrame", "of_one_kind"]

_OPTION = "--vasp-mlff"


@dataclass(frozen=True)
class VaspFrame:
    """A frame as VASP writes it.

    Args:
        step: number of the step in the simulation.
        learned: whether energy, forces and stress are of the machine-learned force field.
        atoms: the frame.
    """

    step: int
    learned: bool
    atoms: Atoms


def of_one_kind(whole: RawTrajectory, frames: Callable[[], Iterator[VaspFrame]], learned: bool) -> list[RawTrajectory]:
    """The trajectories of a file of a run with ``ML_LMLFF``; the file is read once for this.

    Args:
        whole: name, files and times of the run.
        frames: all frames of the file, of both kinds.
        learned: whether those of the machine-learned force field are asked for.

    Returns:
        one for each row of ab initio steps without a gap; or all frames of the force field.

    Raises:
        ValueError: if there are no frames of the kind asked for, none that follow each other, or if those of a force field
            are asked for that changed while the simulation went on.
    """
    file = f"'{whole.files[0]}'"
    steps: list[int] = []
    n_learned = 0
    try:
        for frame in frames():
            n_learned += frame.learned
            if not frame.learned:
                steps.append(frame.step)
    except IncompleteFrameError as error:
        if not steps and not n_learned:
            raise ValueError(f"{file} has no complete frame: {error.detail}.") from None
    if learned:
        return [_learned(whole, frames, steps, n_learned)]
    if not steps:
        raise ValueError(
            f"all frames of {file} are of VASP's machine-learned force field (ML_LMLFF); none is ab initio. To learn from "
            f"that force field on purpose, take them with {_OPTION}."
        )
    if not n_learned:
        return [whole]
    rows = _rows(steps)
    kept = [row for row in rows if len(row) > 1]
    if not kept:
        raise ValueError(
            f"no two ab initio steps of {file} follow each other ({_listed(steps, rows)}); between them are frames of "
            "VASP's machine-learned force field, which learns there. Compute a trajectory without ML_LMLFF, or with "
            f"the force field that was learned (ML_MODE = run), and take that with {_OPTION}."
        )
    alone = [steps[row[0]] for row in rows if len(row) == 1]
    left_out = f", and step {', '.join(map(str, alone))}, which has no ab initio step beside it" if alone else ""
    note = (
        f"of the run with VASP's machine-learned force field, ab initio steps are {_listed(steps, rows)}; {n_learned} "
        f"frames of the force field were left out{left_out}"
    )
    return [
        replace(
            whole,
            name=whole.name if len(kept) == 1 else f"{whole.name}_{steps[row[0]]}_{steps[row[-1]]}",
            frames=partial(_ab_initio, frames, row, row is kept[-1]),
            n_frames=len(row),
            notes=(*whole.notes, *([note] if row is kept[0] else [])),
        )
        for row in kept
    ]


def _learned(
    whole: RawTrajectory, frames: Callable[[], Iterator[VaspFrame]], steps: Sequence[int], n_learned: int
) -> RawTrajectory:
    """All frames of the force field, if it was the same throughout."""
    file = f"'{whole.files[0]}'"
    if not n_learned:
        raise ValueError(f"{file} has no frames of a machine-learned force field; leave {_OPTION} away.")
    if steps:
        raise ValueError(
            f"the machine-learned force field of {file} changed while the simulation went on: {len(steps)} steps are ab "
            f"initio, and it learned from them, so that its frames are not of one potential. Leave {_OPTION} away to "
            "take the ab initio steps, or run with the force field that was learned (ML_MODE = run)."
        )
    note = "energies and forces are of VASP's machine-learned force field, not ab initio"
    return replace(whole, frames=partial(_all_learned, frames), n_frames=n_learned, notes=(*whole.notes, note))


def _all_learned(frames: Callable[[], Iterator[VaspFrame]]) -> Iterator[Atoms]:
    return (frame.atoms for frame in frames())


def _ab_initio(frames: Callable[[], Iterator[VaspFrame]], row: range, last: bool) -> Iterator[Atoms]:
    """Some of the ab initio frames; after the last ones the rest of the file is read, and a file that is cut off is told."""
    found = (frame.atoms for frame in frames() if not frame.learned)
    yield from islice(found, row.start, row.stop)
    if last:
        for _ in found:
            pass


def _rows(steps: Sequence[int]) -> list[range]:
    """Indices of steps that follow each other."""
    gaps = [i for i in range(1, len(steps)) if steps[i] != steps[i - 1] + 1]
    return [range(a, b) for a, b in zip([0, *gaps], [*gaps, len(steps)], strict=True)]


def _listed(steps: Sequence[int], rows: Sequence[range], most: int = 6) -> str:
    """Steps, as ``1 to 4, 8``."""
    texts = [f"{steps[row[0]]}" + (f" to {steps[row[-1]]}" if len(row) > 1 else "") for row in rows]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
