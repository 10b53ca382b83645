"""The state of a simulation: what velocity Verlet needs for the next step."""

from dataclasses import dataclass

import torch

__all__ = ["State"]


@dataclass(frozen=True)
class State:
    """Positions, velocities and forces of a batch of systems at one time.

    Units are free as long as F = m a holds without a factor; see `spk_dt.units`.

    Args:
        positions: [n_atoms, 3].
        velocities: [n_atoms, 3].
        forces: [n_atoms, 3] forces at `positions`.
        masses: [n_atoms, 1].
        time_step: [n_atoms, 1], so that systems of a batch may differ, or [].
    """

    positions: torch.Tensor
    velocities: torch.Tensor
    forces: torch.Tensor
    masses: torch.Tensor
    time_step: torch.Tensor

    def detach(self) -> "State":
        """The same state, from which no gradient flows back."""
        return State(
            self.positions.detach(), self.velocities.detach(), self.forces.detach(), self.masses, self.time_step
        )
