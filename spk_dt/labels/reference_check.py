"""Is a reference method the one that the data were made with? Labels of another one contradict the data, silently.

A few frames of the data are computed with the method before it is used, and compared (`spk_dt.labels.difference`).
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ase.units
import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from spk_dt.labels.difference import NOISE_EV_PER_ANG, Difference, difference
from spk_dt.labels.relabel import Labels, relabel
from spk_dt.trajectories.database import Trajectory

__all__ = ["ReferenceCheck", "check_reference", "choose_frames", "frames_to_choose_from"]

log = logging.getLogger(__name__)

#: root mean square, in GPa and as a part of that of the data, by which the stress of one method may differ between runs
STRESS_NOISE_GPA, STRESS_TOLERANCE = 0.1, 0.05

#: frames that are computed, at least, if the data have as many
_FRAMES = 3

#: kinds of systems that are compared, at most
_KINDS = 4

#: frames of each kind among which those with large forces are looked for
_CANDIDATES = 24


@dataclass(frozen=True)
class ReferenceCheck:
    """What came of the comparison of a reference method with data.

    Args:
        reference: the reference method.
        frames: the frames that were computed, as ``trajectory:frame``.
        difference: what was found; None if the data hold no forces to compare with.
        verdict: ``same method``, ``another method`` (taken on purpose) or ``not compared``.
        message: the same as a sentence.
    """

    reference: str
    frames: tuple[str, ...]
    difference: Difference | None
    verdict: str
    message: str

    def as_dict(self) -> dict[str, Any]:
        """What is written beside results, for JSON."""
        found = {} if self.difference is None else self.difference.as_dict()
        return {"verdict": self.verdict, "message": self.message, "frames": list(self.frames), **found}


def check_reference(
    frames: Sequence[Atoms],
    reference: str,
    source: str,
    file: str | Path | None = None,
    another: bool = False,
    energies: bool = False,
    way_out: str = "use this one on purpose with --another-reference",
    name: str = "--reference",
    scratch: str | Path | None = None,
    time_limit: float | None = None,
    stress: bool = False,
) -> ReferenceCheck:
    """Compute a few frames with a reference method, and compare with the energies and forces that they have.

    Args:
        frames: frames to choose from, see `choose_frames`; with the name of the trajectory and the index of the frame in
            ``info``.
        reference: reference calculator, see `spk_dt.labels.calculator.reference_calculator`.
        source: name of the data, for messages.
        file: where labels are kept, so that a later call does not compute them again, see `spk_dt.labels.relabel.relabel`.
            If the method is refused, the file is removed, so that another one may be named. None keeps nothing.
        another: whether another method is taken on purpose; there is a warning then.
        energies: whether energies are used as they are, so that another zero of energy is refused, too.
        way_out: what else the user may do, for messages.
        name: option that names the reference, for messages.
        scratch: see `spk_dt.labels.relabel.relabel`.
        time_limit: see `spk_dt.labels.relabel.relabel`.
        stress: whether the stress is used, too; a method that gives none is refused, and so is one with another.

    Raises:
        ValueError: if the method fails at a frame, or is not that of the data, and `another` is not set; or if the file has
            labels of another method.
    """
    usable = [atoms for atoms in frames if _forces_of(atoms) is not None]
    if not usable:
        message = (
            f"{name}='{reference}' cannot be compared with the data: there are no forces in '{source}' to compare with. It "
            "is taken to be the method of the data."
        )
        log.warning(message)
        return ReferenceCheck(reference, (), None, "not compared", message)
    chosen = choose_frames(usable)
    ids = tuple(f"{atoms.info['trajectory']}:{atoms.info['frame']}" for atoms in chosen)
    labels = _labels(chosen, reference, file, ids, scratch, time_limit, stress)
    found = difference(chosen, labels.energy, labels.forces)
    others = len(chosen) - 1
    where = f"at frame {chosen[0].info['frame']} of trajectory '{chosen[0].info['trajectory']}'" + (
        f" and {others} other frame{'s' if others > 1 else ''}" if others else ""
    )
    problems = [
        *([] if found.same_forces else [_of_forces(found)]),
        *([_of_energies(found)] if energies and not found.energy.same_zero else []),
        *(_of_stress(chosen, labels) if stress else []),
    ]
    if problems:
        message = f"{name}='{reference}' is not the method of the data: {where} of '{source}' {' '.join(problems)}"
        if not another:
            if file is not None:
                Path(file).unlink()
            raise ValueError(
                f"{message} Name the calculator, with its settings, that the data were computed with, or {way_out}."
            )
        log.warning("%s It is used on purpose.", message)
        return ReferenceCheck(reference, ids, found, "another method", message)
    message = f"'{reference}' is the method of the data: {where} its forces are off by {_sizes(found)}."
    notes = [
        *([found.reason] if found.reason else []),
        *([_capital(_of_energies(found))] if not found.energy.same_zero and found.same_forces and not energies else []),
        *(_of_fixed(found) if found.n_fixed else []),
        *(["These forces are too small to tell methods apart."] if found.size < 2.0 * NOISE_EV_PER_ANG else []),
    ]
    message = " ".join([message, *notes])
    log.log(logging.WARNING if notes else logging.INFO, message)
    return ReferenceCheck(reference, ids, found, "same method", message)


def _labels(
    frames: Sequence[Atoms],
    reference: str,
    file: str | Path | None,
    ids: Sequence[str],
    scratch: str | Path | None,
    time_limit: float | None,
    stress: bool,
) -> Labels:
    """Labels of the frames; a method that fails leaves no file that would stand in the way of another one."""
    how: dict[str, Any] = {"ids": ids, "sound": ids, "scratch": scratch, "time_limit": time_limit, "stress": stress}
    if file is None:
        with TemporaryDirectory() as folder:
            return relabel(frames, reference, Path(folder) / "labels.jsonl", **how)
    begun = Path(file).exists()
    try:
        return relabel(frames, reference, file, **how)
    except ValueError:
        if not begun:
            Path(file).unlink(missing_ok=True)
        raise


def frames_to_choose_from(source: str | Path, indices: Iterable[tuple[Trajectory, Sequence[int]]]) -> list[Atoms]:
    """Frames of a trajectory database, evenly spaced over trajectories of each kind of system.

    Args:
        source: the database.
        indices: trajectories, with the frames of each (counted in the trajectory) that may be taken.
    """
    from spk_dt.data.start_frames import open_dataset, read_frame  # loads torch, which `generate` does without

    dataset = open_dataset(source)
    kinds: dict[bytes, list[tuple[Trajectory, int]]] = {}
    for trajectory, frames in indices:
        row = dataset.conn.get(trajectory.start + 1)
        kinds.setdefault(_kind(row.numbers, row.pbc), []).extend((trajectory, frame) for frame in frames)
    chosen = []
    for places in kinds.values():
        few = np.unique(np.linspace(0, len(places) - 1, min(len(places), _CANDIDATES)).astype(int))
        chosen += [read_frame(dataset, *places[i]) for i in few]
    return chosen


def choose_frames(frames: Sequence[Atoms]) -> list[Atoms]:
    """A few frames that tell methods apart: kinds of systems that cover the elements, large forces, several trajectories.

    Args:
        frames: with forces, those of a trajectory in order of time.
    """
    kinds: dict[bytes, list[Atoms]] = {}
    for atoms in frames:
        kinds.setdefault(_kind(atoms.numbers, atoms.pbc), []).append(atoms)
    remaining, order, covered = list(kinds.values()), list[list[Atoms]](), set[int]()
    while remaining and len(order) < _KINDS:
        new = [len(set(kind[0].numbers.tolist()) - covered) for kind in remaining]
        order.append(remaining.pop(int(np.argmax(new))))
        covered |= set(order[-1][0].numbers.tolist())
    chosen = []
    for kind in order:
        each = -(-_FRAMES // len(order))
        for part in np.array_split(np.arange(len(kind)), min(each, len(kind))):  # apart from each other
            chosen.append(max((kind[i] for i in part), key=_mean_square_force))
    return chosen


def _forces_of(atoms: Atoms) -> np.ndarray | None:
    """Forces of a frame [n_atoms, 3], if it has an energy and any forces."""
    if atoms.calc is None or not {"energy", "forces"} <= set(atoms.calc.results):
        return None
    forces = atoms.get_forces(apply_constraint=False)
    return forces if np.isfinite(forces).all() and forces.any() else None


def _mean_square_force(atoms: Atoms) -> float:
    return float(np.square(atoms.get_forces(apply_constraint=False)).mean())


def _kind(numbers: np.ndarray, pbc: np.ndarray) -> bytes:
    """The same for systems of the same composition and boundaries."""
    return np.sort(numbers).tobytes() + np.asarray(pbc, dtype=bool).tobytes()


def _sizes(found: Difference) -> str:
    """How much the forces are off."""
    by_element = ", ".join(f"{symbol} {error:.2g} of {size:.2g}" for symbol, (error, size) in found.by_element.items())
    return f"{found.error:.2g} of {found.size:.2g} eV/Å (root mean square; {by_element})"


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _of_forces(found: Difference) -> str:
    return f"its forces are off by {_sizes(found)}. {found.reason}"


def _of_stress(frames: Sequence[Atoms], labels: Labels) -> list[str]:
    """What is to be said of the stress, where the frames have one: another, as in sign or unit, or nothing."""
    both = [
        (frame.calc.results["stress"], full_3x3_to_voigt_6_stress(found))
        for frame, found in zip(frames, labels.stress, strict=True)
        if "stress" in frame.calc.results
    ]
    if not both:
        return []
    data, reference = (np.array(one) / ase.units.GPa for one in zip(*both, strict=True))
    off, size = (float(np.sqrt(np.square(one).mean())) for one in (reference - data, data))
    if off <= STRESS_NOISE_GPA + STRESS_TOLERANCE * size:
        return []
    return [f"its stress is off by {off:.2g} of {size:.2g} GPa (root mean square)."]


def _of_energies(found: Difference) -> str:
    """Another zero, or what no zero explains."""
    offset = found.energy
    if not offset.explains:
        return (
            f"its energies are off by up to {offset.difference:.3g} eV per atom, which no offset per element explains "
            f"({offset.left:.2g} eV per atom remain)."
        )
    values = ", ".join(f"{symbol} {value:.6g}" for symbol, value in offset.by_element.items())
    alone = "" if offset.determined else "; the compositions do not tell all elements apart"
    return (
        f"its energies have another zero: those of the data are its energies plus {values} eV per atom{alone}, up to "
        f"{offset.left:.2g} eV per atom."
    )


def _of_fixed(found: Difference) -> list[str]:
    return [
        f"Forces that are zero in the data, of fixed atoms most likely, are left out ({found.n_fixed} atoms); the reference "
        "method has others there."
    ]
