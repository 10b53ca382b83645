"""The state of a simulation: what an integrator needs for the next step."""

from dataclasses import dataclass, replace

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
        mobile: [n_atoms, 1] or [n_atoms, 3], false for atoms, or components, that are fixed; None if all are mobile.
    """

    positions: torch.Tensor
    velocities: torch.Tensor
    forces: torch.Tensor
    masses: torch.Tensor
    time_step: torch.Tensor
    mobile: torch.Tensor | None = None

    def of_mobile(self, values: torch.Tensor) -> torch.Tensor:
        """Displacements or velocities, [n_atoms, 3], zero for what is fixed."""
        return values if self.mobile is None else torch.where(self.mobile, values, torch.zeros_like(values))

    def moved(self, displacement: torch.Tensor) -> torch.Tensor:
        """Positions after a displacement, [n_atoms, 3]; of what is fixed they are the same to the last bit."""
        positions = self.positions + displacement
        return positions if self.mobile is None else torch.where(self.mobile, positions, self.positions)

    def detach(self) -> "State":
        """The same state, from which no gradient flows back."""
        return replace(
            self,
            positions=self.positions.detach(),
            velocities=self.velocities.detach(),
            forces=self.forces.detach(),
        )
