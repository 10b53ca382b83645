r"""Structure averaged over a trajectory: distances h(r) of all pairs of atoms, and radial distribution functions g(r).

After Fu et al., "Forces are not enough", TMLR 2023, arXiv 2210.07237 (MDsim), with the distances of a frame as

.. math:: h(r) = \frac{1}{N (N-1)} \sum_i \sum_{j \ne i} \delta(r - r_{ij}), \qquad
          \mathrm{MAE} = \int_0^\infty \bigl|\langle h_\mathrm{ref}(r)\rangle - \langle h(r)\rangle\bigr|\,dr,

:math:`\langle\cdot\rangle` being the mean over frames and :math:`r_{ij}` the distance of the nearest images. h(r) integrates
to 1, so the error has no unit and lies between 0 (the same distances) and 2 (none in common). Distances beyond the last
bin form a bin of their own, so that nothing leaves the integral. For elements A and B in a cell of volume V

.. math:: g_{AB}(r) = \frac{V}{4 \pi r^2 N_A N_B} \Bigl\langle \sum_{i \in A} \sum_{j \in B} \delta(r - r_{ij}) \Bigr\rangle,
          \qquad \mathrm{MAE}_{AB} = \int_0^{r_\mathrm{max}} |g_{AB,\mathrm{ref}}(r) - g_{AB}(r)|\,dr \quad (\text{Å}),

over all images within :math:`r_\mathrm{max}`. The mean number of B around an A within R is
:math:`(N_B / V) \int_0^R 4 \pi r^2 g_{AB}\,dr`.

Cautions. The errors depend on the width of the bins, and on the noise of short trajectories: compare them with the error
between two reference trajectories. V is the volume of the whole cell: of a slab or a cluster it is largely vacuum, g(r) then
does not go to 1, and g and its error scale with the height of the cell. They compare models on the same cell; they
are not to be compared across cells, nor for pairs of rare elements (two H in the cell give large numbers) with others.
"""

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from ase.data import chemical_symbols
from matscipy.neighbours import neighbour_list

from spk_dt.evaluation.pair_distances import finite_frames, pair_distances

__all__ = [
    "DistanceDistribution",
    "RadialDistribution",
    "distance_distribution",
    "distance_mae",
    "radial_distribution",
    "rdf_mae",
]

# frames of which the nearest images of all pairs are sought at a time
_CHUNK = 50


@dataclass(frozen=True)
class DistanceDistribution:
    """Mean of h(r) over frames.

    Args:
        edges: [n_bins + 1] edges of the bins, Å.
        fraction: [n_bins + 1] part of the pairs in each bin, h(r) times its width; the last is what lies beyond. Sums to 1.
        n_frames: frames averaged over.
    """

    edges: np.ndarray
    fraction: np.ndarray
    n_frames: int

    @property
    def density(self) -> np.ndarray:
        """[n_bins] h(r), 1/Å."""
        return self.fraction[:-1] / np.diff(self.edges)


@dataclass(frozen=True)
class RadialDistribution:
    """Mean of g(r) over frames.

    Args:
        edges: [n_bins + 1] edges of the bins, Å.
        values: per pair of elements, as ``"C-H"`` in the order of the periodic table, [n_bins].
        n_frames: frames averaged over.
    """

    edges: np.ndarray
    values: dict[str, np.ndarray]
    n_frames: int


def distance_distribution(
    positions: np.ndarray,
    cell: np.ndarray,
    pbc: np.ndarray,
    r_max: float = 20.0,
    width: float = 0.05,
    max_frames: int | None = 500,
) -> DistanceDistribution:
    """h(r), averaged over frames that are evenly spread over the trajectory.

    Args:
        positions: [n_frames, n_atoms, 3] Å; frames with a position that is not finite are left out.
        cell: [3, 3] Å, or [n_frames, 3, 3] where it changes.
        pbc: [3] periodic directions.
        r_max: end of the last bin, Å.
        width: width of a bin, Å.
        max_frames: number of frames at most; None takes all.

    Raises:
        ValueError: if there are fewer than two atoms, or no finite frame.
    """
    positions, cells = _chosen(positions, cell, max_frames)
    n_atoms = positions.shape[1]
    if n_atoms < 2:
        raise ValueError("distances need two atoms.")
    pairs = np.stack(np.triu_indices(n_atoms, 1), axis=1)
    edges = _edges(r_max, width)
    counts = np.zeros(len(edges))
    for start in range(0, len(positions), _CHUNK):
        part = slice(start, start + _CHUNK)
        distances = pair_distances(positions[part], pairs, cells if cells.ndim == 2 else cells[part], pbc)
        counts += np.bincount(np.minimum(distances / width, len(edges) - 1).astype(int).ravel(), minlength=len(edges))
    return DistanceDistribution(edges, counts / counts.sum(), len(positions))


def radial_distribution(
    positions: np.ndarray,
    atomic_numbers: np.ndarray,
    cell: np.ndarray,
    pbc: np.ndarray,
    r_max: float = 6.0,
    width: float = 0.05,
    max_frames: int | None = 500,
) -> RadialDistribution:
    """g(r) of each pair of elements, averaged over frames that are evenly spread over the trajectory.

    Args:
        positions: [n_frames, n_atoms, 3] Å; frames with a position that is not finite are left out.
        atomic_numbers: [n_atoms].
        cell: [3, 3] Å, or [n_frames, 3, 3] where it changes, with a volume.
        pbc: [3] periodic directions.
        r_max: end of the last bin, Å.
        width: width of a bin, Å.
        max_frames: number of frames at most; None takes all.

    Raises:
        ValueError: if the cell has no volume, or there is no finite frame.
    """
    positions, cells = _chosen(positions, np.asarray(cell, dtype=float), max_frames)
    cells = np.broadcast_to(cells, (len(positions), 3, 3))
    volumes = np.abs(np.linalg.det(cells))
    if not (volumes > 0.0).all():
        raise ValueError("a radial distribution is normalised with the volume of the cell, and this cell has none.")
    periodic = np.asarray(pbc, dtype=bool)
    elements, element_of = np.unique(atomic_numbers, return_inverse=True)
    edges = _edges(r_max, width)
    n_bins, n_elements = len(edges) - 1, len(elements)
    counts = np.zeros(n_elements * n_elements * n_bins)
    for frame, box, volume in zip(positions, cells, volumes, strict=True):
        near = _within_reach(frame[None], box, periodic, r_max)[0]
        i, j, distance = neighbour_list("ijd", positions=near, cell=box, pbc=periodic, cutoff=float(edges[-1]))
        bins = np.minimum((distance / width).astype(int), n_bins - 1)
        pairs = (element_of[i] * n_elements + element_of[j]) * n_bins + bins
        counts += volume * np.bincount(pairs, minlength=len(counts))
    counts = counts.reshape(n_elements, n_elements, n_bins) / len(positions)
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)  # volumes: the integral of 4 pi r^2 over each bin
    number = np.bincount(element_of)
    values = {
        f"{chemical_symbols[elements[a]]}-{chemical_symbols[elements[b]]}": (
            counts[a, b] / (shells * number[a] * number[b])
        )
        for a, b in combinations_with_replacement(range(n_elements), 2)
    }
    return RadialDistribution(edges, values, len(positions))


def distance_mae(distribution: DistanceDistribution, reference: DistanceDistribution) -> float:
    """Integral of the difference of two h(r), from 0 (equal) to 2 (no distance in common).

    Raises:
        ValueError: if the bins differ.
    """
    _same_bins(distribution.edges, reference.edges)
    return float(np.abs(distribution.fraction - reference.fraction).sum())


def rdf_mae(distribution: RadialDistribution, reference: RadialDistribution) -> dict[str, float]:
    """Integral of the difference of two g(r) for each pair of elements, Å.

    Raises:
        ValueError: if the bins or the elements differ.
    """
    _same_bins(distribution.edges, reference.edges)
    if distribution.values.keys() != reference.values.keys():
        raise ValueError(
            f"distributions of {', '.join(distribution.values)} and of {', '.join(reference.values)} have other elements."
        )
    widths = np.diff(reference.edges)
    return {
        pair: float(np.sum(np.abs(values - reference.values[pair]) * widths))
        for pair, values in distribution.values.items()
    }


def _chosen(positions: np.ndarray, cell: np.ndarray, max_frames: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Finite frames, at most `max_frames`, evenly spread from the first to the last, and their cells, or the one of all."""
    frames = np.flatnonzero(finite_frames(positions))
    if len(frames) == 0:
        raise ValueError("there is no frame in which all positions are finite.")
    if max_frames is not None and len(frames) > max_frames:
        frames = frames[np.linspace(0, len(frames) - 1, max_frames).round().astype(int)]
    return positions[frames], cell if np.ndim(cell) == 2 else cell[frames]


def _edges(r_max: float, width: float) -> np.ndarray:
    """Edges of bins from 0 to `r_max`, or one bin further if it is no multiple of the width."""
    return width * np.arange(int(np.ceil(r_max / width - 1e-9)) + 1)


def _within_reach(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, r_max: float) -> np.ndarray:
    """The same pairs within `r_max`, from positions between which no neighbour list has to span a desert.

    Along periodic directions atoms are wrapped into the cell. Where an atom has flown off along another direction, the gaps
    between successive atoms are shortened to twice `r_max`; this keeps what is near and what is far.
    """
    scaled = positions @ np.linalg.inv(cell)
    scaled[..., pbc] %= 1.0
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)  # of the cell, between opposite faces
    for axis in np.flatnonzero(~pbc):
        order = scaled[..., axis].argsort(axis=1)
        gaps = np.diff(np.take_along_axis(scaled[..., axis], order, axis=1), axis=1, prepend=0.0)
        gaps[:, 0] = 0.0
        gaps[:, 1:] = np.minimum(gaps[:, 1:], 2.0 * r_max / heights[axis])
        np.put_along_axis(scaled[..., axis], order, gaps.cumsum(axis=1), axis=1)
    return scaled @ cell


def _same_bins(edges: np.ndarray, others: np.ndarray) -> None:
    """Refuse to compare unlike histograms."""
    if edges.shape != others.shape or not np.allclose(edges, others):
        raise ValueError(
            f"{len(edges) - 1} bins up to {edges[-1]:g} Å cannot be compared with {len(others) - 1} bins up to "
            f"{others[-1]:g} Å; use the same r_max and width."
        )
