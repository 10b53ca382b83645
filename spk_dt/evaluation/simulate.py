"""Simulations of one model from many start frames at once, with SchNetPack's molecular dynamics.

Start frames with the same time step, and a cell or none, are one group, and one simulation: each start frame is a molecule
of its own in it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from platform import processor
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from schnetpack.md import Simulator, System
from schnetpack.md.simulation_hooks import LangevinThermostat, SimulationHook

from spk_dt.data.continuation import Continuation
from spk_dt.evaluation.simulation_file import SimulationLogger
from spk_dt.labels.unit_check import Unit
from spk_dt.md import FreezingVerlet, ModelCalculator, system_of
from spk_dt.units import conversion

__all__ = ["Group", "Protocol", "group_starts", "simulate", "stress_at_start"]


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


class Clock(SimulationHook):
    """Measures the time of steps, without the first one, which may compile, and tells how many are done.

    Args:
        progress: called after each step with the number of those that are done.
    """

    def __init__(self, progress: Callable[[int], None]) -> None:
        super().__init__()
        self._progress = progress
        self._first = self._last = 0.0
        self._steps = 0

    @property
    def seconds_per_step(self) -> float | None:
        """Mean over the steps after the first; None if there was but one."""
        return (self._last - self._first) / (self._steps - 1) if self._steps > 1 else None

    def on_step_finalize(self, simulator: Simulator) -> None:
        """After each step."""
        self._steps += 1
        if self._steps == 1:
            self._first = self._now()
        self._progress(self._steps)

    def on_simulation_end(self, simulator: Simulator) -> None:
        """After the last step."""
        self._last = self._now()

    def _now(self) -> float:
        """Seconds, when what was asked of a GPU is done."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return perf_counter()


class Speed(NamedTuple):
    """How fast a group of simulations was.

    Args:
        protocol: how they were made.
        group: how many, with which time step.
        seconds_per_step: of all of them together; None if it is not known.
    """

    protocol: Protocol
    group: Group
    seconds_per_step: float | None

    def as_dict(self) -> dict[str, Any]:
        """For ``metrics.json``: ns of each simulation, and of all side by side, in a day, and what was measured on."""
        n_systems, seconds = len(self.group.members), self.seconds_per_step
        each = None if seconds is None else 1e-6 * self.group.timestep_fs * 86400.0 / seconds
        device = torch.device(self.protocol.device)
        return {
            "ns_per_day": each,
            "ns_per_day_of_all": None if each is None else n_systems * each,
            "systems_side_by_side": n_systems,
            "timestep_fs": self.group.timestep_fs,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor() or device.type,
            "threads": torch.get_num_threads() if device.type == "cpu" else None,
            "precision_bits": self.protocol.precision,
            "compiled": self.protocol.compile,
        }


def group_starts(starts: Sequence[Continuation]) -> list[Group]:
    """Groups of start frames, in the order of their first members.

    Frames with and without a cell are apart because SchNetPack stores cells only if all molecules have one.
    """
    members: dict[tuple[float, bool], list[int]] = {}
    for index, one in enumerate(starts):
        members.setdefault((one.timestep_fs, one.start.cell.rank == 3), []).append(index)
    return [Group(tuple(indices), timestep_fs) for (timestep_fs, _), indices in members.items()]


def simulate(
    calculator: ModelCalculator,
    starts: Sequence[Continuation],
    group: Group,
    file: Path,
    protocol: Protocol,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[np.ndarray, Speed]:
    """Simulate a group of start frames.

    Args:
        calculator: the model; a new one for each simulation, since its neighbour list serves one batch.
        starts: all start frames.
        group: those of this simulation.
        file: HDF5 file to write, see `spk_dt.evaluation.simulation_file`.
        protocol: how.
        progress: called after each step with the number of those that are done.

    Returns:
        [n_molecules] first step that a molecule could not make since it has exploded, -1 for those that have not; and how
        fast it was.
    """
    system = _system(starts, group)
    clock = Clock(progress)
    hooks: list[SimulationHook] = [clock, SimulationLogger(file, system, protocol.steps, protocol.every)]
    if protocol.temperature is not None:
        torch.manual_seed(protocol.seed)
        hooks.insert(0, LangevinThermostat(protocol.temperature, 1.0 / protocol.friction))
    integrator = FreezingVerlet(group.timestep_fs)
    simulator = Simulator(system, integrator, calculator, hooks, progress=False)
    simulator.to(protocol.device).to(getattr(torch, f"float{protocol.precision}")).simulate(protocol.steps)
    speed = Speed(protocol, group, clock.seconds_per_step)
    return integrator.exploded_step.cpu().numpy(), speed


def stress_at_start(
    model_file: str | Path,
    units: tuple[Unit, Unit],
    starts: Sequence[Continuation],
    groups: Sequence[Group],
    device: str = "cpu",
) -> np.ndarray:
    """Stress of a model that predicts it at all start frames.

    Args:
        model_file: stored SchNetPack model.
        units: of its energies and positions.
        starts: all start frames.
        groups: which of them are computed together.
        device: where to compute.

    Returns:
        [n_starts, 3, 3] eV/Å^3 with the sign of ASE, in the order of `starts`.
    """
    found = np.empty((len(starts), 3, 3))
    to_ase = conversion("kJ / mol", "eV", "energy") / conversion("nm", "Ang", "length") ** 3
    for group in groups:
        calculator = ModelCalculator(model_file, *units).to(device)  # its list serves one batch
        system = _system(starts, group).to(device).to(torch.float64)
        calculator.calculate(system)
        found[list(group.members)] = system.stress[0].detach().cpu().numpy() * to_ase
    return found


def _system(starts: Sequence[Continuation], group: Group) -> System:
    """SchNetPack's system of the start frames of a group, with their velocities."""
    return system_of([starts[index].start for index in group.members])
