"""How long a training still takes: what its callbacks and schedulers say about its end, at the pace so far."""

import math
from typing import Any, NamedTuple

import pytorch_lightning as pl
from torch.optim.lr_scheduler import ReduceLROnPlateau

from spk_dt.duration import duration
from spk_dt.training.budget import ComputeBudget
from spk_dt.training.curriculum import Converged, Curriculum, Elapsed, Rule
from spk_dt.training.last_stage import last_stage_of
from spk_dt.training.on_policy import JoiningLabels

__all__ = ["Left", "Pace", "time_left"]

#: SchNetPack's default, which means no limit
_UNLIMITED = 100_000


class Left(NamedTuple):
    """Time that a training still takes.

    Args:
        seconds: of the clock.
        bound: "about", "at least" or "at most".
        until: what comes after it and is not counted; empty if nothing does.
    """

    seconds: float
    bound: str
    until: str = ""

    def __str__(self) -> str:
        """In words."""
        return f"{self.bound} {duration(self.seconds)} left{self.until and f' until {self.until}'}"


class Pace(NamedTuple):
    """What an epoch has cost, s.

    Args:
        steps: S of that epoch.
        training: its training part, which goes with S.
        rest: validation, and simulations that go with it, mean of the stage.
        per_second: seconds of the clock for each second of a budget.
        labels: the last round of labels, before this epoch or an earlier one.
    """

    steps: int
    training: float
    rest: float
    per_second: float = 1.0
    labels: float = 0.0

    def epoch(self, steps: int) -> float:
        """What an epoch with rollouts of so many steps costs without labels, s."""
        return self.training * steps / self.steps + self.rest


def time_left(trainer: pl.Trainer, task: Any, pace: Pace, done: float) -> Left | None:
    """Time until the training ends; None if nothing says when.

    Args:
        trainer: in training.
        task: that is trained.
        pace: of the last epoch.
        done: share of the present epoch that is done.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it, but does not declare it
    budget = next((one for one in callbacks if isinstance(one, ComputeBudget)), None)
    curriculum = next((one for one in callbacks if isinstance(one, Curriculum)), None)
    labels = next((one for one in callbacks if isinstance(one, JoiningLabels)), None)
    labelling = pace.labels / labels.schedule.every_n_epochs if labels is not None and labels.more_rounds else 0.0
    last = last_stage_of(trainer)
    steps, epoch = getattr(task, "rollout_length", 1), trainer.current_epoch
    found = []
    if budget is not None:
        found.append(Left((budget.seconds - budget.used) * pace.per_second, "about"))
    if last is not None and last.began >= 0:
        left = last.epochs_left(trainer) - done
        seconds = left * pace.epoch(steps) + last.rounds_left(left) * pace.labels
        found.append(Left(seconds, "about", "the last model is tried"))
    elif (
        curriculum is not None and (of_stage := _epochs(curriculum.rule, trainer, epoch - curriculum.began)) is not None
    ):
        seconds = max(of_stage.epochs - done, 0.0) * pace.epoch(steps)
        if last is not None and last.possible:
            seconds += last.epochs * pace.epoch(steps)
        else:
            later = _epochs(curriculum.rule, trainer, 0, curriculum.reset_lr)
            assert later is not None
            seconds += sum(later.epochs * pace.epoch(length) for length in range(steps + 1, curriculum.max_length + 1))
        found.append(Left(seconds, of_stage.bound))
    if trainer.max_epochs not in (None, -1, _UNLIMITED):
        found.append(Left(((trainer.max_epochs or 0) - epoch - done) * (pace.epoch(steps) + labelling), "at most"))
    if not found:
        return None
    first = min(found, key=lambda one: one.seconds)
    bound = "about" if first.bound == "at most" and len(found) > 1 else first.bound
    return first._replace(seconds=max(first.seconds, 0.0), bound=bound)


class _Epochs(NamedTuple):
    epochs: float
    bound: str


def _epochs(rule: Rule, trainer: pl.Trainer, passed: int, lr: float | None = None) -> _Epochs | None:
    """Epochs that a stage still takes, None if its rule does not say.

    Args:
        rule: when it is over.
        trainer: with the scheduler, whose plateaus a convergence takes at least.
        passed: epochs of the stage that have passed.
        lr: learning rate at the start of a stage that has not begun; None for the present one.
    """
    if isinstance(rule, Elapsed):
        return _Epochs(rule.epochs - passed, "about")
    schedulers = [one.scheduler for one in trainer.lr_scheduler_configs]
    plateau = next((one for one in schedulers if isinstance(one, ReduceLROnPlateau)), None)
    if not isinstance(rule, Converged) or plateau is None or not 0.0 < plateau.factor < 1.0:
        return None
    now, bad = max(group["lr"] for group in trainer.optimizers[0].param_groups), int(plateau.num_bad_epochs)
    now, bad = (now, bad) if lr is None else (lr, 0)
    floor = max(plateau.min_lrs)
    reductions = math.ceil(math.log(floor / now) / math.log(plateau.factor) - 1e-9) if 0.0 < floor < now else 0
    return _Epochs(max(reductions * (plateau.patience + 1) - bad, 1.0), "at least")
