r"""Barostats of SchNetPack that run with today's torch and can be continued from a checkpoint.

The equations of motion of the anisotropic one are those of Martyna, Tuckerman, Tobias and Klein, Mol. Phys. 87, 1117
(1996), doi 10.1080/00268979600100761. Positions, momenta and cell follow the matrix of cell velocities:

.. math::
    \dot r = p / m + v_g r, \qquad \dot p = F - (v_g + \mathrm{Tr}[v_g] / N_f) p, \qquad \dot h = h v_g

===================== ============================================
:math:`v_g`           `b_velocities_cell`, [..., 3, 3], symmetric
:math:`N_f`           `degrees_of_freedom`
:math:`h`             `system.cells`, one vector of the cell a row
===================== ============================================
"""

from collections.abc import Callable
from typing import Any

import torch
from schnetpack.md import Simulator, System
from schnetpack.md.simulation_hooks import NHCBarostatAnisotropic, PILEBarostat

__all__ = ["AnisotropicBarostat", "CentroidBarostat"]


class AnisotropicBarostat(NHCBarostatAnisotropic):
    """`schnetpack.md.simulation_hooks.NHCBarostatAnisotropic` for versions of torch without ``torch.symeig``.

    It can also be continued from a checkpoint, which SchNetPack's refuses for a matrix that it makes when a run begins. The
    arguments are SchNetPack's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("aux_eye", torch.eye(3)[None, None])  # else only in the state of a run that has begun

    def propagate_main_step(self, system: System) -> None:
        """Move atoms and cells by a time step at constant momenta: r -> exp(v_g dt) r + phi(v_g dt) dt p / m."""
        scaled = self.time_step * self.b_velocities_cell
        stretch = _function_of(scaled, torch.exp)
        drift = system.expand_atoms(_function_of(scaled, _phi))
        moved = _apply(drift, self.time_step * system.momenta / system.masses)
        system.positions = _apply(system.expand_atoms(stretch), system.positions) + moved
        system.cells = system.cells @ stretch

    def propagate_half_step(self, system: System) -> None:
        """Change momenta by half a time step: p -> exp(-x) p + phi(-x) F dt / 2, x = (v_g + Tr[v_g] / N_f) dt / 2."""
        trace = self.b_velocities_cell.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
        friction = self.b_velocities_cell + (trace / self.degrees_of_freedom)[..., None] * self.aux_eye
        scaled = -0.5 * self.time_step * friction
        slowed = _apply(system.expand_atoms(_function_of(scaled, torch.exp)), system.momenta)
        pushed = _apply(system.expand_atoms(_function_of(scaled, _phi)), 0.5 * self.time_step * system.forces)
        system.momenta = slowed + pushed


class CentroidBarostat(PILEBarostat):
    r"""`schnetpack.md.simulation_hooks.PILEBarostat` with the pressure that belongs to what it does, which can be continued.

    It scales the centroids :math:`\bar r` of the ring polymers with the cell and leaves the beads where they are about them,
    so that the pressure is that of the centroid virial,

    .. math::
        P = \frac{1}{3 V} \Bigl[ \sum_i \frac{\bar p_i^2}{m_i}
            + \frac{1}{n} \sum_{b=1}^{n} \bigl( W_b - \sum_i (r_{ib} - \bar r_i) \cdot F_{ib} \bigr) \Bigr],

    with the virials :math:`W_b = -V \, \mathrm{Tr}\, \sigma_b` of the beads: Ceriotti, More, Manolopoulos, Comput. Phys.
    Commun. 185, 1019 (2014), doi 10.1016/j.cpc.2013.10.027. SchNetPack's lacks the last term, which is the kinetic energy
    that quantum particles have beyond classical ones, and holds a pressure that is off by it. It also has no mass after a
    restart.
    """

    cell_momenta: torch.Tensor

    def on_simulation_start(self, simulator: Simulator) -> None:
        """Make what a checkpoint does not hold; the momenta of the cell go on from it."""
        continued, momenta = self.initialized, self.cell_momenta
        super().on_simulation_start(simulator)
        if continued:
            self._init_barostat(simulator)
            self.cell_momenta = momenta

    def propagate_half_step(self, system: System) -> None:
        """Change momenta of atoms and cell by half a time step."""
        super().propagate_half_step(system)
        about_centroids = system.positions - system.positions.mean(0, keepdim=True)
        missing = system.sum_atoms((about_centroids * system.forces).sum(2, keepdim=True)).sum(0)[:, 0]
        self.cell_momenta = self.cell_momenta - 0.5 * self.time_step * missing


def _function_of(matrix: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """A function of symmetric matrices [..., 3, 3], by their eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)  # the vectors are its columns
    return (vectors * function(values)[..., None, :]) @ vectors.mT


def _phi(x: torch.Tensor) -> torch.Tensor:
    """(exp(x) - 1) / x."""
    return torch.where(x == 0.0, 1.0, torch.expm1(x) / x)


def _apply(matrix: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Product of matrices [..., 3, 3] and vectors [..., 3]."""
    return (matrix @ vector[..., None])[..., 0]
