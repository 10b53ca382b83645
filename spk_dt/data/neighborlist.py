"""Neighbour pairs of windows, made where samples are made, for all steps of a rollout at once."""

import torch
from schnetpack import properties as spk_properties
from schnetpack.transform import MatScipyNeighborList, NeighborListTransform

from spk_dt import properties

__all__ = ["WindowNeighborList"]

#: by which factor atoms may move further than in the reference, and what is added to each skin, in the unit of positions
_MARGIN, _FLOOR = 1.25, 0.02


class WindowNeighborList(NeighborListTransform):
    r"""Pairs within the cutoff, and so far beyond that none is missed while atoms move as they do in the window.

    The reference says how far each atom moves until the end of a window. A skin for each atom, somewhat more than that,
    gives the pairs

    .. math:: |r_{ij}| \le r_c + s_i + s_j,

    which hold all pairs within the cutoff :math:`r_c` as long as no atom has moved by more than its skin; most atoms have a
    small one. A rollout that moves like its reference needs no other list (`spk_dt.dynamics.VerletList` notices where it
    does). Samples without a motion get pairs within the cutoff.

    Sets, beside the pairs, ``pair_skin``.

    Args:
        cutoff: radius within which pairs are needed.
        max_skin: largest skin; windows in which an atom moves further renew their lists on the way.
    """

    def __init__(self, cutoff: float, max_skin: float = 1.0) -> None:
        super().__init__(cutoff)
        self.max_skin = max_skin

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Add idx_i and idx_j [n_pairs], offsets [n_pairs, 3] and pair_skin [n_atoms]."""
        positions = inputs[spk_properties.R]
        motion = inputs.get(properties.window_motion)
        if motion is None or not bool((motion > 0.0).any()):
            inputs[properties.pair_skin] = positions.new_zeros(len(positions))
            return MatScipyNeighborList(self._cutoff)(inputs)
        skin = (_MARGIN * motion + _FLOOR).clamp(max=self.max_skin)
        inputs[properties.pair_skin] = skin
        reach = self._cutoff + float(skin.topk(min(2, len(skin))).values.sum())
        inputs = MatScipyNeighborList(reach)(inputs)
        i, j, offsets = (inputs[key] for key in (spk_properties.idx_i, spk_properties.idx_j, spk_properties.offsets))
        distances = torch.linalg.vector_norm(positions[j] - positions[i] + offsets, dim=1)
        near = distances <= self._cutoff + skin[i] + skin[j]
        for key, value in ((spk_properties.idx_i, i), (spk_properties.idx_j, j), (spk_properties.offsets, offsets)):
            inputs[key] = value[near]
        return inputs
