r"""Radial bases as Chebyshev series.

A filter of a message-passing layer is a linear map of a radial basis, so it is a function of one number, the distance, and
as smooth as the basis. The 512 random Fourier features of the paper, for example, oscillate at up to some 9 per Å; over 5 Å
some fifty Chebyshev polynomials reproduce all of them, and so every filter, to rounding error. Filters are then computed
from these few numbers per pair, with the same weights:

.. math::
    W \phi(d) = (W C) T(x(d)), \quad \phi_k(d) = \sum_n C_{kn} T_n(x)

Everything is dense and smooth: derivatives of any order are those of the series, and no table has to be gathered from or
scattered to.
"""

from math import pi
from typing import Any, Dict, List, Union

import torch
from torch import nn

__all__ = ["ChebyshevSeries", "ChebyshevTerms"]

_NODES = 256  # the coefficients are found by interpolation in so many points
_TOLERANCE = 1e-7  # what is cut off, of the sum of the slopes of all terms
_MARGIN = 0.02  # of the cutoff, by which the interval reaches beyond, since polynomials are steep at its ends


class ChebyshevSeries:
    """Chebyshev polynomials of a distance, and the coefficients with which they give a radial basis.

    `refresh` brings it up to date with the basis: a state may have been loaded, another device, precision or cutoff chosen,
    or parameters of the basis released for training.

    Args:
        radial_basis: module with an attribute `n_rbf`.
        cutoff: largest distance at which the series is needed, Å; a number or a tensor with one element.
    """

    def __init__(self, radial_basis: Any, cutoff: Union[float, torch.Tensor]) -> None:
        self.radial_basis = radial_basis
        self.cutoff = cutoff
        self.low, self.high = 0.0, 0.0
        #: [n_terms, n_rbf] coefficients of the basis functions
        self.coefficients = torch.zeros(0, radial_basis.n_rbf)
        self.degrees = torch.zeros(0)
        #: compiled code cannot refresh the series and may use it only if somebody else does, before each call
        self.refreshed_outside = False
        self._constant = False
        self._constants: List[torch.Tensor] = []
        self.refresh()

    def __getstate__(self) -> Dict[str, Any]:
        return {"radial_basis": self.radial_basis, "cutoff": self.cutoff}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        # files of version 0.1 hold the ends of the interval, and coefficients, which are found anew
        cutoff = state["cutoff"] if "cutoff" in state else state["high"] / (1.0 + _MARGIN)
        ChebyshevSeries.__init__(self, state["radial_basis"], cutoff)

    def pays(self) -> bool:
        """Whether the basis is constant, and has at least twice as many functions as the series needs terms.

        As of the last `refresh`. Where the series does not pay, it may not reproduce the basis at all.
        """
        return self._constant and 0 < len(self.degrees) <= self.radial_basis.n_rbf // 2

    def refresh(self) -> None:
        """Find the coefficients, unless the constants of the basis are those for which they were found.

        Values are compared: neither the identity of a tensor nor its version tells of `tensor.data.copy_(...)`.
        """
        constants = [*self.radial_basis.buffers(), *self.radial_basis.parameters(), torch.as_tensor(self.cutoff)]
        self._constant = all(map(_is_constant, constants))
        if not self._constant or _equal(constants, self._constants):
            return
        with torch.inference_mode(False), torch.no_grad():
            self.low, self.high = -_MARGIN * float(self.cutoff), (1.0 + _MARGIN) * float(self.cutoff)
            coefficients = self._interpolate()
            slopes = coefficients.abs().amax(dim=1) * torch.arange(_NODES, device="cpu") ** 2  # |T_n'| <= n^2
            small = slopes.flip(0).cumsum(0).flip(0) < _TOLERANCE * slopes.sum()
            n_terms = int(torch.nonzero(small)[0]) if bool(small.any()) else 0
            like = next((constant for constant in constants if constant.is_floating_point()), self.degrees)
            self.coefficients = coefficients[:n_terms].to(like)
            self.degrees = torch.arange(n_terms).to(like)
            self._constants = [constant.clone() for constant in constants]

    def _interpolate(self) -> torch.Tensor:
        """Coefficients [_NODES, n_rbf] in double precision, from the values at the Chebyshev nodes."""
        angles = pi * (torch.arange(_NODES, dtype=torch.float64, device="cpu") + 0.5) / _NODES
        distances = 0.5 * (self.low + self.high) + 0.5 * (self.high - self.low) * torch.cos(angles)
        constants = (*self.radial_basis.named_buffers(), *self.radial_basis.named_parameters())
        double = {name: constant.detach().cpu().double() for name, constant in constants}
        values = torch.func.functional_call(self.radial_basis, double, (distances,))
        degrees = torch.arange(_NODES, dtype=torch.float64, device="cpu")
        coefficients = 2.0 / _NODES * torch.cos(degrees[:, None] * angles) @ values
        coefficients[0] *= 0.5
        return coefficients

    def __call__(self, distances: torch.Tensor) -> torch.Tensor:
        """Polynomials of degree 0 to n_terms - 1.

        Args:
            distances: [n_pairs] Å; beyond the interval they are taken as its end.

        Returns:
            [n_pairs, n_terms]
        """
        return _polynomials(distances, self.degrees, self.low, self.high)


class ChebyshevTerms(nn.Module):
    """The polynomials of a series as a radial basis of their own, for weights that have the coefficients in them.

    Args:
        series: brought up to date.
    """

    degrees: torch.Tensor

    def __init__(self, series: ChebyshevSeries) -> None:
        super().__init__()
        self.n_rbf = len(series.degrees)
        self.low, self.high = series.low, series.high
        self.register_buffer("degrees", series.degrees.clone())

    def forward(self, distances: torch.Tensor) -> torch.Tensor:
        """[n_pairs, n_rbf] polynomials of distances [n_pairs], Å."""
        return _polynomials(distances, self.degrees, self.low, self.high)


def _polynomials(distances: torch.Tensor, degrees: torch.Tensor, low: float, high: float) -> torch.Tensor:
    x = (2.0 * distances - (low + high)) / (high - low)
    return torch.cos(torch.acos(x.clamp(-1.0 + 1e-3, 1.0 - 1e-3))[:, None] * degrees)


def _is_constant(tensor: torch.Tensor) -> bool:
    """Whether its numbers can be read, and nothing is differentiated with respect to them."""
    return not (tensor.requires_grad or tensor.is_meta or torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def _equal(tensors: List[torch.Tensor], others: List[torch.Tensor]) -> bool:
    return len(tensors) == len(others) and all(
        one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)
        for one, other in zip(tensors, others)
    )
