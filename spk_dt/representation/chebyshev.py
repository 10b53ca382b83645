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
from typing import List, Tuple

import torch
from torch import nn

__all__ = ["ChebyshevSeries"]

_NODES = 256  # the coefficients are found by interpolation in so many points
_TOLERANCE = 1e-7  # what is cut off, of the sum of the slopes of all terms
_MARGIN = 0.02  # of the cutoff, by which the interval reaches beyond, since polynomials are steep at its ends


class ChebyshevSeries:
    """Chebyshev polynomials of a distance, and the coefficients with which they give a radial basis.

    Coefficients follow the basis: when its constants change (a state is loaded, a device or precision chosen), `refresh`
    finds them anew.

    Args:
        radial_basis: basis with an attribute `n_rbf`.
        cutoff: largest distance at which the series is needed, Å.
    """

    def __init__(self, radial_basis: nn.Module, cutoff: float) -> None:
        self.radial_basis = radial_basis
        self.low, self.high = -_MARGIN * cutoff, (1.0 + _MARGIN) * cutoff
        #: [n_terms, n_rbf] coefficients of the basis functions
        self.coefficients = torch.zeros(0, radial_basis.n_rbf)
        self.degrees = torch.zeros(0)
        self._constants: List[Tuple[torch.Tensor, int]] = []
        self.refresh()

    def pays(self) -> bool:
        """Whether the basis is constant, and has at least twice as many functions as the series needs terms."""
        trained = any(parameter.requires_grad for parameter in self.radial_basis.parameters())
        return not trained and 0 < len(self.degrees) <= self.radial_basis.n_rbf // 2

    def refresh(self) -> None:
        """Find the coefficients, unless the constants of the basis are those for which they were found."""
        constants = [*self.radial_basis.buffers(), *self.radial_basis.parameters()]
        if len(constants) == len(self._constants) and all(
            new is old and new._version == version for new, (old, version) in zip(constants, self._constants)
        ):
            return
        with torch.no_grad():
            coefficients = self._interpolate()
            slopes = coefficients.abs().amax(dim=1) * torch.arange(_NODES) ** 2  # |T_n'| <= n^2
            small = slopes.flip(0).cumsum(0).flip(0) < _TOLERANCE * slopes.sum()
            n_terms = int(torch.nonzero(small)[0]) if bool(small.any()) else 0
            like = next((constant for constant in constants if constant.is_floating_point()), self.degrees)
            self.coefficients = coefficients[:n_terms].to(like)
            self.degrees = torch.arange(n_terms).to(like)
        self._constants = [(constant, constant._version) for constant in constants]

    def _interpolate(self) -> torch.Tensor:
        """Coefficients [_NODES, n_rbf] in double precision, from the values at the Chebyshev nodes."""
        angles = pi * (torch.arange(_NODES, dtype=torch.float64) + 0.5) / _NODES
        distances = 0.5 * (self.low + self.high) + 0.5 * (self.high - self.low) * torch.cos(angles)
        constants = (*self.radial_basis.named_buffers(), *self.radial_basis.named_parameters())
        double = {name: constant.detach().cpu().double() for name, constant in constants}
        values = torch.func.functional_call(self.radial_basis, double, (distances,))
        degrees = torch.arange(_NODES, dtype=torch.float64)
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
        x = (2.0 * distances - (self.low + self.high)) / (self.high - self.low)
        return torch.cos(torch.acos(x.clamp(-1.0 + 1e-3, 1.0 - 1e-3))[:, None] * self.degrees)
