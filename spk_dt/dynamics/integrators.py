r"""Integrators: how a rollout goes from one state to the next, with one evaluation of the forces.

An integrator is an object with three answers: the displacement that the present state leads to, the velocities once the
forces there are known, and whether it can be had with a gradient mode and a replayed thermostat.

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

from dataclasses import dataclass, field
from typing import Protocol

import torch

from spk_dt.dynamics.gradients import Detached, GradientMode
from spk_dt.dynamics.kicks import Kicks
from spk_dt.dynamics.state import State

__all__ = ["Integrator", "Langevin", "VelocityVerlet"]


class Integrator(Protocol):
    """What `spk_dt.dynamics.rollout` asks of an integrator."""

    def check(self, gradient: GradientMode, kicks: Kicks | None) -> None:
        """Raise ValueError if a rollout cannot be made with this gradient mode, or with these kicks."""

    def displacement(self, state: State) -> tuple[torch.Tensor, torch.Tensor]:
        """x_{k+1} - x_k, [n_atoms, 3], and the velocities [n_atoms, 3] that `velocities` continues from."""

    def velocities(self, state: State, carried: torch.Tensor, new_forces: torch.Tensor) -> torch.Tensor:
        """v_{k+1}, [n_atoms, 3].

        Args:
            state: state at step k.
            carried: what `displacement` gave beside the displacement.
            new_forces: [n_atoms, 3] forces at the positions of step k + 1.
        """


@dataclass
class VelocityVerlet:
    r"""Constant energy.

    .. math::
        x_{k+1} &= x_k + v_k \Delta t + \frac{F_k}{2m} \Delta t^2 \\
        v_{k+1} &= v_k + \frac{F_k + F_{k+1}}{2m} \Delta t

    Swope, Andersen, Berens, Wilson, J. Chem. Phys. 76, 637 (1982), doi 10.1063/1.442716.
    """

    def check(self, gradient: GradientMode, kicks: Kicks | None) -> None:
        """Everything is possible."""

    def displacement(self, state: State) -> tuple[torch.Tensor, torch.Tensor]:
        """x_{k+1} - x_k and v_k."""
        move = state.velocities * state.time_step + state.forces / (2.0 * state.masses) * state.time_step**2
        return move, state.velocities

    def velocities(self, state: State, carried: torch.Tensor, new_forces: torch.Tensor) -> torch.Tensor:
        """v_{k+1}."""
        return carried + (state.forces + new_forces) / (2.0 * state.masses) * state.time_step


@dataclass
class Langevin:
    r"""Constant temperature: Langevin dynamics with the BAOAB splitting, for simulations that nothing is compared with.

    .. math::
        v' &= v_k + \frac{F_k}{2m} \Delta t \\
        v'' &= c\, v' + \sqrt{(1 - c^2)\, k_B T / m}\; \xi, \quad c = e^{-\gamma \Delta t}, \; \xi \sim \mathcal{N}(0, 1) \\
        x_{k+1} &= x_k + \tfrac12 (v' + v'') \Delta t \\
        v_{k+1} &= v'' + \frac{F_{k+1}}{2m} \Delta t

    Leimkuhler, Matthews, Appl. Math. Res. Express 2013, 34, doi 10.1093/amrx/abs010. Atoms that rest for a step (Δt = 0, see
    `spk_dt.dynamics.rollout`) get no random force.

    Args:
        thermal_energy: :math:`k_B T`, in the unit of energy.
        friction: :math:`\gamma`, per unit of time.
        generator: source of the random numbers; default that of torch. It belongs to the device of the state.

    Raises:
        ValueError: if the thermal energy is negative or the friction not positive; by `check`, if gradients would flow
            through the random forces, or a thermostat is replayed on top of this one.
    """

    thermal_energy: float
    friction: float
    generator: torch.Generator | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        if not (self.thermal_energy >= 0.0 and self.friction > 0.0):
            raise ValueError(
                f"Langevin(thermal_energy={self.thermal_energy}, friction={self.friction}): the thermal energy is not "
                "negative, and the friction is positive; without friction take VelocityVerlet()."
            )

    def check(self, gradient: GradientMode, kicks: Kicks | None) -> None:
        """No gradients in time, no other thermostat."""
        if not isinstance(gradient, Detached):
            raise ValueError(
                f"Langevin dynamics generates states, no loss is taken along it: use gradient=Detached(), not {gradient}."
            )
        if kicks is not None:
            raise ValueError("Langevin dynamics has a thermostat; the one of the reference cannot be replayed as well.")

    def displacement(self, state: State) -> tuple[torch.Tensor, torch.Tensor]:
        """x_{k+1} - x_k and v''."""
        before = state.velocities + state.forces / (2.0 * state.masses) * state.time_step
        kept = torch.exp(-self.friction * state.time_step)
        noise = torch.randn(before.shape, dtype=before.dtype, device=before.device, generator=self.generator)
        after = kept * before + torch.sqrt((1.0 - kept**2) * self.thermal_energy / state.masses) * noise
        return 0.5 * state.time_step * (before + after), after

    def velocities(self, state: State, carried: torch.Tensor, new_forces: torch.Tensor) -> torch.Tensor:
        """v_{k+1}."""
        return carried + new_forces / (2.0 * state.masses) * state.time_step
