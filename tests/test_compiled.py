"""A compiled model predicts what the plain one does, with the same gradients, for batches of any size; or says why not."""

import logging
from functools import partial

import pytest
import torch
from helpers.models import CUTOFF, batch_of, crystal, molecule, painn, potential
from helpers.training import data_module, paper_outputs, task, trainer
from schnetpack import properties as p
from schnetpack.atomistic import Forces
from schnetpack.nn import CosineCutoff

from spk_dt import EGNN
from spk_dt.dynamics import CompiledPotential, Full, ModelForces, VerletList, rollout
from spk_dt.representation import RandomFourierFeatures


@pytest.fixture
def traced(monkeypatch):
    """Everything of compilation but the machine code, which takes a minute."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


def with_series():
    torch.manual_seed(0)
    return EGNN(8, 2, RandomFourierFeatures(256), CosineCutoff(CUTOFF))


def gradients(model, outputs):
    model.zero_grad()
    (outputs["forces"].pow(2).sum() + outputs["energy"].sum()).backward()
    return {name: q.grad.clone() for name, q in model.named_parameters() if q.grad is not None}


def compare(model, compiled, batch):
    one, other = compiled(batch), model(dict(batch))
    for key in ("energy", "forces"):
        torch.testing.assert_close(one[key], other[key], atol=1e-10, rtol=1e-10)
    expected = gradients(model, other)
    found = gradients(model, compiled(batch))
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("representation", [with_series, pytest.param(painn, marks=pytest.mark.slow)])
def test_same_outputs_and_gradients_for_all_sizes_and_constants(traced, representation):
    torch.manual_seed(0)
    model = potential(representation()).double().train()
    compiled = CompiledPotential(model)
    compare(model, compiled, batch_of(molecule(0), crystal(1)))
    compare(model, compiled, batch_of(crystal(2, 7), molecule(3), molecule(4, 9)))
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    compare(model, compiled, batch_of(*map(molecule, range(5))))
    if representation is with_series:  # its constants may change between calls: a state is loaded, for example
        with torch.no_grad():
            model.representation.radial_basis.frequencies *= 0.7
        compare(model, compiled, batch_of(crystal(2, 7), molecule(3)))
    assert compiled.compiled
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before  # nothing for a third size


def test_three_dimensional_layers_are_compiled_once(traced):
    """Those of PaiNN; in simulations, where there is no training, the number of pairs changes all the time."""
    model = potential(painn()).double().eval()
    compiled = CompiledPotential(model)
    graphs = []
    for batch in (batch_of(molecule(0), crystal(1)), batch_of(crystal(2, 7), molecule(3)), batch_of(molecule(4, 9))):
        torch.testing.assert_close(compiled(batch)["forces"], model(dict(batch))["forces"], atol=1e-10, rtol=1e-10)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert compiled.compiled
    assert graphs[1] == graphs[0]
    assert torch.nn.functional.linear.__name__ == "linear"  # what is exchanged while it is traced is put back


def test_in_evaluation_there_is_no_graph(traced):
    model = potential().double().eval()
    outputs = CompiledPotential(model)(batch_of(molecule(0), crystal(1)))
    assert not any(value.requires_grad for value in outputs.values())


@pytest.mark.slow
def test_full_gradients_through_a_rollout(traced):
    model = potential().double().train()
    batch = batch_of(molecule(0), crystal(1))
    pair_keys = (p.idx_i, p.idx_j, p.offsets)
    inputs = {key: value for key, value in batch.items() if key not in pair_keys}

    def loss(predict):
        force_fn = ModelForces(predict, inputs, VerletList(CUTOFF, 0.5))
        state = (batch[p.R], batch["velocities"], batch[p.masses])
        model.zero_grad()
        sum(v.state.forces.pow(2).sum() for v in rollout(force_fn, *state, 0.05, 4, Full())).backward()
        return {name: q.grad.clone() for name, q in model.named_parameters() if q.grad is not None}

    expected = loss(model)
    compiled = CompiledPotential(model)
    for name, gradient in loss(compiled).items():
        without = torch.zeros_like(gradient)  # forces do not depend on the bias of the energy
        torch.testing.assert_close(gradient, expected.get(name, without), atol=1e-9, rtol=1e-9)
    assert compiled.compiled


@pytest.mark.slow
def test_training(traced, database, tmp_path):
    """The same parameters as without."""
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = potential().double()
        dt_task = task(model, paper_outputs(), rollout_length=3, compile=compiled)
        torch.manual_seed(0)
        trainer(tmp_path, limit_train_batches=3, limit_val_batches=1).fit(dt_task, data_module(database, tmp_path))
        found.append([q.detach() for q in model.parameters()])
        assert not compiled or dt_task._predict.compiled
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-8)


# where it is not possible


def no_compiler(*args, **kwargs):
    def compiled(*args):
        raise RuntimeError("no C++ compiler found")

    return compiled


def test_without_a_compiler_it_warns_and_goes_on(monkeypatch, caplog):
    monkeypatch.setattr(torch, "compile", no_compiler)
    model = potential().double().train()
    compiled, batch = CompiledPotential(model), batch_of(molecule(0))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            torch.testing.assert_close(compiled(batch)["forces"], model(dict(batch))["forces"])
    assert [r.getMessage() for r in caplog.records] == [
        "the model is not compiled and will run uncompiled (RuntimeError: no C++ compiler found)"
    ]


def test_what_a_failed_compilation_leaves_behind_is_cleared(monkeypatch):
    """Here it is asked for within a checkpoint, where PyTorch cannot trace."""
    model = potential().double().train()
    compiled, batch = CompiledPotential(model), batch_of(molecule(0))

    def forces(positions):
        return compiled({**batch, p.R: positions.detach()})["forces"]

    for _ in range(2):
        found = Full(recompute=True).evaluate(forces, batch[p.R])
        assert not compiled.compiled
        torch.testing.assert_close(found, model(dict(batch))["forces"])


def test_an_error_of_the_input_is_not_blamed_on_the_compiler(monkeypatch):
    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.raises(KeyError):
        CompiledPotential(potential())({p.R: torch.zeros(2, 3)})


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ([], "its last output module must be Forces"),
        ([Forces(calc_forces=False)], "its last output module must be Forces"),
        ([Forces(calc_stress=True)], "it has a stress, but no input module Strain"),
    ],
)
def test_models_that_are_not_energy_and_its_derivatives(outputs, reason, caplog):
    model = potential()
    model.output_modules = torch.nn.ModuleList([model.output_modules[0], *outputs])
    model.collect_derivatives()
    with caplog.at_level(logging.WARNING):
        assert not CompiledPotential(model).compiled
    assert reason in caplog.text


@pytest.mark.slow
def test_with_machine_code():
    torch._dynamo.reset()
    model = potential(with_series()).double().train()
    compiled = CompiledPotential(model)
    for batch in (batch_of(molecule(0), crystal(1)), batch_of(crystal(2, 7), molecule(3), molecule(4, 9))):
        compare(model, compiled, batch)
    assert compiled.compiled


def test_a_task_with_a_compiled_model_is_stored_as_the_model(tmp_path):
    """As SchNetPack does at the end of a training."""
    trained = task(potential(painn()), paper_outputs(), compile=True)
    torch.save(trained, tmp_path / "task")
    again = torch.load(tmp_path / "task", weights_only=False)
    assert isinstance(again._predict, CompiledPotential)
    assert again._predict.model is again.model


def test_that_there_is_no_cuda_device_is_not_said(caplog, monkeypatch):
    """PyTorch looks for one when it compiles for a CPU; what else it says is shown."""
    CompiledPotential(potential())
    theirs = logging.getLogger("torch.utils.cpp_extension")
    with caplog.at_level(logging.WARNING, theirs.name):
        monkeypatch.setattr(theirs, "propagate", True)
        theirs.warning("No CUDA runtime is found, using CUDA_HOME='%s'", "/usr/local")
        theirs.warning("CUDA_HOME is not set")
    assert [record.getMessage() for record in caplog.records] == ["CUDA_HOME is not set"]
