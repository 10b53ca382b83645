"""Means over an epoch that do not depend on how its systems were put into batches."""

from collections.abc import Iterable
from math import inf, nan
from typing import Any

import torch
from ase.data import chemical_symbols
from torchmetrics import Metric

from spk_dt import processes

__all__ = ["RolloutLoss", "StepwiseElementMAE"]

_N_ELEMENTS = 119


class _StepwiseMeans(Metric):
    """Sums and numbers of terms for each step of a rollout and each class, over all batches and processes.

    Args:
        n_steps: number of steps to begin with; it grows with what is added.
        n_classes: number of classes.
    """

    full_state_update = False
    total: torch.Tensor
    count: torch.Tensor

    def __init__(self, n_steps: int, n_classes: int) -> None:
        super().__init__()
        for name in ("total", "count"):
            self.add_state(name, torch.zeros(n_steps, n_classes, dtype=torch.float64), dist_reduce_fx="sum")

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Add up those of all processes, which may have visited different numbers of steps."""
        self._lengthen(int(processes.largest(len(self.total))))
        super().sync(*args, **kwargs)

    def _lengthen(self, n_steps: int) -> None:
        missing = n_steps - len(self.total)
        if missing > 0:
            self.total, self.count = (torch.nn.functional.pad(x, (0, 0, 0, missing)) for x in (self.total, self.count))

    def _add(self, step: int, classes: torch.Tensor, totals: torch.Tensor, counts: torch.Tensor) -> None:
        """Add to the classes [n] of a step sums [n] and the numbers of their terms [n]; classes may come repeatedly."""
        self._lengthen(step + 1)
        self.total[step].index_add_(0, classes, totals.to(self.total))
        self.count[step].index_add_(0, classes, counts.to(self.count))


class StepwiseElementMAE(_StepwiseMeans):
    """Mean absolute error of force components, for each step of a rollout and each element.

    Steps that were not visited are left out of means.
    """

    def __init__(self) -> None:
        super().__init__(1, _N_ELEMENTS)

    def update(self, predicted: torch.Tensor, expected: torch.Tensor, atomic_numbers: torch.Tensor, step: int) -> None:
        """Add forces of one step.

        Args:
            predicted: [n_atoms, 3], or [n, 1] if only some components count.
            expected: likewise.
            atomic_numbers: of each row.
            step: index of the step.
        """
        errors = (predicted - expected).abs().mean(dim=1)
        self._add(step, atomic_numbers, errors, torch.ones_like(errors))

    def compute(self) -> torch.Tensor:
        """[n_steps, 119] mean absolute error of a component for each step and atomic number.

        NaN where there are none, so that `nansum` and `nanmean` leave them out; infinite where forces are not finite.
        """
        errors = (self.total / self.count).nan_to_num(nan=inf, posinf=inf)
        return torch.where(self.count > 0, errors, nan)

    def summary(self) -> dict[str, torch.Tensor]:
        """Mean over all steps for each element, ``H``, and sum over elements at some steps, ``step_3``: [] each."""
        errors = self.compute().float()
        present = torch.nonzero(~torch.isnan(errors[0])).flatten().tolist()
        by_element = {chemical_symbols[z]: errors[:, z].nanmean() for z in present}
        return by_element | {f"step_{step}": errors[step].nansum() for step in _some_steps(len(errors))}


class RolloutLoss(_StepwiseMeans):
    """Loss of rollouts, mean over their steps.

    The loss at a step is the sum over outputs, and over the classes of each, of means over all entries of the epoch.

    Args:
        n_outputs: number of outputs.
    """

    def __init__(self, n_outputs: int) -> None:
        super().__init__(1, n_outputs * _N_ELEMENTS)

    def update(self, losses: Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], step: int) -> None:
        """Add losses of one step.

        Args:
            losses: classes, losses and numbers of entries of each output (`spk_dt.training.losses.loss_by_class`).
            step: index of the step.
        """
        for i, (classes, means, counts) in enumerate(losses):
            self._add(step, i * _N_ELEMENTS + classes, means * counts, counts)

    def compute(self) -> torch.Tensor:
        """[] the loss; steps that were not visited are left out."""
        there = self.count > 0
        losses = torch.where(there, self.total / self.count, 0.0)[there.any(dim=1)]
        return losses.sum(dim=1).mean()


def _some_steps(n_steps: int) -> list[int]:
    """At most seven steps from the first to the last, evenly spaced."""
    return sorted({round(i * (n_steps - 1) / 6) for i in range(7)})
