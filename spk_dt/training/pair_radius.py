"""How far the neighbour list in the batches of a data module reaches."""

from itertools import chain

from schnetpack.data import AtomsDataModule
from schnetpack.transform import FilterNeighbors, NeighborListTransform, SkinNeighborList

__all__ = ["pair_radius"]


def pair_radius(datamodule: AtomsDataModule, cutoff: float) -> float | None:
    """Radius within which pairs in the batches are complete, None if batches have no pairs.

    Args:
        datamodule: with its transforms.
        cutoff: cutoff of the model, in the length unit of the data.

    Raises:
        ValueError: if the radius is below the cutoff of the model, or pairs are filtered.
    """
    transforms = (datamodule.train_transforms, datamodule.val_transforms, datamodule.test_transforms)
    radii = []
    for module in chain.from_iterable(transform.modules() for transform in chain(*transforms)):
        if isinstance(module, FilterNeighbors):
            raise ValueError(
                "data.transforms has FilterNeighbors: rollouts find pairs anew and would bring back the filtered ones."
            )
        if isinstance(module, SkinNeighborList):
            radii.append(module.cutoff)
        elif isinstance(module, NeighborListTransform):
            radii.append(module._cutoff)
    if not radii:
        return None
    if min(radii) < cutoff * (1.0 - 1e-6):
        raise ValueError(
            f"the neighbour list in data.transforms reaches {min(radii):g}, but the cutoff of the model is {cutoff:g}; "
            "set both from globals.cutoff."
        )
    return max(min(radii), cutoff)
