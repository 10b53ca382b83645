r"""When a state of a simulation is wrong: energy and forces of the model against those of the reference method.

The energy. With :math:`\Delta(x) = E(x) - E_\mathrm{ref}(x)`, a state :math:`x_t` is wrong if

.. math:: |\Delta(x_t) - \Delta(x_0)| > z\,\sigma_E, \qquad \sigma_E = k_B T \sqrt{f / 2},

where :math:`\sigma_E` is the fluctuation of the potential energy of f harmonic degrees of freedom at temperature T. The
model samples states with weights that are off by :math:`\exp(\Delta / k_B T)`; where the error exceeds what the energy
itself fluctuates by, the reference would hardly come. No common zero of energies is needed.

The forces. A state is wrong if for an atom

.. math:: \lVert F_i - F_i^\mathrm{ref} \rVert > c\,\sqrt{\langle \lVert F^\mathrm{ref} \rVert^2 \rangle_{Z_i}},

the root mean square of the forces that the reference has on atoms of its element in frames of the data, scaled to the
temperature of the simulation as thermal forces are, by :math:`\sqrt{T / T_\mathrm{data}}`.

==========================================  ===========================  =======================================
symbol                                      variable                     unit
==========================================  ===========================  =======================================
z                                           ``Criteria.energy``          none
c                                           ``Criteria.force``           none
:math:`\sigma_E`                            ``Scales.energy``            eV
:math:`\langle \lVert F \rVert^2 \rangle`   ``Scales.force``, squared    (eV/Å)², by element
==========================================  ===========================  =======================================
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import ase.units
import numpy as np
from ase import Atoms

from spk_dt.trajectories.fixed_atoms import degrees_of_freedom, forces_held, mobile_of

__all__ = ["Criteria", "Deviation", "Scales", "scales_of"]


class Deviation(NamedTuple):
    """How far a state is off, in the units of the criteria: 1 is at the limit.

    Args:
        energy: error of the energy since the start, over its limit.
        force: largest error of the force on an atom, over its limit.
    """

    energy: float
    force: float

    @property
    def wrong(self) -> bool:
        """Whether one of them is beyond its limit, or not a number."""
        return not (self.energy <= 1.0 and self.force <= 1.0)

    @property
    def reason(self) -> str | None:
        """``energy``, ``force`` or both; None if the state is right."""
        over = [name for name, value in zip(self._fields, self, strict=True) if not value <= 1.0]
        return " and ".join(over) or None


@dataclass(frozen=True)
class Scales:
    """What energies and forces are measured by.

    Args:
        temperature: of the data, K: mean over the frames.
        force: root mean square of the reference force on an atom in the data, eV/Å, by atomic number.
    """

    temperature: float
    force: Mapping[int, float]

    def energy(self, n_atoms: float, temperature: float | None) -> float:
        """Thermal fluctuation of the potential energy, eV.

        Args:
            n_atoms: number of atoms that move; each has three degrees of freedom (a third of these).
            temperature: of the simulation, K; None takes that of the data.
        """
        return ase.units.kB * (temperature or self.temperature) * sqrt(1.5 * n_atoms)

    def forces(self, numbers: np.ndarray, temperature: float | None) -> np.ndarray:
        """[n_atoms] thermal force on each atom, eV/Å."""
        factor = sqrt((temperature or self.temperature) / self.temperature)
        return factor * np.array([self.force[int(z)] for z in numbers])


@dataclass(frozen=True)
class Criteria:
    """What counts as wrong.

    Args:
        energy: limit of the error of the energy, in thermal fluctuations of the potential energy.
        force: limit of the error of the force on an atom, in thermal forces on its element.
        n_checks: states of each simulation, evenly spaced, that are judged beside its end, its closest contact, its
            largest force and what is newest to the model.
        uncertainty: limit of the uncertainty of a committee (`spk_dt.certificate.committee`), eV/Å; None sets none.
    """

    energy: float = 3.0
    force: float = 2.0
    n_checks: int = 4
    uncertainty: float | None = None

    def __post_init__(self) -> None:
        """Refuse limits that are not positive, and fewer checks than none."""
        if self.n_checks < 0:
            raise ValueError(f"n_checks={self.n_checks} must not be negative.")
        for name in ("energy", "force", "uncertainty"):
            value = getattr(self, name)
            if value is not None and not value > 0.0:
                raise ValueError(f"{name}={value}: a limit must be positive.")

    def deviation(
        self,
        state: Atoms,
        start: Atoms,
        reference: tuple[float, np.ndarray],
        at_start: float,
        scales: Scales,
        temperature: float | None,
    ) -> Deviation:
        """How far a state is off.

        Args:
            state: with energy and forces of the model.
            start: the first state of its simulation, with the energy of the model.
            reference: energy (eV) and forces [n_atoms, 3] (eV/Å) of the reference method at the state; NaN where it failed.
            at_start: energy of the reference method at the start, eV.
            scales: what they are measured by.
            temperature: of the thermostat there, K; None at constant energy.
        """
        energy, forces = reference
        change = (state.get_potential_energy() - start.get_potential_energy()) - (energy - at_start)
        errors = np.linalg.norm(state.get_forces(apply_constraint=False) - forces, axis=1)
        limits = self.force * scales.forces(state.numbers, temperature)
        return Deviation(
            energy=float(abs(change) / (self.energy * scales.energy(degrees_of_freedom(state) / 3.0, temperature))),
            force=float((errors / limits).max()),
        )


def scales_of(frames: Sequence[Atoms]) -> Scales:
    """Temperature and thermal forces of frames of the data.

    Args:
        frames: with momenta and reference forces.

    Raises:
        ValueError: if they are at rest, or the forces on an element are zero in all of them.
    """
    kinetic = sum(atoms.get_kinetic_energy() for atoms in frames)
    temperature = 2.0 * kinetic / (ase.units.kB * sum(map(degrees_of_freedom, frames)))
    numbers = np.concatenate([atoms.numbers for atoms in frames])
    forces = [atoms.get_forces(apply_constraint=False) for atoms in frames]
    squares = np.concatenate([(one**2).sum(axis=1) for one in forces])
    held = [forces_held(one[None], mobile_of(atoms)).any(axis=1) for one, atoms in zip(forces, frames, strict=True)]
    known = np.concatenate(held)  # and of an element that is fixed, without forces, those of all
    of = {int(z): squares[known & (numbers == z)] for z in np.unique(numbers)}
    force = {z: float(np.sqrt((own if len(own) else squares[known]).mean())) for z, own in of.items()}
    if not temperature > 0.0 or min(force.values()) == 0.0:
        raise ValueError(
            f"the frames of the data have a temperature of {temperature:.3g} K and mean forces of "
            f"{', '.join(f'{value:.3g}' for value in force.values())} eV/Å: limits for errors do not follow from these. "
            "Take frames of a simulation."
        )
    return Scales(float(temperature), force)
