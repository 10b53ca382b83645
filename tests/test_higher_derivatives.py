"""EGNN can be differentiated to any order, with respect to all that it depends on: curvatures of losses, gradient penalties.

PyTorch's own LayerNorm is no reference here: its third derivatives are wrong (github.com/pytorch/pytorch/issues/175754).
"""

import pytest
import torch
from helpers.models import batch_of, crystal, molecule, potential, tiny_egnn
from schnetpack import properties as p

from spk_dt.representation import layer_norm_silu
from spk_dt.representation.layer_norm_silu import LayerNormSiLU

# the normalisation


def norm(fused, n):
    torch.manual_seed(0)
    module = LayerNormSiLU(n, fused).double()

    def value(x, weight, bias):
        return torch.func.functional_call(module, {"weight": weight, "bias": bias}, (x,))

    return value


def arguments(*shape):
    torch.manual_seed(1)
    sizes = (shape, shape[-1:], shape[-1:])
    return tuple(torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 4), (0, 3)])
def test_first_to_third_derivatives_of_the_normalisation(fused, shape):
    """Against finite differences of the derivatives before; each of x, weight and bias with each."""
    value, inputs = norm(fused, shape[-1]), arguments(*shape)
    assert torch.autograd.gradcheck(value, inputs)
    assert torch.autograd.gradgradcheck(value, inputs)

    def slopes(g, *inputs):
        return torch.autograd.grad(value(*inputs), inputs, g, create_graph=True)

    g = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(slopes, (g, *inputs))
    assert torch.autograd.gradgradcheck(slopes, (g, *inputs))


@pytest.mark.parametrize("asked", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("create_graph", [True, False])
def test_second_derivatives_of_some_of_the_gradients(asked, create_graph):
    """Where a gradient is not used, nothing comes in for it."""

    def second(fused):
        inputs = arguments(4, 3)
        gradients = torch.autograd.grad(norm(fused, 3)(*inputs).pow(2).sum(), inputs, create_graph=True)
        loss = sum(gradients[index].pow(2).sum() for index in asked)
        return torch.autograd.grad(loss, inputs, create_graph=create_graph)

    for found, expected in zip(second(True), second(False), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        assert expected.norm() > 1e-3


def test_third_derivatives_with_frozen_parameters():
    def third(fused):
        x, weight, bias = arguments(4, 3)
        y = norm(fused, 3)(x, weight.detach(), bias.detach()).sum()  # the gradient that comes in is constant
        for _ in range(3):
            y = torch.autograd.grad(y, x, create_graph=True)[0].pow(2).sum()
        return y

    torch.testing.assert_close(third(True), third(False), rtol=1e-10, atol=0.0)


# the model


def model_and_batch(fast=True):
    torch.manual_seed(0)
    return potential(tiny_egnn(fast=fast)).double().train(), batch_of(molecule(0), crystal(1))


def energies(outputs):
    return outputs["energy"].pow(2).sum()


def energies_and_forces(outputs):
    return energies(outputs) + outputs["forces"].pow(2).sum()


def gradient(model, batch, loss, create_graph=False):
    """Of the parameters, as one vector."""
    value = loss(model({**batch, p.R: batch[p.R].clone()}))
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(value, list(model.parameters()), create_graph=create_graph)]
    )


def direction(model):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(sum(q.numel() for q in model.parameters()), generator=generator, dtype=torch.float64)


def hessian_vector_product(model, batch, loss, v):
    product = gradient(model, batch, loss, create_graph=True) @ v
    return torch.cat([g.flatten() for g in torch.autograd.grad(product, list(model.parameters()))])


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("loss", [energies, energies_and_forces])
def test_hessian_vector_products_of_a_loss(loss):
    """Second derivatives of the energy, and third of a loss with forces."""
    found, expected = (
        hessian_vector_product(model, batch, loss, direction(model))
        for model, batch in (model_and_batch(True), model_and_batch(False))
    )
    assert relative(found, expected) < 1e-10
    model, batch = model_and_batch()
    v, step = direction(model), 1e-5
    parameters = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    sides = []
    for sign in (1.0, -1.0):
        torch.nn.utils.vector_to_parameters(parameters + sign * step * v, model.parameters())
        sides.append(gradient(model, batch, loss))
    by_difference = (sides[0] - sides[1]) / (2.0 * step)
    assert relative(found, by_difference) < 1e-6
    # the control: what the parameters of the normalisation contribute is no small part
    normalising = [n for n, m in model.named_modules() if isinstance(m, LayerNormSiLU)]
    others = [
        torch.full_like(q, n.rpartition(".")[0] not in normalising).flatten() for n, q in model.named_parameters()
    ]
    without = hessian_vector_product(*model_and_batch(), loss, v * torch.cat(others))
    assert relative(without, by_difference) > 1e-2


@pytest.mark.parametrize("loss", [energies, energies_and_forces])
def test_gradient_penalty(loss):
    """A loss with the squared norm of its gradient, as in training that seeks flat minima."""
    found = []
    for fast in (True, False):
        model, batch = model_and_batch(fast)
        value = loss(model(dict(batch)))
        parameters = list(model.parameters())
        penalty = sum(g.pow(2).sum() for g in torch.autograd.grad(value, parameters, create_graph=True))
        (value + 0.1 * penalty).backward(inputs=parameters)
        found.append(torch.cat([q.grad.flatten() for q in parameters]))
    assert relative(*found) < 1e-10


def test_training_on_forces_keeps_to_the_derivatives_by_hand(monkeypatch):
    """Those composed of elementary operations take 2.5 times as long."""
    monkeypatch.delattr(layer_norm_silu, "_composed")
    model, batch = model_and_batch()
    energies_and_forces(model(dict(batch))).backward()
    with pytest.raises(NameError):
        gradient(model, batch, energies_and_forces, create_graph=True)


@pytest.mark.parametrize("fast", [True, False])
def test_function_transformations(fast):
    """The Hessian in positions by forward over reverse mode for all directions at once, and its derivative."""
    model, batch = model_and_batch(fast)
    parts = (*model.input_modules, model.representation, model.output_modules[0])
    constants = {key: value for key, value in batch.items() if key != p.R}

    def energy(positions):
        inputs = {**constants, p.R: positions}
        for part in parts:
            inputs = part(inputs)
        return inputs["energy"].sum()

    def along(positions):
        return torch.func.jvp(energy, (positions,), (v,))[1]

    positions = batch[p.R]
    v = torch.randn(positions.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = torch.autograd.functional.hessian(energy, positions)
    torch.testing.assert_close(torch.func.hessian(energy)(positions), expected, rtol=1e-10, atol=1e-12)
    curvature = torch.func.grad(along)(positions)
    torch.testing.assert_close(curvature, torch.tensordot(expected, v, 2), rtol=1e-10, atol=1e-12)
