"""Simulations of one model from many start frames at once, with SchNetPack's molecular dynamics.

Start frames with the same time step, and a cell or none, are one group, and one simulation: each start frame is a molecule
of its own in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory

import ase.io
import h5py
import numpy as np
import torch
from schnetpack import properties
from schnetpack.atomistic import Forces
from schnetpack.md import Simulator, System
from schnetpack.md.calculators import SchNetPackCalculator
from schnetpack.md.integrators import VelocityVerlet
from schnetpack.md.simulation_hooks import FileLogger, LangevinThermostat, PropertyStream, SimulationHook

from spk_dt.data.continuation import Continuation
from spk_dt.dynamics import CompiledPotential, ExplosionGuard
from spk_dt.labels.unit_check import Unit
from spk_dt.md import FramesInit, MoleculeStream, VerletNeighborList

__all__ = [
    "MAX_DISPLACEMENT",
    "FreezingVerlet",
    "Group",
    "ModelCalculator",
    "Protocol",
    "forces_at_start",
    "group_starts",
    "simulate",
]

#: Å in one step; a molecule in which an atom would move further has exploded
MAX_DISPLACEMENT = 0.5

_BUFFER_BYTES = 2**26  # of the rows of a simulation that are kept in memory between writes


@dataclass(frozen=True)
class Protocol:
    """How simulations are made.

    Args:
        steps: steps of each simulation.
        every: steps from one stored state to the next; the states after the steps 1, 1 + every, ... are stored.
        temperature: of a Langevin thermostat, K; None keeps the energy constant.
        friction: of the thermostat, 1/fs.
        seed: of the random forces of the thermostat.
        device: where to compute.
        precision: bits of the floating-point numbers, 32 or 64; half as many take half the time.
        compile: compile the models, which takes a minute or so each and makes long simulations about twice as fast.
        progress: show bars.

    Raises:
        ValueError: if a value makes no sense, or the device is not there.
    """

    steps: int = 300
    every: int = 1
    temperature: float | None = None
    friction: float = 0.01
    seed: int = 0
    device: str = "cpu"
    precision: int = 64
    compile: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        if self.steps < 1 or self.every < 1:
            raise ValueError(f"steps={self.steps} and every={self.every} must be positive.")
        if self.precision not in (32, 64):
            raise ValueError(f"precision={self.precision}: floating-point numbers have 32 or 64 bits.")
        if self.temperature is not None and not 0.0 <= self.temperature < inf:
            raise ValueError(f"temperature={self.temperature} K must not be negative.")
        if not 0.0 < self.friction < inf:
            raise ValueError(f"friction={self.friction} per fs must be positive; without a thermostat leave it out.")
        try:
            torch.zeros(1, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device '{self.device}' cannot be used: {str(error).splitlines()[0]}") from error


@dataclass(frozen=True)
class Group:
    """Start frames that are simulated together.

    Args:
        members: indices of the start frames among all; their order is that of the molecules.
        timestep_fs: time step, in fs.
    """

    members: tuple[int, ...]
    timestep_fs: float


def group_starts(starts: Sequence[Continuation]) -> list[Group]:
    """Groups of start frames, in the order of their first members.

    Frames with and without a cell are apart because SchNetPack stores cells only if all molecules have one.
    """
    members: dict[tuple[float, bool], list[int]] = {}
    for index, one in enumerate(starts):
        members.setdefault((one.timestep_fs, one.start.cell.rank == 3), []).append(index)
    return [Group(tuple(indices), timestep_fs) for (timestep_fs, _), indices in members.items()]


class ModelCalculator(SchNetPackCalculator):
    """SchNetPack's calculator with our neighbour list; it asks the model how it calls its energy and forces.

    In ``system.properties`` they are ``energy`` and ``forces``, in the unit of the model.

    Args:
        model_file: stored SchNetPack model.
        energy_unit: unit of the energies of the model.
        position_unit: unit of the positions that the model takes.
        compile: compile energy and forces into one function (`spk_dt.dynamics.CompiledPotential`).
    """

    def __init__(self, model_file: str | Path, energy_unit: Unit, position_unit: Unit, compile: bool = False) -> None:
        neighbors = VerletNeighborList(model_file=str(model_file))
        energy_key, force_key = _output_keys(torch.load(model_file, map_location="cpu", weights_only=False))
        super().__init__(str(model_file), force_key, energy_unit, position_unit, neighbors, energy_key=energy_key)
        self._compiled = CompiledPotential(self.model) if compile else None

    def calculate(self, system: System) -> None:
        """Energy and forces of the system."""
        if self._compiled is None:
            super().calculate(system)
            return
        self.results = self._compiled(self._generate_input(system))
        self._update_system(system)

    def _update_system(self, system: System) -> None:
        super()._update_system(system)
        system.properties[properties.energy] = system.properties[self.energy_key]
        system.properties[properties.forces] = system.properties[self.force_key]


def _output_keys(model: torch.nn.Module) -> tuple[str, str]:
    """How a model calls its energy and its forces."""
    for module in getattr(model, "output_modules", []):
        if isinstance(module, Forces):
            return module.energy_key, module.force_key
    return properties.energy, properties.forces


class FreezingVerlet(VelocityVerlet):
    """Velocity Verlet that freezes molecules which explode, so that the others go on.

    A molecule in which an atom would move further than a limit in one step, or not to a number, stays where it is, without
    momentum. What it was before is not touched: the states before `exploded_step` are good.

    Args:
        time_step: time step in fs.
        max_displacement: longest reasonable step of an atom, in Å.
    """

    def __init__(self, time_step: float, max_displacement: float = MAX_DISPLACEMENT) -> None:
        super().__init__(time_step)
        self.max_displacement = max_displacement
        self._guard: ExplosionGuard | None = None
        self._step = 0
        #: [n_molecules] first step that was not made, -1 for molecules that have not exploded
        self.exploded_step: torch.Tensor | None = None

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


class _StartState(SimulationHook):
    """Keeps what the calculator gave for the start frames, which the file of a simulation does not hold."""

    def on_simulation_start(self, simulator: Simulator) -> None:
        self.values = {
            key: simulator.system.properties[key][0].detach().cpu().numpy()
            for key in (properties.energy, properties.forces)
        }


def simulate(
    calculator: ModelCalculator, starts: Sequence[Continuation], group: Group, file: Path, protocol: Protocol
) -> np.ndarray:
    """Simulate a group of start frames.

    Args:
        calculator: the model; a new one for each simulation, since its neighbour list serves one batch.
        starts: all start frames.
        group: those of this simulation.
        file: HDF5 file to write, for `schnetpack.md.data.HDF5Loader`. Its entries are the states after the steps 1,
            1 + every, ...; in a further group ``start`` are ``energy`` [n_molecules] and ``forces`` [n_atoms, 3] of the
            start frames, and in the attribute ``exploded_step`` what is returned.
        protocol: how.

    Returns:
        [n_molecules] first step that a molecule could not make since it has exploded, -1 for those that have not.
    """
    system = _system(starts, group)
    width = 8 * (6 * system.total_n_atoms + 19 * system.n_molecules)
    logger = FileLogger(
        str(file),
        buffer_size=int(max(1, min(100, 1 + (protocol.steps - 1) // protocol.every, _BUFFER_BYTES // width))),
        data_streams=[MoleculeStream(store_velocities=True), PropertyStream([properties.energy, properties.forces])],
        every_n_steps=protocol.every,
        precision=64,
    )
    integrator, start = FreezingVerlet(group.timestep_fs), _StartState()
    hooks: list[SimulationHook] = [start, logger]
    if protocol.temperature is not None:
        torch.manual_seed(protocol.seed)
        hooks.insert(0, LangevinThermostat(protocol.temperature, 1.0 / protocol.friction))
    simulator = Simulator(system, integrator, calculator, hooks, progress=protocol.progress)
    simulator.to(protocol.device).to(getattr(torch, f"float{protocol.precision}")).simulate(protocol.steps)
    exploded = integrator.exploded_step.cpu().numpy()
    with h5py.File(file, "a") as database:
        database.attrs["exploded_step"] = exploded
        for key, value in start.values.items():
            database[f"start/{key}"] = value
    return exploded


def forces_at_start(
    model_file: str | Path,
    position_unit: Unit,
    starts: Sequence[Continuation],
    groups: Sequence[Group],
    device: str = "cpu",
) -> np.ndarray:
    """Forces of a model at all start frames.

    Args:
        model_file: stored SchNetPack model.
        position_unit: unit of the positions that it is given.
        starts: all start frames.
        groups: which of them are computed together.
        device: where to compute.

    Returns:
        [n_atoms of all start frames, 3] in the unit of the model, in the order of `starts`.
    """
    found: dict[int, np.ndarray] = {}
    for group in groups:
        calculator = ModelCalculator(model_file, "eV", position_unit).to(device)  # a neighbour list serves one batch
        system = _system(starts, group).to(device).to(torch.float64)
        calculator.calculate(system)
        forces = system.properties[properties.forces][0].detach().cpu().numpy()
        found.update(zip(group.members, np.split(forces, np.cumsum(system.n_atoms.cpu().numpy())[:-1]), strict=True))
    return np.concatenate([found[index] for index in range(len(starts))])


def _system(starts: Sequence[Continuation], group: Group) -> System:
    """SchNetPack's system of the start frames of a group, with their velocities."""
    frames = [starts[index].start for index in group.members]
    system = System()
    system.load_molecules(frames)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "start.traj"
        ase.io.write(file, frames)
        FramesInit(file).initialize_system(system)
    return system
