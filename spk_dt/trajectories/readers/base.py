"""What a reader of a file format gives: the trajectories in a file, frame by frame.

A reader is a module of this package with a function ``recognises(path)`` and a function ``read(path)``;
`spk_dt.trajectories.readers` lists them, and `spk_dt.trajectories.convert` does the rest (velocities, unwrapping, the
database).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from ase import Atoms

__all__ = ["RawTrajectory", "Reader"]


@dataclass(frozen=True)
class RawTrajectory:
    """A trajectory as a file has it.

    Args:
        name: name that the file suggests.
        files: all files that it is read from.
        frames: opens the files and yields the frames in order of time, one at a time, in ASE's units: energy and forces in
            a calculator, momenta if the files hold velocities. It may be called more than once. It raises ValueError,
            which names file, frame and remedy, where a file is cut off or cannot be understood.
        timestep_fs: time between two frames in fs, None if the files do not say.
        n_frames: number of frames, for a progress bar; None if that is known only at the end.
        inner_steps: steps of the simulation between two frames, None if the files do not say.
        mobile: finds out what the simulation holds fixed, [n_atoms, 3] false or None, where this is said once for all
            frames; it raises ValueError if that cannot be told. Frames that say it themselves have constraints of ASE
            (`spk_dt.trajectories.fixed_atoms`).
        notes: what its user should know, such as what was left out.
        momenta: whether the files hold momenta rather than velocities: where other masses are stated, these stay.
        restatable: whether time step and inner steps are what a user has once stated, and may be stated anew.
        beads: number of beads of the ring polymer of which it is one, which springs pull beside the forces; one for a
            classical trajectory.
        periodic_said: whether the files say which directions are periodic.
    """

    name: str
    files: tuple[Path, ...]
    frames: Callable[[], Iterator[Atoms]]
    timestep_fs: float | None = None
    n_frames: int | None = None
    inner_steps: int | None = None
    mobile: Callable[[], np.ndarray | None] | None = None
    notes: tuple[str, ...] = ()
    momenta: bool = False
    restatable: bool = False
    beads: int = 1
    periodic_said: bool = True


class Reader(Protocol):
    """The interface of a reader module."""

    def recognises(self, path: Path) -> bool:
        """Whether the file, or folder, is of this format; looks at the name and the first bytes, and never raises."""

    def read(self, path: Path) -> list[RawTrajectory]:
        """The trajectories in a file.

        Raises:
            ValueError: if the file holds no trajectory with forces and energies of consecutive frames; names the remedy.
        """
