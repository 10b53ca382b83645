"""Stored models that are exported."""

import torch

from helpers.models import potential

ELEMENTS = ["H", "C", "Pd"]
UNITS = {"energy_unit": "eV", "position_unit": "Ang", "elements": ELEMENTS}


def stored(folder, representation=None, postprocessors=(), seed=0):
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    model = potential(representation and representation(), postprocessors)
    torch.save(model, folder / "best_model")
    return folder / "best_model"
