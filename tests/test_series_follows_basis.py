"""The series of a radial basis follows the basis, however this is changed; where it does not pay, the basis is used."""

import copy
import io
import pickle
from functools import partial

import pytest
import torch
from helpers.models import CUTOFF, batch_of, crystal, molecule, needs_compilation, potential
from schnetpack.nn import CosineCutoff, GaussianRBF
from torch import nn

from spk_dt.dynamics import CompiledPotential
from spk_dt.representation import EGNN, RandomFourierFeatures
from spk_dt.representation.chebyshev import ChebyshevSeries

N_RBF = 256
SMOOTH, OTHER, STEEP = 4.0, 2.0, 200.0  # sigma, 1/Å; the series of the last does not converge


def basis(sigma=SMOOTH, seed=0):
    torch.manual_seed(seed)
    return RandomFourierFeatures(N_RBF, sigma)


def frozen_parameter(sigma=SMOOTH, seed=0):
    """The same basis with frequencies that could be trained, but are not."""
    made = basis(sigma, seed)
    frequencies = made.frequencies
    del made.frequencies
    made.frequencies = nn.Parameter(frequencies, requires_grad=False)
    return made


def fast_and_plain(make=basis, cutoff=CUTOFF):
    models = []
    for fast in (True, False):
        radial = make()
        torch.manual_seed(1)
        models.append(potential(EGNN(16, 2, radial, CosineCutoff(cutoff), fast=fast)).double())
    return models


def batch():
    return batch_of(molecule(0), crystal(1), dtype=torch.float64)


def predicted(model):
    outputs = model(batch())
    return torch.cat([outputs["energy"].detach(), outputs["forces"].detach().flatten()])


def radial_basis(model):
    return model.representation.radial_basis


def uses_series(model):
    return model.representation._series.pays()


def assert_same(fast, plain, series=True):
    before = predicted(plain)
    torch.testing.assert_close(predicted(fast), before, rtol=1e-5, atol=1e-6)
    assert uses_series(fast) == series


# changes, each of which gives the model the frequencies of another basis


def in_place(model, frequencies):
    with torch.no_grad():
        radial_basis(model).frequencies.copy_(frequencies)


def in_place_of_data(model, frequencies):
    radial_basis(model).frequencies.data.copy_(frequencies)


def other_data(model, frequencies):
    radial_basis(model).frequencies.data = frequencies.clone()


def other_tensor(model, frequencies):
    old = radial_basis(model).frequencies
    radial_basis(model).frequencies = nn.Parameter(frequencies, False) if isinstance(old, nn.Parameter) else frequencies


def other_basis(model, frequencies):
    model.representation.radial_basis = basis().double()
    in_place(model, frequencies)


def state(model, frequencies, **kwargs):
    loaded = {**model.state_dict(), "representation.radial_basis.frequencies": frequencies}
    model.load_state_dict(loaded, **kwargs)


CHANGES = (in_place, in_place_of_data, other_data, other_tensor, other_basis, state, partial(state, assign=True))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("make", [basis, frozen_parameter])
def test_it_follows_whatever_changes_the_basis(change, make):
    fast, plain = fast_and_plain(make)
    assert_same(fast, plain)
    old = predicted(fast)
    for sigma, series in ((OTHER, True), (STEEP, False), (SMOOTH, True)):
        frequencies = basis(sigma, seed=3).frequencies.double()
        for model in (fast, plain):
            change(model, frequencies)
        assert_same(fast, plain, series)
        assert (predicted(fast) - old).abs().max() > 1e-2  # the control: the change is no small one
        old = predicted(fast)


def test_a_series_that_did_not_pay_may_later():
    fast, plain = fast_and_plain(partial(basis, STEEP))
    assert_same(fast, plain, series=False)
    for model in (fast, plain):
        state(model, basis().frequencies)
    assert_same(fast, plain, series=True)


def test_where_it_does_not_converge_the_filters_do_not_vanish():
    fast, _ = fast_and_plain(partial(basis, STEEP))
    distances = torch.linspace(0.5, CUTOFF, 7, dtype=torch.float64)
    functions, coefficients = fast.representation._expand(distances)
    assert coefficients is None
    torch.testing.assert_close(functions, radial_basis(fast)(distances))


@pytest.mark.parametrize(
    "radial", [lambda: basis(STEEP), lambda: GaussianRBF(300, CUTOFF), lambda: GaussianRBF(20, CUTOFF)]
)
def test_series_that_do_not_pay(radial):
    assert not ChebyshevSeries(radial(), CUTOFF).pays()


def test_a_longer_cutoff_is_loaded():
    """The series must reach as far."""
    fast, plain = fast_and_plain(cutoff=0.5 * CUTOFF)
    assert_same(fast, plain)
    old = predicted(fast)
    for model in (fast, plain):
        state = {**model.state_dict(), "representation.cutoff_fn.cutoff": torch.tensor([CUTOFF])}
        model.load_state_dict(state)
    assert_same(fast, plain)
    assert (predicted(fast) - old).abs().max() > 1e-2


# training of the basis


def test_parameters_of_the_basis_that_are_released_for_training():
    fast, plain = fast_and_plain(frozen_parameter)
    assert_same(fast, plain)
    gradients = []
    for model in (fast, plain):
        radial_basis(model).frequencies.requires_grad_(True)
        model.train()(batch())["forces"].pow(2).sum().backward()
        gradients.append(radial_basis(model).frequencies.grad)
        with torch.no_grad():
            radial_basis(model).frequencies -= 0.01 * torch.sign(gradients[-1])
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 1e-3
    assert_same(fast, plain, series=False)
    for model in (fast, plain):
        radial_basis(model).frequencies.requires_grad_(False)
    assert_same(fast, plain, series=True)


def test_derivatives_with_respect_to_a_constant():
    """By substitution, as `torch.func.functional_call` and `torch.func.grad` do it."""
    found = []
    for model in fast_and_plain():
        inputs = model.initialize_derivatives(batch())
        inputs = model.input_modules[0](inputs)

        def value(frequencies, representation=model.representation, inputs=inputs):
            call = ({"radial_basis.frequencies": frequencies}, (dict(inputs),))
            return torch.func.functional_call(representation, *call)["scalar_representation"].pow(2).sum()

        frequencies = radial_basis(model).frequencies
        found.append(torch.func.grad(value)(frequencies).detach())
        found.append(torch.autograd.grad(value(leaf := frequencies.clone().requires_grad_()), leaf)[0])
        assert found[-1].norm() > 1e-3
    for other in found[1:]:
        torch.testing.assert_close(found[0], other)


# precision, copies, files


def test_another_precision():
    fast, plain = fast_and_plain()
    expected = predicted(plain)
    assert_same(fast, plain)
    single = batch_of(molecule(0), crystal(1), dtype=torch.float32)
    torch.testing.assert_close(fast.float()(single)["energy"].double(), expected[:2], rtol=1e-3, atol=1e-4)
    assert fast.representation._series.coefficients.dtype == torch.float32
    assert_same(fast.double(), plain.float().double())


def test_made_without_numbers_and_filled_later():
    with torch.device("meta"):
        fast = potential(EGNN(16, 2, basis(), CosineCutoff(CUTOFF))).double()
    filled, plain = fast_and_plain()
    fast.to_empty(device="cpu").load_state_dict(filled.state_dict())
    assert_same(fast, plain)


def test_first_used_in_inference_mode():
    fast, plain = fast_and_plain()
    with torch.inference_mode():
        fast.representation._expand(torch.ones(3, dtype=torch.float64))
    fast.train()(batch())["forces"].pow(2).sum().backward()
    assert_same(fast, plain)


def through_a_file(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def pickled(model):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled, through_a_file])
def test_a_copy_follows_its_own_basis(copied):
    fast, plain = fast_and_plain()
    old = predicted(fast)
    other = copied(fast)
    in_place_of_data(fast, basis(OTHER).frequencies)
    assert torch.equal(predicted(other), old)
    in_place_of_data(plain, basis(OTHER).frequencies)
    assert_same(fast, plain)
    for model in (other, plain):
        in_place_of_data(model, basis(SMOOTH, seed=4).frequencies)
    assert_same(other, plain)


@pytest.mark.parametrize("sigma", [SMOOTH, STEEP])
def test_files_of_version_0_1(sigma):
    """They hold the interval instead of the cutoff, coefficients, and constants with their versions."""
    fast, plain = fast_and_plain(partial(basis, sigma))
    series = fast.representation._series
    vars(series).clear()
    old = {
        "radial_basis": radial_basis(fast),
        "low": -0.02 * CUTOFF,
        "high": 1.02 * CUTOFF,
        "coefficients": torch.zeros(3, N_RBF),
        "degrees": torch.arange(3),
        "_constants": [(radial_basis(fast).frequencies, 1)],
    }
    series.__setstate__(old)
    assert series.high == pytest.approx(1.02 * CUTOFF)
    assert len(series.degrees) != 3
    assert_same(fast, plain, series=sigma == SMOOTH)
    alone = ChebyshevSeries.__new__(ChebyshevSeries)
    alone.__setstate__({**old, "radial_basis": basis(sigma)})
    assert alone.pays() == (sigma == SMOOTH)


# compiled


def graphs(monkeypatch):
    """Compile without machine code, and gather the graphs."""
    gathered = []

    def backend(graph, example_inputs):
        gathered.append(graph)
        return graph

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    return gathered


@needs_compilation
def test_a_compiled_model_follows(monkeypatch):
    """Another number of terms, no series any more, and back."""
    gathered = graphs(monkeypatch)
    fast, plain = fast_and_plain()
    compiled = CompiledPotential(fast.eval())
    terms = []
    for sigma in (SMOOTH, OTHER, STEEP, SMOOTH):
        for model in (fast, plain):
            in_place_of_data(model, basis(sigma, seed=5).frequencies)
        found, expected = compiled(batch())["forces"], plain(batch())["forces"]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        assert uses_series(fast) == (sigma != STEEP)
        terms.append(len(fast.representation._series.degrees))
    assert terms[0] != terms[1]
    assert compiled.compiled
    assert 2 <= len(gathered) <= 3  # with the series, perhaps once more for another number of terms, and without it


def test_code_compiled_by_others_is_right_without_a_refresh(monkeypatch):
    """It cannot see that the series is out of date, so it takes the basis, until somebody refreshes the series."""
    gathered = graphs(monkeypatch)
    fast, plain = fast_and_plain()
    representation, reference = fast.representation, plain.representation
    compiled = torch.compile(representation, fullgraph=True)
    inputs = fast.input_modules[0](batch())
    for refresh in (False, True):
        for sigma in (SMOOTH, OTHER):
            for model in (fast, plain):
                in_place_of_data(model, basis(sigma, seed=6).frequencies)
            if refresh:
                representation.refresh()
            found, expected = (f(dict(inputs))["scalar_representation"] for f in (compiled, reference))
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        sines = ["sin" in str(node.target) for node in gathered[-1].graph.nodes if node.op.startswith("call")]
        assert any(sines) != refresh
