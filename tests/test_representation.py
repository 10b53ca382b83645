import numpy as np
import pytest
import torch
from helpers.models import CUTOFF, batch_of, crystal, molecule, potential, random_orthogonal, tiny_egnn, transformed
from schnetpack import properties
from schnetpack.nn import BesselRBF, MollifierCutoff
from torch import nn

from spk_dt.representation import EGNN, RandomFourierFeatures


def outputs(model, *systems, **kwargs):
    result = model(batch_of(*systems, **kwargs))
    return result["energy"].detach(), result["forces"].detach()


class SeesDirections(nn.Module):
    """A representation that is not invariant: the negative control of the symmetry tests."""

    def __init__(self):
        super().__init__()
        self.egnn = tiny_egnn()
        self.cutoff, self.n_atom_basis = self.egnn.cutoff, self.egnn.n_atom_basis

    def forward(self, inputs):
        inputs = self.egnn(inputs)
        seen = torch.zeros_like(inputs["scalar_representation"][:, 0])
        seen = seen.index_add(
            0, inputs[properties.idx_i], inputs[properties.Rij][:, 0] ** 3 + inputs[properties.Rij][:, 1]
        )
        inputs["scalar_representation"] = inputs["scalar_representation"] + 0.01 * seen[:, None]
        return inputs


@pytest.fixture(params=[False, True], ids=["invariant", "coordinates"])
def model(request):
    torch.manual_seed(0)
    model = potential(tiny_egnn(coordinate_channel=request.param)).double()
    for coordinates in model.representation.coordinates:  # far from the near-zero start, so that the test sees them
        nn.init.xavier_uniform_(coordinates.weights[2].weight)
    return model


def symmetry_error(model, atoms, determinant):
    energy, forces = outputs(model, atoms)
    matrix = random_orthogonal(3, determinant)
    new_energy, new_forces = outputs(model, transformed(atoms, matrix, shift=[0.3, -1.0, 2.0]))
    return (new_energy - energy).abs().max() + (new_forces - forces @ matrix.T).abs().max()


@pytest.mark.parametrize("atoms", [molecule(), crystal()], ids=["molecule", "crystal"])
@pytest.mark.parametrize("determinant", [1, -1], ids=["rotation", "reflection"])
def test_energy_invariant_and_forces_equivariant(model, atoms, determinant):
    assert symmetry_error(model, atoms, determinant) < 1e-10


def test_symmetry_test_can_fail():
    torch.manual_seed(0)
    assert symmetry_error(potential(SeesDirections()).double(), molecule(), 1) > 1e-3


def test_vector_representation_rotates(model):
    if len(model.representation.coordinates) == 0:
        assert "vector_representation" not in model.representation(pair_vectors(batch_of(molecule())))
        return
    matrix = random_orthogonal(5, 1)
    vectors = model.representation(pair_vectors(batch_of(molecule())))["vector_representation"]
    rotated = model.representation(pair_vectors(batch_of(transformed(molecule(), matrix))))["vector_representation"]
    assert vectors.abs().max() > 1e-3
    torch.testing.assert_close(rotated, torch.einsum("xy,nyf->nxf", matrix, vectors))


def pair_vectors(batch):
    from schnetpack.atomistic import PairwiseDistances

    return PairwiseDistances()(batch)


def test_permutation(model):
    atoms = crystal()
    order = np.random.default_rng(0).permutation(len(atoms))
    energy, forces = outputs(model, atoms)
    new_energy, new_forces = outputs(model, atoms[order])
    torch.testing.assert_close(new_energy, energy)
    torch.testing.assert_close(new_forces, forces[order])


def test_mixed_batch_is_single_systems(model):
    """Molecule, crystals with different cells, mixed pbc, an atom out of reach, one atom alone."""
    far = molecule(4)
    far.positions[-1] += 100.0
    systems = [molecule(), crystal(1), crystal(2, pbc=[True, False, True]), far, molecule(5, n_atoms=1)]
    energy, forces = outputs(model, *systems)
    singles = [outputs(model, atoms) for atoms in systems]
    torch.testing.assert_close(energy, torch.cat([e for e, _ in singles]))
    torch.testing.assert_close(forces, torch.cat([f for _, f in singles]))
    assert torch.all(forces[-1] == 0.0)
    assert torch.all(singles[3][1][-1] == 0.0)


def test_wrapping_into_the_cell_changes_nothing(model):
    atoms = crystal()
    wrapped = atoms.copy()
    wrapped.positions += atoms.cell.array[0] - 2 * atoms.cell.array[2]
    wrapped.wrap()
    for value, expected in zip(outputs(model, wrapped), outputs(model, atoms), strict=True):
        torch.testing.assert_close(value, expected)


def step_at_cutoff(model, atoms_at, delta=1e-5):
    """Change of energy and forces while a pair crosses the cutoff, beyond what their slopes explain."""
    before = outputs(model, atoms_at(CUTOFF - delta))
    after = outputs(model, atoms_at(CUTOFF + delta))
    return max((a - b).abs().max().item() for a, b in zip(after, before, strict=True))


def pair_and_third(distance):
    import ase

    return ase.Atoms("PdHC", [[0, 0, 0], [distance, 0, 0], [1.0, 1.2, 0.0]])


class NoEnvelope(nn.Module):
    def __init__(self):
        super().__init__()
        self.cutoff = torch.tensor(CUTOFF)

    def forward(self, distances):
        return torch.ones_like(distances)


@pytest.mark.parametrize("cutoff_fn", [None, MollifierCutoff(CUTOFF)], ids=["cosine", "mollifier"])
@pytest.mark.parametrize("coordinate_channel", [False, True])
def test_continuous_at_cutoff(cutoff_fn, coordinate_channel):
    torch.manual_seed(1)
    model = potential(tiny_egnn(cutoff_fn=cutoff_fn, coordinate_channel=coordinate_channel)).double()
    assert step_at_cutoff(model, pair_and_third) < 1e-3


def test_jumps_without_envelope():
    torch.manual_seed(1)
    assert step_at_cutoff(potential(tiny_egnn(cutoff_fn=NoEnvelope())).double(), pair_and_third) > 1e-2


@pytest.mark.parametrize("atoms", [molecule(n_atoms=4), crystal(n_atoms=3)], ids=["molecule", "crystal"])
def test_forces_are_the_gradient_of_the_energy(model, atoms):
    _, forces = outputs(model, atoms)
    h = 1e-4
    for atom in range(len(atoms)):
        for axis in range(3):
            energies = []
            for sign in (1, -1):
                moved = atoms.copy()
                moved.positions[atom, axis] += sign * h
                energies.append(outputs(model, moved)[0])
            numeric = -(energies[0] - energies[1]) / (2 * h)
            assert abs(numeric - forces[atom, axis]) < 1e-6 * max(1.0, forces.abs().max())


def test_second_derivatives():
    torch.manual_seed(0)
    representation = tiny_egnn(coordinate_channel=True, n_atom_basis=4, n_rbf=4).double()
    model = potential(representation).double().train()
    batch = batch_of(molecule(n_atoms=3))

    def forces(positions):
        return model({**batch, properties.R: positions})["forces"]

    assert torch.autograd.gradcheck(forces, batch[properties.R].clone().requires_grad_())


@pytest.mark.parametrize("coordinate_channel", [False, True])
@pytest.mark.parametrize(
    "radial_basis", [RandomFourierFeatures(16, 4.0), BesselRBF(8, CUTOFF)], ids=["fourier", "bessel"]
)
def test_scripted_model_is_the_same(coordinate_channel, radial_basis):
    torch.manual_seed(0)
    model = potential(tiny_egnn(coordinate_channel=coordinate_channel))
    model.representation = EGNN(8, 2, radial_basis, model.representation.cutoff_fn, coordinate_channel)
    batch = batch_of(molecule(), crystal(), dtype=torch.float32)
    expected = model(dict(batch))
    result = torch.jit.script(model)(dict(batch))
    torch.testing.assert_close(result["forces"], expected["forces"])
    torch.testing.assert_close(result["energy"], expected["energy"])
    assert model.representation.cutoff.item() == CUTOFF  # what spkdeploy reads


def test_random_fourier_features():
    features = RandomFourierFeatures(4, 2.0).double()
    values = features(torch.tensor([0.0, 1.0]))
    assert values.shape == (2, 4)
    torch.testing.assert_close(values[0], torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(values[:, :2] ** 2 + values[:, 2:] ** 2, torch.ones(2, 2, dtype=torch.float64))
    torch.manual_seed(0)
    many = RandomFourierFeatures(200_000, 4.0)
    kernel = many(torch.tensor([1.0])) @ many(torch.tensor([1.3])).T / 100_000
    assert abs(kernel.item() - np.exp(-((4.0 * 0.3) ** 2) / 4)) < 0.01
    with pytest.raises(ValueError, match="n_rbf=7"):
        RandomFourierFeatures(7)
