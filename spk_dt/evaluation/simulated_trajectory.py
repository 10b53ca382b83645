"""A simulated trajectory: its frames in order of time, in Å, eV, Dalton and fs."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from spk_dt.evaluation.conservation import kinetic_energy

__all__ = ["SimulatedTrajectory"]

#: what a trajectory may be without
_OPTIONAL = ("velocities", "potential_energy", "forces")


@dataclass(frozen=True)
class SimulatedTrajectory:
    """A trajectory, its frames in order of time. Frames from an explosion on are NaN.

    Args:
        step: [n_frames] simulation step.
        time_fs: [n_frames] time, fs, increasing.
        positions: [n_frames, n_atoms, 3] Å.
        velocities: [n_frames, n_atoms, 3] Å/fs; None if they are not known, as of a file that does not have them.
        potential_energy: [n_frames] eV, or None likewise.
        forces: [n_frames, n_atoms, 3] eV/Å, or None likewise.
        atomic_numbers: [n_atoms].
        masses: [n_atoms] Dalton.
        cell: [3, 3] Å, or [n_frames, 3, 3] where it changes; zero where there is none.
        pbc: [3] periodic directions.
        mobile: [n_atoms, 3] false for what is held fixed; None if all atoms move.
        unwrapped: whether positions go on where an atom leaves the cell.

    Raises:
        ValueError: if the shapes do not fit each other, there is no frame, or time does not increase.
    """

    step: np.ndarray
    time_fs: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray | None
    potential_energy: np.ndarray | None
    forces: np.ndarray | None
    atomic_numbers: np.ndarray
    masses: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    mobile: np.ndarray | None = None
    unwrapped: bool = True

    def __post_init__(self) -> None:
        """Check the shapes."""
        n_frames, n_atoms = len(self.time_fs), len(self.atomic_numbers)
        expected = {
            **dict.fromkeys(("step", "time_fs", "potential_energy"), (n_frames,)),
            **dict.fromkeys(("positions", "velocities", "forces"), (n_frames, n_atoms, 3)),
            "masses": (n_atoms,),
            "cell": (n_frames, 3, 3) if self.cell_changes else (3, 3),
            "pbc": (3,),
        }
        for name, shape in expected.items():
            value = getattr(self, name)
            found = np.shape(value)
            if found != shape and not (value is None and name in _OPTIONAL):
                raise ValueError(f"{name} has shape {found}, but {n_frames} frames of {n_atoms} atoms need {shape}.")
        if n_frames == 0 or not (np.diff(self.time_fs) > 0.0).all():
            raise ValueError("a trajectory needs a frame, and time that increases from frame to frame.")

    def __getitem__(self, frames: slice | np.ndarray) -> Self:
        """The trajectory of some of its frames."""
        names = ["step", "time_fs", "positions", *(name for name in _OPTIONAL if getattr(self, name) is not None)]
        names += ["cell"] if self.cell_changes else []
        return replace(self, **{name: getattr(self, name)[frames] for name in names})

    @property
    def cell_changes(self) -> bool:
        """Whether each frame has a cell of its own."""
        return np.ndim(self.cell) == 3

    @property
    def intact(self) -> np.ndarray:
        """[n_frames] true before the simulation exploded."""
        return np.isfinite(self.positions).all(axis=(1, 2))

    @property
    def total_energy(self) -> np.ndarray | None:
        """[n_frames] potential and kinetic energy, eV; None where one of them is not known."""
        if self.potential_energy is None or self.velocities is None:
            return None
        return self.potential_energy + kinetic_energy(self.velocities, self.masses)
