"""The loss at a step of a rollout; of several processes, as if their batches were one.

A loss that is a mean over entries, as of the atoms of an element, is not the mean of the means of the processes when these
have different numbers of entries.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from schnetpack import AtomisticTask
from schnetpack.task import ModelOutput

from spk_dt import processes
from spk_dt.training.losses import loss_by_class

__all__ = ["SharedMeans", "StepLosses"]

_N_CLASSES = 119


class SharedMeans:
    """The loss of a batch, of which each process has a part.

    The gradients of the loss of each process, averaged over the processes as Lightning's strategy does it, are those of the
    loss of the whole batch. How many entries there are is asked at the first call; later steps of a rollout have as many.

    Args:
        outputs: those in the loss.
    """

    def __init__(self, outputs: Sequence[ModelOutput]) -> None:
        self.outputs = outputs
        self._factors: torch.Tensor | None = None

    def loss(self, predicted: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Sum of the losses of the outputs, times what makes their average over processes that of the whole batch."""
        parts = [loss_by_class(output, predicted, targets) for output in self.outputs]
        if self._factors is None:
            counts = self._no_entries(parts[0][1].device)
            for row, (classes, _, numbers) in zip(counts, parts, strict=True):
                row.index_add_(0, classes, numbers.to(row))
            everywhere = processes.total(counts)
            self._factors = processes.number() * counts / everywhere.clamp(min=1.0)
        return torch.stack(
            [
                (means * factors[classes].to(means)).sum()
                for factors, (classes, means, _) in zip(self._factors, parts, strict=True)
            ]
        ).sum()

    def without_entries(self) -> None:
        """Stand beside the others in the first call, with an empty part of the batch."""
        processes.total(self._no_entries(torch.device("cpu")))

    def _no_entries(self, device: torch.device) -> torch.Tensor:
        return torch.zeros(len(self.outputs), _N_CLASSES, dtype=torch.float64, device=device)


class StepLosses(AtomisticTask):
    """What a task of dynamic training adds up along a rollout."""

    first_step_weight: float
    step_weight: float
    step_weight_ratio: float
    rollout_outputs: list[ModelOutput]

    def _weight(self, step: int) -> float:
        """w_k."""
        return self.step_weight * self.step_weight_ratio ** (step - 1) if step > 0 else self.first_step_weight

    def _loss_fn(self, n_steps: int) -> Callable[[dict[str, torch.Tensor], dict[str, torch.Tensor]], torch.Tensor]:
        """What gives the loss at the steps of a batch."""
        if processes.number() > 1:
            return self._shared_means(n_steps).loss
        return self.loss_fn if n_steps == 1 else self._rollout_loss

    def _loss_of_none(self, n_steps: int) -> torch.Tensor:
        """Zero, with gradients of zero, of a process that has no windows left beside others that may have."""
        self._shared_means(n_steps).without_entries()
        return torch.stack([p.sum() for p in self.parameters() if p.requires_grad]).sum() * 0.0

    def _shared_means(self, n_steps: int) -> SharedMeans:
        return SharedMeans(list(self.outputs) if n_steps == 1 else self.rollout_outputs)

    def _rollout_loss(self, predicted: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Loss of the outputs that count in rollouts."""
        return sum(output.calculate_loss(predicted, targets) for output in self.rollout_outputs)
