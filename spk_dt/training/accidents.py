"""Accidents of a training: rollouts that explode, and gradients that are not finite.

A few of them are left out, and told; if they are many, the training is no good, and ends.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from schnetpack import AtomisticTask
from schnetpack import properties as spk_properties

from spk_dt import processes

__all__ = ["Accidents", "AccidentsLeftOut"]

log = logging.getLogger(__name__)

#: of so many windows, or updates, at least, a share is taken before an epoch is over
_AT_LEAST = 100


class Accidents:
    """Counts, tells, and ends a training in which they are too many, those of all processes together.

    Args:
        max_share: share of the windows, and of the updates, of an epoch that may be left out.
    """

    def __init__(self, max_share: float) -> None:
        self.max_share = max_share
        self.reset()

    def reset(self) -> None:
        """Begin an epoch."""
        self.seen = {"windows": 0, "updates": 0}
        self.left_out = {"windows": 0, "updates": 0}

    def count_windows(self, exploded: torch.Tensor, batch: Mapping[str, torch.Tensor], frames: Any, when: str) -> int:
        """Count windows of a batch, of all processes together, and tell those that are left out.

        Args:
            exploded: [n_systems] which are.
            batch: the batch.
            frames: `spk_dt.trajectories.frames.Frames` of the data, None if there are none.
            when: epoch and S, in words.

        Returns:
            number of those that are left out.

        Raises:
            ValueError: if they are too many.
        """
        left_out, seen = processes.total(torch.stack([exploded.sum(), torch.ones_like(exploded).sum()])).tolist()
        which: list[str] = []
        if left_out:
            here = [_named(int(index), frames) for index in batch[spk_properties.idx][exploded].tolist()]
            which = [name for names in processes.gathered(here) for name in names]
            log.warning("%s: left out, since the rollout explodes, %s", when, "; ".join(which))
        self._count("windows", seen, which, when)
        return int(left_out)

    def count_update(self, finite: bool, when: str) -> None:
        """Count an update, which is left out if its gradients are not finite.

        Raises:
            ValueError: if they are too many.
        """
        if not finite:
            log.warning("%s: an update is left out, since its gradients are not finite", when)
        self._count("updates", 1, [] if finite else ["the last one"], when)

    def end_epoch(self, when: str) -> dict[str, float]:
        """Shares that were left out, by the names under which they are logged.

        Raises:
            ValueError: if they are too many.
        """
        try:
            for what in self.seen:
                self._refuse(what, self.seen[what], [], when)
            shares = {what: self.left_out[what] / max(1, self.seen[what]) for what in self.seen}
        finally:
            self.reset()
        return {"train_exploded": shares["windows"], "train_updates_left_out": shares["updates"]}

    def _count(self, what: str, seen: int, which: Sequence[str], when: str) -> None:
        self.seen[what] += seen
        self.left_out[what] += len(which)
        if which:
            self._refuse(what, max(_AT_LEAST, self.seen[what]), which, when)

    def _refuse(self, what: str, of: int, which: Sequence[str], when: str) -> None:
        n = self.left_out[what]
        if n > self.max_share * of:
            why = {"windows": "their rollouts explode", "updates": "their gradients are not finite"}[what]
            raise ValueError(
                f"{when}: {n} of {self.seen[what]} {what} were left out, since {why}"
                + (f", the last ones {'; '.join(which)}" if which else "")
                + f"; that is more than task.max_left_out={self.max_share:g} of them. Lower globals.lr, or "
                "callbacks.curriculum.max_length, or look at the data with spkdt check."
            )


class AccidentsLeftOut(AtomisticTask):
    """What a task of dynamic training does about accidents, with any precision, compiled or not."""

    rollout_length: int
    _accidents: Accidents
    _scaler: torch.amp.GradScaler | None
    _no_windows = False  # left of the last batch, in no process

    def _count_windows(self, exploded: torch.Tensor, batch: Mapping[str, torch.Tensor], n_steps: int) -> bool:
        """Whether any window is left out, in any process."""
        frames = getattr(getattr(self.trainer, "datamodule", None), "frames", None)
        n_left_out = self._accidents.count_windows(exploded, batch, frames, self._when(n_steps))
        self._no_windows = processes.number() > 1 and n_left_out > 0 and not processes.any_of(not bool(exploded.all()))
        return n_left_out > 0

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep gradients that are not finite from the optimiser; what scales the loss does so itself, and scales less."""
        super().on_before_optimizer_step(optimizer)
        if self._no_windows and self.trainer.accumulate_grad_batches == 1:
            optimizer.zero_grad(set_to_none=True)  # as one process, which skips the step: no update by momentum alone
        self._no_windows = False
        if self._scaler is None:
            finite = _are_finite(list(self.parameters()))
            if not finite:
                optimizer.zero_grad(set_to_none=True)
            self._accidents.count_update(finite, self._when(self.rollout_length))

    def on_train_epoch_end(self) -> None:
        """Log what was left out."""
        super().on_train_epoch_end()
        self.log_dict(self._accidents.end_epoch(self._when(self.rollout_length)))

    def _when(self, n_steps: int) -> str:
        return f"training, epoch {self.current_epoch}, S = {n_steps}"


def _are_finite(parameters: Sequence[torch.nn.Parameter]) -> bool:
    """Whether all gradients there are, and their norm, are finite."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return True
    return bool(torch.isfinite(torch.stack([torch.linalg.vector_norm(one) for one in gradients])).all())


def _named(index: int, frames: Any) -> str:
    """A window by its trajectory and first frame."""
    if frames is None or index >= len(frames):
        return f"the window of index {index}"
    trajectory = frames.trajectories[frames.trajectory_of(index)]
    return f"trajectory '{trajectory.name}', frame {index - trajectory.start}"
