"""The stress by differences of the energy, for comparison with what files say."""

import numpy as np
from ase import Atoms
from ase.calculators.emt import EMT

STRAIN = 1e-4


def stress_by_differences(atoms: Atoms) -> np.ndarray:
    """[3, 3] derivative of EMT's energy with respect to strain, per volume, in eV/Å^3; no stress of a program takes part."""
    stress = np.empty((3, 3))
    for i, j in np.ndindex(3, 3):
        energies = []
        for sign in (1.0, -1.0):
            deformation = np.eye(3)
            deformation[i, j] += sign * STRAIN
            strained = Atoms(atoms.numbers, atoms.positions @ deformation, cell=atoms.cell @ deformation, pbc=atoms.pbc)
            strained.calc = EMT()
            energies.append(strained.get_potential_energy())
        stress[i, j] = (energies[0] - energies[1]) / (2.0 * STRAIN * atoms.get_volume())
    return stress
