r"""Bonds along a trajectory: which there are at its start, how long they usually are, and when they break.

A bond of atoms i and j is broken from the first frame on in which, after Fu et al.,

.. math:: \bigl| \lVert x_i(t) - x_j(t) \rVert - b_{ij} \bigr| > \Delta, \qquad \Delta = 0.5\ \text{Å},

==============  ======================  =======================================================
symbol          variable                meaning
==============  ======================  =======================================================
`x_i - x_j`     ``lengths``             distance of the nearest images of the two atoms
`b_ij`          ``usual_lengths``       usual length of the bond, from the reference trajectory
`\Delta`        ``tolerance``           deviation beyond which a bond counts as broken
==============  ======================  =======================================================

X. Fu, Z. Wu, W. Wang, T. Xie, S. Keten, R. Gomez-Bombarelli, T. Jaakkola, "Forces are not enough: benchmark and critical
evaluation for machine learning force fields with molecular simulations", TMLR 2023, arXiv 2210.07237 (MDsim). They take
the mean over the reference as `b_ij`. In a system that reacts this fails: the mean length of a bond that dissociates halfway
is the length of no bond. So here the mean ends where the bond leaves it for good (`usual_lengths`). The length in
the first frame alone does not serve either: where metal atoms swing widely, it lies often enough half an ångström from what
the reference itself visits.
"""

import numpy as np
from ase import Atoms
from ase.neighborlist import natural_cutoffs, neighbor_list

__all__ = ["TOLERANCE_ANG", "find_bonds", "first_broken", "usual_lengths"]

#: deviation from its usual length at which Fu et al. call a bond broken, Å
TOLERANCE_ANG = 0.5


def find_bonds(atoms: Atoms, multiplier: float = 1.0, margin: float = 0.4) -> np.ndarray:
    """Pairs of atoms closer than the sum of their covalent radii, with a margin.

    Two atoms are bonded if their distance is below ``multiplier * (R_i + R_j) + margin``. The default margin of 0.4 Å is
    that of the Cambridge Structural Database. Without it stretched bonds are overlooked: the sum is 0.62 Å for H2, whose
    bond is 0.74 Å long, so that a multiplier alone would have to be 1.25 or more, which takes in second neighbours of
    heavy atoms.

    Args:
        atoms: frame in which bonds are looked for.
        multiplier: factor of the covalent radii (`ase.neighborlist.natural_cutoffs`).
        margin: added to the sum of two radii, Å.

    Returns:
        [n_bonds, 2] indices of atoms, the smaller first, sorted. A pair bonded through several images counts once; an
        atom is not bonded to its own image.
    """
    cutoffs = [radius + 0.5 * margin for radius in natural_cutoffs(atoms, mult=multiplier)]
    i, j = neighbor_list("ij", atoms, cutoffs)
    return np.unique(np.stack([i, j], axis=1)[i < j], axis=0).reshape(-1, 2)


def usual_lengths(lengths: np.ndarray, tolerance: float = TOLERANCE_ANG) -> np.ndarray:
    r"""Usual length of each bond, :math:`b_{ij}`: its mean over the longest first part of the reference that stays near it.

    With :math:`\bar d(T)` the mean over the frames before T, the part is the longest with
    :math:`|d(t) - \bar d(T)| \le \Delta` for all :math:`t < T`, and :math:`b = \bar d(T)`. For a bond that holds this is
    the mean over all frames, as in MDsim.

    Args:
        lengths: [n_frames, n_bonds] Å, of the reference trajectory.
        tolerance: Δ in Å.

    Returns:
        [n_bonds] Å.
    """
    n_frames, n_bonds = lengths.shape
    mean = np.cumsum(lengths, axis=0) / np.arange(1, n_frames + 1)[:, None]  # mean[k]: of frames 0 to k
    longest, shortest = np.maximum.accumulate(lengths, axis=0), np.minimum.accumulate(lengths, axis=0)
    near = (longest - mean <= tolerance) & (mean - shortest <= tolerance)
    near[0] = True
    last = n_frames - 1 - near[::-1].argmax(axis=0)
    return mean[last, np.arange(n_bonds)]


def first_broken(lengths: np.ndarray, usual: np.ndarray, tolerance: float = TOLERANCE_ANG) -> np.ndarray:
    """First frame in which each bond is longer or shorter than usual by more than the tolerance.

    Args:
        lengths: [n_frames, n_bonds] Å; infinite or NaN is broken.
        usual: [n_bonds] Å.
        tolerance: Å.

    Returns:
        [n_bonds] frame, or n_frames where the bond holds throughout.
    """
    broken = ~(np.abs(lengths - usual) <= tolerance)
    return np.where(broken.any(axis=0), broken.argmax(axis=0), len(lengths))
