"""Neighbour pairs of a batch that stay correct while its atoms move (Verlet list).

Verlet, Phys. Rev. 159, 98 (1967), doi 10.1103/PhysRev.159.98.
"""

from collections.abc import Callable, Mapping

import torch
from schnetpack import properties
from schnetpack.transform import MatScipyNeighborList, NeighborListTransform

__all__ = ["VerletList"]

_PAIRS = (properties.idx_i, properties.idx_j, properties.offsets)


class VerletList:
    """Pairs within a cutoff, from a list with a larger radius that is renewed before it can miss a pair.

    The list of a system holds all pairs within cutoff + skin at the positions where it was made. It is made anew as soon
    as one of its atoms has moved by more than half the skin since, or its cell has changed; so pairs within the cutoff are
    never missing. What is returned is filtered to the cutoff. One object serves one batch, or one simulation: systems, their
    atoms and their order stay the same. Positions must not be wrapped on the way (it would be correct, but renew the list).

    Args:
        cutoff: radius within which pairs are needed, in the unit of positions.
        skin: by how much the list reaches further.
        base: makes a `schnetpack.transform.NeighborListTransform` of a given radius, for one system.

    Raises:
        ValueError: if the cutoff is not positive or the skin is negative.
    """

    def __init__(
        self, cutoff: float, skin: float, base: Callable[[float], NeighborListTransform] = MatScipyNeighborList
    ) -> None:
        if not cutoff > 0.0 or skin < 0.0:
            raise ValueError(f"cutoff={cutoff} must be positive and skin={skin} not negative")
        self.cutoff = cutoff
        self.skin = skin
        self._find = base(cutoff + skin)
        self._lists: list[tuple[torch.Tensor, ...]] = []
        self._pairs: tuple[torch.Tensor, ...] = ()  # none until there are lists
        self._positions = torch.empty(0)  # where each list was made
        self._cells = torch.empty(0)
        self._allowed = torch.empty(0)  # [n_atoms] how far atoms may move
        #: number of lists of single systems made so far
        self.n_builds = 0

    def adopt(self, inputs: Mapping[str, torch.Tensor], skin: torch.Tensor | float) -> None:
        """Start from pairs that are in the batch already.

        Args:
            inputs: batch with positions, cells and pairs.
            skin: [n_atoms] or a number; how far atoms may move before pairs within the cutoff may be missing: the pairs are
                those closer than the cutoff plus the skins of both atoms.
        """
        idx_i, idx_j, offsets = (inputs[key] for key in _PAIRS)
        n_atoms = inputs[properties.n_atoms]
        ends = torch.cumsum(n_atoms, dim=0)
        pair_system = torch.bucketize(idx_i, ends, right=True)
        if bool((pair_system[1:] < pair_system[:-1]).any()):
            return  # not sorted by system: `pairs` makes its own
        counts = torch.bincount(pair_system, minlength=len(n_atoms)).tolist()
        first = (ends - n_atoms).tolist()
        self._lists = [
            (i - shift, j - shift, offset)
            for i, j, offset, shift in zip(
                idx_i.split(counts), idx_j.split(counts), offsets.split(counts), first, strict=True
            )
        ]
        self._pairs = (idx_i, idx_j, offsets)
        self._remember(inputs)
        skin = torch.as_tensor(skin, dtype=offsets.dtype, device=offsets.device)
        self._allowed = skin.clamp(min=0.0).expand(len(inputs[properties.idx_m]))

    def pairs(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Pairs within the cutoff.

        Args:
            inputs: atomic numbers, positions, cells, pbc, number of atoms and system of each atom under SchNetPack's
                keys.

        Returns:
            idx_i and idx_j [n_pairs], offsets [n_pairs, 3], under SchNetPack's keys.

        Raises:
            ValueError: if positions are not finite.
        """
        with torch.no_grad():
            stale = self._stale(inputs)
            if stale is None or bool(stale.any()):
                with torch.autocast("cpu", enabled=False):  # else offsets, a product with the cell, have 16 bits
                    self._renew(inputs, stale)
            idx_i, idx_j, offsets = self._pairs
            positions = inputs[properties.R]
            vectors = positions.index_select(0, idx_j) - positions.index_select(0, idx_i) + offsets
            near = torch.nonzero((vectors * vectors).sum(dim=1) <= self.cutoff**2).flatten()
            return {
                key: value.index_select(0, near) for key, value in zip(_PAIRS, (idx_i, idx_j, offsets), strict=True)
            }

    def _stale(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        """[n_systems] whether the list of a system may miss a pair; None if there is no list yet."""
        if not self._pairs:
            return None
        moved = ((inputs[properties.R] - self._positions) ** 2).sum(dim=1)
        idx_m = inputs[properties.idx_m]
        beyond = ~(moved <= self._allowed**2)  # not `>`: NaN is beyond
        changed = (inputs[properties.cell].view(-1, 9) != self._cells).any(dim=1)
        strayed = torch.zeros_like(changed, dtype=torch.long).index_add(0, idx_m, beyond.long())
        return changed | (strayed > 0)

    def _renew(self, inputs: Mapping[str, torch.Tensor], stale: torch.Tensor | None) -> None:
        """Make the lists of stale systems anew."""
        positions, device = inputs[properties.R], inputs[properties.R].device
        counts = inputs[properties.n_atoms].tolist()
        which = range(len(counts)) if stale is None else torch.nonzero(stale).flatten().tolist()
        system_positions = positions.cpu().split(counts)
        system_numbers = inputs[properties.Z].cpu().split(counts)
        cells = inputs[properties.cell].cpu().view(-1, 3, 3)
        pbc = inputs[properties.pbc].cpu().view(-1, 3)
        lists: list[tuple[torch.Tensor, ...]] = self._lists if stale is not None else [()] * len(counts)
        for system in which:
            if not bool(torch.isfinite(system_positions[system]).all()):
                raise ValueError(f"positions of system {system} of the batch are not finite")
            found = self._find(
                {
                    properties.Z: system_numbers[system],
                    properties.R: system_positions[system],
                    properties.cell: cells[system],
                    properties.pbc: pbc[system],
                }
            )
            lists[system] = tuple(found[key].to(device) for key in _PAIRS)
            self.n_builds += 1
        first = torch.cumsum(torch.tensor([0, *counts[:-1]]), dim=0).tolist()
        self._lists = lists
        self._pairs = (
            torch.cat([one[0] + shift for one, shift in zip(lists, first, strict=True)]),
            torch.cat([one[1] + shift for one, shift in zip(lists, first, strict=True)]),
            torch.cat([one[2] for one in lists]).to(positions.dtype),
        )
        if stale is None:
            self._remember(inputs)
            self._allowed = torch.full((len(positions),), self.skin / 2.0, device=device)
        else:
            moved = stale[inputs[properties.idx_m], None]
            self._positions = torch.where(moved, positions.detach(), self._positions)
            self._cells = inputs[properties.cell].detach().view(-1, 9).clone()
            self._allowed = torch.where(moved[:, 0], self.skin / 2.0, self._allowed)

    def _remember(self, inputs: Mapping[str, torch.Tensor]) -> None:
        self._positions = inputs[properties.R].detach().clone()
        self._cells = inputs[properties.cell].detach().view(-1, 9).clone()
