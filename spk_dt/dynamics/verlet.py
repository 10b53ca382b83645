r"""Velocity Verlet.

.. math::
    x_{k+1} &= x_k + v_k \Delta t + \frac{F_k}{2m} \Delta t^2 \\
    v_{k+1} &= v_k + \frac{F_k + F_{k+1}}{2m} \Delta t

Swope, Andersen, Berens, Wilson, J. Chem. Phys. 76, 637 (1982), doi 10.1063/1.442716.

=========  ==========================
symbol     variable
=========  ==========================
x          `State.positions`
v          `State.velocities`
F          `State.forces`
m          `State.masses`
Δt         `State.time_step`
=========  ==========================
"""

import torch

from spk_dt.dynamics.state import State

__all__ = ["displacement", "velocity_step"]


def displacement(state: State) -> torch.Tensor:
    """x_{k+1} - x_k, [n_atoms, 3]."""
    return state.velocities * state.time_step + state.forces / (2.0 * state.masses) * state.time_step**2


def velocity_step(state: State, new_forces: torch.Tensor) -> torch.Tensor:
    """v_{k+1}, [n_atoms, 3].

    Args:
        state: state at step k.
        new_forces: [n_atoms, 3] forces at the positions of step k + 1.
    """
    return state.velocities + (state.forces + new_forces) / (2.0 * state.masses) * state.time_step
