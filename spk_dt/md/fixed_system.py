r"""SchNetPack's system with atoms, or components of their positions, that are held fixed.

Whatever assigns positions and momenta (integrators, thermostats in beads or normal modes, hooks that wrap), what is fixed
stays where it is, to the last bit, and has no momentum:

.. math:: x \to M x + (1 - M) x_0, \qquad p \to M p, \qquad T = \frac{2 E_\mathrm{kin}}{N_f k_B}, \qquad N_f = \sum M

===========  =======================================
:math:`M`    ``mobile``, 1 for what may move
:math:`x_0`  ``anchor``, the positions at the start
:math:`N_f`  ``degrees_of_freedom``
===========  =======================================

Momentum is not conserved where something is fixed, and the centre of mass is no frame of reference: moving a molecule to it,
or taking its translation or rotation away, is left out for molecules with fixed atoms. Neither can their cell change.
"""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from schnetpack import units as spk_units
from schnetpack.md import System

from spk_dt.trajectories.fixed_atoms import mobile_of

__all__ = ["FixedSystem", "hold_fixed"]

log = logging.getLogger(__name__)


class FixedSystem(System):
    """A system made by `hold_fixed`.

    Raises:
        ValueError: if its cells are changed, or it is to be continued from the state of a system in which other atoms were
            fixed.
    """

    positions: torch.Tensor
    momenta: torch.Tensor
    #: [1, n_atoms, 3]
    mobile: torch.Tensor
    #: [n_replicas, n_atoms, 3] nm
    anchor: torch.Tensor

    def __setattr__(self, name: str, value: Any) -> None:
        """Positions and momenta of what is fixed are not changed."""
        if name == "positions":
            value = torch.where(self.mobile, value, self.anchor)
        elif name == "momenta":
            value = torch.where(self.mobile, value, torch.zeros_like(value))
        elif name == "cells" and bool(((value - self.cells).abs() > 0.0).any()):
            raise ValueError(
                "the cell of a system with fixed atoms cannot change: a barostat scales all positions. Run at constant "
                "volume (dynamics.barostat=null), or remove the constraints of ASE from system.molecule_file."
            )
        super().__setattr__(name, value)

    @property
    def degrees_of_freedom(self) -> torch.Tensor:
        """[1, n_molecules, 1] components that may move, at least one."""
        free: torch.Tensor = self.sum_atoms(self.mobile.sum(dim=2, keepdim=True))
        return free.clamp(min=1)

    @property
    def temperature(self) -> torch.Tensor:
        """[n_replicas, n_molecules, 1] K."""
        return 2.0 / (self.degrees_of_freedom * spk_units.kB) * self.kinetic_energy

    @property
    def centroid_temperature(self) -> torch.Tensor:
        """[1, n_molecules, 1] K, of the centroids of ring polymers."""
        return 2.0 / (self.degrees_of_freedom * spk_units.kB) * self.centroid_kinetic_energy

    def remove_center_of_mass(self) -> None:
        """Move molecules without fixed atoms to their centres of mass."""
        shift = self.expand_atoms(self.center_of_mass)
        self.positions = torch.where(self._free_atoms(), self.positions - shift, self.positions)

    def remove_translation(self) -> None:
        """Take the mean momentum of the atoms from molecules without fixed atoms."""
        before = self.momenta.clone()
        super().remove_translation()
        self.momenta = torch.where(self._free_atoms(), self.momenta, before)

    def remove_com_rotation(self) -> None:
        """Take the angular momentum from molecules without fixed atoms."""
        free = self._free_atoms()
        if bool(free.any()):
            before = self.momenta.clone()
            super().remove_com_rotation()
            self.momenta = torch.where(free, self.momenta, before)

    def load_system_state(self, state_dict: OrderedDict[str, torch.Tensor]) -> None:
        """Go on from a checkpoint, in which the same atoms have to be fixed."""
        before = state_dict.get("mobile")
        if before is None or before.shape != self.mobile.shape or bool((before.to(self.device) != self.mobile).any()):
            raise ValueError(
                "the checkpoint is of a run in which other atoms were fixed, or none, than in system.molecule_file. "
                "Continue with the file that the run began with."
            )
        super().load_system_state(state_dict)

    def _free_atoms(self) -> torch.Tensor:
        """[1, n_atoms, 1] whether nothing of the molecule of an atom is fixed."""
        fixed = self.sum_atoms((~self.mobile).sum(dim=2, keepdim=True))
        free: torch.Tensor = self.expand_atoms(fixed) == 0
        if not bool(free.all()):
            log.info("molecules with fixed atoms keep centre of mass, translation and rotation")
        return free


def hold_fixed(system: System, molecules: Sequence[Atoms]) -> None:
    """Let a system hold fixed what constraints of ASE hold in the molecules that it was loaded from.

    Args:
        system: where its atoms are now is where they stay; it becomes a `FixedSystem` unless nothing is fixed.
        molecules: structures, in order.

    Raises:
        ValueError: if a constraint fixes other directions than x, y and z.
    """
    mobile = np.concatenate([mobile_of(atoms) for atoms in molecules])
    if mobile.all():
        return
    system.register_buffer("mobile", torch.as_tensor(mobile, device=system.device)[None])
    system.register_buffer("anchor", system.positions.detach().clone())
    system.__class__ = FixedSystem
    system.momenta = system.momenta
