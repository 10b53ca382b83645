"""Short simulations that a model runs itself from a first frame, differentiable."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from spk_dt.dynamics.explosion import ExplosionGuard
from spk_dt.dynamics.gradients import Full, GradientMode
from spk_dt.dynamics.integrators import Integrator, VelocityVerlet
from spk_dt.dynamics.kicks import Kicks
from spk_dt.dynamics.state import State

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
    inner_steps: torch.Tensor | int = 1,
    kicks: Kicks | None = None,
    integrator: Integrator | None = None,
    mobile: torch.Tensor | None = None,
) -> Iterator[Visited]:
    """Visit `n_steps` states, the first frame included.

    A generator, so that the caller can use and forget a step before the next one is made. The graph of each step is
    attached to the steps before it as the gradient mode says. Nothing is modified in place.

    With `inner_steps` above one, states between those that are visited are passed through unseen: from frame to frame of a
    trajectory of which not all steps were saved. Where the graph is cut, no graph is built for them.

    Args:
        force_fn: forces as a function of positions.
        positions: [n_atoms, 3] of the first frame.
        velocities: [n_atoms, 3] of the first frame.
        masses: [n_atoms].
        time_step: [n_atoms] or a number; time step of the integrator.
        n_steps: number of states, S.
        gradient: how far gradients flow back; `Full` if not given.
        guard: stops systems that have left the reasonable; without it nothing is stopped.
        inner_steps: [n_atoms] or a number; steps of the integrator from one visited state to the next. Systems with fewer
            of them than others in the batch rest in between.
        kicks: what is added at each step; with `inner_steps` above one, only at the last.
        integrator: how a step is made; `spk_dt.dynamics.VelocityVerlet` if not given.
        mobile: [n_atoms] or [n_atoms, 3]; what is false stays where it is, to the last bit, without velocity. None lets
            all atoms move.

    Yields:
        the states at steps 0 to n_steps - 1.

    Raises:
        ValueError: if shapes do not match, `n_steps` is less than 1, or the integrator cannot be had with the gradient
            mode or the kicks.
    """
    _check(positions, velocities, masses, n_steps, mobile)
    gradient = Full() if gradient is None else gradient
    integrator = VelocityVerlet() if integrator is None else integrator
    integrator.check(gradient, kicks)
    time_step = torch.as_tensor(time_step, dtype=positions.dtype, device=positions.device)
    time_step = time_step[:, None] if time_step.ndim == 1 else time_step
    *on_the_way, last = _inner_time_steps(time_step, inner_steps)

    forces, outputs = _evaluate(force_fn, positions, gradient if _goes_on(gradient, 0, n_steps) else None)
    if mobile is not None:
        mobile = mobile.bool().view(len(positions), -1)
    state = State(positions, velocities, forces, masses[:, None], time_step, mobile)
    state = replace(state, velocities=state.of_mobile(velocities))
    yield Visited(0, state, outputs)
    for step in range(1, n_steps):
        cut = gradient.cuts(step)
        state = state.detach() if cut else state
        with torch.set_grad_enabled(torch.is_grad_enabled() and not cut):
            for inner in on_the_way:
                state, _ = _advance(integrator, force_fn, replace(state, time_step=inner), gradient, guard)
        kick = None if kicks is None else kicks.after(step - 1)
        mode = gradient if _goes_on(gradient, step, n_steps) else None
        state, outputs = _advance(integrator, force_fn, replace(state, time_step=last), mode, guard, kick)
        yield Visited(step, state, outputs)


def _advance(
    integrator: Integrator,
    force_fn: ForceFunction,
    state: State,
    gradient: GradientMode | None,
    guard: ExplosionGuard | None,
    kick: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[State, Mapping[str, Any]]:
    """One step of the integrator, and the outputs of the force function at its end."""
    move, carried = integrator.displacement(state)
    move = state.of_mobile(move if kick is None else move + kick[0])
    positions = state.moved(move if guard is None else guard(move))
    forces, outputs = _evaluate(force_fn, positions, gradient)
    velocities = integrator.velocities(state, carried, forces)
    velocities = state.of_mobile(velocities if kick is None else velocities + kick[1])
    return replace(state, positions=positions, velocities=velocities, forces=forces), outputs


def _inner_time_steps(time_step: torch.Tensor, inner_steps: torch.Tensor | int) -> list[torch.Tensor]:
    """Time steps that lead from one visited state to the next, [] or [n_atoms, 1] each; zero for systems that rest."""
    if isinstance(inner_steps, int):
        return [time_step] * inner_steps
    most = int(inner_steps.max())
    n = inner_steps[:, None]
    return [time_step * (j * n // most - (j - 1) * n // most) for j in range(1, most + 1)]


def _goes_on(gradient: GradientMode, step: int, n_steps: int) -> bool:
    """Whether gradients will flow back to a step from a later one; if not, it is the first to be backpropagated."""
    return step + 1 < n_steps and not gradient.cuts(step + 1)


def _evaluate(
    force_fn: ForceFunction, positions: torch.Tensor, gradient: GradientMode | None
) -> tuple[torch.Tensor, Mapping[str, Any]]:
    """Forces and further outputs at `positions`; without a gradient mode, evaluated plainly."""
    at = force_fn.at(positions) if hasattr(force_fn, "at") else force_fn
    result = at(positions) if gradient is None else gradient.evaluate(at, positions)
    return result if isinstance(result, tuple) else (result, {})


def _check(
    positions: torch.Tensor, velocities: torch.Tensor, masses: torch.Tensor, n_steps: int, mobile: torch.Tensor | None
) -> None:
    if n_steps < 1:
        raise ValueError(f"n_steps={n_steps}: a rollout has at least one step, the first frame")
    if positions.ndim != 2 or positions.shape[1] != 3 or velocities.shape != positions.shape:
        raise ValueError(
            f"positions and velocities must both be [n_atoms, 3], not {tuple(positions.shape)} and "
            f"{tuple(velocities.shape)}"
        )
    if mobile is not None and mobile.shape not in (positions.shape, positions.shape[:1]):
        raise ValueError(f"mobile must be [n_atoms] or [n_atoms, 3], not {tuple(mobile.shape)}")
    if masses.shape != positions.shape[:1]:
        raise ValueError(f"masses must be [n_atoms] = [{len(positions)}], not {tuple(masses.shape)}")
