"""Frames of simulations by ASE, with what a calculator gives at each."""

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.md import MolecularDynamics

from spk_dt.evaluation.simulated_trajectory import SimulatedTrajectory
from spk_dt.trajectories.fixed_atoms import mobile_of


def warm(atoms: Atoms, kelvin: float, seed: int) -> None:
    """Draw velocities at a temperature."""
    spread = np.sqrt(ase.units.kB * kelvin / atoms.get_masses())[:, None]
    atoms.set_velocities(spread * np.random.default_rng(seed).standard_normal((len(atoms), 3)))


def recorded(
    dynamics: MolecularDynamics, steps: int, every: int = 1, stress: bool = False, masked: bool = True
) -> list[Atoms]:
    """The first frame and `steps` others, each with energy and forces, and with their stress if wanted.

    Constraints that hold atoms fixed set forces to zero if these are `masked`, as in most programs.
    """
    atoms, frames = dynamics.atoms, []
    for step in range(steps + 1):
        if step > 0:
            dynamics.run(every)
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(apply_constraint=masked)}
        results |= {"stress": atoms.get_stress()} if stress else {}
        frames.append(atoms.copy())
        frames[-1].calc = SinglePointCalculator(frames[-1], **results)
    return frames


def simulated_trajectory(frames: list[Atoms], timestep_fs: float) -> SimulatedTrajectory:
    """What an evaluation judges, of frames with velocities, energy and forces."""
    return SimulatedTrajectory(
        step=np.arange(len(frames)),
        time_fs=timestep_fs * np.arange(len(frames)),
        positions=np.array([atoms.positions for atoms in frames]),
        velocities=np.array([atoms.get_velocities() for atoms in frames]) * ase.units.fs,
        potential_energy=np.array([atoms.get_potential_energy() for atoms in frames]),
        forces=np.array([atoms.get_forces(apply_constraint=False) for atoms in frames]),
        atomic_numbers=frames[0].numbers,
        masses=frames[0].get_masses(),
        cell=frames[0].cell.array,
        pbc=frames[0].pbc,
        mobile=mobile_of(frames[0]),
    )
