"""The Lennard-Jones potential of `helpers.pair_potential` as a sum of energies of atoms, as committees need it."""

import torch
from schnetpack import properties
from schnetpack.atomistic import Atomwise, Forces, PairwiseDistances
from schnetpack.model import NeuralNetworkPotential

from helpers.pair_potential import PairEnergies


class AtomicPairs(PairEnergies):
    """What an atom has of its pairs, as its feature; pairs that are nearer than `breaks_within` (Å) are off."""

    def __init__(self, depth=1.0, breaks_within=None, kick=5.0):
        super().__init__(depth=depth)
        self.within, self.size = breaks_within, kick
        self.scale = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, inputs):
        atomic = super().forward(inputs)["atomic"]
        if self.within is not None:
            r = torch.linalg.vector_norm(inputs[properties.Rij], dim=1)
            off = 0.5 * self.size * torch.relu(self.within - r) ** 2
            atomic = atomic.index_add(0, inputs[properties.idx_i], off.to(atomic.dtype))
        inputs["scalar_representation"] = (self.scale * atomic).unsqueeze(-1)
        return inputs


def atomic_model(path, postprocessors=(), **kwargs):
    """Store it; `kwargs` are those of `AtomicPairs`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    energy = Atomwise(n_in=1, output_key="energy")
    energy.outnet = torch.nn.Identity()
    parts = [PairwiseDistances()], [energy, Forces()], list(postprocessors)
    torch.save(NeuralNetworkPotential(AtomicPairs(**kwargs), *parts), path)
    return path
