"""Mean absolute error of forces by element and by step of the rollout."""

import torch
from torchmetrics import Metric

__all__ = ["StepwiseElementMAE"]

_N_ELEMENTS = 119


class StepwiseElementMAE(Metric):
    """Mean absolute error of force components, for each step of a rollout and each element.

    Args:
        n_steps: number of steps of the rollout; steps that were not visited are left out of means.
    """

    full_state_update = False

    def __init__(self, n_steps: int) -> None:
        super().__init__()
        self.add_state("error", torch.zeros(n_steps, _N_ELEMENTS, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(n_steps, _N_ELEMENTS, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predicted: torch.Tensor, expected: torch.Tensor, atomic_numbers: torch.Tensor, step: int) -> None:
        """Add forces of one step.

        Args:
            predicted: [n_atoms, 3].
            expected: [n_atoms, 3].
            atomic_numbers: [n_atoms].
            step: index of the step.
        """
        errors = (predicted - expected).abs().mean(dim=1).to(self.error.dtype)
        self.error[step].index_add_(0, atomic_numbers, errors)
        self.count[step].index_add_(0, atomic_numbers, torch.ones_like(errors))

    def compute(self) -> torch.Tensor:
        """[n_steps, 119] mean absolute error of a component for each step and atomic number, NaN where there are none."""
        return self.error / self.count
