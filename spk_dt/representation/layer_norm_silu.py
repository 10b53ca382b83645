r"""LayerNorm followed by SiLU, with hand-written first and second derivatives.

Training on forces differentiates a model twice. PyTorch composes the second derivative of LayerNorm from some forty
elementary operations, which is half of the time of a training step of `spk_dt.EGNN`; here it is three fused kernels and a
few products. With :math:`\hat x = r (x - \bar x)`, :math:`z = \gamma \hat x + \beta`, :math:`y = \mathrm{silu}(z)` and the
projection :math:`P a = a - \bar a - \hat x\, \overline{a \hat x}` (bars are means over the features),

.. math::
    g_x &= r P a, \quad a = \gamma\, \mathrm{silu}'(z)\, g

is the gradient with respect to x for an incoming :math:`g`. For an incoming :math:`v` to :math:`g_x`, with
:math:`w = r P v` and :math:`q = g\, \mathrm{silu}''(z)\, \gamma w`,

.. math::
    \partial_g &= \mathrm{silu}'(z)\, \gamma w \\
    \partial_x &= r P (\gamma q) - r \left[ \overline{a \hat x}\, w + \overline{v \hat x}\, g_x
        + \overline{v g_x}\, \hat x \right] \\
    \partial_\gamma &= \sum \left[ \mathrm{silu}'(z)\, g\, w + q \hat x \right], \quad \partial_\beta = \sum q.
"""

from typing import Any, Tuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Function

__all__ = ["LayerNormSiLU"]

_aten = torch.ops.aten


class LayerNormSiLU(nn.LayerNorm):
    """LayerNorm over the last dimension, then SiLU.

    Args:
        n_features: size of the last dimension.
        fused: use the derivatives of this module. TorchScript, compilation and mixed precision take PyTorch's in any case,
            and so do third derivatives.
    """

    def __init__(self, n_features: int, fused: bool = True) -> None:
        super().__init__(n_features)
        self.fused = fused

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Values of the shape of `x`, [..., n_features]."""
        if not torch.jit.is_scripting():
            if self.fused and not torch.compiler.is_compiling() and not torch.is_autocast_enabled(x.device.type):
                return _Forward.apply(x, self.weight, self.bias, self.eps)
        return _plain(x, self.weight, self.bias, self.eps)


def _plain(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
    return F.silu(F.layer_norm(x, x.shape[-1:], weight, bias, eps))


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
        ctx.mark_non_differentiable(of_weight, of_bias)
        return of_x, of_weight, of_bias

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor, *_: Any) -> Tuple[Any, ...]:
        g, x, weight, bias, z, y, mean, rstd, g_z, g_x = ctx.saved_tensors
        if torch.is_grad_enabled():  # a third derivative may follow
            # partial derivatives: views, since g may depend on the others
            g, *others = (tensor.view_as(tensor) for tensor in (g, x, weight, bias))
            of_x = torch.autograd.grad(_plain(*others, ctx.eps), others[0], g, create_graph=True)[0]
            return *torch.autograd.grad(of_x, (g, *others), v, create_graph=True), *[None] * 5
        w = _aten.native_layer_norm_backward(v, x, x.shape[-1:], mean, rstd, None, None, [True, False, False])[0]
        weighted = w * weight
        of_g = _aten.silu_backward(weighted, z)
        # silu'' = s (1 - s) (2 + z - 2 y); memory is used again, since fresh pages cost more than the arithmetic
        s = torch.sigmoid(z)
        q = torch.add(z, y, alpha=-2.0).add_(2.0).mul_(s).mul_(s.neg_().add_(1.0)).mul_(g).mul_(weighted)
        of_x, of_weight, of_bias = _norm_backward(q, x, mean, rstd, weight, bias)
        normed, product = torch.sub(x, mean, out=s).mul_(rstd), weighted
        scale = rstd / x.shape[-1]
        of_x.addcmul_(w, scale * torch.mul(g_z, normed, out=product).mul_(weight).sum(-1, keepdim=True), value=-1.0)
        of_x.addcmul_(g_x, scale * torch.mul(v, normed, out=product).sum(-1, keepdim=True), value=-1.0)
        of_x.addcmul_(normed, scale * torch.mul(v, g_x, out=product).sum(-1, keepdim=True), value=-1.0)
        of_weight.add_(torch.mul(g_z, w, out=product).flatten(0, -2).sum(0))
        return of_g, of_x, of_weight, of_bias, *[None] * 5


def _norm_backward(
    g: torch.Tensor, x: torch.Tensor, mean: torch.Tensor, rstd: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of LayerNorm with respect to x, weight and bias."""
    return _aten.native_layer_norm_backward(g, x, x.shape[-1:], mean, rstd, weight, bias, [True, True, True])
