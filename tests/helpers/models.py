"""Small models and batches that several tests share."""

import ase
import numpy as np
import pytest
import schnetpack as spk
import torch
from packaging.version import Version
from schnetpack import properties
from schnetpack.atomistic import Atomwise, Forces, PairwiseDistances
from schnetpack.data.loader import _atoms_collate_fn
from schnetpack.model import NeuralNetworkPotential
from schnetpack.nn import CosineCutoff, GaussianRBF
from schnetpack.transform import MatScipyNeighborList
from scipy.stats import ortho_group

from spk_dt import properties as dt_properties
from spk_dt.representation import EGNN

CUTOFF = 4.0

#: older versions cannot trace these models, which then run uncompiled
needs_compilation = pytest.mark.skipif(
    Version(torch.__version__) < Version("2.13"), reason="PyTorch compiles these models from 2.13 on"
)


def tiny_egnn(cutoff=CUTOFF, n_atom_basis=8, n_rbf=8, n_interactions=2, cutoff_fn=None, **kwargs):
    return EGNN(
        n_atom_basis,
        n_interactions,
        GaussianRBF(n_rbf, cutoff),
        CosineCutoff(cutoff) if cutoff_fn is None else cutoff_fn,
        **kwargs,
    )


def potential(representation=None, postprocessors=()):
    representation = tiny_egnn() if representation is None else representation
    return NeuralNetworkPotential(
        representation,
        [PairwiseDistances()],
        [Atomwise(representation.n_atom_basis, output_key="energy"), Forces()],
        postprocessors=list(postprocessors),
    )


def painn(cutoff=CUTOFF):
    return spk.representation.PaiNN(8, 2, GaussianRBF(8, cutoff), CosineCutoff(cutoff))


def two_schnets(folder, n_interactions, cutoff):
    """Files of two models of SchNetPack with random weights."""
    paths = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        paths.append(folder / f"model_{seed}")
        representation = spk.representation.SchNet(8, n_interactions, GaussianRBF(6, cutoff), CosineCutoff(cutoff))
        torch.save(potential(representation), paths[-1])
    return paths


def sample(atoms, radius=CUTOFF, dtype=torch.float64):
    """One system as a SchNetPack sample with velocities, masses and time step."""
    inputs = {
        properties.idx: torch.tensor([0]),
        properties.n_atoms: torch.tensor([len(atoms)]),
        properties.Z: torch.tensor(atoms.numbers, dtype=torch.long),
        properties.R: torch.tensor(atoms.positions),
        properties.cell: torch.tensor(atoms.cell.array)[None],
        properties.pbc: torch.tensor(atoms.pbc),
        properties.masses: torch.tensor(atoms.get_masses()),
        dt_properties.velocities: torch.tensor(atoms.get_velocities()),
        dt_properties.time_step: torch.tensor([0.5 * ase.units.fs]),
    }
    inputs = MatScipyNeighborList(radius)(inputs)
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}


def batch_of(*systems, radius=CUTOFF, dtype=torch.float64):
    return _atoms_collate_fn([sample(atoms, radius, dtype) for atoms in systems])


def molecule(seed=0, n_atoms=6, spread=2.0):
    """Random H, C, Pd atoms that do not overlap, with thermal velocities."""
    rng = np.random.default_rng(seed)
    positions = np.empty((0, 3))
    while len(positions) < n_atoms:
        trial = rng.uniform(-spread, spread, 3)
        if len(positions) == 0 or np.linalg.norm(positions - trial, axis=1).min() > 0.9:
            positions = np.vstack([positions, trial])
    atoms = ase.Atoms(numbers=rng.choice([1, 6, 46], n_atoms), positions=positions)
    atoms.set_velocities(rng.normal(scale=0.02, size=(n_atoms, 3)))
    return atoms


def crystal(seed=0, n_atoms=5, pbc=True):
    """Random atoms in a skewed cell smaller than twice the cutoff."""
    atoms = molecule(seed, n_atoms, spread=1.8)
    rng = np.random.default_rng(seed + 1)
    atoms.set_cell(4.5 * np.eye(3) + rng.uniform(-0.6, 0.6, (3, 3)))
    atoms.pbc = pbc
    return atoms


def positions_to_forces(model, batch):
    """Forces of a batch as a function of positions, with pairs found anew by the transform."""
    from spk_dt.dynamics import ModelForces, VerletList

    pair_keys = (properties.idx_i, properties.idx_j, properties.offsets, properties.lidx_i, properties.lidx_j)
    inputs = {key: value for key, value in batch.items() if key not in pair_keys}
    return ModelForces(model, inputs, VerletList(float(model.representation.cutoff), 0.5))


def lammps_input(atoms):
    """What `pair_style schnetpack` hands to the model: single precision, one system, no pbc."""
    batch = batch_of(atoms, dtype=torch.float32)
    keys = (
        properties.R, properties.idx_i, properties.idx_j, properties.idx_m, properties.offsets, properties.n_atoms,
        properties.Z,
    )  # fmt: skip
    return {key: batch[key] for key in keys} | {properties.cell: batch[properties.cell].view(3, 3)}


def random_orthogonal(seed, determinant):
    matrix = ortho_group.rvs(3, random_state=seed)
    matrix[0] *= determinant * np.sign(np.linalg.det(matrix))
    return torch.tensor(matrix)


def transformed(atoms, matrix=None, shift=None):
    atoms = atoms.copy()
    if matrix is not None:
        atoms.set_cell(atoms.cell.array @ matrix.numpy().T)
        atoms.positions = atoms.positions @ matrix.numpy().T
        atoms.set_velocities(atoms.get_velocities() @ matrix.numpy().T)
    if shift is not None:
        atoms.positions += shift
    return atoms
