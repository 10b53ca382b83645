"""Velocity Verlet for many molecules at once that goes on with the others when one of them explodes."""

import torch
from schnetpack.md import System
from schnetpack.md.integrators import VelocityVerlet

from spk_dt.dynamics import ExplosionGuard

__all__ = ["MAX_DISPLACEMENT", "FreezingVerlet"]

#: Å in one step; a molecule in which an atom would move further has exploded
MAX_DISPLACEMENT = 0.5


class FreezingVerlet(VelocityVerlet):
    """Velocity Verlet that freezes molecules which explode, so that the others go on.

    A molecule in which an atom would move further than a limit in one step, or not to a number, stays where it is, without
    momentum. What it was before is not touched: the states before `exploded_step` are good.

    Args:
        time_step: time step in fs.
        max_displacement: longest reasonable step of an atom, in Å.
    """

    #: [n_molecules] first step that was not made, -1 for molecules that have not exploded; set by the first step
    exploded_step: torch.Tensor

    def __init__(self, time_step: float, max_displacement: float = MAX_DISPLACEMENT) -> None:
        super().__init__(time_step)
        self.max_displacement = max_displacement
        self._guard: ExplosionGuard | None = None
        self._step = 0

    def half_step(self, system: System) -> None:
        """Half a step of the momenta; those of frozen molecules stay zero."""
        super().half_step(system)
        self._stop(system)

    def _main_step(self, system: System) -> None:
        """A step of the positions, [1, n_atoms, 3], unless it is too long."""
        if self._guard is None:
            self._guard = ExplosionGuard(system.index_m, system.n_molecules, 0.1 * self.max_displacement)  # nm
            self.exploded_step = torch.full((system.n_molecules,), -1, device=system.device)
        self._step += 1
        move = self._guard((self.time_step * system.momenta / system.masses)[0])
        self.exploded_step[self._guard.exploded & (self.exploded_step < 0)] = self._step
        system.positions = system.positions + move
        self._stop(system)

    def _stop(self, system: System) -> None:
        if self._guard is not None:
            frozen = self._guard.exploded[system.index_m, None]
            system.momenta = torch.where(frozen, torch.zeros_like(system.momenta), system.momenta)
