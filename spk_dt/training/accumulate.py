"""Gradients of a loss whose parts are backpropagated one after the other."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

__all__ = ["PartwiseLoss"]


class PartwiseLoss:
    """A sum of losses with separate graphs, each of which is freed as soon as its gradients are known.

    `total` gives a scalar whose `backward` puts the sum of all gradients on the parameters. So the caller, here
    Lightning, sees one loss and one backward pass, and everything it does around them (accumulation of batches, clipping,
    mixed precision, averaging between processes) stays as it is.

    In half precision small gradients of activations round to zero, so a loss is multiplied by a scale before it is
    backpropagated. The caller does that to `total`, when the parts are backpropagated already. They are therefore scaled
    here in the same way, and `backward` divides by the scale in the precision of the parameters. Gradients that overflow
    stay infinite or NaN, so that the scaler sees them and leaves the update out.

    Args:
        parameters: parameters with respect to which gradients are taken.
        all_take_part: give parameters that no part depends on a gradient of zero, as distributed training demands. Forces
            do not depend on the bias of the energy, for example.
        scaler: what the caller scales the loss with, if it does.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        all_take_part: bool = False,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._all_take_part = all_take_part
        self._scaler = scaler
        self._gradients: list[torch.Tensor | None] = [None] * len(self._parameters)
        self._value: torch.Tensor | float = 0.0

    def add(self, loss: torch.Tensor) -> None:
        """Add a part; its graph is freed.

        Args:
            loss: scalar.
        """
        with torch.autocast(loss.device.type, enabled=False):  # as in the backward pass of the caller
            gradients = torch.autograd.grad(self._scaled(loss), self._parameters, allow_unused=True)
        self._gradients = [
            new if old is None else old if new is None else old + new
            for old, new in zip(self._gradients, gradients, strict=True)
        ]
        self._value = self._value + loss.detach()

    def total(self, last: torch.Tensor) -> torch.Tensor:
        """The sum of all parts and of `last`, whose graph stays until `backward` is called.

        Args:
            last: scalar, the last part.
        """
        gradients = self._gradients
        if self._all_take_part:
            gradients = [
                torch.zeros_like(p) if g is None else g for p, g in zip(self._parameters, gradients, strict=True)
            ]
        known = [(p, g) for p, g in zip(self._parameters, gradients, strict=True) if g is not None]
        if not known:
            return last
        parameters, of_parts = zip(*known, strict=True)
        value = torch.as_tensor(self._value, dtype=last.dtype, device=last.device)
        scale = self._scaled(torch.ones((), device=last.device))
        return last + _Known.apply(value, scale, len(parameters), *parameters, *of_parts)

    def _scaled(self, loss: torch.Tensor) -> torch.Tensor:
        return loss if self._scaler is None else self._scaler.scale(loss)


class _Known(torch.autograd.Function):
    """A value whose gradients are known, times a scale."""

    @staticmethod
    def forward(
        ctx: Any, value: torch.Tensor, scale: torch.Tensor, n: int, *parameters_and_gradients: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(*parameters_and_gradients[n:])
        ctx.scale = scale
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        factor = grad_output / ctx.scale
        gradients = [factor * gradient for gradient in ctx.saved_tensors]
        return None, None, None, *gradients, *[None] * len(gradients)
