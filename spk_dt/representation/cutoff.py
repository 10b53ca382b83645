"""How far a model reaches."""

from typing import Any

from torch import nn

__all__ = ["cutoff_of"]


def cutoff_of(model: nn.Module) -> float:
    """Cutoff of the representation of a SchNetPack model, in its unit of length.

    Most keep it as `cutoff`; FieldSchNet of SchNetPack 2.2 has it in its cutoff function alone.

    Raises:
        AttributeError: if the model has no representation, or that no cutoff.
    """
    representation: Any = model.representation
    has_it = representation if hasattr(representation, "cutoff") else representation.cutoff_fn
    return float(has_it.cutoff)
