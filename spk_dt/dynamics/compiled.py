"""A SchNetPack model whose energy and forces are one compiled function.

`torch.compile` cannot differentiate a compiled function twice, and training on forces needs second derivatives. So the first
derivative is taken inside of what is compiled (`torch.func.grad`), and one backward pass remains outside. Sizes are
symbolic: batches of other numbers of systems, atoms or pairs need no new compilation.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from schnetpack import properties
from schnetpack.atomistic import Forces
from schnetpack.model import NeuralNetworkPotential
from torch import nn

__all__ = ["CompiledPotential"]

log = logging.getLogger(__name__)


class CompiledPotential:
    """Predicts what the model predicts without its postprocessors, compiled.

    The first call of each kind (training, evaluation) compiles, which takes a minute or so and is remembered by PyTorch from
    run to run. Where it is not possible, since there is no C++ compiler or the model does something that cannot be
    compiled, a warning says why, and the model is evaluated as it is.

    Args:
        model: a potential whose forces are the negative gradient of its energy. In evaluation mode outputs have no graph.
    """

    def __init__(self, model: NeuralNetworkPotential) -> None:
        self.model = model
        self._reason = _why_not(model)
        if self._reason is not None:
            self._fall_back()
        self._function = torch.compile(self._predict, dynamic=True, fullgraph=True)
        self._ready: set[tuple] = set()

    def __reduce__(self) -> tuple:
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
        positions = inputs[properties.R]
        kind = (
            self.model.training,
            torch.is_grad_enabled(),
            positions.requires_grad,
            positions.dtype,
            positions.device,
        )
        sizes = tuple(min(len(value), 2) for value in inputs.values())  # zero and one are compiled for themselves
        if self.compiled and (kind, sizes) not in self._ready:
            self(inputs)
            self._ready.add((kind, sizes))

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """All outputs of the model for a SchNetPack batch; what is needed is compiled at the first call."""
        if not self.compiled:
            return self._plain(inputs)
        refresh = getattr(self.model.representation, "refresh", None)
        if refresh is not None:  # constants that a compiled function cannot look after
            refresh()
        rest = {key: value for key, value in inputs.items() if key != properties.R}
        before = _State()
        try:
            with (
                _flat_linear_layers(),
                torch._dynamo.config.patch(capture_scalar_outputs=True),  # SchNetPack reads the number of systems
                torch.set_grad_enabled(torch.is_grad_enabled() and self.model.training),
            ):
                return self._function(inputs[properties.R], rest)
        except Exception as error:  # the plain model raises what is not the compiler's fault
            before.restore()
            self._reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            outputs = self._plain(inputs)
            self._fall_back()
            return outputs

    def _fall_back(self) -> None:
        log.warning("the model is not compiled and will run uncompiled (%s)", self._reason)

    def _plain(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        before, self.model.do_postprocessing = self.model.do_postprocessing, False
        try:
            return self.model(dict(inputs))
        finally:
            self.model.do_postprocessing = before

    def _predict(self, positions: torch.Tensor, rest: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        gradient, outputs = torch.func.grad(self._energy, has_aux=True)(positions, rest)
        outputs[self.model.output_modules[-1].force_key] = -gradient
        return outputs

    def _energy(
        self, positions: torch.Tensor, rest: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Sum of the energies of all systems, and all outputs but the forces."""
        *modules, forces = self.model.output_modules
        inputs = {**rest, properties.R: positions}
        for module in (*self.model.input_modules, self.model.representation, *modules):
            inputs = module(inputs)
        outputs = {key: inputs[key] for key in self.model.model_outputs if key != forces.force_key}
        return inputs[forces.energy_key].sum(), outputs


@contextmanager
def _flat_linear_layers() -> Iterator[None]:
    """Linear layers of three-dimensional tensors, as in PaiNN, are traced as those of two.

    PyTorch 2.15 takes the number of rows of the former for a constant.
    """
    F.linear = _flat_linear
    try:
        yield
    finally:
        F.linear = _linear


_linear = F.linear


def _flat_linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    if input.dim() < 3:
        return _linear(input, weight, bias)
    return _linear(input.flatten(0, -2), weight, bias).unflatten(0, input.shape[:-1])


class _State:
    """What a derivative that fails while it is traced leaves behind in PyTorch, and what it was before."""

    def __init__(self) -> None:
        self._depth = torch._C._functorch.get_dynamic_layer_stack_depth()
        self._hooks = torch._C._autograd._saved_tensors_hooks_is_enabled()

    def restore(self) -> None:
        torch._C._functorch.pop_dynamic_layer_stack_and_undo_to_depth(self._depth)
        if self._hooks:
            torch._C._autograd._saved_tensors_hooks_enable()


def _why_not(model: nn.Module) -> str | None:
    """Why a model cannot be taken apart into energy and forces, None if it can."""
    if not isinstance(model, NeuralNetworkPotential):
        return f"it is a {type(model).__name__}, not a NeuralNetworkPotential"
    forces = model.output_modules[-1] if len(model.output_modules) else None
    if not isinstance(forces, Forces) or set(model.required_derivatives) != {properties.R}:
        return "its last output module must be Forces, without stress"
    return None
