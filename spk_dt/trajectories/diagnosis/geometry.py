"""What structures alone show: overlapping atoms, bonds of fixed length, a cell that changes."""

import numpy as np
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from spk_dt.trajectories.diagnosis.pieces import PieceReader
from spk_dt.trajectories.moves import same_cell, shortest

__all__ = ["cell_change", "closest_pair", "rigid_pairs"]

#: frames in which neighbours are looked for
_FRAMES = 5
#: atoms overlap below this part of the sum of their covalent radii
_OVERLAP = 0.5
#: a bond is rigid if its length varies by less than this part of it, what solvers of constraints leave
_RIGID = 5e-4
#: and by less than this part of what its vector does
_TURNS = 2e-3
#: fewer frames do not show it
_FEW = 10


def cell_change(reader: PieceReader) -> tuple[float, int]:
    """Largest change of a component of the cell from the first frame, Å, and the first frame whose cell is another."""
    cells = reader.cells(0, len(reader))
    other = ~same_cell(cells, reader.cell, reader.pbc)
    return float(np.abs(cells - reader.cell)[:, reader.pbc].max(initial=0.0)), int(np.argmax(other))


def closest_pair(reader: PieceReader) -> tuple[float, float, int, int, int] | None:
    """The pair of atoms that overlaps most in a few frames: distance and sum of radii in Å, frame, both atoms."""
    found = None
    for frame in np.unique(np.linspace(0, len(reader) - 1, _FRAMES).astype(int)).tolist():
        atoms = reader.atoms(frame)
        radii = covalent_radii[reader.numbers]
        i, j, distances = neighbor_list("ijd", atoms, _OVERLAP * radii)
        if len(distances):
            ratio = distances / (radii[i] + radii[j])
            worst = int(ratio.argmin())
            if found is None or ratio[worst] < found[0]:
                pair = int(i[worst]), int(j[worst])
                found = float(ratio[worst]), float(distances[worst]), frame, *pair
    if found is None:
        return None
    _, distance, frame, i, j = found
    return distance, float(covalent_radii[reader.numbers[[i, j]]].sum()), frame, i, j


def rigid_pairs(reader: PieceReader, atoms: np.ndarray) -> np.ndarray:
    """Pairs of atoms whose distance, below 2.5 Å, never changes while they turn: [n_pairs, 2].

    Args:
        reader: the trajectory.
        atoms: indices of the atoms to look at, those that move otherwise than forces say.
    """
    if len(atoms) < 2 or len(reader) < _FEW:
        return np.empty((0, 2), dtype=int)
    spread = np.unique(np.linspace(0, len(reader) - 1, 32).astype(int))
    sample = [reader.atoms(frame, atoms) for frame in spread.tolist()]
    i, j = neighbor_list("ij", sample[0], 2.5)
    i, j = i[i < j], j[i < j]
    vectors = np.array([shortest(one.positions[j] - one.positions[i], one.cell.array, reader.pbc) for one in sample])
    spread_of = np.ptp(np.linalg.norm(vectors, axis=2), axis=0)
    turned = np.linalg.norm(vectors - vectors[0], axis=2).max(axis=0)
    rigid = (spread_of < _RIGID * np.linalg.norm(vectors[0], axis=1)) & (spread_of < _TURNS * turned)
    return np.stack([atoms[i[rigid]], atoms[j[rigid]]], axis=1)
