"""Atoms that have no neighbours: a model sees nothing of them, and all forces are zero."""

from collections.abc import Iterable, Iterator

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list

from spk_dt import properties
from spk_dt.trajectories.frames import Frames

__all__ = ["first_frames", "refuse_isolated"]

_FARTHER = 32.0  # cutoffs, up to which a shortest distance is looked for


def first_frames(frames: Frames) -> Iterator[Atoms]:
    """The first frame of each trajectory, in the length unit of the data."""
    for one, numbers, pbc in zip(frames.trajectories, frames.atomic_numbers, frames.pbc, strict=True):
        yield Atoms(numbers, frames.window(properties.R, one.start, 1)[0], cell=frames.cell[one.start], pbc=pbc)


def refuse_isolated(structures: Iterable[Atoms], cutoff: float, source: str, unit: str = "Ang") -> None:
    """Refuse structures of which none has a pair of atoms within the cutoff.

    Args:
        structures: positions in the unit of the cutoff.
        cutoff: that of the model.
        source: what they are from, for the error message.
        unit: unit of both, for the error message.

    Raises:
        ValueError: if there is no pair; names the shortest distance.
    """
    shortest = np.inf
    for atoms in structures:
        reach = cutoff
        while len(found := neighbor_list("d", atoms, reach)) == 0 and reach < _FARTHER * cutoff and len(atoms) > 0:
            reach *= 2.0
        if len(found) and found.min() < cutoff:
            return
        shortest = min(shortest, found.min(initial=np.inf))
    distance = f"the shortest distance is {shortest:.3g}" if np.isfinite(shortest) else "the atoms are alone"
    raise ValueError(
        f"no pair of atoms of {source} is within the cutoff {cutoff:g} {unit} of the model: {distance}, and all its forces "
        "would be zero. Raise globals.cutoff for a new model, or see whether positions and cell are in the unit that they "
        "are said to be in."
    )
