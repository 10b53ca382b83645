"""What is learnt, while the frames of a trajectory pass, of atoms that it holds fixed."""

from collections.abc import Iterable, Iterator

import numpy as np
from ase import Atoms

from spk_dt.trajectories.fixed_atoms import FixedSelection, index_ranges, mobile_of, set_mobile
from spk_dt.trajectories.readers import RawTrajectory

__all__ = ["Held"]

#: Å, by which a number that is printed anew in each frame may differ
_ROUNDING = 1e-4


class Held:
    """Fixed atoms of a trajectory: as an option says, or else as its files do.

    Args:
        raw: the trajectory.
        selection: what the option says, None without.
        source: its name, for error messages.
    """

    def __init__(self, raw: RawTrajectory, selection: FixedSelection | None, source: str) -> None:
        self._raw, self._selection, self._source = raw, selection, source
        self._start: np.ndarray | None = None  # [n_atoms, 3] positions of the first frame
        self._mobile = self._moved = np.zeros((0, 3), dtype=bool)
        self._frames, self._said, self._masked = 0, True, True

    def watched(self, frames: Iterable[Atoms]) -> Iterator[Atoms]:
        """The frames, with constraints of ASE; what is fixed is where it is in the first one, without momentum.

        Raises:
            ValueError: if what is said to be fixed moves, or a frame says otherwise than the first one.
        """
        for index, frame in enumerate(frames):
            if self._start is None:
                self._start, self._mobile = frame.positions.copy(), self._find(frame)
                self._moved = np.zeros((len(frame), 3), dtype=bool)
            elif self._said and not np.array_equal(mobile_of(frame), self._mobile):
                raise ValueError(
                    f"{self._source}, frame {index}: it holds other atoms fixed than the first frame. Convert what is "
                    "before and after as files of their own, or say what is fixed with --fixed."
                )
            fixed = ~self._mobile
            moved = np.where(fixed, np.abs(frame.positions - self._start), 0.0)
            if moved.max(initial=0.0) > _ROUNDING:
                self._refuse(index, moved)
            set_mobile(frame, self._mobile)
            frame.arrays["positions"][fixed] = self._start[fixed]
            if "momenta" in frame.arrays:
                frame.arrays["momenta"][fixed] = 0.0
            self._moved |= frame.positions != self._start
            self._masked &= "forces" in frame.calc.results and not np.any(frame.calc.results["forces"][fixed])
            self._frames += 1
            yield frame

    def notes(self) -> list[str]:
        """What the user should know."""
        if self._frames < 2:
            return []
        fixed, found = ~self._mobile, []
        if fixed.any():
            atoms, parts = np.flatnonzero(fixed.all(axis=1)), np.flatnonzero(fixed.any(axis=1) & ~fixed.all(axis=1))
            which = f"{len(atoms)} of {len(fixed)} ({index_ranges(atoms)})" if len(atoms) else "none altogether"
            partly = f", and components of {len(parts)} ({index_ranges(parts)})" if len(parts) else ""
            masked = "; their forces are zero, so they do not count in losses" if self._masked else ""
            found.append(f"fixed atoms: {which}{partly}{masked}")
        still = np.flatnonzero(~self._moved.any(axis=1) & ~fixed.any(axis=1))
        if len(still):
            ranges = index_ranges([*np.flatnonzero(fixed.all(axis=1)), *still])
            found.append(
                f"atoms that never move: {len(still)}, which nobody says are fixed; if the simulation held them, convert "
                f"again with --fixed {ranges}"
            )
        return found

    def _find(self, frame: Atoms) -> np.ndarray:
        """[n_atoms, 3] false for what is fixed."""
        if self._selection is not None:
            self._said = False
            return self._selection.mobile(frame, self._source)
        mobile = self._raw.mobile() if self._raw.mobile is not None else None
        if mobile is not None:
            self._said = False
            return mobile
        try:
            return mobile_of(frame)
        except ValueError as error:
            raise ValueError(f"{self._source}: {error} Or name what is fixed with --fixed.") from None

    def _refuse(self, index: int, moved: np.ndarray) -> None:
        atom = int(moved.max(axis=1).argmax())
        who = f"--fixed '{self._selection.text}'" if self._selection is not None else "the constraints"
        remedy = "Name others" if self._selection is not None else "Name what the simulation held fixed with --fixed"
        raise ValueError(
            f"{self._source}, frame {index}: {who} hold atom {atom} fixed, but it moves by {moved[atom].max():.2g} Å from "
            f"the first frame. {remedy}, or nothing with --fixed none."
        )
