r"""How far atoms move from frame to frame of a periodic system, whose cell may change.

With the lattice vectors H as rows and fractional coordinates s, :math:`x = s H`,

.. math:: \Delta x_k = (s_{k+1} - s_k - n)\, \tfrac12 (H_k + H_{k+1})

with the integers n that make it shortest: what remains without the motion that the cell carries along. In simulations at
constant pressure it is T times the velocity (Martyna, Tobias, Klein, J. Chem. Phys. 101, 4177 (1994): the peculiar one), as
x_{k+1} - x_k is at a constant cell.
"""

import numpy as np

__all__ = ["SAME_CELL", "cell_strain", "moves", "same_cell", "shortest"]

#: components of two cells that differ by less, Å, are the same
SAME_CELL = 1e-6


def same_cell(cell: np.ndarray, other: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Whether cells are the same along the directions in which they are periodic: [] or [n_frames].

    Args:
        cell: [3, 3] or [n_frames, 3, 3] Å.
        other: likewise.
        pbc: [3].
    """
    difference = np.abs(np.asarray(cell) - np.asarray(other))[..., np.asarray(pbc, dtype=bool), :]
    return np.all(difference <= SAME_CELL, axis=(-2, -1))


def shortest(displacements: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Displacements without whole lattice vectors, for atoms that move by less than half a cell.

    Args:
        displacements: [..., 3].
        cell: [3, 3] lattice vectors as rows; those along which it is not periodic may be zero.
        pbc: [3] whether it is periodic.
    """
    pbc = np.asarray(pbc, dtype=bool)
    if not pbc.any():
        return displacements
    periodic = np.asarray(cell)[pbc]
    return displacements - np.round(displacements @ np.linalg.pinv(periodic)) @ periodic


def moves(positions: np.ndarray, cells: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Moves from each frame to the next, without lattice vectors and without what the cell carries along.

    Args:
        positions: [n_frames, n_atoms, 3].
        cells: [n_frames, 3, 3] lattice vectors as rows.
        pbc: [3].

    Returns:
        [n_frames - 1, n_atoms, 3].
    """
    pbc = np.asarray(pbc, dtype=bool)
    if not len(positions) or same_cell(cells, cells[0], pbc).all():
        return shortest(np.diff(positions, axis=0), cells[0] if len(cells) else np.zeros((3, 3)), pbc)
    periodic = cells[:, pbc]
    fractional = positions @ np.linalg.pinv(periodic)
    across = np.diff(positions - fractional @ periodic, axis=0)  # along directions that are not periodic
    steps = np.diff(fractional, axis=0)
    return across + (steps - np.round(steps)) @ (0.5 * (periodic[1:] + periodic[:-1]))


def cell_strain(cells: np.ndarray) -> np.ndarray:
    """Strain from each cell to the next, symmetric: [n_frames - 1, 3, 3].

    Args:
        cells: [n_frames, 3, 3], each with a volume.
    """
    deformation = np.linalg.inv(0.5 * (cells[1:] + cells[:-1])) @ np.diff(cells, axis=0)
    return 0.5 * (deformation + deformation.swapaxes(1, 2))
