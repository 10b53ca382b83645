"""One stored model as it is put into files for engines: its atomic energies, from the pairs that an engine finds.

The networks compute in their own unit of length and their own precision; energies of atoms, offsets included, are in double
precision, so that a large offset costs no digits.
"""

from typing import Dict  # noqa: UP035  # TorchScript reads it

import torch
from torch import Tensor, nn

from spk_dt.export.stored import Stored
from spk_dt.representation import EGNN

__all__ = ["Member", "member_of"]


class Member(nn.Module):
    """Atomic energies of one model.

    Args:
        representation: of SchNetPack; it works from ``_Rij``.
        outnet: network of its `schnetpack.atomistic.Atomwise`, [n_atoms, n_features] -> [n_atoms, 1].
        length: unit of length of the model, Å.
        scale: eV, of what the network gives.
        offsets: [n_elements] eV, added to each atom, by atomic number.
    """

    def __init__(
        self, representation: nn.Module, outnet: nn.Module, length: float, scale: float, offsets: Tensor
    ) -> None:
        super().__init__()
        self.representation, self.outnet = representation, outnet
        self.length, self.scale = length, scale
        self.dtype = next(p.dtype for p in outnet.parameters())
        self.offsets: Tensor
        self.register_buffer("offsets", offsets.to(torch.float64))

    def forward(self, inputs: Dict[str, Tensor]) -> Tensor:  # noqa: UP006
        """Atomic energies [n_atoms], eV, of a SchNetPack batch with pair vectors in Å."""
        own = inputs.copy()
        own["_Rij"] = (inputs["_Rij"] / self.length).to(self.dtype)
        features = self.representation(own)["scalar_representation"]
        energies = self.outnet(features).squeeze(-1).to(torch.float64)
        return self.scale * energies + self.offsets[inputs["_atomic_numbers"]]


def member_of(stored: Stored, precision: int) -> Member:
    """The model of a file.

    Args:
        stored: the model; its numbers get the precision.
        precision: bits of the numbers in its networks, 32 or 64.

    Raises:
        ValueError: if it is another precision.
    """
    if precision not in (32, 64):
        raise ValueError(f"precision={precision}: networks compute with 32 or 64 bits.")
    dtype = getattr(torch, f"float{precision}")
    representation, outnet = stored.model.representation.to(dtype), stored.energy.outnet.to(dtype)
    if isinstance(representation, EGNN):
        representation = representation.folded()
    return Member(representation, outnet, stored.length, stored.scale, stored.offsets)
