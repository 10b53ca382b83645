"""Potentials for certificates: a reference, and models of it that are broken on purpose, as ASE calculators."""

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from helpers.pair_potential import Reference


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


class Sticky(Reference):
    """The repulsion is missing: atoms attract each other with 3 eV/Å within 2.3 Å."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        energy, forces = self.results["energy"], self.results["forces"].copy()
        x = self.atoms.positions
        for i in range(len(x)):
            for j in range(i):
                vector = x[j] - x[i]
                r = np.linalg.norm(vector)
                if r < 2.3:
                    energy -= 3.0 * (2.3 - r) + 4.0 * 0.15 * ((2.3 / r) ** 12 - (2.3 / r) ** 6)
                    wall = 24.0 * 0.15 / r * (2.0 * (2.3 / r) ** 12 - (2.3 / r) ** 6)
                    pull = (3.0 + wall) * vector / r
                    forces[i] += pull
                    forces[j] -= pull
        self.results = {"energy": energy, "forces": forces}


class Driving(Reference):
    """Forces that are no gradient: the cluster is stirred, so its energy grows."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x = self.atoms.positions - self.atoms.positions.mean(axis=0)
        self.results["forces"] = self.results["forces"] + 0.05 * np.cross([0.0, 0.0, 1.0], x)
