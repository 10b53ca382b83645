r"""LayerNorm followed by SiLU, with hand-written first and second derivatives.

Training on forces differentiates a model twice. PyTorch composes the second derivative of LayerNorm from some forty
elementary operations, which is half of the time of a training step of `spk_dt.EGNN`; here it is three fused kernels and a
few products. With :math:`\hat x = r (x - \bar x)`, :math:`z = \gamma \hat x + \beta`, :math:`y = \mathrm{silu}(z)` and the
projection :math:`P a = a - \bar a - \hat x\, \overline{a \hat x}` (bars are means over the features), the gradients for an
incoming :math:`g`, with :math:`g_z = \mathrm{silu}'(z)\, g`, are

.. math::
    g_x = r P (\gamma g_z), \quad g_\gamma = \sum g_z \hat x, \quad g_\beta = \sum g_z.

Let :math:`v, v_\gamma, v_\beta` come in for these three. Then :math:`w = r P v` is the change of :math:`\hat x` along v,
:math:`u = \gamma w + v_\gamma \hat x + v_\beta` that of z, and with :math:`q = g\, \mathrm{silu}''(z)\, u`

.. math::
    \partial_g &= \mathrm{silu}'(z)\, u \\
    \partial_x &= r P (\gamma q + v_\gamma g_z) - r \left[ \overline{\gamma g_z \hat x}\, w
        + \overline{v \hat x}\, g_x + \overline{v g_x}\, \hat x \right] \\
    \partial_\gamma &= \sum \left[ g_z w + q \hat x \right], \quad \partial_\beta = \sum q.

Derivatives beyond the second are composed of elementary operations. PyTorch's own LayerNorm is no help there: it takes mean
and variance for constants in its second derivative, so that its third is wrong (github.com/pytorch/pytorch/issues/175754).
"""

from typing import Any, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Function
from torch.jit import is_scripting  # type: ignore[attr-defined]  # documented, but not in its __all__

__all__ = ["LayerNormSiLU"]

_aten = torch.ops.aten


class LayerNormSiLU(nn.LayerNorm):
    """LayerNorm over the last dimension, then SiLU.

    Args:
        n_features: size of the last dimension.
        fused: use the derivatives of this module; otherwise they are composed of elementary operations, and slower. Either
            are right to any order. Within the transformations of `torch.func` they are always composed. TorchScript,
            compilation and mixed precision take PyTorch's LayerNorm, which is right to the second derivative.
    """

    def __init__(self, n_features: int, fused: bool = True) -> None:
        super().__init__(n_features)
        self.fused = fused

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Values of the shape of `x`, [..., n_features]."""
        if not is_scripting():
            if not torch.compiler.is_compiling() and not torch.is_autocast_enabled(x.device.type):
                fused = self.fused and not torch._C._are_functorch_transforms_active()
                return (_Forward.apply if fused else _composed)(x, self.weight, self.bias, self.eps)
        return F.silu(F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps))


def _composed(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
    x = x - x.mean(-1, keepdim=True)
    return F.silu(x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight + bias)


class _Forward(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
        z, mean, rstd = _aten.native_layer_norm(x, x.shape[-1:], weight, bias, eps)
        y = _aten.silu(z)
        ctx.save_for_backward(x, weight, bias, z, y, mean, rstd)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        return *_Backward.apply(g, *ctx.saved_tensors, ctx.eps), None


class _Backward(Function):
    @staticmethod
    def forward(
        ctx: Any,
        g: torch.Tensor,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        z: torch.Tensor,
        y: torch.Tensor,
        mean: torch.Tensor,
        rstd: torch.Tensor,
        eps: float,
    ) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        g_z = _aten.silu_backward(g, z)
        of_x, of_weight, of_bias = _norm_backward(g_z, x, mean, rstd, weight, bias)
        ctx.save_for_backward(g, x, weight, bias, z, y, mean, rstd, g_z, of_x)
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        return of_x, of_weight, of_bias

    @staticmethod
    def backward(
        ctx: Any, v: Optional[torch.Tensor], v_weight: Optional[torch.Tensor], v_bias: Optional[torch.Tensor]
    ) -> Tuple[Optional[torch.Tensor], ...]:
        if torch.is_grad_enabled():  # a third derivative may follow
            return *_composed_second(ctx.saved_tensors[:4], (v, v_weight, v_bias), ctx.eps), *[None] * 5
        g, x, weight, bias, z, y, mean, rstd, g_z, g_x = ctx.saved_tensors
        if v is None:
            u = torch.zeros_like(x)
        else:
            w = _aten.native_layer_norm_backward(v, x, x.shape[-1:], mean, rstd, None, None, [True, False, False])[0]
            u = w * weight
        if v_weight is not None:
            u.addcmul_((x - mean).mul_(rstd), v_weight)
        if v_bias is not None:
            u.add_(v_bias)
        of_g = _aten.silu_backward(u, z)
        # silu'' = s (1 - s) (2 + z - 2 y); memory is used again, since fresh pages cost more than the arithmetic
        s = torch.sigmoid(z)
        q = torch.add(z, y, alpha=-2.0).add_(2.0).mul_(s).mul_(s.neg_().add_(1.0)).mul_(g).mul_(u)
        of_x, of_weight, of_bias = _norm_backward(q, x, mean, rstd, weight, bias)
        if v_weight is not None:
            of_x.add_(_norm_backward(g_z, x, mean, rstd, v_weight, bias)[0])
        if v is not None:
            normed, product = torch.sub(x, mean, out=s).mul_(rstd), u
            scale = rstd / x.shape[-1]
            of_x.addcmul_(w, scale * torch.mul(g_z, normed, out=product).mul_(weight).sum(-1, keepdim=True), value=-1.0)
            of_x.addcmul_(g_x, scale * torch.mul(v, normed, out=product).sum(-1, keepdim=True), value=-1.0)
            of_x.addcmul_(normed, scale * torch.mul(v, g_x, out=product).sum(-1, keepdim=True), value=-1.0)
            of_weight.add_(torch.mul(g_z, w, out=product).flatten(0, -2).sum(0))
        return of_g, of_x, of_weight, of_bias, *[None] * 5


def _composed_second(
    inputs: Tuple[torch.Tensor, ...], incoming: Tuple[Optional[torch.Tensor], ...], eps: float
) -> Tuple[torch.Tensor, ...]:
    """Derivatives of the gradients with respect to g, x, weight and bias, with a graph."""
    # views, since g may depend on the others, and partial derivatives are asked for
    g, x, weight, bias = (t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in inputs)
    gradients = torch.autograd.grad(_composed(x, weight, bias, eps), (x, weight, bias), g, create_graph=True)
    asked = [index for index, v in enumerate(incoming) if v is not None]
    return torch.autograd.grad(
        [gradients[index] for index in asked],
        (g, x, weight, bias),
        [incoming[index] for index in asked],
        create_graph=True,
    )


def _norm_backward(
    g: torch.Tensor, x: torch.Tensor, mean: torch.Tensor, rstd: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of LayerNorm with respect to x, weight and bias."""
    return _aten.native_layer_norm_backward(g, x, x.shape[-1:], mean, rstd, weight, bias, [True, True, True])
