r"""Do forces stay repulsive at short distances? Two atoms of a frame are pushed together, for each pair of elements.

The two atoms of the pair that are closest in the frame are moved along their line, their middle at rest, and all other
atoms stay. The force between them is that along the line, :math:`f(r) = \tfrac12 (F_j - F_i) \cdot \hat r = -dE/dr`;
positive is repulsive. A potential that is not repulsive below the shortest distance of its data has nothing that keeps
a simulation from going there. In a frame and not in vacuum, since a model knows the surroundings of its data. The
homonuclear diatomics of MLIP Arena (Y. Chiang et al., arXiv 2509.20630) ask the same of two atoms alone.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from ase.neighborlist import neighbor_list

from spk_dt.certificate.engines import Engine

__all__ = ["pair_curves", "repulsive_down_to", "shortest_distances"]

_POINTS = 41
_MOST_ATOMS = 4000  # that are computed at once
_NEAREST = 0.3  # in sums of covalent radii: as far as atoms are pushed
_FARTHEST = 2.5  # likewise: pairs that are never closer are not looked at
_BEYOND = 1.25  # times the shortest distance: where a curve begins

Pair = tuple[int, int]


def shortest_distances(frames: Sequence[Atoms]) -> dict[Pair, tuple[float, int, int, int]]:
    """Shortest distance of each pair of elements, Å, with frame and atoms; pairs that are not close anywhere are absent.

    Args:
        frames: of the data.
    """
    elements = sorted({int(z) for atoms in frames for z in atoms.numbers})
    found: dict[Pair, tuple[float, int, int, int]] = {}
    for pair in combinations_with_replacement(elements, 2):
        limit = {pair: _FARTHEST * (covalent_radii[pair[0]] + covalent_radii[pair[1]])}
        for number, atoms in enumerate(frames):
            i, j, distance = neighbor_list("ijd", atoms, limit)
            own = np.flatnonzero(i != j)  # not an atom and its image, which cannot be pushed together
            if len(own):
                k = own[distance[own].argmin()]
                if pair not in found or distance[k] < found[pair][0]:
                    found[pair] = (float(distance[k]), number, int(i[k]), int(j[k]))
    return found


def pair_curves(
    engine: Engine, frames: Sequence[Atoms], shortest: Mapping[Pair, tuple[float, int, int, int]]
) -> dict[str, Any]:
    """Energies and forces of a model where two atoms are pushed together.

    Args:
        engine: the model.
        frames: of the data, of which `shortest` is.
        shortest: see `shortest_distances`.

    Returns:
        for each pair of elements, ``H-Pd`` for example: ``r`` (Å, decreasing), ``energy`` (eV, above that of the frame),
        ``force`` (eV/Å), ``shortest`` distance in the data, ``down_to`` (see `repulsive_down_to`).
    """
    curves = {}
    for pair, (distance, number, i, j) in shortest.items():
        atoms = frames[number]
        vector = atoms.get_distance(i, j, mic=True, vector=True)
        along = vector / np.linalg.norm(vector)
        nearest = min(_NEAREST * (covalent_radii[pair[0]] + covalent_radii[pair[1]]), 0.9 * distance)
        r = np.linspace(_BEYOND * distance, nearest, _POINTS)
        pushed = []
        for length in (distance, *r):
            moved = atoms.copy()
            moved.set_constraint()
            moved.positions[i] -= 0.5 * (length - distance) * along
            moved.positions[j] += 0.5 * (length - distance) * along
            pushed.append(moved)
        at_once = max(1, _MOST_ATOMS // len(atoms))
        (at_frame, *found) = [
            one for k in range(0, len(pushed), at_once) for one in engine.evaluated(pushed[k : k + at_once])
        ]
        forces = [one.get_forces() for one in found]
        force = np.array([0.5 * (one[j] - one[i]) @ along for one in forces])
        energy = np.array([one.get_potential_energy() - at_frame.get_potential_energy() for one in found])
        curves["-".join(chemical_symbols[z] for z in pair)] = {
            "r": r.tolist(),
            "energy": energy.tolist(),
            "force": force.tolist(),
            "shortest": distance,
            "down_to": repulsive_down_to(r, force, distance),
        }
    return curves


def repulsive_down_to(r: np.ndarray, force: np.ndarray, shortest: float) -> float | None:
    """Down to which distance the force is repulsive all the way from the shortest distance of the data, Å.

    Args:
        r: [n] distances, Å, decreasing.
        force: [n] along the line of the two atoms, positive where repulsive.
        shortest: shortest distance of the data, Å.

    Returns:
        the last of the distances before the first at which it is not; None if it is not at the first one.
    """
    inside = np.asarray(r) <= shortest
    repulsive = np.asarray(force)[inside] > 0.0  # what is not a number is not
    end = len(repulsive) if repulsive.all() else int(repulsive.argmin())
    return float(np.asarray(r)[inside][end - 1]) if end else None
