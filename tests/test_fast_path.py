"""The fast path of EGNN: the same numbers as the plain one, to rounding error, in energies, forces and gradients."""

import copy
import pickle

import ase.units
import pytest
import torch
import torch.nn.functional as F
from helpers.models import CUTOFF, batch_of, crystal, molecule, positions_to_forces, potential
from schnetpack import properties
from schnetpack.nn import BesselRBF, CosineCutoff, GaussianRBF
from torch import nn

from spk_dt.dynamics import rollout
from spk_dt.representation import EGNN, RandomFourierFeatures
from spk_dt.representation.chebyshev import ChebyshevSeries
from spk_dt.representation.layer_norm_silu import LayerNormSiLU


def features(n_rbf=512, seed=0):
    torch.manual_seed(seed)
    return RandomFourierFeatures(n_rbf)


def fast_and_plain(dtype=torch.float64, n_rbf=512):
    """The same model twice."""
    basis, models = features(n_rbf), []
    for fast in (True, False):
        torch.manual_seed(1)
        models.append(potential(EGNN(16, 3, copy.deepcopy(basis), CosineCutoff(CUTOFF), fast=fast)).to(dtype))
    assert models[0].representation._series is not None
    assert models[1].representation._series is None
    return models


def batch(dtype=torch.float64):
    return batch_of(crystal(0), molecule(1), crystal(2, 7), dtype=dtype)


def relative(a, b):
    return float((a - b).norm() / b.norm())


def force_gradients(model, inputs):
    """Gradients of a loss of energies and forces: second derivatives of the energy."""
    model.zero_grad()
    predicted = model.train()(dict(inputs))
    (predicted["forces"].pow(2).sum() + predicted["energy"].pow(2).sum()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_energies_forces_and_gradients_are_those_of_the_plain_path():
    fast, plain = fast_and_plain()
    inputs = batch()
    one, other = fast(dict(inputs)), plain(dict(inputs))
    for key in ("energy", "forces"):
        assert relative(one[key], other[key]) < 1e-6
    gradients, expected = force_gradients(fast, inputs), force_gradients(plain, inputs)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert relative(gradient, expected[name]) < 1e-6 or expected[name].norm() < 1e-12, name


def test_too_short_a_series_is_seen():
    """The control: with three quarters of the terms the bounds above do not hold."""
    fast, plain = fast_and_plain()
    inputs = batch()
    fast(dict(inputs))  # makes the series in double precision
    series = fast.representation._series
    keep = 3 * len(series.degrees) // 4
    series.coefficients, series.degrees = series.coefficients[:keep], series.degrees[:keep]
    assert relative(fast(dict(inputs))["forces"], plain(dict(inputs))["forces"]) > 1e-6


def test_in_single_precision():
    """As near to double precision as the plain path is, within a factor."""
    exact = fast_and_plain()[1](batch())["forces"]
    errors = [
        relative(model(batch(torch.float32))["forces"].double(), exact) for model in fast_and_plain(torch.float32)
    ]
    assert errors[0] < 1e-5
    assert errors[0] < 5.0 * errors[1]


def test_one_set_of_parameters():
    fast, plain = fast_and_plain()
    assert list(fast.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(fast.state_dict())


@pytest.mark.slow
def test_energy_is_conserved():
    """100 fs at constant energy: the fast path drifts as little as the plain one; forces of another basis drift."""

    def drift(model, energy_model):
        atoms = molecule(4)
        inputs = batch_of(atoms)
        masses = inputs[properties.masses]
        state = [inputs[properties.R], torch.tensor(atoms.get_velocities()), masses]
        totals = []
        energies = positions_to_forces(energy_model, inputs)
        for visited in rollout(positions_to_forces(model.eval(), inputs), *state, 0.25 * ase.units.fs, 400):
            kinetic = 0.5 * (masses[:, None] * visited.state.velocities**2).sum()
            totals.append(float(kinetic + energies(visited.state.positions.detach())[1]["energy"].sum()))
            motion = kinetic
        totals = torch.tensor(totals)
        return float(totals.max() - totals.min()), float(motion)

    fast, plain = fast_and_plain()
    with torch.no_grad():
        (of_fast, kinetic), (of_plain, _), (of_other, _) = (
            drift(fast, fast.eval()),
            drift(plain, plain.eval()),
            drift(potential(EGNN(16, 3, features(seed=5), CosineCutoff(CUTOFF))).double(), fast),
        )
    assert of_fast == pytest.approx(of_plain, rel=1e-3)
    assert of_fast < 1e-2 * kinetic
    assert of_other > 10.0 * of_fast


# the series


@pytest.mark.parametrize("cutoff", [3.0, 5.0, 8.0])
def test_series_of_a_basis(cutoff):
    basis = features().double()
    series = ChebyshevSeries(basis, cutoff)
    assert series.pays()
    distances = torch.linspace(0.0, cutoff, 1000, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(512, dtype=torch.float64)
    exact, approximate = basis(distances) @ weights, series(distances) @ (series.coefficients @ weights)
    assert relative(approximate, exact) < 1e-7
    slopes = [torch.autograd.grad(y.sum(), distances, create_graph=True)[0] for y in (approximate, exact)]
    assert relative(*slopes) < 1e-6
    curvatures = [torch.autograd.grad(y.sum(), distances)[0] for y in slopes]
    assert relative(*curvatures) < 1e-5


def test_series_where_it_does_not_pay():
    assert not ChebyshevSeries(GaussianRBF(20, 5.0), 5.0).pays()
    assert not ChebyshevSeries(BesselRBF(20, 5.0), 5.0).pays()
    assert not ChebyshevSeries(GaussianRBF(300, 5.0), 5.0).pays()  # too narrow for so short a series
    trained = features()
    trained.frequencies = nn.Parameter(trained.frequencies)
    assert not ChebyshevSeries(trained, 5.0).pays()


def test_series_follows_its_basis():
    fast, plain = fast_and_plain()
    other = potential(EGNN(16, 3, features(seed=9), CosineCutoff(CUTOFF))).double()
    for model in (fast, plain):
        model.load_state_dict(other.state_dict())
    assert relative(fast(batch())["energy"], plain(batch())["energy"]) < 1e-6
    with torch.no_grad():
        for model in (fast, plain):
            model.representation.radial_basis.frequencies *= 0.5
    assert relative(fast(batch())["energy"], plain(batch())["energy"]) < 1e-6


def test_copies():
    fast, _ = fast_and_plain()
    expected = fast(batch())["energy"]
    for model in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        with torch.no_grad():
            fast.representation.radial_basis.frequencies.mul_(1.0)  # the copy does not listen to the original
        assert torch.equal(model(batch())["energy"], expected)


# the normalisation


def plain_norm(x, weight, bias):
    return F.silu(F.layer_norm(x, x.shape[-1:], weight, bias))


def norm(n, dtype=torch.float64):
    torch.manual_seed(0)
    module = LayerNormSiLU(n).to(dtype)
    with torch.no_grad():
        module.weight.normal_()
        module.bias.normal_()
    return module


@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 6)])
def test_derivatives_of_the_normalisation(shape):
    module = norm(shape[-1])
    x, g = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def value(x, weight, bias):
        return torch.func.functional_call(module, {"weight": weight, "bias": bias}, (x,))

    def slope(x, g, weight, bias):
        return torch.autograd.grad(value(x, weight, bias), x, g, create_graph=True)[0]

    parameters = [p.detach().requires_grad_() for p in (module.weight, module.bias)]
    torch.testing.assert_close(value(x, *parameters), plain_norm(x, *parameters))
    assert torch.autograd.gradcheck(value, (x, *parameters), check_undefined_grad=False)
    assert torch.autograd.gradcheck(slope, (x, g, *parameters), check_undefined_grad=False)


def test_mixed_precision_takes_the_plain_path():
    module, x = norm(8, torch.float32), torch.randn(4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(module(x), plain_norm(x, module.weight, module.bias))
