"""How far the gradient of a rollout flows back in time.

A gradient mode is an object with two answers: whether the graph is cut before a step, and how a force function is
evaluated. The visited states are the same for all modes; only gradients differ. Where a graph is cut, what came
before it can be backpropagated and forgotten, so memory does not grow with the number of steps.

The classes are not frozen because Lightning, which records them among the hyperparameters, cannot copy frozen ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

__all__ = ["Detached", "Full", "GradientMode", "Truncated"]


class GradientMode(Protocol):
    """What `spk_dt.dynamics.rollout` asks of a gradient mode."""

    def cuts(self, step: int) -> bool:
        """Whether no gradient flows from step `step` to the steps before it; called for step >= 1."""

    def evaluate[T](self, force_fn: Callable[[torch.Tensor], T], positions: torch.Tensor) -> T:
        """Result of the force function at `positions`, [n_atoms, 3]."""


@dataclass
class Detached:
    """No gradient between steps, as in the paper: each visited geometry is one more training sample.

    Žugec et al., J. Chem. Inf. Model. 2025, doi 10.1021/acs.jcim.5c01180.
    """

    def cuts(self, step: int) -> bool:
        """Always."""
        return True

    def evaluate[T](self, force_fn: Callable[[torch.Tensor], T], positions: torch.Tensor) -> T:
        """Plain evaluation."""
        return force_fn(positions)


@dataclass
class Full:
    """Gradients through all steps: the loss at a step also tells the forces that led there.

    Args:
        recompute: recompute each force evaluation in the backward pass instead of keeping its graph, so that memory
            hardly grows with the number of steps, for about a third more time.
    """

    recompute: bool = True

    def cuts(self, step: int) -> bool:
        """Never."""
        return False

    def evaluate[T](self, force_fn: Callable[[torch.Tensor], T], positions: torch.Tensor) -> T:
        """Evaluation whose graph is kept, or recomputed when the gradient is asked for."""
        return _evaluate(force_fn, positions, self.recompute)


@dataclass
class Truncated:
    """Gradients within segments of k steps (truncated backpropagation through time).

    The graph is cut before the steps k, 2 k, ...; k = 1 is `Detached`, k >= S is `Full`.

    Args:
        k: steps of a segment.
        recompute: as for `Full`.

    Raises:
        ValueError: if `k` is less than 1.

    References:
        Williams, Peng, Neural Comput. 2, 490 (1990), doi 10.1162/neco.1990.2.4.490.
    """

    k: int
    recompute: bool = True

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"Truncated(k={self.k}): a segment has at least one step")

    def cuts(self, step: int) -> bool:
        """At every k-th step."""
        return step % self.k == 0

    def evaluate[T](self, force_fn: Callable[[torch.Tensor], T], positions: torch.Tensor) -> T:
        """Evaluation whose graph is kept, or recomputed when the gradient is asked for."""
        return _evaluate(force_fn, positions, self.recompute and self.k > 1)


def _evaluate[T](force_fn: Callable[[torch.Tensor], T], positions: torch.Tensor, recompute: bool) -> T:
    if not (recompute and torch.is_grad_enabled()):
        return force_fn(positions)
    # to stop early, torch raises an exception, which does not get through the TorchScript functions of SchNetPack
    with set_checkpoint_early_stop(False):
        return checkpoint(force_fn, positions, use_reentrant=False, preserve_rng_state=False)
