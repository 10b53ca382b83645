"""Distances between given pairs of atoms along a trajectory, of the nearest images where the cell is periodic."""

import numpy as np
from ase.geometry import find_mic

__all__ = ["finite_frames", "pair_distances"]

# further out than this, in Å, no atom of a simulation that is worth anything gets
_FARTHEST = 1e6
# vectors for which the nearest image is sought at a time; a skewed cell takes about 1 kB for each
_CHUNK = 50_000


def finite_frames(positions: np.ndarray) -> np.ndarray:
    """Frames in which every atom is somewhere: [n_frames] true where no coordinate is NaN, infinite or beyond 1e6 Å.

    Args:
        positions: [n_frames, n_atoms, 3] Å.
    """
    return (np.abs(positions) < _FARTHEST).all(axis=(1, 2))


def pair_distances(positions: np.ndarray, pairs: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Distances of pairs of atoms in every frame.

    Along periodic directions it is the distance of the nearest images, so that positions may be wrapped into the cell or
    not, and a pair may lie across its boundary.

    Args:
        positions: [n_frames, n_atoms, 3] Å.
        pairs: [n_pairs, 2] indices of atoms.
        cell: [3, 3] Å, or [n_frames, 3, 3] where it changes.
        pbc: [3] periodic directions.

    Returns:
        [n_frames, n_pairs] Å; infinite in frames that are not `finite_frames`.
    """
    finite = finite_frames(positions)
    vectors = positions[finite][:, pairs[:, 1]] - positions[finite][:, pairs[:, 0]]
    distances = np.full((len(positions), len(pairs)), np.inf)
    if np.any(pbc) and np.ndim(cell) == 3:
        own = zip(vectors, np.asarray(cell)[finite], strict=True)
        distances[finite] = np.array([_nearest(one, box, pbc) for one, box in own]).reshape(vectors.shape[:2])
    elif np.any(pbc):
        distances[finite] = _nearest(vectors.reshape(-1, 3), cell, pbc).reshape(vectors.shape[:2])
    else:
        distances[finite] = np.linalg.norm(vectors, axis=-1)
    return distances


def _nearest(vectors: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """[n] lengths of vectors [n, 3] between nearest images, Å."""
    chunks = [find_mic(vectors[i : i + _CHUNK], cell, pbc)[1] for i in range(0, len(vectors), _CHUNK)]
    return np.concatenate(chunks or [np.empty(0)])
