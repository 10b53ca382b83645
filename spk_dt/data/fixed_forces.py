"""Which forces count in losses where atoms are held fixed.

The reference method knows the force on a fixed atom like any other, and a model learns from it. Some programs print zeros
instead (CP2K with ``&FIXED_ATOMS``, LAMMPS with ``fix setforce``): a model that learnt these would have the wrong forces on
its neighbours, too. So if all forces of all that is fixed in a trajectory are exactly zero, they do not count.
"""

import logging

import numpy as np
from schnetpack import properties as spk_properties

from spk_dt.trajectories.fixed_atoms import forces_held
from spk_dt.trajectories.frames import Frames

__all__ = ["counted_forces", "held_forces"]

log = logging.getLogger(__name__)


def counted_forces(frames: Frames, fixed_forces: bool = True) -> tuple[np.ndarray, ...] | None:
    """Components of forces that count; what does not is logged.

    Args:
        frames: all frames of a database.
        fixed_forces: whether forces on fixed atoms count where the data hold them.

    Returns:
        per trajectory, [n_atoms, 3] false for what does not count; None if all do.
    """
    if not fixed_forces:
        return frames.mobile
    counted = held_forces(frames)
    masked = [t.name for t, which in zip(frames.trajectories, counted, strict=True) if not which.all()]
    if not masked:
        return None
    log.warning(
        "forces on the fixed atoms of %d trajectories of '%s' (%s) are zero in all frames: the program masked them. They do "
        "not count in the loss",
        *(len(masked), frames.source, ", ".join(masked[:3]) + (", ..." if len(masked) > 3 else "")),
    )
    return counted


def held_forces(frames: Frames) -> tuple[np.ndarray, ...]:
    """Per trajectory, [n_atoms, 3] false for components of forces that its program masked."""
    return tuple(
        forces_held(frames.window(spk_properties.forces, trajectory.start, trajectory.length, index), mobile)
        for index, (trajectory, mobile) in enumerate(zip(frames.trajectories, frames.mobile, strict=True))
    )
