"""EGNN, a message-passing representation on distances, as a SchNetPack representation.

Satorras, Hoogeboom, Welling: E(n) equivariant graph neural networks. ICML 2021, arXiv 2102.09844. The variant without
coordinate updates is the model of Žugec et al., J. Chem. Inf. Model. 2025, doi 10.1021/acs.jcim.5c01180. Everything here
compiles with TorchScript.
"""

from copy import deepcopy
from typing import Any, Dict, List, Optional, Tuple

import torch
import torch.nn.functional as F
from schnetpack import properties
from schnetpack.nn import scatter_add
from torch import nn
from torch.jit import is_scripting  # type: ignore[attr-defined]  # documented, but not in its __all__

from spk_dt.representation.chebyshev import ChebyshevSeries, ChebyshevTerms
from spk_dt.representation.layer_norm_silu import LayerNormSiLU

__all__ = ["EGNN", "EGNNCoordinates", "EGNNInteraction"]

_BLOCK = 2**21  # elements of a tensor of messages, 8 MB in single precision


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
        fast: as for `EGNN`.
    """

    def __init__(self, n_atom_basis: int, n_rbf: int, fast: bool = True) -> None:
        super().__init__()
        self.n_atom_basis = n_atom_basis
        self.fast = fast
        self.message_first = nn.Linear(2 * n_atom_basis + n_rbf, n_atom_basis)
        self.message_rest = nn.Sequential(
            LayerNormSiLU(n_atom_basis, fast),
            nn.Linear(n_atom_basis, n_atom_basis),
            LayerNormSiLU(n_atom_basis, fast),
        )
        self.update = nn.Sequential(
            nn.Linear(2 * n_atom_basis, n_atom_basis),
            LayerNormSiLU(n_atom_basis, fast),
            nn.Linear(n_atom_basis, n_atom_basis),
            LayerNormSiLU(n_atom_basis, fast),
        )

    def forward(
        self,
        h: torch.Tensor,
        basis: torch.Tensor,
        envelope: torch.Tensor,
        idx_i: torch.Tensor,
        idx_j: torch.Tensor,
        coefficients: Optional[torch.Tensor] = None,
    ) -> Tuple[torch.Tensor, List[torch.Tensor]]:
        """Updated features and messages.

        Args:
            h: [n_atoms, F] features of atoms.
            basis: [n_pairs, n_rbf] radial functions of the distances, or [n_pairs, n_terms] terms of a series of them.
            envelope: [n_pairs, 1] cutoff function of the distances.
            idx_i: [n_pairs] receiving atoms.
            idx_j: [n_pairs] sending atoms.
            coefficients: [n_terms, n_rbf] of the series.

        Returns:
            [n_atoms, F] features, [n_pairs, F] messages in blocks.
        """
        n = self.n_atom_basis
        weight = self.message_first.weight
        of_i = F.linear(h, weight[:, :n], self.message_first.bias)
        of_j = F.linear(h, weight[:, n : 2 * n])
        filters = weight[:, 2 * n :]
        if coefficients is not None:
            filters = filters @ coefficients.t()
        size = self._block_size(idx_i)
        gathered = torch.zeros_like(h)
        messages: List[torch.Tensor] = []
        for e, f_c, i, j in zip(basis.split(size), envelope.split(size), idx_i.split(size), idx_j.split(size)):
            # index_select, and not [], because its derivative is a plain sum
            pairs = F.linear(e, filters) + of_i.index_select(0, i) + of_j.index_select(0, j)
            messages.append(self.message_rest(pairs) * f_c)
            gathered.index_add_(0, i, messages[-1])
        return h + self.update(torch.cat([h, gathered], dim=-1)), messages

    def _block_size(self, idx_i: torch.Tensor) -> int:
        """Number of pairs that are computed together.

        On a CPU, memory for tensors of more than 32 MB is asked from the system each time, which doubles the time of a
        step. Blocks much smaller than this save some more time, but scatter the memory, so that its peak rises.
        """
        n_pairs = max(idx_i.shape[0], 1)
        if not is_scripting():
            if self.fast and idx_i.device.type == "cpu" and not torch.compiler.is_compiling():
                return max(_BLOCK // self.n_atom_basis, n_pairs // 16 + 1)
        return n_pairs


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
        nn.init.xavier_uniform_(self.weights.get_parameter("2.weight"), gain=1e-3)  # points start near the atoms

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
        radial_basis: module that expands distances, with an attribute `n_rbf`.
        cutoff_fn: module with an attribute `cutoff` in Å. It should reach zero with zero slope, else forces jump.
        coordinate_channel: carry equivariant vectors and measure distances between displaced points, as in the original
            EGNN; without it (the default) all features are invariant.
        nuclear_embedding: custom embedding of the atomic numbers.
        electronic_embeddings: embeddings of charge or spin (`schnetpack.nn.ElectronicEmbedding`).
        fast: compute filters from a Chebyshev series of the radial basis where this pays (a constant basis of many
            functions, no coordinate channel), and derivatives of the normalisation by hand. The parameters are the same,
            and so are results up to rounding. Whether it pays is decided whenever the basis changes.
    """

    def __init__(
        self,
        n_atom_basis: int,
        n_interactions: int,
        radial_basis: Any,
        cutoff_fn: Any,
        coordinate_channel: bool = False,
        nuclear_embedding: Optional[nn.Module] = None,
        electronic_embeddings: Optional[List[nn.Module]] = None,
        fast: bool = True,
    ) -> None:
        super().__init__()
        self.n_atom_basis = n_atom_basis
        self.cutoff_fn = cutoff_fn
        self.cutoff = cutoff_fn.cutoff
        self.radial_basis = radial_basis
        self.embedding = nn.Embedding(100, n_atom_basis) if nuclear_embedding is None else nuclear_embedding
        self.electronic_embeddings = nn.ModuleList(electronic_embeddings)
        self.interactions = nn.ModuleList(
            [EGNNInteraction(n_atom_basis, radial_basis.n_rbf, fast) for _ in range(n_interactions)]
        )
        self.coordinates = nn.ModuleList(
            [EGNNCoordinates(n_atom_basis) for _ in range(n_interactions if coordinate_channel else 0)]
        )
        self._series: Optional[ChebyshevSeries] = None
        if fast and not coordinate_channel:
            self._series = ChebyshevSeries(radial_basis, cutoff_fn.cutoff)

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
        basis, coefficients = self._expand(distances)

        if len(self.coordinates) == 0:
            for interaction in self.interactions:
                h, _ = interaction(h, basis, envelope, idx_i, idx_j, coefficients)
        else:
            vectors = torch.zeros([h.shape[0], 3, self.n_atom_basis], dtype=h.dtype, device=h.device)
            x_ij = r_ij
            for interaction, coordinates in zip(self.interactions, self.coordinates):
                h, messages = interaction(h, basis, envelope, idx_i, idx_j)
                vectors, shift = coordinates(vectors, x_ij, distances, torch.cat(messages), envelope, idx_i)
                x_ij = r_ij + shift.index_select(0, idx_j) - shift.index_select(0, idx_i)
                distances = torch.linalg.vector_norm(x_ij, dim=1)
                basis = self.radial_basis(distances)
            inputs["vector_representation"] = vectors

        inputs["scalar_representation"] = h
        return inputs

    @torch.jit.unused
    def refresh(self) -> None:
        """Bring the series up to date with the radial basis, and let compiled code use it.

        Code compiled with `torch.compile` cannot do this by itself: call this before each call of the compiled function, or
        never, in which case it computes the radial basis.
        """
        self._refresh()
        if self._series is not None:
            self._series.refreshed_outside = True

    @torch.jit.unused
    def _refresh(self) -> None:
        if self._series is not None:
            self._series.radial_basis, self._series.cutoff = self.radial_basis, self.cutoff_fn.cutoff
            self._series.refresh()

    @torch.jit.unused
    def folded(self) -> "EGNN":
        """A copy for prediction, with the coefficients of the series in its weights; this one if the series does not pay.

        TorchScript then computes the few terms of the series, too, instead of all radial functions.
        """
        self._refresh()
        if self._series is None or not self._series.pays():
            return self
        copy = deepcopy(self)
        copy.radial_basis, copy._series = ChebyshevTerms(self._series), None
        n, coefficients = self.n_atom_basis, self._series.coefficients
        for interaction in copy.interactions:
            assert isinstance(interaction, EGNNInteraction)
            first = interaction.message_first
            weight = first.weight.detach()
            weight = torch.cat([weight[:, : 2 * n], weight[:, 2 * n :] @ coefficients.t()], dim=1)
            first.weight, first.in_features = nn.Parameter(weight), weight.shape[1]
        return copy

    def _expand(self, distances: torch.Tensor) -> Tuple[torch.Tensor, Optional[torch.Tensor]]:
        """Radial functions of the distances, or the terms of their series and its coefficients."""
        if not is_scripting():
            if self._series is not None:
                if not torch.compiler.is_compiling():
                    self._refresh()
                elif not self._series.refreshed_outside:
                    return self.radial_basis(distances), None
                if self._series.pays():
                    return self._series(distances), self._series.coefficients
        return self.radial_basis(distances), None
