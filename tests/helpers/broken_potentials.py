"""Potentials for certificates: a reference, and models of it that are broken on purpose, as ASE calculators."""

from itertools import combinations

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from helpers.pair_reference import EPSILON, SIGMA, Reference


class DoubleWell(Calculator):
    r"""Two atoms: :math:`E = B\,((r - 2)^2 - w^2)^2 / w^4` in eV and Å, wells at 2 ∓ w Å."""

    implemented_properties = ("energy", "forces")
    barrier, far = 1.0, 0.0  # eV; energy of the far well above the near one

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        vector = self.atoms.positions[1] - self.atoms.positions[0]
        r, w = np.linalg.norm(vector), 0.5
        x = (r - 2.0) / w
        energy = self.barrier * (x * x - 1.0) ** 2 + self.far * (x + 1.0) / 2.0
        slope = (4.0 * self.barrier * x * (x * x - 1.0) + self.far / 2.0) / w
        force = -slope * vector / r
        self.results = {"energy": energy, "forces": np.array([-force, force])}


class LowBarrier(DoubleWell):
    """The barrier is missing, and thus what is behind it is reached, where the reference is high."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        vector = self.atoms.positions[1] - self.atoms.positions[0]
        r = np.linalg.norm(vector)
        if 1.5 < r < 2.5:  # flat between the wells; their outer walls are those of the reference
            self.results = {"energy": 0.0, "forces": np.zeros((2, 3))}


def _pair(r):
    """Energy of a pair of `Reference`, eV, and its slope, eV/Å."""
    x = (SIGMA / r) ** 6
    return 4.0 * EPSILON * (x * x - x), -24.0 * EPSILON / r * (2.0 * x * x - x)


class Sticky(Reference):
    """The repulsion is missing: within 2.5 Å atoms attract each other with 3 eV/Å."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        energy, forces, x = self.results["energy"], self.results["forces"].copy(), self.atoms.positions
        for i, j in combinations(range(len(x)), 2):
            r = np.linalg.norm(x[j] - x[i])
            if r < 2.5:
                energy += _pair(2.5)[0] - 3.0 * (2.5 - r) - _pair(r)[0]
                pull = (3.0 - _pair(r)[1]) * (x[j] - x[i]) / r
                forces[i] += pull
                forces[j] -= pull
        self.results = {"energy": energy, "forces": forces}


class Driving(Reference):
    """Forces that are no gradient: the cluster is stirred, so its energy grows."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x = self.atoms.positions - self.atoms.positions.mean(axis=0)
        self.results["forces"] = self.results["forces"] + 0.05 * np.cross([0.0, 0.0, 1.0], x)
