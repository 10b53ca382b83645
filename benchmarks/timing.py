"""Timing of several contenders in turn.

A machine's speed drifts, and neighbours on it come and go. So contenders are never measured one after the other, each
many times, but in turn, A B C A B C ..., and two of them are compared by the ratio within each round. What is
reported are medians with quartiles over the rounds.

On one CPU thread the clock is the CPU time of the process, which other processes change little. With more threads, or
on a GPU (synchronised before and after), it is wall time.
"""

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

__all__ = ["Clock", "alternate", "quartiles", "ratio", "seconds"]


class Clock:
    """Reads the time that counts on a device.

    Args:
        device: where models run.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.is_cpu_time = self.device.type == "cpu" and torch.get_num_threads() == 1

    def __call__(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.process_time() if self.is_cpu_time else time.perf_counter()

    @property
    def name(self) -> str:
        return "CPU time" if self.is_cpu_time else "wall time"

    def timed(self, action: Callable[[], object]) -> Callable[[], float]:
        """The action as one that returns the seconds it took."""

        def run() -> float:
            start = self()
            action()
            return self() - start

        return run


def alternate(
    contenders: Mapping[str, Callable[[], float]], repetitions: int, warm_up: int = 2
) -> dict[str, np.ndarray]:
    """Seconds of each contender in each round.

    Args:
        contenders: actions that return the seconds that they took.
        repetitions: rounds.
        warm_up: rounds before, which do not count.

    Returns:
        [repetitions] seconds for each contender.
    """
    rounds = [{name: contender() for name, contender in contenders.items()} for _ in range(warm_up + repetitions)]
    return {name: np.array([one[name] for one in rounds[warm_up:]]) for name in contenders}


def quartiles(values: np.ndarray, scale: float = 1.0, form: str = ".3f") -> str:
    """Median and quartiles as text."""
    low, middle, high = (format(x, form) for x in np.quantile(np.asarray(values) * scale, [0.25, 0.5, 0.75]))
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


def seconds(values: np.ndarray) -> str:
    """Median and quartiles of times in milliseconds."""
    return quartiles(values, 1e3, ".1f" if np.median(values) < 0.1 else ".0f")


def ratio(values: np.ndarray, base: np.ndarray) -> str:
    """Median and quartiles of the ratio within each round."""
    return quartiles(values / base, form=".2f")
