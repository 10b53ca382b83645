"""The stress of a model is the derivative of its energy with respect to strain: plain, compiled, and along a rollout."""

import copy
from functools import partial

import ase.build
import numpy as np
import pytest
import schnetpack as spk
import torch
from helpers.models import CUTOFF, batch_of, crystal, lammps_input, painn, potential, tiny_egnn
from schnetpack import properties as p
from schnetpack.atomistic import Forces, PairwiseDistances, Response, StaticExternalFields, Strain
from schnetpack.interfaces import SpkCalculator
from schnetpack.nn import CosineCutoff, GaussianRBF
from schnetpack.transform import MatScipyNeighborList

from spk_dt.dynamics import (
    CompiledPotential,
    Detached,
    Full,
    ModelForces,
    Truncated,
    VerletList,
    predict_stress,
    rollout,
    strained,
    stress_key_of,
    without_stress,
)

STRAIN = 1e-5
# SchNetPack's module of external fields cannot be traced
COMPILED = ("egnn", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("schnet", "painn", "so3net")))


def field_schnet():
    parts = (GaussianRBF(8, CUTOFF), ["electric_field"], None, CosineCutoff(CUTOFF))
    return spk.representation.FieldSchNet(8, 2, *parts)


REPRESENTATIONS = {
    "egnn": tiny_egnn,
    "schnet": lambda: spk.representation.SchNet(8, 2, GaussianRBF(8, CUTOFF), CosineCutoff(CUTOFF)),
    "painn": painn,
    "so3net": lambda: spk.representation.SO3net(
        8, 2, 1, GaussianRBF(8, CUTOFF), cutoff_fn=CosineCutoff(CUTOFF), shared_interactions=False
    ),
    "field_schnet": field_schnet,
}


def models(kind):
    """A model, and the same with its stress."""
    torch.manual_seed(0)
    model = potential(REPRESENTATIONS[kind]()).double()
    if kind == "field_schnet":
        model.input_modules.append(StaticExternalFields(external_fields=["electric_field"]))
    with torch.no_grad():  # so that the stress is not lost in rounding
        for parameter in model.output_modules[0].parameters():
            parameter *= 100.0
    stressed = copy.deepcopy(model)
    predict_stress(stressed)
    return model.eval(), stressed.eval()


def same_gradients(model, plain, found, rtol):
    """Of a loss of both outputs, with respect to all parameters."""
    loss_of(plain).backward()
    expected = gradients(model)
    loss_of(found).backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=rtol, atol=1e-9)


def stress_by_differences(model, atoms):
    """[3, 3] of the energy of a model without a stress; pairs are found anew in each strained crystal."""
    found = np.empty((3, 3))
    for i, j in np.ndindex(3, 3):
        energies = []
        for sign in (1.0, -1.0):
            matrix = np.eye(3)
            matrix[i, j] += sign * STRAIN
            moved = atoms.copy()
            moved.set_cell(atoms.cell.array @ matrix.T, scale_atoms=False)
            moved.positions = atoms.positions @ matrix.T
            energies.append(model(batch_of(moved))["energy"].item())
        found[i, j] = (energies[0] - energies[1]) / (2.0 * STRAIN * atoms.get_volume())
    return found


def crystals():
    """Two of different cells, one of them periodic along two directions only."""
    slab = crystal(4, 6)
    slab.pbc = (True, True, False)
    return [crystal(1), slab]


def expect(model, systems, stresses, atol=1e-8):
    for atoms, stress in zip(systems, stresses.detach().numpy(), strict=True):
        expected = stress_by_differences(model, atoms)
        assert np.abs(np.linalg.eigvalsh(expected)).min() > 1e-5  # all components are there
        np.testing.assert_allclose(stress, expected, atol=atol, rtol=1e-5)
        for wrong in (-expected, 0.0 * expected, expected[[1, 0, 2]][:, [1, 0, 2]]):
            assert np.abs(stress - wrong).max() > 100.0 * np.abs(stress - expected).max()


@pytest.fixture
def traced(monkeypatch):
    """Everything of compilation but the machine code, which takes a minute."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


@pytest.mark.parametrize("kind", REPRESENTATIONS)
def test_stress_of_a_model(kind):
    model, stressed = models(kind)
    outputs = stressed(batch_of(*crystals()))
    expect(model, crystals(), outputs["stress"])
    for key in ("energy", "forces"):
        torch.testing.assert_close(outputs[key], model(batch_of(*crystals()))[key], rtol=1e-12, atol=1e-12)


class HalfStrain(Strain):
    """Leaves one of what it should strain as it is."""

    def __init__(self, left_out):
        super().__init__()
        self.left_out = left_out

    def forward(self, inputs):
        kept = inputs[self.left_out]
        return super().forward(inputs) | {self.left_out: kept}


@pytest.mark.parametrize("left_out", [p.R, p.offsets])
def test_what_is_not_strained_is_found(left_out):
    model, stressed = models("egnn")
    stressed.input_modules[0] = HalfStrain(left_out)
    with pytest.raises(AssertionError):
        expect(model, crystals(), stressed(batch_of(*crystals()))["stress"])


def test_strained_is_what_schnetpack_makes_of_it():
    batch = batch_of(*crystals())
    theirs = Strain()(dict(batch))
    strain = torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = strained(batch, torch.zeros_like(strain))
    for key in (p.R, p.cell, p.offsets):
        torch.testing.assert_close(ours[key], theirs[key], rtol=0.0, atol=0.0)
    moved = strained(batch, strain)  # pairs across the cell stay pairs across the cell
    matrix = torch.eye(3, dtype=torch.float64) + strain.mT
    vectors = [x[p.R][x[p.idx_j]] - x[p.R][x[p.idx_i]] + x[p.offsets] for x in (batch, moved)]
    of_pairs = batch[p.idx_m][batch[p.idx_i]]
    torch.testing.assert_close(torch.einsum("pi,pij->pj", vectors[0], matrix[of_pairs]), vectors[1])
    torch.testing.assert_close(moved[p.cell], batch[p.cell] @ matrix)


def loss_of(outputs):
    return outputs["stress"].pow(2).sum() * 1e4 + outputs["forces"].pow(2).sum() + outputs["energy"].sum()


def gradients(model):
    found = {name: q.grad.clone() for name, q in model.named_parameters() if q.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("kind", COMPILED)
def test_compiled(traced, kind):
    """The same numbers, and the same gradients of the parameters, for batches of other sizes, too."""
    _, stressed = models(kind)
    stressed.train()
    compiled = CompiledPotential(stressed)
    for systems in (crystals(), [crystal(5, 7), *crystals()]):
        batch = batch_of(*systems)
        plain, found = stressed(dict(batch)), compiled(batch)
        assert found.keys() == plain.keys()
        for key in plain:
            torch.testing.assert_close(found[key], plain[key], rtol=1e-10, atol=1e-12)
        same_gradients(stressed, plain, found, 1e-8)
    assert compiled.compiled


@pytest.mark.slow
def test_with_machine_code():
    torch._dynamo.reset()
    _, stressed = models("egnn")
    compiled = CompiledPotential(stressed.train())
    batch = batch_of(*crystals())
    plain, found = stressed(dict(batch)), compiled(batch)
    torch.testing.assert_close(found["stress"], plain["stress"], rtol=1e-9, atol=1e-11)
    same_gradients(stressed, plain, found, 1e-7)
    assert compiled.compiled


def test_compiled_by_differences(traced):
    """Not the plain model, but the energy decides."""
    model, stressed = models("egnn")
    compiled = CompiledPotential(stressed)
    expect(model, crystals(), compiled(batch_of(*crystals()))["stress"])
    assert compiled.compiled


MODES = {"detached": Detached(), "full": Full(), "kept": Full(recompute=False), "truncated": Truncated(2)}
ALSO_SLOW = [pytest.param(mode, marks=[] if mode == "truncated" else pytest.mark.slow) for mode in MODES]


def visited(predict, gradient):
    """States of a rollout of five steps in which neighbours change."""
    batch = batch_of(*crystals())
    pair_keys = (p.idx_i, p.idx_j, p.offsets, p.lidx_i, p.lidx_j)
    inputs = {key: value for key, value in batch.items() if key not in pair_keys}
    force_fn = ModelForces(predict, inputs, VerletList(CUTOFF, 0.5))
    state = (batch[p.R], 20.0 * batch["velocities"], batch[p.masses])
    return list(rollout(force_fn, *state, 0.1, 5, gradient))


@pytest.mark.parametrize("kind", REPRESENTATIONS)
def test_at_a_later_step_of_a_rollout(kind):
    model, stressed = models(kind)
    stressed.train()
    last = visited(stressed, Full())[-1]
    systems = crystals()
    for atoms, positions in zip(systems, last.state.positions.detach().split([5, 6]), strict=True):
        assert np.abs(positions.numpy() - atoms.positions).max() > 0.1
        atoms.positions = positions.numpy()
    expect(model, systems, last.outputs["stress"])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ALSO_SLOW)
def test_gradients_of_rollouts_compiled_and_not(traced, mode):
    _, stressed = models("egnn")
    stressed.train()
    found = []
    for predict in (stressed, CompiledPotential(stressed)):
        states = visited(predict, MODES[mode])
        sum(one.outputs["stress"].pow(2).sum() for one in states).mul(1e4).backward()
        found.append(gradients(stressed))
    assert any(bool(gradient.abs().max() > 1e-6) for gradient in found[0].values())
    for name in found[0]:  # positions that are other by 1e-15 of their value change single gradients by 4e-7
        torch.testing.assert_close(found[1][name], found[0][name], rtol=1e-5, atol=1e-9)


def test_full_gradient_by_differences():
    """Of the stress at the last step, with respect to a parameter: it has moved the atoms until then."""
    _, stressed = models("egnn")
    stressed.train()
    parameter = stressed.output_modules[0].outnet[-1].weight

    def value(gradient):
        return visited(stressed, gradient)[-1].outputs["stress"].sum()

    value(Full()).backward()
    full = parameter.grad.clone()
    stressed.zero_grad()
    value(Detached()).backward()
    differences = []
    with torch.no_grad():
        for shift in (1e-4, -2e-4):
            parameter[0, 0] += shift
            differences.append(float(value(Full())))
    expected = (differences[0] - differences[1]) / 2e-4
    assert float(full[0, 0]) == pytest.approx(expected, rel=1e-4)
    assert abs(float(parameter.grad[0, 0]) - expected) > 1e-2 * abs(expected)


def test_models_that_have_it_keep_it():
    model, stressed = models("egnn")
    assert (stress_key_of(model), stress_key_of(stressed)) == (None, "stress")
    modules = len(stressed.input_modules)
    predict_stress(stressed)
    assert len(stressed.input_modules) == modules
    assert isinstance(stressed.input_modules[0], Strain)
    with pytest.raises(ValueError, match="calls its stress 'stress', not 'sigma'"):
        predict_stress(stressed, "sigma")
    predict_stress(model, "sigma")
    torch.testing.assert_close(
        model(batch_of(crystal(1)))["sigma"], stressed(batch_of(crystal(1)))["stress"], rtol=1e-12, atol=1e-12
    )
    without = potential()
    without.output_modules = without.output_modules[:1]
    with pytest.raises(ValueError, match="a stress cannot be added to"):
        predict_stress(without)
    without.output_modules.append(Response("energy", ["forces"]))
    with pytest.raises(ValueError, match="a stress cannot be added to"):
        predict_stress(without)


def test_in_schnetpacks_own_way():
    """Modules that a config names."""
    ours = models("egnn")[1]
    theirs = spk.model.NeuralNetworkPotential(
        ours.representation, [Strain(), PairwiseDistances()], [ours.output_modules[0], Forces(calc_stress=True)]
    )
    batch = batch_of(ase.build.bulk("Cu", cubic=True))
    torch.testing.assert_close(theirs(dict(batch))["stress"], ours(dict(batch))["stress"])


def test_taken_out_for_lammps():
    """What SchNetPack's pair style hands over has a cell that a strain cannot take."""
    model, stressed = models("egnn")
    given = lammps_input(crystal(1))
    with pytest.raises(RuntimeError):
        torch.jit.script(copy.deepcopy(stressed).float())(dict(given))
    without_stress(stressed)
    assert stress_key_of(stressed) is None
    found = torch.jit.script(stressed.float())(dict(given))
    expected = model.float()(dict(given))
    assert found.keys() == expected.keys() == {"energy", "forces"}
    torch.testing.assert_close(found["forces"], expected["forces"])


@pytest.mark.parametrize("kind", ["egnn", "painn"])
def test_scripted_and_by_ase(kind, tmp_path):
    """SchNetPack's calculator switches the stress on once more, which changes nothing."""
    _, stressed = models(kind)
    batch = batch_of(crystal(1))
    expected = stressed(dict(batch))["stress"]
    torch.testing.assert_close(torch.jit.script(copy.deepcopy(stressed))(dict(batch))["stress"], expected)
    torch.save(stressed, tmp_path / "model")
    atoms = crystal(1)
    neighbors = MatScipyNeighborList(cutoff=CUTOFF)
    units = {"energy_unit": "eV", "position_unit": "Ang", "dtype": torch.float64}
    atoms.calc = SpkCalculator(str(tmp_path / "model"), neighbors, stress_key="stress", **units)
    np.testing.assert_allclose(atoms.get_stress(voigt=False), expected[0].detach().numpy(), rtol=1e-6, atol=1e-9)
