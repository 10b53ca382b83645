"""What hardening is to reach: simulations of a given length that pass; and how far that has come."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

__all__ = ["GOAL", "HardeningGoal"]

#: where it stands in a config
GOAL = "callbacks.on_policy.goal"


@dataclass
class HardeningGoal:
    """What is to be reached, and how far it has been.

    Args:
        until_ps: length of the simulations that must pass, ps.
        begin_ps: length of the first ones, ps.
        n_passing: number of simulations in a row that must pass, all with the same model.
        max_labels: reference calculations that may be used, at most.
        horizon_ps: length that is tried next, ps: the shortest one, begin_ps times a power of two, in which the last trial
            has failed.
        kept: of `max_labels`, those that are kept for failures of the last model (`spk_dt.training.LastStage`).
        labels: reference calculations used.
        reached: number of the round in which the goal was reached, -1 before.
        told: what came of the last round, in words.

    Raises:
        ValueError: if an argument makes no sense.
    """

    until_ps: float = 100.0
    begin_ps: float = 1.0
    n_passing: int = 8
    max_labels: int = 250
    horizon_ps: float = field(init=False)
    kept: int = field(default=0, init=False)
    labels: int = field(default=0, init=False)
    reached: int = field(default=-1, init=False)
    told: str = field(default="no round was made", init=False)

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        for name in ("until_ps", "begin_ps", "n_passing", "max_labels"):
            if not 0.0 < getattr(self, name) < inf:
                raise ValueError(f"{GOAL}.{name}={getattr(self, name)} must be positive.")
        if self.begin_ps > self.until_ps:
            raise ValueError(f"{GOAL}.begin_ps={self.begin_ps} must not be above until_ps={self.until_ps}.")
        self.horizon_ps = self.begin_ps

    @property
    def open(self) -> bool:
        """Whether there is still something to do, and labels to do it with."""
        return self.reached < 0 and self.labels_left > 0

    @property
    def labels_left(self) -> int:
        """Labels that rounds may still use."""
        return self.max_labels - self.kept - self.labels

    def after_failure(self, failed_ps: float) -> None:
        """Try next as far as the first failure, and not much further."""
        self.horizon_ps = self.begin_ps
        while self.horizon_ps < min(failed_ps, self.until_ps):
            self.horizon_ps = min(2.0 * self.horizon_ps, self.until_ps)

    def state_dict(self) -> dict[str, Any]:
        """How far it has been reached."""
        return {name: getattr(self, name) for name in ("horizon_ps", "labels", "reached", "told")}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from there; the arguments may have changed."""
        self.labels, self.told = state_dict["labels"], state_dict["told"]
        self.after_failure(state_dict["horizon_ps"])
        self.reached = state_dict["reached"]
