"""A compiled model that fails: what is raised, what ends compilation and what does not; and nothing global is changed."""

import logging
import threading
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers.models import batch_of, crystal, molecule, needs_compilation, painn, potential
from schnetpack import properties as p

from spk_dt.dynamics import CompiledPotential


def cpu_allocator():
    torch.empty(2**50)


def raises(error):
    def fail():
        raise error

    return fail


OUT_OF_MEMORY = {
    "of the allocator of the CPU": cpu_allocator,
    "of a GPU": raises(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")),
    "of Python": raises(MemoryError()),
    "of a library": raises(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")),
    "of the compiler": raises(torch._dynamo.exc.BackendCompilerFailed(print, MemoryError("no memory"), None)),
}


class Scripted:
    """A model whose compiled function fails as told, and is the plain model otherwise."""

    def __init__(self, monkeypatch):
        monkeypatch.setattr(torch, "compile", lambda function, **_: self._call)
        self.model = potential().double().eval()
        self.compiled = CompiledPotential(self.model)
        self.batch = batch_of(molecule(0))
        self.expected = self.model({**self.batch, p.R: self.batch[p.R].clone()})["forces"]
        self.fail = None
        self.answers = 0  # of the compiled function

    def _call(self, positions, rest):
        if self.fail is not None:
            self.fail()
        self.answers += 1
        with torch.enable_grad():
            return self.model({**rest, p.R: positions.detach()})

    def __call__(self, fail=None):
        self.fail = fail
        return self.compiled(self.batch)["forces"]


@pytest.fixture
def scripted(monkeypatch):
    return Scripted(monkeypatch)


def backend(monkeypatch, function):
    """Compile with `function` before the graph, and without machine code."""

    def compile_graph(graph, example_inputs):
        function()
        return graph

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=compile_graph))


# what is raised


@pytest.mark.parametrize("worked", [False, True])
@pytest.mark.parametrize("fail", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY.keys())
def test_too_little_memory_is_raised_and_the_next_call_is_compiled(scripted, fail, worked):
    if worked:
        scripted()
    answers = scripted.answers
    for _ in range(3):
        with pytest.raises((RuntimeError, MemoryError), match=r"memory|ALLOC|^$"):
            scripted(fail)
        assert scripted.compiled.compiled
    scripted()
    assert scripted.answers == answers + 1


@needs_compilation
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), KeyboardInterrupt()])
def test_what_interrupts_the_compiler(monkeypatch, error):
    """In the real one, which may wrap the error, and leave the derivative that it was tracing unfinished."""
    failures = [error]

    def fail_once():
        if failures:
            raise failures.pop()

    backend(monkeypatch, fail_once)
    model = potential().double().eval()
    compiled, batch = CompiledPotential(model), batch_of(molecule(0))
    with pytest.raises((RuntimeError, KeyboardInterrupt)) as raised:
        compiled(batch)
    assert type(error).__name__ in f"{raised.type.__name__} {raised.value}"
    assert torch._C._functorch.get_dynamic_layer_stack_depth() == 0
    torch.testing.assert_close(compiled(batch)["forces"], model(dict(batch))["forces"])
    assert compiled.compiled
    assert not failures


def test_an_error_of_the_model_is_raised_and_does_not_end_compilation(scripted, monkeypatch):
    def fail(inputs):
        raise ValueError("charges of another system")

    with monkeypatch.context() as broken:
        broken.setattr(scripted.model, "forward", fail)
        with pytest.raises(ValueError, match="charges"):
            scripted(raises(RuntimeError("while tracing: charges")))
    assert scripted.compiled.compiled
    scripted()
    assert scripted.answers == 1
    with pytest.raises(KeyError):
        scripted.compiled({p.Z: scripted.batch[p.Z]})
    assert scripted.compiled.compiled


# what ends compilation


def messages(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("spk_dt")]


@pytest.mark.parametrize("error", [RuntimeError("no C++ compiler found"), AssertionError()])
def test_before_the_first_success_the_compiler_is_blamed(scripted, caplog, error):
    for _ in range(2):
        torch.testing.assert_close(scripted(raises(error)), scripted.expected)
    assert not scripted.compiled.compiled
    assert not scripted.batch[p.R].requires_grad
    expected = f"the model is not compiled and will run uncompiled ({type(error).__name__}: {error})"
    assert messages(caplog) == [expected]


@pytest.mark.parametrize(
    "error",
    [
        torch._dynamo.exc.Unsupported("a call"),
        torch._dynamo.exc.FailOnRecompileLimitHit("recompile_limit reached"),
        torch._inductor.exc.InvalidCxxCompiler(),
    ],
)
def test_an_error_of_the_compiler_ends_it_also_after_a_success(scripted, caplog, error):
    scripted()
    scripted(raises(error))
    assert not scripted.compiled.compiled
    assert len(messages(caplog)) == 1
    assert type(error).__name__ in caplog.text


def test_after_a_success_one_failure_of_unknown_cause_does_not_end_it(scripted, caplog):
    scripted()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            torch.testing.assert_close(scripted(raises(RuntimeError("strange"))), scripted.expected)
            assert scripted.compiled.compiled
            scripted()
    assert scripted.answers == 4
    assert len(messages(caplog)) == 3
    assert all("strange" in message and "tried once more" in message for message in messages(caplog))


def test_after_a_success_two_failures_in_a_row_end_it_with_a_warning(scripted, caplog):
    scripted()
    for _ in range(3):
        torch.testing.assert_close(scripted(raises(RuntimeError("strange"))), scripted.expected)
    assert not scripted.compiled.compiled
    assert [("will run uncompiled" in message, "strange" in message) for message in messages(caplog)] == [
        (False, True),
        (True, True),
    ]


# nothing global


@needs_compilation
def test_other_threads_do_not_see_how_linear_layers_are_traced(monkeypatch):
    linear, seen = F.linear, []

    def look():
        seen.append((F.linear is linear, torch._C._len_torch_function_stack()))

    def look_around():
        look()
        other = threading.Thread(target=look)
        other.start()
        other.join()

    backend(monkeypatch, look_around)
    CompiledPotential(potential().double().eval())(batch_of(molecule(0)))
    assert len(seen) == 2
    assert all(unchanged for unchanged, _ in seen)
    assert seen[1][1] == 0
    assert F.linear is linear


@needs_compilation
def test_what_others_put_in_the_place_of_linear_layers_stays(monkeypatch):
    """And is used; layers of three dimensions, as in PaiNN, are compiled once for all numbers of pairs all the same."""
    linear = F.linear

    def foreign(input, weight, bias=None):
        return 1.25 * linear(input, weight, bias)

    graphs = []
    backend(monkeypatch, lambda: graphs.append(1))
    model = potential(painn()).double().eval()
    compiled, plain = CompiledPotential(model), model(batch_of(crystal(2, 7), molecule(3)))["forces"]
    monkeypatch.setattr(F, "linear", foreign)
    for batch in (batch_of(molecule(0), crystal(1)), batch_of(crystal(2, 7), molecule(3))):
        found, expected = compiled(batch)["forces"], model(dict(batch))["forces"]
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
        assert F.linear is foreign
    assert compiled.compiled
    assert len(graphs) == 1
    assert (found - plain).abs().max() > 1e-2 * plain.abs().max()
