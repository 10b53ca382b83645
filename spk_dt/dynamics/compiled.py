"""A SchNetPack model whose energy, forces and stress are one compiled function.

`torch.compile` cannot differentiate a compiled function twice, and training on forces needs second derivatives. So the first
derivative is taken inside of what is compiled (`torch.func.grad`), and one backward pass remains outside. Sizes are
symbolic: batches of other numbers of systems, atoms or pairs need no new compilation.
"""

import logging
import re
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from schnetpack import properties
from schnetpack.atomistic import Forces, Strain
from schnetpack.model import NeuralNetworkPotential
from torch import nn
from torch.overrides import TorchFunctionMode

from spk_dt.dynamics.stress import strained

__all__ = ["CompiledPotential"]

log = logging.getLogger(__name__)


class CompiledPotential:
    """Predicts what the model predicts without its postprocessors, compiled.

    The first call of each kind (training, evaluation) compiles, which takes a minute or so and is remembered by PyTorch from
    run to run. Where it is not possible, since there is no C++ compiler or the model does something that cannot be
    compiled, a warning says why, and the model is evaluated as it is.

    Errors: memory that runs out is no reason to give up, and is raised. For all others the plain model is evaluated, and
    what it raises is raised. Where it does not raise, its outputs are returned, and a warning names the error. Compilation
    is given up if the error is one of the compiler's own classes (of `torch._dynamo`, `torch._inductor`, ...), or if the
    compiled function has not yet answered a call of this kind. If it has, it is given up after two failures in a row.

    Args:
        model: a potential whose forces are the negative gradient of its energy, and its stress, if it has one, the
            derivative with respect to strain. In evaluation mode outputs have no graph.

    Raises:
        MemoryError, torch.OutOfMemoryError, RuntimeError: by a call, if memory runs out.
        Exception: by a call, what the plain model raises.
    """

    def __init__(self, model: NeuralNetworkPotential) -> None:
        self.model = model
        self._reason: str | None = None
        if (reason := _why_not(model)) is not None:
            self._fall_back(reason)
        logging.getLogger("torch.utils.cpp_extension").addFilter(_is_not_of_cuda)
        self._function = torch.compile(self._predict, dynamic=True, fullgraph=True)
        self._worked: set[tuple[Hashable, ...]] = set()  # kinds of calls that the compiled function has answered
        self._prepared: set[tuple[Hashable, ...]] = set()

    def __reduce__(self) -> tuple[type["CompiledPotential"], tuple[NeuralNetworkPotential]]:
        """Stored, or copied, is the model; it is compiled anew."""
        return CompiledPotential, (self.model,)

    @property
    def compiled(self) -> bool:
        """Whether the model is compiled, as far as is known."""
        return self._reason is None

    def prepare(self, inputs: Mapping[str, torch.Tensor]) -> None:
        """Compile what a batch like this one needs, if that is not done yet.

        Within `torch.utils.checkpoint`, which recomputes in the backward pass, nothing can be compiled; call this before.
        """
        sizes = (min(n, 2) for value in inputs.values() for n in value.shape[:1])  # 0 and 1 are compiled for themselves
        kind = (*self._kind(inputs), *sizes)
        if self.compiled and kind not in self._prepared:
            self(inputs)
            self._prepared.add(kind)

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """All outputs of the model for a SchNetPack batch; what is needed is compiled at the first call."""
        if not self.compiled:
            return self._plain(inputs)
        refresh = getattr(self.model.representation, "refresh", None)
        if refresh is not None:  # constants that a compiled function cannot look after
            refresh()
        kind = self._kind(inputs)
        rest = {key: value for key, value in inputs.items() if key != properties.R}
        before = _State()
        try:
            with (
                torch._dynamo.config.patch(capture_scalar_outputs=True),  # SchNetPack reads the number of systems
                torch.set_grad_enabled(torch.is_grad_enabled() and self.model.training),
            ):
                outputs = self._function(inputs[properties.R], rest)
        except BaseException as error:
            before.restore()
            if not isinstance(error, Exception) or _out_of_memory(error):
                raise
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            again = kind in self._worked and not _of_the_compiler(error)
        else:
            self._worked.add(kind)
            return outputs
        outputs = self._plain(inputs)  # raises what is not the compiler's fault
        if again:
            self._worked.remove(kind)
            log.warning(
                "the compiled model failed where the uncompiled one did not (%s). The uncompiled one has answered this "
                "call; the compiled one is tried once more",
                reason,
            )
        else:
            self._fall_back(reason)
        return outputs

    def _kind(self, inputs: Mapping[str, torch.Tensor]) -> tuple[Hashable, ...]:
        positions = inputs[properties.R]
        grad_enabled = torch.is_grad_enabled()
        return self.model.training, grad_enabled, positions.requires_grad, positions.dtype, positions.device

    def _fall_back(self, reason: str) -> None:
        self._reason = reason
        log.warning("the model is not compiled and will run uncompiled (%s)", reason)

    def _plain(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        positions = inputs[properties.R]
        if not positions.requires_grad:  # the model sets this on the tensor that it is given: not on the caller's
            positions = positions.detach()
        before, self.model.do_postprocessing = self.model.do_postprocessing, False
        try:
            return self.model({**inputs, properties.R: positions})
        finally:
            self.model.do_postprocessing = before

    def _predict(self, positions: torch.Tensor, rest: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        forces = self.model.output_modules[-1]
        strain = torch.zeros_like(rest[properties.cell]) if forces.calc_stress else None
        with _FlatLinearLayers():
            derivative = torch.func.grad(self._energy, argnums=(0, 1) if forces.calc_stress else (0,), has_aux=True)
            gradients, outputs = derivative(positions, strain, rest)
        outputs[forces.force_key] = -gradients[0]
        if forces.calc_stress:
            volume = torch.linalg.det(rest[properties.cell])[:, None, None]
            outputs[forces.stress_key] = gradients[1] / volume
        return outputs

    def _energy(
        self, positions: torch.Tensor, strain: torch.Tensor | None, rest: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Sum of the energies of all systems, and all outputs but its derivatives."""
        *modules, forces = self.model.output_modules
        inputs = {**rest, properties.R: positions}
        for module in (*self.model.input_modules, self.model.representation, *modules):
            if not isinstance(module, Strain):
                inputs = module(inputs)
            elif strain is not None:  # that of the model is a tensor of its own, which cannot be differentiated by here
                inputs = strained(inputs, strain)
        outputs = {key: inputs[key] for key in self.model.model_outputs if key not in forces.model_outputs}
        return inputs[forces.energy_key].sum(), outputs


class _FlatLinearLayers(TorchFunctionMode):
    """Linear layers of three-dimensional tensors, as in PaiNN, are traced as those of two.

    PyTorch 2.15 takes the number of rows of the former for a constant.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch._C._nn.linear:  # and not functional.linear, which others may have replaced
            return _flat_linear(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _flat_linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    if input.dim() < 3:
        return torch._C._nn.linear(input, weight, bias)
    return torch._C._nn.linear(input.flatten(0, -2), weight, bias).unflatten(0, input.shape[:-1])


class _State:
    """What a derivative that fails while it is traced leaves behind in PyTorch, and what it was before."""

    def __init__(self) -> None:
        self._depth = torch._C._functorch.get_dynamic_layer_stack_depth()
        self._hooks = torch._C._autograd._saved_tensors_hooks_is_enabled()  # type: ignore[attr-defined]  # not in its stub

    def restore(self) -> None:
        torch._C._functorch.pop_dynamic_layer_stack_and_undo_to_depth(self._depth)
        if self._hooks:
            torch._C._autograd._saved_tensors_hooks_enable()


def _is_not_of_cuda(record: logging.LogRecord) -> bool:
    """Whether a message of PyTorch is not the one that there is no CUDA device, which compiling for a CPU does not need."""
    return not record.msg.startswith("No CUDA runtime is found")


def _why_not(model: nn.Module) -> str | None:
    """Why a model cannot be taken apart into energy and its derivatives, None if it can."""
    if not isinstance(model, NeuralNetworkPotential):
        return f"it is a {type(model).__name__}, not a NeuralNetworkPotential"
    forces = model.output_modules[-1] if len(model.output_modules) else None
    if not isinstance(forces, Forces) or not forces.calc_forces:
        return "its last output module must be Forces"
    if beyond := set(model.required_derivatives) - {properties.R, properties.strain}:
        return f"it needs derivatives with respect to {', '.join(sorted(beyond))}"
    if forces.calc_stress and not any(isinstance(module, Strain) for module in model.input_modules):
        return "it has a stress, but no input module Strain"
    return None


_NO_MEMORY = re.compile(
    r"MemoryError|out of memory|(can't|cannot|could not|unable to) allocate memory|not enough memory|ALLOC_FAILED",
    re.IGNORECASE,
)


def _out_of_memory(error: Exception) -> bool:
    """Whether there is not enough memory, also where this is told by a compiler that ran out of it."""
    # allocators of CPUs raise a RuntimeError, and the compiler quotes what it has caught
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or bool(
        _NO_MEMORY.search(f"{type(error).__name__}: {error}")
    )


def _of_the_compiler(error: Exception) -> bool:
    """Whether the error is one that only a compiler raises."""
    return any(
        kind.__module__.startswith(("torch._dynamo", "torch._inductor", "torch._functorch", "torch.fx", "triton"))
        for kind in type(error).__mro__
    )
