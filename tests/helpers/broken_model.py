"""A model of the pair potential that is broken on purpose, and can be mended by training."""

import torch
from schnetpack import properties

from helpers.pair_potential import PairEnergies


class Torn(PairEnergies):
    """The potential of `Reference`, but pairs beyond `beyond` (Å) are torn apart, by a parameter that should be zero."""

    def __init__(self, beyond, kick):
        super().__init__()
        self.beyond = beyond
        self.tear = torch.nn.Parameter(torch.tensor(kick, dtype=torch.float64))

    def forward(self, inputs):
        inputs = super().forward(inputs)
        r = torch.linalg.vector_norm(inputs[properties.Rij], dim=1)
        torn = -0.5 * self.tear * torch.relu(r - self.beyond) ** 2
        inputs["atomic"] = inputs["atomic"].index_add(0, inputs[properties.idx_i], torn)
        return inputs
