"""Argon as a SchNetPack model with a stress: a smooth Lennard-Jones potential, and its pressure by differences."""

import ase.units
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from schnetpack import properties
from schnetpack.atomistic import Forces, PairwiseDistances
from schnetpack.model import NeuralNetworkPotential
from schnetpack.nn import CosineCutoff

from helpers.models import batch_of
from helpers.pair_potential import Sum
from spk_dt.dynamics import predict_stress

CUTOFF, SIGMA, EPSILON = 6.5, 3.405, 119.8 * ase.units.kB  # Å, Å, eV


class Argon(torch.nn.Module):
    """Energy of each atom."""

    def __init__(self, energy_unit=1.0, length_unit=1.0):
        super().__init__()
        self.cutoff_fn = CosineCutoff(CUTOFF).double()
        self.energy_unit, self.length_unit = energy_unit, length_unit  # in eV and Å
        self.register_buffer("cutoff", torch.tensor(CUTOFF / length_unit, dtype=torch.float64))

    def forward(self, inputs):
        r = torch.linalg.vector_norm(inputs[properties.Rij], dim=1) * self.length_unit
        ratio = (SIGMA / r) ** 6
        pairs = 2.0 * EPSILON * (ratio**2 - ratio) * self.cutoff_fn(r)
        zeros = torch.zeros(len(inputs[properties.Z]), dtype=r.dtype)
        inputs["atomic"] = zeros.index_add(0, inputs[properties.idx_i], pairs / self.energy_unit)
        return inputs


def argon(path, stress=True, cls=Forces, **units):
    """Store the model."""
    model = NeuralNetworkPotential(Argon(**units), [PairwiseDistances()], [Sum("energy"), cls()])
    if stress:
        predict_stress(model)
    torch.save(model.eval(), path)
    return path


def fcc(a=5.3, repeat=2, mass=None):
    """A crystal in a sheared cell."""
    atoms = bulk("Ar", cubic=True, a=a).repeat(repeat)
    shear = np.array([[1.0, 0.04, 0.02], [0.0, 1.01, 0.03], [0.0, 0.0, 0.98]])
    atoms.set_cell(atoms.cell.array @ shear, scale_atoms=True)
    if mass is not None:
        atoms.set_masses([mass] * len(atoms))
    return atoms


def virial_pressure(positions, cells, step=1e-4):
    """-dE/dV of systems, [n_systems] in eV/Å^3, by differences of the energy in cells that are larger and smaller.

    Args:
        positions: [n_systems, n_beads, n_atoms, 3] Å. Centres of beads are scaled with the cell, distances from them not.
        cells: [n_systems, 3, 3] Å.
    """
    model = NeuralNetworkPotential(Argon(), [PairwiseDistances()], [Sum("energy")])
    centres = positions.mean(1, keepdims=True)
    energies = []
    for factor in (1.0 - step, 1.0 + step):
        moved = factor * centres + positions - centres
        systems = [
            Atoms(f"Ar{positions.shape[2]}", positions=bead, cell=factor * cell, pbc=True)
            for beads, cell in zip(moved, cells, strict=True)
            for bead in beads
        ]
        energy = model(batch_of(*systems, radius=CUTOFF))["energy"].detach().numpy()
        energies.append(energy.reshape(positions.shape[:2]).mean(1))
    volumes = np.abs(np.linalg.det(cells))
    return -(energies[1] - energies[0]) / (volumes * ((1.0 + step) ** 3 - (1.0 - step) ** 3))
