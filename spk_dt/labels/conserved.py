"""Is the energy of a trajectory at constant energy conserved? Seen while it is made, so that no time is lost."""

import logging
from collections.abc import Sequence

import numpy as np
from ase import Atoms

from spk_dt.labels.reference_process import NoLabelError
from spk_dt.trajectories.energy_drift import drifts, slope_and_fluctuation
from spk_dt.trajectories.fixed_atoms import degrees_of_freedom

__all__ = ["Conserved"]

log = logging.getLogger(__name__)

#: part of the largest kinetic energy by which the total energy may change; velocity Verlet lets it swing by (omega dt)²/4
_CHANGE = 0.5
#: and what it may change by in any case, eV per atom
_CHANGE_EV = 0.002

#: frames from which on a drift of the energy shows
_DRIFTS_FROM = 12


class Conserved:
    """Watches the total energy of a trajectory.

    Args:
        name: of the trajectory, for messages.
        timestep_fs: time step, fs.
    """

    def __init__(self, name: str, timestep_fs: float) -> None:
        self._name, self._step = name, timestep_fs
        self._start: float | None = None
        self._largest = 0.0
        self._atoms: Atoms | None = None
        self._kinetic: list[float] = []
        self._total: list[float] = []

    def add(self, frames: Sequence[Atoms], saved: Sequence[Atoms]) -> None:
        """Look at the next frames.

        Args:
            frames: with their step in ``info``, in order of time.
            saved: those of them that are evenly spaced.

        Raises:
            NoLabelError: if the energy has changed by half of the kinetic energy.
        """
        for atoms in frames:
            kinetic = atoms.get_kinetic_energy()
            total = kinetic + atoms.calc.results["energy"]
            self._start = total if self._start is None else self._start
            self._largest, self._atoms = max(self._largest, kinetic), atoms
            change = total - self._start
            if abs(change) > max(_CHANGE * self._largest, _CHANGE_EV * len(atoms)):
                raise NoLabelError(
                    f"step {atoms.info['step']}: the energy is not conserved, it has changed by {change:.3g} eV "
                    f"({1e3 * change / len(atoms):.3g} meV an atom), and the kinetic energy is at most {self._largest:.3g} "
                    f"eV. A time step of {self._step:g} fs is too long, or the forces are not those of the energy"
                )
        self._kinetic += [atoms.get_kinetic_energy() for atoms in saved]
        self._total += [atoms.get_kinetic_energy() + atoms.calc.results["energy"] for atoms in saved]

    def warn(self, frame_fs: float) -> None:
        """Say that the energy drifts, if it does."""
        if self._atoms is None or len(self._total) < _DRIFTS_FROM:
            return
        slope, spread = slope_and_fluctuation(np.array(self._total), frame_fs, degrees_of_freedom(self._atoms))
        duration = frame_fs * (len(self._total) - 1)
        if drifts(slope, spread, duration, np.array(self._kinetic), len(self._atoms)):
            log.warning(
                "%s: the total energy drifts by %.3g meV per atom and ps. Take a shorter time step than %g fs, or converge "
                "the reference further.",
                *(self._name, slope, self._step),
            )
