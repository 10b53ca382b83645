"""The files with the simulations of a model: how they are written, and what is read from them.

A file ``simulation_<g>.hdf5`` holds the simulations from a group g of start frames, a molecule each, in SchNetPack's format
(`schnetpack.md.data.HDF5Loader`): the states after the steps 1, 1 + every, ... in nm, kJ/mol and Dalton, and energy and
forces as the model gave them, in its own units. Beside these stand, in a group ``start``, ``energy`` [n_molecules] and
``forces`` [n_atoms, 3] of the start frames, and in the attribute ``exploded_step`` [n_molecules] the first step that a
molecule could not make since it had exploded, -1 for those that have not.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import ase.units
import h5py
import numpy as np
from schnetpack import properties
from schnetpack import units as spk_units
from schnetpack.md import Simulator, System
from schnetpack.md.data import HDF5Loader
from schnetpack.md.simulation_hooks import FileLogger, PropertyStream

from spk_dt.data.continuation import Continuation
from spk_dt.evaluation.simulated_trajectory import SimulatedTrajectory
from spk_dt.labels.unit_check import Unit
from spk_dt.md import MoleculeStream
from spk_dt.trajectories.fixed_atoms import mobile_of
from spk_dt.units import conversion

__all__ = ["ReadsSimulations", "SimulationFile", "SimulationLogger", "Simulations"]

_BUFFER_BYTES = 2**26  # of the rows of a simulation that are kept in memory between writes


class SimulationLogger(FileLogger):
    """Writes a file of simulations; the integrator is `spk_dt.md.FreezingVerlet`.

    Args:
        path: file to write.
        system: what is simulated.
        steps: steps of the simulation.
        every: steps from one stored state to the next.
    """

    def __init__(self, path: Path, system: System, steps: int, every: int) -> None:
        width = 8 * (6 * system.total_n_atoms + 19 * system.n_molecules)
        super().__init__(
            str(path),
            buffer_size=int(max(1, min(100, 1 + (steps - 1) // every, _BUFFER_BYTES // width))),
            data_streams=[
                MoleculeStream(store_velocities=True),
                PropertyStream([properties.energy, properties.forces]),
            ],
            every_n_steps=every,
            precision=64,
        )
        self._at_start: dict[str, np.ndarray] = {}

    def on_simulation_start(self, simulator: Simulator) -> None:
        """Open the file, and keep what the calculator gave for the start frames."""
        super().on_simulation_start(simulator)
        for key in (properties.energy, properties.forces):
            self._at_start[key] = simulator.system.properties[key][0].detach().cpu().numpy()

    def on_simulation_end(self, simulator: Simulator) -> None:
        """Write what remains: the last states, the start frames and which molecules have exploded."""
        super().on_simulation_end(simulator)
        with h5py.File(self.filename, "a") as database:
            database.attrs["exploded_step"] = simulator.integrator.exploded_step.cpu().numpy()
            for key, value in self._at_start.items():
                database[f"start/{key}"] = value


@dataclass(frozen=True)
class SimulationFile:
    """Reads a file of simulations.

    Args:
        path: the file.
        energy_unit: unit of the energies of the model.
        position_unit: unit of length of the model.
    """

    path: Path
    energy_unit: Unit
    position_unit: Unit

    @classmethod
    def of(cls, folder: Path, group: int, energy_unit: Unit, position_unit: Unit) -> Self:
        """That of a group of start frames in the folder of a model."""
        return cls(folder / f"simulation_{group}.hdf5", energy_unit, position_unit)

    def read(self, starts: Mapping[int, Continuation]) -> Iterator[SimulatedTrajectory]:
        """Simulations from their start frames to their ends, NaN from the step on that a molecule could not make.

        Args:
            starts: start frames of the molecules to read, by the index of the molecule.
        """
        loader = HDF5Loader(str(self.path))
        try:
            for molecule, start in starts.items():
                yield self._trajectory(loader, molecule, start)
        finally:
            loader.database.close()

    def _trajectory(self, loader: HDF5Loader, molecule: int, start: Continuation) -> SimulatedTrajectory:
        """One molecule."""
        every = int(loader.database["molecules"].attrs["every_n_steps"])
        step = np.concatenate([[0], 1 + every * np.arange(loader.entries)])
        exploded = int(loader.database.attrs["exploded_step"][molecule])
        lost = (step >= exploded) & (exploded >= 0)
        atoms = slice(*loader.molecule_range[molecule : molecule + 2])
        energy_unit = conversion(self.energy_unit, "eV", "energy")
        force_unit = energy_unit / conversion(self.position_unit, "Ang", "length")
        to_ang = conversion("nm", "Ang", "length")
        at_start = loader.database["start"]

        def joined(first: np.ndarray, later: np.ndarray) -> np.ndarray:
            """[n_frames, ...] of the start frame and what follows."""
            values = np.concatenate([first[None], later])
            values[lost] = np.nan
            return values

        energy = loader.get_property(properties.energy, atomistic=False, mol_idx=molecule).reshape(-1)
        forces = loader.get_property(properties.forces, atomistic=True, mol_idx=molecule)
        velocities = start.start.get_velocities() * ase.units.fs
        return SimulatedTrajectory(
            step=step,
            time_fs=step * start.timestep_fs,
            positions=joined(start.start.positions, loader.get_positions(molecule) * to_ang),
            velocities=joined(velocities, loader.get_velocities(molecule) * (to_ang * spk_units.fs)),
            potential_energy=joined(at_start["energy"][molecule].sum(dtype=float) * energy_unit, energy * energy_unit),
            forces=joined(at_start["forces"][atoms].astype(float) * force_unit, forces * force_unit),
            atomic_numbers=start.start.numbers,
            masses=start.start.get_masses(),
            cell=start.start.cell.array,
            pbc=start.start.pbc,
            mobile=mobile_of(start.start),
        )


class ReadsSimulations(Protocol):
    """A file with simulations, such as `SimulationFile`."""

    @property
    def path(self) -> Path:
        """The file."""

    def read(self, starts: Mapping[int, Continuation]) -> Iterator[SimulatedTrajectory]:
        """Simulations from start frames, by the index of the molecule in the file."""


@dataclass(frozen=True)
class Simulations:
    """All simulations of a model.

    Args:
        starts: all start frames.
        members: for each file, the start frames of its molecules.
        files: one for each group of start frames.
    """

    starts: Sequence[Continuation]
    members: Sequence[Sequence[int]]
    files: Sequence[ReadsSimulations]

    def of_group(self, group: int) -> Iterator[tuple[int, SimulatedTrajectory]]:
        """Start frame and simulation of each molecule of a file."""
        indices = self.members[group]
        starts = {molecule: self.starts[index] for molecule, index in enumerate(indices)}
        return zip(indices, self.files[group].read(starts), strict=True)

    def __iter__(self) -> Iterator[tuple[int, SimulatedTrajectory]]:
        """Start frame and simulation, one file after the other."""
        for group in range(len(self.members)):
            yield from self.of_group(group)
