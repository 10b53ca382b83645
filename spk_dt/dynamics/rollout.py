"""Short simulations that a model runs itself: velocity Verlet from a first frame, differentiable."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch

from spk_dt.dynamics.explosion import ExplosionGuard
from spk_dt.dynamics.gradients import Full, GradientMode
from spk_dt.dynamics.state import State
from spk_dt.dynamics.verlet import displacement, velocity_step

__all__ = ["ForceFunction", "Visited", "rollout"]

#: positions [n_atoms, 3] -> forces [n_atoms, 3], or a pair of forces and further outputs. If it has a method
#: `at(positions)`, this returns the function to evaluate there, with neighbour pairs already found, so that recomputation
#: in the backward pass does not find them again.
ForceFunction = Callable[[torch.Tensor], torch.Tensor | tuple[torch.Tensor, Mapping[str, Any]]]


class Visited(NamedTuple):
    """A step of a rollout.

    Args:
        step: index of the step, 0 for the first frame.
        state: positions, velocities and forces at that step.
        outputs: what the force function gave beside forces.
    """

    step: int
    state: State
    outputs: Mapping[str, Any]


def rollout(
    force_fn: ForceFunction,
    positions: torch.Tensor,
    velocities: torch.Tensor,
    masses: torch.Tensor,
    time_step: torch.Tensor | float,
    n_steps: int,
    gradient: GradientMode | None = None,
    guard: ExplosionGuard | None = None,
) -> Iterator[Visited]:
    """Visit `n_steps` states with velocity Verlet, the first frame included.

    A generator, so that the caller can use and forget a step before the next one is made. The graph of each step is
    attached to the steps before it as the gradient mode says. Nothing is modified in place.

    Args:
        force_fn: forces as a function of positions.
        positions: [n_atoms, 3] of the first frame.
        velocities: [n_atoms, 3] of the first frame.
        masses: [n_atoms].
        time_step: [n_atoms] or a number.
        n_steps: number of states, S.
        gradient: how far gradients flow back; `Full` if not given.
        guard: stops systems that have left the reasonable; without it nothing is stopped.

    Yields:
        the states at steps 0 to n_steps - 1.

    Raises:
        ValueError: if shapes do not match, or `n_steps` is less than 1.
    """
    _check(positions, velocities, masses, n_steps)
    gradient = Full() if gradient is None else gradient
    time_step = torch.as_tensor(time_step, dtype=positions.dtype, device=positions.device)
    time_step = time_step[:, None] if time_step.ndim == 1 else time_step

    forces, outputs = _evaluate(force_fn, positions, gradient)
    state = State(positions, velocities, forces, masses[:, None], time_step)
    yield Visited(0, state, outputs)
    for step in range(1, n_steps):
        state = state.detach() if gradient.cuts(step) else state
        move = displacement(state)
        move = move if guard is None else guard(move)
        positions = state.positions + move
        forces, outputs = _evaluate(force_fn, positions, gradient)
        state = State(positions, velocity_step(state, forces), forces, state.masses, state.time_step)
        yield Visited(step, state, outputs)


def _evaluate(
    force_fn: ForceFunction, positions: torch.Tensor, gradient: GradientMode
) -> tuple[torch.Tensor, Mapping[str, Any]]:
    """Forces and further outputs at `positions`."""
    at = force_fn.at(positions) if hasattr(force_fn, "at") else force_fn
    result = gradient.evaluate(at, positions)
    return result if isinstance(result, tuple) else (result, {})


def _check(positions: torch.Tensor, velocities: torch.Tensor, masses: torch.Tensor, n_steps: int) -> None:
    if n_steps < 1:
        raise ValueError(f"n_steps={n_steps}: a rollout has at least one step, the first frame")
    if positions.ndim != 2 or positions.shape[1] != 3 or velocities.shape != positions.shape:
        raise ValueError(
            f"positions and velocities must both be [n_atoms, 3], not {tuple(positions.shape)} and "
            f"{tuple(velocities.shape)}"
        )
    if masses.shape != positions.shape[:1]:
        raise ValueError(f"masses must be [n_atoms] = [{len(positions)}], not {tuple(masses.shape)}")
