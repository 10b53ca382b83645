"""Stored models that are exported."""

import torch
from schnetpack.atomistic import Atomwise, Forces, PairwiseDistances, StaticExternalFields
from schnetpack.model import NeuralNetworkPotential
from schnetpack.nn import CosineCutoff, GaussianRBF
from schnetpack.representation import SchNet, SO3net

from helpers.models import CUTOFF, painn, potential, tiny_egnn

ELEMENTS = ["H", "C", "Pd"]
UNITS = {"energy_unit": "eV", "position_unit": "Ang", "elements": ELEMENTS}


REPRESENTATIONS = {
    "EGNN": tiny_egnn,
    "EGNN with coordinates": lambda: tiny_egnn(coordinate_channel=True),
    "PaiNN": painn,
    "SchNet": lambda: SchNet(8, 2, GaussianRBF(8, CUTOFF), CosineCutoff(CUTOFF)),
    "SO3net": lambda: SO3net(8, 2, 2, GaussianRBF(8, CUTOFF), CosineCutoff(CUTOFF)),
}


def with_field(representation):
    return NeuralNetworkPotential(
        representation, [StaticExternalFields(external_fields=["electric_field"]), PairwiseDistances()],
        [Atomwise(8, output_key="energy"), Forces()],
    )  # fmt: skip


def stored(folder, representation=None, postprocessors=(), seed=0):
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    model = potential(representation and representation(), postprocessors)
    torch.save(model, folder / "best_model")
    return folder / "best_model"
