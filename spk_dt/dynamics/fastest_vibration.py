r"""The fastest vibration of a potential, from which follows how long a time step may be.

The square of its angular frequency is the largest eigenvalue of the mass-weighted Hessian

.. math:: D = M^{-1/2} \frac{\partial^2 E}{\partial x^2} M^{-1/2},

which is found by power iteration; each product of D and a vector is a central difference of forces. Velocity Verlet, whose
harmonic limit is :math:`\omega \Delta t = 2`, exchanges energy with anharmonic vibrations from :math:`\omega \Delta t =
\sqrt 2 = 2 \sin(\pi / 4)` on, the resonance of fourth order (T. Schlick, M. Mandziuk, R. D. Skeel, K. Srinivas, J. Comput.
Phys. 140 (1998) 1, doi 10.1006/jcph.1998.5879).

=====================  ========================  ==============================
symbol                 variable                  unit
=====================  ========================  ==============================
:math:`\omega`         result                    rad per unit of time
:math:`\Delta t`       time step                 unit of time
:math:`M`              ``masses``                any in which F = m a
=====================  ========================  ==============================
"""

from collections.abc import Callable

import torch

__all__ = ["LONGEST_PHASE", "fastest_vibrations"]

#: largest ω Δt of a time step that conserves energy; below √2, since a simulation meets stiffer states than those looked at
LONGEST_PHASE = 1.2

_N_ITERATIONS = 30


def fastest_vibrations(
    forces_at: Callable[[torch.Tensor], torch.Tensor],
    positions: torch.Tensor,
    masses: torch.Tensor,
    idx_m: torch.Tensor,
    displacement: float,
    mobile: torch.Tensor | None = None,
) -> torch.Tensor:
    """Angular frequency of the fastest vibration of each system.

    Args:
        forces_at: [n_atoms, 3] forces at positions [n_atoms, 3], of all systems.
        positions: [n_atoms, 3] where to look.
        masses: [n_atoms].
        idx_m: [n_atoms] system of each atom, from 0 on.
        displacement: of the atom that is moved furthest for a difference of forces, as about 0.01 Å.
        mobile: [n_atoms, 1] or [n_atoms, 3], false for what is held fixed.

    Returns:
        [n_systems] in radians per unit of time. What curves downwards counts by its magnitude.
    """
    n_systems = int(idx_m.max()) + 1

    def sum_over(values: torch.Tensor) -> torch.Tensor:
        """[n_systems] sum over the atoms of each."""
        return values.new_zeros(n_systems).index_add(0, idx_m, values.sum(dim=1))

    def largest(values: torch.Tensor) -> torch.Tensor:
        """[n_systems] of the atoms of each."""
        of_atoms = values.abs().amax(dim=1)
        return values.new_zeros(n_systems).scatter_reduce(0, idx_m, of_atoms, "amax").clamp_min(tiny)

    tiny = torch.finfo(positions.dtype).tiny
    weight = masses[:, None].rsqrt().expand_as(positions)
    if mobile is not None:
        weight = weight * mobile
    noise = torch.randn(positions.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vector = noise.to(positions)
    for _ in range(_N_ITERATIONS):
        vector = vector / sum_over(vector**2).clamp_min(tiny).sqrt()[idx_m, None]
        scale = (displacement / largest(weight * vector))[idx_m, None]
        moved = scale * weight * vector
        change = forces_at(positions + moved) - forces_at(positions - moved)
        product = -weight * change / (2.0 * scale)
        square = sum_over(vector * product)
        vector = product
    return square.abs().sqrt()
