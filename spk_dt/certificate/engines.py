"""What runs the simulations of a certificate: a stored SchNetPack model, or any ASE calculator in its place."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import ase.units
import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet
from schnetpack import properties
from schnetpack import units as spk_units
from schnetpack.md import Simulator
from schnetpack.md.simulation_hooks import LangevinThermostat, SimulationHook

from spk_dt.certificate.novelty import NOVELTY, Environments
from spk_dt.labels.calculator import reference_calculator
from spk_dt.labels.unit_check import Unit
from spk_dt.md import MAX_DISPLACEMENT, FreezingVerlet, ModelCalculator, system_of
from spk_dt.models import load_model
from spk_dt.units import conversion

__all__ = ["AseEngine", "Engine", "ModelEngine", "ModelOptions", "Motion"]

#: atoms of frames that are made known at once
_AT_ONCE = 1000


class Motion(NamedTuple):
    """How far, and in which ensemble.

    Args:
        n_steps: number of steps.
        timestep_fs: time step, fs.
        temperature: of a Langevin thermostat, K; None keeps the energy constant.
        friction: of the thermostat, 1/fs.
        seed: of the random forces of the thermostat.
    """

    n_steps: int
    timestep_fs: float
    temperature: float | None
    friction: float
    seed: int


class Engine(ABC):
    """Energies, forces and simulations of a potential, of many systems at once."""

    @abstractmethod
    def evaluated(self, frames: Sequence[Atoms]) -> list[Atoms]:
        """The frames with energy (eV) and forces (eV/Å) of the potential in double precision, and their momenta."""

    @abstractmethod
    def moved(self, frames: Sequence[Atoms], motion: Motion) -> tuple[list[Atoms], list[int]]:
        """Simulate from frames with momenta.

        Returns:
            the last states, with momenta; and for each frame the first step that could not be made because an atom would
            have moved further than `spk_dt.md.MAX_DISPLACEMENT`, -1 if there was none. Where there was one, the state is the
            last one before.
        """


class ModelOptions(TypedDict, total=False):
    """Arguments of `ModelEngine` beside the model."""

    energy_unit: Unit
    position_unit: Unit
    precision: int
    compile: bool
    device: str


class ModelEngine(Engine):
    """A stored SchNetPack model, all systems side by side in SchNetPack's molecular dynamics.

    Once it knows frames (`know`), states that are evaluated have their ``novelty`` beside these in `Atoms.info`, that of
    the newest environment of an atom (`spk_dt.certificate.novelty`), if the representation of the model has scalar features.

    Args:
        file: the model.
        energy_unit: unit of its energies.
        position_unit: its unit of length.
        precision: bits of the floating-point numbers in simulations, 32 or 64.
        compile: compile energy and forces (`spk_dt.dynamics.CompiledPotential`).
        device: where to compute.
        known: frames for `know`.
    """

    def __init__(
        self,
        file: str | Path,
        energy_unit: Unit = "eV",
        position_unit: Unit = "Angstrom",
        precision: int = 32,
        compile: bool = True,
        device: str = "cpu",
        known: Sequence[Atoms] = (),
    ) -> None:
        self._exact = ModelCalculator(file, energy_unit, position_unit)
        self._fast = self._calculator(file, energy_unit, position_unit, compile)
        self._dtype = getattr(torch, f"float{precision}")
        self._device = device
        self._energy_unit = conversion(energy_unit, "eV", "energy")
        self._force_unit = self._energy_unit / conversion(position_unit, "Ang", "length")
        self._known: Environments | None = None
        self._features: np.ndarray | None = None  # [n_atoms, n_features] of the frames that were evaluated last
        if isinstance(representation := getattr(self._exact.model, "representation", None), torch.nn.Module):
            representation.register_forward_hook(self._keep_features)
        if known:
            self.know(known)

    def _calculator(self, file: str | Path, energy_unit: Unit, position_unit: Unit, compile: bool) -> ModelCalculator:
        """What simulates."""
        return ModelCalculator(file, energy_unit, position_unit, compile)

    def load(self, file: str | Path) -> None:
        """Take the weights of another model of the same make; what is compiled need not be compiled again."""
        weights = load_model(file).state_dict()
        for calculator in (self._exact, self._fast):
            calculator.model.load_state_dict(weights)

    def know(self, frames: Sequence[Atoms]) -> None:
        """Know the environments in these frames, and no others."""
        self._known, known = None, Environments()
        size = max(1, _AT_ONCE // max(map(len, frames), default=1))
        for first in range(0, len(frames), size):
            some = frames[first : first + size]
            ModelEngine.evaluated(self, some)  # not the committee of a subclass
            if self._features is None:
                return
            known.add(self._features, np.concatenate([atoms.numbers for atoms in some]))
        self._known = known

    def evaluated(self, frames: Sequence[Atoms]) -> list[Atoms]:
        """The frames with energy and forces, see `Engine`."""
        system = system_of(frames).to(self._device).to(torch.float64)
        self._exact.to(self._device).to(torch.float64).calculate(system)
        energies = system.properties[properties.energy].detach().cpu().numpy().reshape(-1) * self._energy_unit
        forces = system.properties[properties.forces][0].detach().cpu().numpy() * self._force_unit
        ends = np.cumsum([len(atoms) for atoms in frames])[:-1]
        found = [
            _with_results(atoms, float(energy), force)
            for atoms, energy, force in zip(frames, energies, np.split(forces, ends), strict=True)
        ]
        if self._known is not None and self._features is not None:
            novelty = self._known.novelty(self._features, np.concatenate([atoms.numbers for atoms in frames]))
            for state, own in zip(found, np.split(novelty, ends), strict=True):
                state.info[NOVELTY] = float(own.max())
        return found

    def _keep_features(self, module: torch.nn.Module, arguments: Any, outputs: Any) -> None:
        """Of the representation, as it computes them."""
        features = outputs.get("scalar_representation") if isinstance(outputs, dict) else None
        self._features = None if features is None else features.detach().cpu().numpy()

    def moved(self, frames: Sequence[Atoms], motion: Motion) -> tuple[list[Atoms], list[int]]:
        """The last states of simulations, see `Engine`."""
        hooks: list[SimulationHook] = []
        if motion.temperature is not None:
            torch.manual_seed(motion.seed)
            hooks.append(LangevinThermostat(motion.temperature, 1.0 / motion.friction))
        system, integrator = system_of(frames), FreezingVerlet(motion.timestep_fs)
        self._fast.neighbor_list.forget()
        simulator = Simulator(system, integrator, self._fast, hooks, progress=False)
        simulator.to(self._device).to(self._dtype).simulate(motion.n_steps)
        length, time = conversion("nm", "Ang", "length"), spk_units.fs  # internal units of SchNetPack
        positions = system.positions[0].double().cpu().numpy() * length
        velocities = (system.momenta / system.masses)[0].double().cpu().numpy() * length * time
        ends = np.cumsum([len(atoms) for atoms in frames])[:-1]
        states = []
        for atoms, x, v in zip(frames, np.split(positions, ends), np.split(velocities, ends), strict=True):
            state = atoms.copy()
            state.positions = x
            state.set_velocities(v / ase.units.fs)
            states.append(state)
        return states, integrator.exploded_step.cpu().tolist()


class AseEngine(Engine):
    """Any ASE calculator in place of a model, one system after the other in ASE's molecular dynamics.

    Args:
        spec: the calculator, see `spk_dt.labels.calculator.reference_calculator`.
    """

    def __init__(self, spec: str) -> None:
        self._spec = spec

    def evaluated(self, frames: Sequence[Atoms]) -> list[Atoms]:
        """The frames with energy and forces, see `Engine`."""
        found = []
        for atoms in frames:
            at = atoms.copy()
            at.calc = self._calculator()
            found.append(_with_results(atoms, at.get_potential_energy(), at.get_forces(apply_constraint=False)))
        return found

    def moved(self, frames: Sequence[Atoms], motion: Motion) -> tuple[list[Atoms], list[int]]:
        """The last states of simulations, see `Engine`."""
        states, exploded = [], []
        for i, atoms in enumerate(frames):
            state = atoms.copy()
            state.calc = self._calculator()
            exploded.append(_run(state, motion, i))
            state.calc = None
            states.append(state)
        return states, exploded

    def _calculator(self) -> Calculator:
        return reference_calculator(self._spec)


def _run(atoms: Atoms, motion: Motion, number: int) -> int:
    """Simulate in place; the first step that could not be made, or -1."""
    step = motion.timestep_fs * ase.units.fs
    dynamics: MolecularDynamics
    if motion.temperature is None:
        dynamics = VelocityVerlet(atoms, step)
    else:
        dynamics = Langevin(
            atoms,
            step,
            temperature_K=motion.temperature,
            friction=motion.friction / ase.units.fs,
            fixcm=False,
            rng=np.random.default_rng([motion.seed, number]),
        )
    for done in range(motion.n_steps):
        before, momenta = atoms.positions.copy(), atoms.get_momenta()
        try:
            dynamics.run(1)
            moved = np.linalg.norm(atoms.positions - before, axis=1)
            fine = bool(np.isfinite(atoms.get_momenta()).all() and (moved <= MAX_DISPLACEMENT).all())
        except CalculationFailed:  # most methods do, where atoms overlap
            fine = False
        if not fine:
            atoms.positions = before
            atoms.set_momenta(momenta)
            return done + 1
    return -1


def _with_results(atoms: Atoms, energy: float, forces: np.ndarray) -> Atoms:
    found = atoms.copy()
    found.calc = SinglePointCalculator(found, energy=energy, forces=np.asarray(forces, dtype=float))
    return found
