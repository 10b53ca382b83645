"""The kicks of a thermostat, for rollouts to replay: what it added to positions and velocities in each step."""

from typing import NamedTuple

import torch

__all__ = ["Kicks"]


class Kicks(NamedTuple):
    """Changes of positions and velocities that velocity Verlet with the reference forces does not explain.

    Added to each step of a rollout, they make the reference its fixed point: with perfect forces it goes through the frames
    of the reference, whatever the thermostat (`spk_dt.trajectories.verlet_residual`).

    Args:
        positions: [n_atoms, n_steps - 1, 3] added to x_{k+1}.
        velocities: [n_atoms, n_steps - 1, 3] added to v_{k+1}.
    """

    positions: torch.Tensor
    velocities: torch.Tensor

    def after(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What is added on the way from step `step` to the next: [n_atoms, 3] each."""
        return self.positions[:, step], self.velocities[:, step]
