"""A task that logs errors of forces by element and by step at the end of each epoch."""

from collections.abc import Mapping

import torch
from schnetpack import AtomisticTask
from schnetpack import properties as spk_properties

from spk_dt import processes, properties
from spk_dt.training.metrics import StepwiseElementMAE
from spk_dt.training.parts_of_batch import at_step

__all__ = ["ForceErrorLogging"]


class ForceErrorLogging(AtomisticTask):
    """What a task of dynamic training logs of forces, of training, validation and test."""

    force_key: str
    _force_target: str
    _force_errors: dict[str, StepwiseElementMAE]

    def _add_force_errors(
        self, subset: str, batch: Mapping[str, torch.Tensor], forces: torch.Tensor, step: int
    ) -> None:
        if subset not in self._force_errors:
            self._force_errors[subset] = StepwiseElementMAE().to(self.device)
        forces, expected = forces.detach(), at_step(batch, self._force_target, step)
        numbers, counted = batch[spk_properties.Z], batch.get(properties.counted_forces)
        if counted is not None:  # a component is an entry of its own
            numbers, forces, expected = numbers[counted.nonzero()[:, 0]], forces[counted, None], expected[counted, None]
        self._force_errors[subset].update(forces, expected, numbers, step)

    def on_train_epoch_end(self) -> None:
        """Log force errors by element and by step."""
        self._log_force_errors("train")

    def on_validation_epoch_end(self) -> None:
        """Log force errors by element and by step."""
        self._log_force_errors("val")

    def on_test_epoch_end(self) -> None:
        """Log force errors by element and by step."""
        self._log_force_errors("test")

    def _log_force_errors(self, subset: str) -> None:
        metric = self._force_errors.pop(subset, None)
        if processes.any_of(metric is not None):  # what was not seen here may have been in another process
            metric = metric if metric is not None else StepwiseElementMAE().to(self.device)
            errors = metric.summary().items()
            self.log_dict({f"{subset}_{self.force_key}_mae_{key}": value for key, value in errors})
