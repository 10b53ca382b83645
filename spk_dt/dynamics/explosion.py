"""Stops systems of a batch that a bad model has blown up, so that the others go on and errors stay finite."""

import torch

__all__ = ["ExplosionGuard"]


class ExplosionGuard:
    """Freezes a system once one of its atoms would move further than a limit in one step, or is not finite.

    A frozen system stays at its last reasonable positions for the rest of the rollout, and its errors count on.
    A new guard belongs to each rollout.

    Args:
        idx_m: [n_atoms] system of each atom.
        n_systems: number of systems.
        max_displacement: longest reasonable step of an atom, in the unit of positions. At 300 K and 0.5 fs hydrogen
            moves about 0.02 Å.
    """

    def __init__(self, idx_m: torch.Tensor, n_systems: int, max_displacement: float) -> None:
        self.idx_m = idx_m
        self.max_displacement = max_displacement
        #: [n_systems] whether the system has been frozen
        self.exploded = torch.zeros(n_systems, dtype=torch.bool, device=idx_m.device)

    def __call__(self, displacement: torch.Tensor) -> torch.Tensor:
        """The displacement, zero for systems that have exploded by now.

        Args:
            displacement: [n_atoms, 3] of the next step.
        """
        reasonable = torch.linalg.vector_norm(displacement.detach(), dim=1) <= self.max_displacement
        strayed = torch.zeros_like(self.exploded, dtype=torch.long).index_add(0, self.idx_m, (~reasonable).long())
        self.exploded = self.exploded | (strayed > 0)
        return torch.where(self.exploded[self.idx_m, None], torch.zeros_like(displacement), displacement)

    def stop_where_not_finite(self, values: torch.Tensor) -> None:
        """Freeze systems in which a value is not finite.

        Args:
            values: [n_atoms, 3] of a state.
        """
        broken = (~torch.isfinite(values.detach()).all(dim=1)).long()
        strayed = torch.zeros_like(self.exploded, dtype=torch.long).index_add(0, self.idx_m, broken)
        self.exploded = self.exploded | (strayed > 0)
