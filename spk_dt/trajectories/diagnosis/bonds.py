r"""Bond lengths tell the unit of length, which no equation of motion does.

For each atom the distance to its neighbours over the sum of both covalent radii,

.. math:: \rho_i = \min_j \frac{|x_i - x_j|}{R_i + R_j},

is 0.73 (uranium) to 1.25 (F2) in the molecules of the G2 set and in the crystals of the elements that ASE builds; in Bohr it
is 1.89 times as much. Atoms of noble gases are left out, since they are not bonded. Radii: Cordero et al., Dalton Trans.
2008, 2832, doi 10.1039/b801115j, as in ASE.
"""

from dataclasses import dataclass
from math import isfinite, log

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.neighborlist import neighbor_list

from spk_dt.trajectories.diagnosis.pieces import PieceReader

__all__ = ["Bonds", "measure_bonds"]

#: frames that are looked at
_FRAMES = 5
_NOBLE_GASES = (2, 10, 18, 36, 54, 86)
#: neighbours are looked for within these multiples of the covalent radii, until most atoms have one
_REACH = (0.15, 0.5, 1.6, 5.0, 25.0)
#: part of the atoms that must have a neighbour
_MOST = 0.8
#: bonds if the middle 80 % of all atoms and frames differ by less than this factor; in a gas they differ by more
_STEADY = 1.7
#: ratio that is refused for itself; below, particles of a model potential may be as far apart
_IMPOSSIBLE = 1.55
#: outside these ratios there are no bonds: 0.58 leaves 20 % below the least, 1.42 leaves 14 % above the largest
_NONE_BELOW, _NONE_ABOVE = 0.58, 1.42
#: logarithm of a ratio that is usual for all atoms
_USUAL = 0.25
#: costs, in units of one cause, of bonds that are unusual, by logarithm of the ratio, and of none at all
_UNUSUAL, _NO_BONDS = 8.0, 6.0


@dataclass(frozen=True)
class Bonds:
    """Distances to the nearest neighbours.

    Args:
        ratio: median over atoms and frames of the distance over the sum of covalent radii.
        distance: of the pair that is named, Å; its ratio is about `ratio`.
        pair: symbols of its atoms.
        radii: sum of their covalent radii, Å.
    """

    ratio: float
    distance: float
    pair: str
    radii: float

    def cost(self, length: float) -> float:
        """How much speaks against lengths that are `length` times those of the database, in units of one cause."""
        ratio = self.ratio * length
        if not _NONE_BELOW < ratio < _NONE_ABOVE:
            return _NO_BONDS
        return _UNUSUAL * max(abs(log(ratio)) - _USUAL, 0.0)

    @property
    def impossible(self) -> bool:
        """Whether no atom has a neighbour at the distance of a bond, be it an unusual one."""
        return not _NONE_BELOW < self.ratio < _IMPOSSIBLE

    def __str__(self) -> str:
        return f"{self.pair} {self.distance:.3g} Å, where covalent radii add up to {self.radii:.3g} Å"


def measure_bonds(reader: PieceReader) -> Bonds | None:
    """Distances to the nearest neighbours in a few frames; None where atoms are not bonded, or it cannot be said."""
    bonding = ~np.isin(reader.numbers, _NOBLE_GASES)
    if not bonding.any():
        return None
    frames = np.unique(np.linspace(0, len(reader) - 1, _FRAMES).astype(int)).tolist()
    found = [_nearest(reader, frame, bonding) for frame in frames]
    ratios = np.concatenate([ratio for ratio, _ in found])
    if np.mean(np.isfinite(ratios)) < _MOST:
        return None
    low, middle, high = np.quantile(ratios, (0.1, 0.5, 0.9), method="nearest")
    if not (low > 0.0 and isfinite(high) and high / low < _STEADY):
        return None
    first, neighbours = found[0]
    i = int(np.argmin(np.abs(first - middle)))
    z = reader.numbers[bonding][i], neighbours[i]
    radii = float(covalent_radii[list(z)].sum())
    pair = "-".join(sorted(chemical_symbols[one] for one in z))
    return Bonds(float(middle), float(first[i] * radii), pair, radii)


def _nearest(reader: PieceReader, frame: int, bonding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ratio to the nearest neighbour, infinite if there is none, and the element of that: [n_bonding] each."""
    numbers = reader.numbers[bonding]
    atoms = reader.atoms(frame, bonding)
    radii = covalent_radii[numbers]
    ratio, element = np.full(len(numbers), np.inf), np.zeros(len(numbers), dtype=int)
    for reach in _REACH:
        i, j, distance = neighbor_list("ijd", atoms, reach * radii)
        relative = distance / (radii[i] + radii[j])
        order = np.argsort(-relative, kind="stable")  # the last that is set is the smallest
        ratio[i[order]], element[i[order]] = relative[order], numbers[j[order]]
        if np.mean(np.isfinite(ratio)) >= _MOST:
            break
    return ratio, element
