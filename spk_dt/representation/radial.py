"""Random Fourier features of the interatomic distance."""

from math import sqrt

import torch
from torch import nn

__all__ = ["RandomFourierFeatures"]


class RandomFourierFeatures(nn.Module):
    r"""Random Fourier features of a distance.

    .. math::
        \phi(d) = [\sin(b_1 d), \dots, \sin(b_K d), \cos(b_1 d), \dots, \cos(b_K d)], \quad
        b_k \sim \mathcal{N}(0, \sigma^2 / 2)

    The frequencies are drawn once and not trained. Inner products of features approximate a Gaussian kernel of the
    difference of distances, of width sqrt(2) / sigma Å.

    Args:
        n_rbf: number of features, 2 K.
        sigma: standard deviation of the Gaussian kernel in frequency space, 1/Å.

    Raises:
        ValueError: if `n_rbf` is not even and positive.

    References:
        Rahimi, Recht: Random features for large-scale kernel machines. NeurIPS 2007.
    """

    frequencies: torch.Tensor

    def __init__(self, n_rbf: int = 512, sigma: float = 4.0) -> None:
        super().__init__()
        if n_rbf < 2 or n_rbf % 2 != 0:
            raise ValueError(
                f"n_rbf={n_rbf}: random Fourier features come in pairs of sine and cosine, give an even number"
            )
        self.n_rbf = n_rbf
        self.register_buffer("frequencies", torch.randn(n_rbf // 2) * sigma / sqrt(2.0))

    def forward(self, distances: torch.Tensor) -> torch.Tensor:
        """Features of distances.

        Args:
            distances: [n_pairs] Å.

        Returns:
            [n_pairs, n_rbf]
        """
        phase = distances[..., None] * self.frequencies
        return torch.cat([torch.sin(phase), torch.cos(phase)], dim=-1)
