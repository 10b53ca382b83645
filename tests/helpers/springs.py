"""A calculator for any structure: Morse bonds between neighbours, whose shortest distances stay what they are."""

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list


class MorseBonds(Calculator):
    """Bonds of the first structure: E = D (1 - exp(-a (r - r0)))² each, with r0 the distance there.

    Args:
        atoms: structure at rest.
        depth: D, eV.
        stiffness: a, 1/Å.
        reach: atoms are bonded within this multiple of the sum of their covalent radii.
    """

    implemented_properties = ("energy", "forces")

    def __init__(self, atoms: Atoms, depth: float = 3.0, stiffness: float = 1.6, reach: float = 1.7) -> None:
        super().__init__()
        self.depth, self.stiffness = depth, stiffness
        i, j, self.shifts, self.rest = neighbor_list("ijSd", atoms, reach * covalent_radii[atoms.numbers])
        self.i, self.j = i, j

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        vectors = atoms.positions[self.j] - atoms.positions[self.i] + self.shifts @ atoms.cell.array
        lengths = np.linalg.norm(vectors, axis=1)
        decay = np.exp(-self.stiffness * (lengths - self.rest))
        pull = self.depth * self.stiffness * decay * (1.0 - decay)  # half of each bond, which is there twice
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, self.i, 2.0 * (pull / lengths)[:, None] * vectors)
        self.results = {"energy": 0.5 * float(np.sum(self.depth * (1.0 - decay) ** 2)), "forces": forces}
