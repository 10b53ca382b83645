"""Watching a simulation of `spkmd`: its force error along a reference trajectory, and whether it has exploded.

spkmd callbacks=[checkpoint,hdf5,tensorboard,compare,stop_exploded] callbacks.compare.data=my_aimd.db ...
"""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ase.io
import h5py
import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from hydra.utils import to_absolute_path
from schnetpack import units as spk_units
from schnetpack.md import Simulator, System
from schnetpack.md.simulation_hooks import SimulationHook

from spk_dt.data.continuation import EMBEDDED, Continuation, continuation, trajectory_database
from spk_dt.md.fixed_system import FixedSystem
from spk_dt.md.restart import release
from spk_dt.trajectories.fixed_atoms import forces_held, mobile_of

__all__ = ["ExplodedError", "ReferenceComparison", "StopExploded"]

log = logging.getLogger(__name__)

_NM_PER_ANG = spk_units.convert_units("Ang", spk_units.length)
_EV_PER_ANG = spk_units.convert_units(spk_units.force, "eV/Ang")  # of the unit of forces inside

#: how far a simulation may start from its frame, Å and Å/fs: text files round
_SAME_POSITION, _SAME_VELOCITY = 1e-3, 1e-5


class ExplodedError(RuntimeError):
    """A simulation was stopped because it has left what is reasonable."""


class ReferenceComparison(SimulationHook):
    """Compares forces with those of the trajectory that each molecule comes from, step by step, where the run is by then.

    The mean absolute error of a force component, for each element, is written to HDF5 and, as the mean over molecules, to
    TensorBoard. Step 0 is the start. The file ends where the trajectories end; the run goes on. It holds ``step`` [n],
    ``time_fs`` [n] and ``mae`` [n, n_molecules, n_elements] in eV/Å, NaN where there is nothing to compare with, and in its
    attributes the ``elements`` and the ``trajectories`` of the molecules. It can be read while the run goes on.

    Args:
        data: trajectory database, or the word ``embedded``; relative to the folder that the program was started in.
        molecule_file: file that the system was loaded from, as ``spkdt frames`` writes it: each frame tells its trajectory
            and its index there.
        filename: HDF5 file to write; when the run is restarted it goes on where the checkpoint is.
        log_file: folder for TensorBoard; None writes nothing there.
        every_n_steps: compare every so many steps.

    Raises:
        FileNotFoundError: if there is no database.
        ValueError: if the origin of a frame is not known or not in the data, or, once the run starts, if it does not start
            there: other atoms, another time step, other positions or velocities, several replicas.
    """

    def __init__(
        self,
        data: str,
        molecule_file: str,
        filename: str = "force_error.hdf5",
        log_file: str | None = "logs",
        every_n_steps: int = 1,
    ) -> None:
        super().__init__()
        self.filename, self.log_file, self.every_n_steps = filename, log_file, every_n_steps
        self.molecule_file = to_absolute_path(str(molecule_file))
        frames = ase.io.read(self.molecule_file, index=":")
        with trajectory_database(data if data == EMBEDDED else to_absolute_path(str(data))) as database:
            self._references = [self._origin(database, i, atoms) for i, atoms in enumerate(frames)]
        self._held = [forces_held(one.forces, mobile_of(one.start)) for one in self._references]
        self._last = max(one.steps for one in self._references)
        self._elements = sorted({int(number) for one in self._references for number in one.start.numbers})
        self._file: h5py.File | None = None
        self._tensorboard: Any = None

    def on_simulation_start(self, simulator: Simulator) -> None:
        """Check that the run continues the trajectories, open the files, and compare step 0."""
        self._check(simulator)
        if simulator.step > 0 and Path(self.filename).exists():
            release(self.filename)
        self._file = h5py.File(self.filename, "w" if simulator.step == 0 else "a", libver="latest")
        if "mae" in self._file:  # later steps are going to be made again
            entries = np.searchsorted(self._file["step"][:], simulator.step, side="right")
            for name in ("step", "time_fs", "mae"):
                self._file[name].resize(entries, axis=0)
        else:
            shape = (0, len(self._references), len(self._elements))
            self._file.create_dataset("step", (0,), dtype=int, maxshape=(None,), chunks=(1024,))
            self._file.create_dataset("time_fs", (0,), maxshape=(None,), chunks=(1024,))
            self._file.create_dataset("mae", shape, dtype=float, maxshape=(None, *shape[1:]), chunks=(64, *shape[1:]))
            self._file.attrs["elements"] = [chemical_symbols[number] for number in self._elements]
            self._file.attrs["trajectories"] = [one.trajectory for one in self._references]
        self._file.swmr_mode = True
        if self.log_file is not None:
            from tensorboardX import SummaryWriter

            self._tensorboard = SummaryWriter(self.log_file)
        if simulator.step == 0:
            self._compare(simulator, 0)

    def on_step_finalize(self, simulator: Simulator) -> None:
        """Compare the state after a step."""
        step = simulator.step + 1  # the simulator counts after its hooks
        there = any(step % one.inner_steps == 0 for one in self._references)
        if there and step % self.every_n_steps == 0 and step <= self._last:
            self._compare(simulator, step)
        if step == self._last:
            log.info(f"The reference trajectories end at step {step}; from here on there is nothing to compare with.")

    def on_simulation_end(self, simulator: Simulator) -> None:
        """Close the files."""
        if self._file is not None:
            self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _compare(self, simulator: Simulator, step: int) -> None:
        """Write the error at a step, for molecules whose trajectory has a frame there."""
        sizes = simulator.system.n_atoms.tolist()
        forces = (simulator.system.forces[0] * _EV_PER_ANG).split(sizes)
        time_fs = step * simulator.integrator.time_step / spk_units.fs
        mae = np.full((len(self._references), len(self._elements)), np.nan)
        for molecule, (own, reference) in enumerate(zip(forces, self._references, strict=True)):
            if step > reference.steps or step % reference.inner_steps:
                continue
            errors = np.abs(own.detach().cpu().numpy() - reference.forces[step // reference.inner_steps])
            for column, number in enumerate(self._elements):
                counted = self._held[molecule] & (reference.start.numbers == number)[:, None]
                if counted.any():
                    mae[molecule, column] = errors[counted].mean()
        assert self._file is not None  # open while the simulation runs
        n_entries = len(self._file["step"])
        for name, value in (("step", step), ("time_fs", time_fs), ("mae", mae)):
            self._file[name].resize(n_entries + 1, axis=0)
            self._file[name][n_entries] = value
            self._file[name].flush()
        if self._tensorboard is not None:
            for number, values in zip(self._elements, mae.T, strict=True):
                if np.isfinite(values).any():
                    self._tensorboard.add_scalar(f"force_error/{chemical_symbols[number]}", np.nanmean(values), step)

    def _origin(self, database: Path, index: int, atoms: Atoms) -> Continuation:
        """What the data say of a frame of the molecule file."""
        try:
            trajectory, frame = str(atoms.info["trajectory"]), int(atoms.info["frame"])
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"frame {index} of '{self.molecule_file}' does not say which trajectory it comes from (info 'trajectory' "
                "and 'frame'), so there is nothing to compare with. Write it with: spkdt frames."
            ) from error
        return continuation(database, trajectory, frame)

    def _check(self, simulator: Simulator) -> None:
        """Refuse a run that does not continue the trajectories."""
        system, where = simulator.system, f"'{self.molecule_file}'"
        numbers = np.concatenate([one.start.numbers for one in self._references])
        if system.n_replicas != 1:
            raise ValueError(f"callbacks.compare: a run with {system.n_replicas} replicas follows no trajectory.")
        if not np.array_equal(numbers, system.atom_types.cpu().numpy()):
            raise ValueError(f"callbacks.compare: the trajectories named in {where} have other atoms than the system.")
        timestep_fs = simulator.integrator.time_step / spk_units.fs
        for one in self._references:
            if abs(one.timestep_fs - timestep_fs) > 1e-6 * one.timestep_fs:
                raise ValueError(
                    f"callbacks.compare: the run has a time step of {timestep_fs:g} fs, trajectory '{one.trajectory}' one "
                    f"of {one.timestep_fs:g} fs; set dynamics.integrator.time_step={one.timestep_fs:g}."
                )
        if simulator.step == 0:
            self._check_start(system)

    def _check_start(self, system: System) -> None:
        """Refuse a run that starts elsewhere than the trajectories do."""
        positions = np.concatenate([one.start.positions for one in self._references])
        velocities = np.concatenate([one.start.get_velocities() for one in self._references]) * ase.units.fs
        own_positions = system.positions[0].cpu().numpy() / _NM_PER_ANG
        own_velocities = system.velocities[0].cpu().numpy() / _NM_PER_ANG * spk_units.fs
        apart = np.abs(own_positions - positions).max()
        faster = np.abs(own_velocities - velocities).max()
        if apart > _SAME_POSITION or faster > _SAME_VELOCITY:
            raise ValueError(
                f"callbacks.compare: the run does not start at the frames of its trajectories (atoms are up to {apart:.3g} "
                f"Å and {faster:.3g} Å/fs off). Use system/initializer=frames, without moving or removing anything."
            )


class StopExploded(SimulationHook):
    """Stops a run that has exploded; what came before is kept.

    Looked at before each step, so nothing unreasonable is moved or stored, and once the new forces are there. All hooks are
    told that the simulation has ended, so that they write what they have; then an error ends the program. The checkpoint
    holds the last good state.

    Args:
        max_displacement: longest reasonable step of an atom, in Å; None does not look. At 300 K and 0.5 fs hydrogen moves
            about 0.02 Å.
        max_temperature: highest reasonable temperature of a molecule, in K; None does not look.

    Raises:
        ExplodedError: in a step, with molecule, step and time.
    """

    def __init__(self, max_displacement: float | None = 0.5, max_temperature: float | None = 1e5) -> None:
        super().__init__()
        self.max_displacement, self.max_temperature = max_displacement, max_temperature
        self._before: dict[str, torch.Tensor] = {}

    def on_step_begin(self, simulator: Simulator) -> None:
        """Look at the state, and at the step that velocity Verlet is going to make from it."""
        system, time_step = simulator.system, simulator.integrator.time_step
        self._look_at_forces(simulator)
        move = time_step * (system.momenta + 0.5 * time_step * system.forces) / system.masses
        if isinstance(system, FixedSystem):
            move = torch.where(system.mobile, move, torch.zeros_like(move))
        length = torch.linalg.vector_norm(move, dim=-1).amax(dim=0) / _NM_PER_ANG
        limit = torch.inf if self.max_displacement is None else self.max_displacement
        atom = int(length.argmax())  # torch takes what is not a number for the largest
        if not (bool(length[atom].isfinite()) and float(length[atom]) <= limit):
            what = f"{_name(system, atom)} would move {float(length[atom]):.3g} Å in one step (limit {limit:g})"
            self._stop(simulator, int(system.index_m[atom]), what)
        if self.max_temperature is not None:
            kelvin = system.centroid_temperature.flatten()
            molecule = int(kelvin.argmax())
            if not float(kelvin[molecule]) <= self.max_temperature:
                what = f"it is at {float(kelvin[molecule]):.3g} K (limit {self.max_temperature:g})"
                self._stop(simulator, molecule, what)
        self._before = {key: getattr(system, key).clone() for key in ("positions", "momenta", "forces", "energy")}

    def on_step_middle(self, simulator: Simulator) -> None:
        """Look at the new forces; if they are none, the state before the step comes back."""
        self._look_at_forces(simulator)

    def _look_at_forces(self, simulator: Simulator) -> None:
        """Stop if a force is not finite."""
        finite = simulator.system.forces.isfinite().all(dim=-1).all(dim=0)
        if bool(finite.all()):
            return
        atom = int((~finite).nonzero()[0])
        for key, value in self._before.items():
            setattr(simulator.system, key, value)
        what = f"the force on {_name(simulator.system, atom)} is not finite"
        self._stop(simulator, int(simulator.system.index_m[atom]), what)

    def _stop(self, simulator: Simulator, molecule: int, what: str) -> None:
        """Tell all hooks that the simulation has ended, and end the program."""
        time_fs = simulator.step * simulator.integrator.time_step / spk_units.fs
        with ExitStack() as stack:  # calls them all, even if one of them fails
            for hook in reversed(simulator.simulator_hooks):
                stack.callback(hook.on_simulation_end, simulator)
            raise ExplodedError(
                f"molecule {molecule} has exploded in step {simulator.step + 1}, after {time_fs:g} fs: {what}. Everything "
                f"up to step {simulator.step} is kept. A shorter time step, a better model or another start may help."
            )


def _name(system: System, atom: int) -> str:
    """An atom of the batch, counted within its molecule: ``atom 2 (H)``."""
    first = int((system.index_m < system.index_m[atom]).sum())
    return f"atom {atom - first} ({chemical_symbols[int(system.atom_types[atom])]})"
