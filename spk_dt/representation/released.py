"""Parts of the network of the code released with Dynamic Training that ours does without, for models trained with it.

Žugec et al., J. Chem. Inf. Model. 2025, doi 10.1021/acs.jcim.5c01180; https://github.com/IZugec/DTEGNN,
``dtegnn/model/nn/networks.py``. Its messages have no envelope, so that energy and forces jump where a pair crosses the
cutoff, and its readout comes after the sum over atoms, so that the energy is not extensive: a model holds for the number of
atoms that it was trained on. Do not train anew with these.
"""

from typing import Dict

import torch
from schnetpack import properties
from schnetpack.nn import scatter_add
from torch import nn

__all__ = ["ReadoutOfSum", "StepCutoff"]


class StepCutoff(nn.Module):
    """1 for pairs up to the cutoff, 0 beyond, where a neighbour list with a skin has pairs, too.

    Args:
        cutoff: Å.
    """

    cutoff: torch.Tensor

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.register_buffer("cutoff", torch.tensor([cutoff]))

    def forward(self, distances: torch.Tensor) -> torch.Tensor:
        """[n_pairs] envelope.

        Args:
            distances: [n_pairs] Å.
        """
        return (distances <= self.cutoff).to(distances.dtype)


class ReadoutOfSum(nn.Module):
    r"""Energy of a system from the sum of the features of its atoms, :math:`E = W_2 \, \mathrm{ReLU}(W_1 \sum_i h_i)`.

    Args:
        n_in: number of features of an atom, and of the hidden layer.
        output_key: name of the energy.
    """

    def __init__(self, n_in: int, output_key: str = "energy") -> None:
        super().__init__()
        self.output_key = output_key
        self.model_outputs = [output_key]
        self.outnet = nn.Sequential(nn.Linear(n_in, n_in), nn.ReLU(), nn.Linear(n_in, 1))

    def forward(self, inputs: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        """Add the energies [n_systems]."""
        idx_m = inputs[properties.idx_m]
        n_systems = int(idx_m[-1]) + 1
        summed = scatter_add(inputs["scalar_representation"], idx_m, dim_size=n_systems)
        inputs[self.output_key] = self.outnet(summed).squeeze(-1)
        return inputs
