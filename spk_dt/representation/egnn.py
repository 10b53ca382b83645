"""EGNN, a message-passing representation on distances, as a SchNetPack representation.

Satorras, Hoogeboom, Welling: E(n) equivariant graph neural networks. ICML 2021, arXiv 2102.09844. The variant without
coordinate updates is the model of Žugec et al., J. Chem. Inf. Model. 2025, doi 10.1021/acs.jcim.5c01180. Everything here
compiles with TorchScript.
"""

from typing import Dict, List, Optional, Tuple

import torch
import torch.nn.functional as F
from schnetpack import properties
from schnetpack.nn import scatter_add
from torch import nn

__all__ = ["EGNN", "EGNNCoordinates", "EGNNInteraction"]


class EGNNInteraction(nn.Module):
    r"""One round of messages and the update of the atoms.

    .. math::
        m_{ij} &= f_c(d_{ij}) \, \phi_e(h_i, h_j, e(d_{ij})) \\
        h_i &\leftarrow h_i + \phi_h(h_i, \sum_j m_{ij})

    (Satorras et al. eqs. 3, 5, 6), with two-layer networks, LayerNorm and SiLU after each layer. Departures: the envelope
    :math:`f_c`, so that energy and forces are continuous at the cutoff, a basis :math:`e` instead of the squared distance,
    and the first layer of :math:`\phi_e` is applied to atoms before it is gathered on pairs, which is the same sum.

    Args:
        n_atom_basis: number of features of an atom, F.
        n_rbf: number of radial functions.
    """

    def __init__(self, n_atom_basis: int, n_rbf: int) -> None:
        super().__init__()
        self.n_atom_basis = n_atom_basis
        self.message_first = nn.Linear(2 * n_atom_basis + n_rbf, n_atom_basis)
        self.message_rest = nn.Sequential(
            nn.LayerNorm(n_atom_basis),
            nn.SiLU(),
            nn.Linear(n_atom_basis, n_atom_basis),
            nn.LayerNorm(n_atom_basis),
            nn.SiLU(),
        )
        self.update = nn.Sequential(
            nn.Linear(2 * n_atom_basis, n_atom_basis),
            nn.LayerNorm(n_atom_basis),
            nn.SiLU(),
            nn.Linear(n_atom_basis, n_atom_basis),
            nn.LayerNorm(n_atom_basis),
            nn.SiLU(),
        )

    def forward(
        self, h: torch.Tensor, basis: torch.Tensor, envelope: torch.Tensor, idx_i: torch.Tensor, idx_j: torch.Tensor
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        """Updated features and messages.

        Args:
            h: [n_atoms, F] features of atoms.
            basis: [n_pairs, n_rbf] radial functions of the distances.
            envelope: [n_pairs, 1] cutoff function of the distances.
            idx_i: [n_pairs] receiving atoms.
            idx_j: [n_pairs] sending atoms.

        Returns:
            [n_atoms, F] features, [n_pairs, F] messages.
        """
        n = self.n_atom_basis
        weight = self.message_first.weight
        of_i = F.linear(h, weight[:, :n], self.message_first.bias)
        of_j = F.linear(h, weight[:, n : 2 * n])
        of_pair = F.linear(basis, weight[:, 2 * n :])
        messages = self.message_rest(of_i[idx_i] + of_j[idx_j] + of_pair) * envelope
        gathered = scatter_add(messages, idx_i, dim_size=h.shape[0])
        return h + self.update(torch.cat([h, gathered], dim=-1)), messages


class EGNNCoordinates(nn.Module):
    r"""The coordinate channel: vectors on the atoms, which move the points between which distances are measured.

    .. math::
        v_i \leftarrow v_i + \sum_j f_c(d_{ij}) \frac{x_j - x_i}{d_{ij} + 1} \phi_x(m_{ij}), \quad
        x_i = r_i + v_i w

    (Satorras et al. eq. 4, with F channels that a learned :math:`w` maps to one displacement; the original is F = 1.)

    Args:
        n_atom_basis: number of channels, F.
    """

    def __init__(self, n_atom_basis: int) -> None:
        super().__init__()
        self.weights = nn.Sequential(
            nn.Linear(n_atom_basis, n_atom_basis),
            nn.SiLU(),
            nn.Linear(n_atom_basis, n_atom_basis, bias=False),
        )
        self.displacement = nn.Linear(n_atom_basis, 1, bias=False)
        nn.init.xavier_uniform_(self.weights[2].weight, gain=1e-3)  # points start near the atoms

    def forward(
        self,
        vectors: torch.Tensor,
        x_ij: torch.Tensor,
        distances: torch.Tensor,
        messages: torch.Tensor,
        envelope: torch.Tensor,
        idx_i: torch.Tensor,
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        """Updated vectors and displacements of the points.

        Args:
            vectors: [n_atoms, 3, F].
            x_ij: [n_pairs, 3] from point i to point j, Å.
            distances: [n_pairs] their lengths, Å.
            messages: [n_pairs, F].
            envelope: [n_pairs, 1] cutoff function of the distances of the atoms.
            idx_i: [n_pairs] receiving atoms.

        Returns:
            [n_atoms, 3, F] vectors, [n_atoms, 3] displacements, Å.
        """
        directions = x_ij / (distances[:, None] + 1.0) * envelope
        pushed = directions[:, :, None] * self.weights(messages)[:, None, :]
        vectors = vectors + scatter_add(pushed, idx_i, dim_size=vectors.shape[0])
        return vectors, self.displacement(vectors).squeeze(-1)


class EGNN(nn.Module):
    """E(n) equivariant graph neural network.

    Sets ``scalar_representation`` [n_atoms, F], and ``vector_representation`` [n_atoms, 3, F] if the coordinate channel
    is on. Expects `schnetpack.atomistic.PairwiseDistances` among the input modules.

    Args:
        n_atom_basis: number of features of an atom, F.
        n_interactions: number of interaction blocks.
        radial_basis: expands distances, with an attribute `n_rbf`.
        cutoff_fn: cutoff function with an attribute `cutoff` in Å. It should reach zero with zero slope, else forces jump.
        coordinate_channel: carry equivariant vectors and measure distances between displaced points, as in the original
            EGNN; without it (the default) all features are invariant.
        nuclear_embedding: custom embedding of the atomic numbers.
        electronic_embeddings: embeddings of charge or spin (`schnetpack.nn.ElectronicEmbedding`).
    """

    def __init__(
        self,
        n_atom_basis: int,
        n_interactions: int,
        radial_basis: nn.Module,
        cutoff_fn: nn.Module,
        coordinate_channel: bool = False,
        nuclear_embedding: Optional[nn.Module] = None,
        electronic_embeddings: Optional[List[nn.Module]] = None,
    ) -> None:
        super().__init__()
        self.n_atom_basis = n_atom_basis
        self.cutoff_fn = cutoff_fn
        self.cutoff = cutoff_fn.cutoff
        self.radial_basis = radial_basis
        self.embedding = nn.Embedding(100, n_atom_basis) if nuclear_embedding is None else nuclear_embedding
        self.electronic_embeddings = nn.ModuleList(electronic_embeddings)
        self.interactions = nn.ModuleList(
            [EGNNInteraction(n_atom_basis, radial_basis.n_rbf) for _ in range(n_interactions)]
        )
        self.coordinates = nn.ModuleList(
            [EGNNCoordinates(n_atom_basis) for _ in range(n_interactions if coordinate_channel else 0)]
        )

    def forward(self, inputs: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        """Add the representation to a SchNetPack dictionary with atomic numbers, pair vectors and pair indices."""
        idx_i = inputs[properties.idx_i]
        idx_j = inputs[properties.idx_j]
        r_ij = inputs[properties.Rij]

        h = self.embedding(inputs[properties.Z])
        for embedding in self.electronic_embeddings:
            h = h + embedding(h, inputs)

        distances = torch.linalg.vector_norm(r_ij, dim=1)
        envelope = self.cutoff_fn(distances)[:, None]
        basis = self.radial_basis(distances)

        if len(self.coordinates) == 0:
            for interaction in self.interactions:
                h, _ = interaction(h, basis, envelope, idx_i, idx_j)
        else:
            vectors = torch.zeros([h.shape[0], 3, self.n_atom_basis], dtype=h.dtype, device=h.device)
            x_ij = r_ij
            for interaction, coordinates in zip(self.interactions, self.coordinates):
                h, messages = interaction(h, basis, envelope, idx_i, idx_j)
                vectors, shift = coordinates(vectors, x_ij, distances, messages, envelope, idx_i)
                x_ij = r_ij + shift[idx_j] - shift[idx_i]
                distances = torch.linalg.vector_norm(x_ij, dim=1)
                basis = self.radial_basis(distances)
            inputs["vector_representation"] = vectors

        inputs["scalar_representation"] = h
        return inputs
