"""Trajectories of a small crystal with the stress of the reference."""

import ase.units
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet

from helpers.simulated import recorded, warm
from spk_dt.data import TrajectoryWriter


def copper(a=3.6, symbols="Cu3Pd"):
    """Four atoms in a sheared cell."""
    atoms = bulk("Cu", cubic=True, a=a)
    atoms.symbols = symbols
    atoms.set_cell(atoms.cell.array @ [[1.0, 0.03, 0.0], [0.0, 1.01, 0.04], [0.0, 0.0, 0.98]], scale_atoms=True)
    return atoms


def trajectory(atoms: Atoms, steps=12, timestep_fs=2.0, seed=0, kelvin=600.0, calculator=None):
    """Frames at constant energy with energy, forces and stress."""
    atoms = atoms.copy()
    atoms.calc = EMT() if calculator is None else calculator
    warm(atoms, kelvin, seed)
    return recorded(VelocityVerlet(atoms, timestep_fs * ase.units.fs), steps, stress=True)


def write(path, trajectories, timestep_fs=2.0, **kwargs):
    """A database of them; the first for validation, the second for tests, the others for training."""
    names = [f"run_{i}" for i in range(len(trajectories))]
    splits = {"val": names[:1], "test": names[1:2], "train": names[2:]}
    with TrajectoryWriter(path, splits=splits, **kwargs) as writer:
        for name, frames in zip(names, trajectories, strict=True):
            writer.add(name, frames, timestep_fs)
    return path


def emt_database(path):
    """Four trajectories of cells of other volumes."""
    return write(path, [trajectory(copper(a), seed=i) for i, a in enumerate((3.60, 3.66, 3.54, 3.68))])
