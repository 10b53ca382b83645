"""A Lennard-Jones potential, as a SchNetPack model and as ASE has it: trajectories that a model follows exactly."""

import ase.units
import numpy as np
import torch
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.verlet import VelocityVerlet
from schnetpack import properties
from schnetpack.atomistic import Forces, PairwiseDistances
from schnetpack.model import NeuralNetworkPotential

from helpers.pair_reference import CUTOFF, EPSILON, SIGMA, ZERO
from helpers.simulated import recorded, warm


class PairEnergies(torch.nn.Module):
    """Energy of each atom, and its neighbours in some shells. Beyond `breaks_beyond` (Å) a pair is torn apart."""

    def __init__(self, depth=1.0, energy_unit=1.0, length_unit=1.0, breaks_beyond=None, kick=1e4):
        super().__init__()
        self.depth, self.energy_unit, self.length_unit = depth, energy_unit, length_unit  # the units in eV and Å
        self.breaks_beyond, self.kick = breaks_beyond, kick
        self.register_buffer("cutoff", torch.tensor(CUTOFF / length_unit, dtype=torch.float64))

    def forward(self, inputs):
        r = torch.linalg.vector_norm(inputs[properties.Rij], dim=1) * self.length_unit

        def energy(x):
            return 4.0 * EPSILON * ((SIGMA / x) ** 12 - (SIGMA / x) ** 6)

        pairs = 0.5 * self.depth * (energy(r) - energy(CUTOFF))
        if self.breaks_beyond is not None:
            pairs = pairs - self.kick * torch.relu(r - self.breaks_beyond) ** 2
        n_atoms = len(inputs[properties.Z])
        inputs["atomic"] = torch.zeros(n_atoms, dtype=r.dtype, device=r.device).index_add(
            0, inputs[properties.idx_i], pairs / self.energy_unit
        )
        shells = torch.exp(-((r[:, None] - torch.linspace(2.0, 4.0, 6, dtype=r.dtype, device=r.device)) ** 2) / 0.05)
        features = r.new_zeros(n_atoms, shells.shape[1]).index_add(0, inputs[properties.idx_i], shells)
        inputs["scalar_representation"] = features  # as the host's representations have it
        return inputs


class Sum(torch.nn.Module):
    """Energy of each system."""

    def __init__(self, energy_key):
        super().__init__()
        self.energy_key = energy_key
        self.model_outputs = [energy_key]

    def forward(self, inputs):
        n = len(inputs[properties.n_atoms])
        atomic = inputs["atomic"]
        inputs[self.energy_key] = atomic.new_zeros(n).index_add(0, inputs[properties.idx_m], atomic)
        return inputs


def pair_model(path, energy_key="energy", force_key="forces", **kwargs):
    """Store the potential as a SchNetPack model."""
    path.parent.mkdir(parents=True, exist_ok=True)
    forces = Forces(energy_key=energy_key, force_key=force_key)
    torch.save(NeuralNetworkPotential(PairEnergies(**kwargs), [PairwiseDistances()], [Sum(energy_key), forces]), path)
    return path


def tetrahedron(symbols="Pd2H2"):
    return Atoms(symbols, positions=np.array([[0, 0, 0], [1.8, 1.8, 0], [1.8, 0, 1.8], [0, 1.8, 1.8]]) + 0.03)


def pair_trajectory(atoms, steps, timestep_fs, seed=0, kelvin=800.0):
    """Frames at constant energy with the potential of ASE."""
    atoms = atoms.copy()
    atoms.calc = LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=CUTOFF)
    warm(atoms, kelvin, seed)
    return recorded(VelocityVerlet(atoms, timestep_fs * ase.units.fs), steps)


class Trainable(PairEnergies):
    """The potential with parameters: its depth, and an energy of each atom by element."""

    def __init__(self, depth):
        super().__init__()
        del self.depth
        self.depth = torch.nn.Parameter(torch.tensor(depth, dtype=torch.float64))
        self.bias = torch.nn.Parameter(torch.zeros(100, dtype=torch.float64))

    def forward(self, inputs):
        inputs = super().forward(inputs)
        inputs["atomic"] = inputs["atomic"] + self.bias[inputs[properties.Z]]
        return inputs


def trainable(path, depth=0.9):
    """Store the potential as a model that can be trained, and whose depth is wrong."""
    model = torch.load(pair_model(path), weights_only=False)
    model.representation = Trainable(depth)
    torch.save(model, path)
    return path


def of_another_zero(frames, offsets=ZERO, factor=1.0):
    """Frames whose energies have another zero, and a factor before that."""
    for atoms in frames:
        energy = factor * atoms.get_potential_energy() + sum(offsets[z] for z in atoms.numbers)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=atoms.get_forces())
    return frames
