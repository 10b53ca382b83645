r"""The stress of a model: the derivative of its energy with respect to strain, per volume.

SchNetPack has it in two parts: an input module `Strain`, which strains positions, cell and the offsets of pairs across it
alike, and an output module `Forces`, which differentiates,

.. math::
    x_i \to (1 + \epsilon) x_i, \quad h \to h (1 + \epsilon)^T, \quad o_{ij} \to (1 + \epsilon) o_{ij}, \qquad
    \sigma = \frac{1}{V} \frac{\partial E}{\partial \epsilon}.

It is positive where the cell would contract, as with ASE, in the unit of the energy per cubed unit of length.
"""

from collections.abc import Mapping
from typing import Any

import torch
from schnetpack import properties
from schnetpack.atomistic import Forces, Response, Strain
from schnetpack.md.utils import activate_model_stress
from schnetpack.model import NeuralNetworkPotential

__all__ = ["predict_stress", "strained", "stress_key_of", "without_stress"]


def stress_key_of(model: Any) -> str | None:
    """Name of the stress among the outputs of a model, None if it does not predict it."""
    for module in getattr(model, "output_modules", ()):
        if isinstance(module, Forces) and module.calc_stress:
            return module.stress_key
        if isinstance(module, Response) and properties.stress in module.response_properties:
            return module.map_properties[properties.stress]
    return None


def predict_stress(model: Any, key: str = properties.stress) -> None:
    """Let a model predict the stress, in place; one that does so already stays as it is.

    Args:
        model: a SchNetPack potential whose forces are the gradient of its energy.
        key: name of the stress among its outputs.

    Raises:
        ValueError: if it has the stress under another name, or no forces as the gradient of an energy.
    """
    known = stress_key_of(model)
    if known is not None:
        if known != key:
            raise ValueError(f"the model calls its stress '{known}', not '{key}'; use its name.")
        return
    derivatives = [module for module in getattr(model, "output_modules", ()) if isinstance(module, Forces)]
    if not (isinstance(model, NeuralNetworkPotential) and derivatives):
        raise ValueError(
            f"a stress cannot be added to a {type(model).__name__} without an output module schnetpack.atomistic.Forces, "
            "which takes the derivatives of its energy. A Response has one if 'stress' is among its response_properties."
        )
    for module in derivatives:
        module.stress_key = key
    activate_model_stress(model, key)


def without_stress(model: Any) -> None:
    """Let a model no longer predict the stress, in place; energy and forces stay what they are.

    SchNetPack's pair style of LAMMPS needs it: it has no stress, and hands over cells that `Strain` cannot take.
    """
    for module in model.output_modules:
        if isinstance(module, Forces) and module.calc_stress:
            module.calc_stress = False
            module.model_outputs = [key for key in module.model_outputs if key != module.stress_key]
            module.required_derivatives = [key for key in module.required_derivatives if key != properties.strain]
    model.input_modules = torch.nn.ModuleList(m for m in model.input_modules if not isinstance(m, Strain))
    model.collect_derivatives()
    model.collect_outputs()


def strained(inputs: Mapping[str, torch.Tensor], strain: torch.Tensor) -> dict[str, torch.Tensor]:
    """What `schnetpack.atomistic.Strain` makes of inputs, for a strain that is given.

    Args:
        inputs: SchNetPack batch with pairs.
        strain: [n_systems, 3, 3].
    """
    transposed = strain.transpose(1, 2)
    of_atoms = transposed[inputs[properties.idx_m]]
    of_pairs = of_atoms[inputs[properties.idx_i]]
    cell, positions, offsets = (inputs[key] for key in (properties.cell, properties.R, properties.offsets))
    return {
        **inputs,
        properties.strain: strain,
        properties.cell: cell + cell @ transposed,
        properties.R: positions + (positions[:, None] @ of_atoms).squeeze(1),
        properties.offsets: offsets + (offsets[:, None] @ of_pairs).squeeze(1),
    }
