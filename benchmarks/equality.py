"""Our EGNN and that of the reference code are the same function, so that times compare like with like.

Weights are copied, our envelope is one (theirs has none), and both see the same positions. Compared, in double
precision, are the sets of edges, the features of the atoms after the last layer, and the gradient of a fixed linear
function of these with respect to positions, which every layer takes part in as it does in forces. The readout, theirs
after the sum over atoms and ours before it, is the one difference and left out.
"""

from collections.abc import Mapping

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from schnetpack import properties
from schnetpack.atomistic import PairwiseDistances
from torch import nn

from benchmarks.reference import Reference
from benchmarks.systems import within

__all__ = ["check_equal"]

#: relative to the largest value; room for a tabulated basis
TOLERANCE = 1e-5


class _Ones(nn.Module):
    """An envelope that does nothing."""

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.register_buffer("cutoff", torch.tensor(cutoff))

    def forward(self, distances: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(distances)


def check_equal(config: DictConfig, reference: Reference, batch: Mapping[str, torch.Tensor], theirs) -> str:
    """Compare, and say how far apart they are.

    Args:
        config: of our model.
        reference: their code.
        batch: systems as our batch, float32.
        theirs: the same systems as theirs.

    Raises:
        AssertionError: if edges, features or gradients differ.
    """
    their_model = reference.model().double()
    ours = instantiate(config.model.representation, cutoff_fn=_Ones(float(config.globals.cutoff))).double()
    _copy_weights(their_model, ours, batch[properties.Z].unique().tolist())

    batch = {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}
    batch = within(batch, float(config.globals.cutoff))
    edges = _edges(batch, theirs)
    positions = batch[properties.R].clone().requires_grad_()
    inputs = PairwiseDistances()({**batch, properties.R: positions})
    features = ours.train()(inputs)["scalar_representation"]

    their_positions = batch[properties.R].clone().requires_grad_()
    h = their_model.emb_in(theirs.x.double())
    distances = their_model.make_dist(
        their_positions, theirs.edge_index, theirs.cell_offset.double(), batch[properties.cell][0]
    )
    for layer in their_model.convs:
        h = h + layer(h, theirs.edge_index, distances)

    torch.manual_seed(1)
    direction = torch.randn_like(h)
    gradient, their_gradient = (
        torch.autograd.grad((direction * y).sum(), x)[0] for y, x in ((features, positions), (h, their_positions))
    )
    errors = [_relative(features.detach(), h.detach()), _relative(gradient, their_gradient)]
    if max(errors) > TOLERANCE:
        raise AssertionError(
            f"features and gradients differ by {errors[0]:.1e} and {errors[1]:.1e} of the largest value"
        )
    return (
        f"Same function: with copied weights and no envelope, features of atoms differ by {errors[0]:.0e} and gradients by "
        f"{errors[1]:.0e} of the largest value (double precision, the same {edges} edges)."
    )


def _edges(batch: Mapping[str, torch.Tensor], theirs) -> int:
    """Number of edges, the same in both batches."""
    cells = batch[properties.cell][batch[properties.idx_m][batch[properties.idx_i]]]
    offsets = torch.linalg.solve(cells.transpose(1, 2), batch[properties.offsets])
    ours = torch.cat(
        [batch[properties.idx_i][:, None], batch[properties.idx_j][:, None], offsets.round().long()], dim=1
    )
    their = torch.cat([theirs.edge_index.flip(0).T, theirs.cell_offset.round().long()], dim=1)
    different = set(map(tuple, ours.tolist())) ^ set(map(tuple, their.tolist()))
    if different:
        raise AssertionError(f"{len(different)} of {len(ours)} edges differ")
    return len(ours)


@torch.no_grad()
def _copy_weights(theirs: nn.Module, ours: nn.Module, atomic_numbers: list[int]) -> None:
    """Layer by layer, in the order in which both define them."""
    frequencies = theirs.convs[0].RFF.B
    ours.radial_basis.frequencies.copy_(frequencies[:, 0])
    ours.embedding.weight[atomic_numbers] = theirs.emb_in.weight.T + theirs.emb_in.bias
    for layer, interaction in zip(theirs.convs, ours.interactions, strict=True):
        layer.RFF.B.copy_(frequencies)  # theirs draws them for each layer
        sources = [*layer.mlp_msg.parameters(), *layer.mlp_upd.parameters()]
        for source, target in zip(sources, interaction.parameters(), strict=True):
            target.copy_(source)


def _relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())
