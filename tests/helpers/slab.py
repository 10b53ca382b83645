"""A copper slab with an oxygen atom: its lowest layer is held fixed, and of one atom above the height."""

import ase.units
import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian
from ase.md.verlet import VelocityVerlet

from helpers.simulated import recorded, warm

#: atoms of the lowest layer, and the one that moves along the surface only
LAYER, SLIDING = [0, 1, 2, 3], 4
#: [n_atoms, 3]
MOBILE = np.ones((13, 3), dtype=bool)
MOBILE[LAYER] = False
MOBILE[SLIDING, 2] = False


def slab(seed: int = 0, kelvin: float = 600.0) -> Atoms:
    """The slab in a periodic cell, with velocities of what may move."""
    atoms = fcc111("Cu", (2, 2, 3), vacuum=5.0)
    add_adsorbate(atoms, "O", 1.2, "fcc")
    atoms.info = {}
    atoms.set_tags(None)
    atoms.pbc = True
    atoms.positions += 0.03 * np.random.default_rng(seed).standard_normal(atoms.positions.shape)
    atoms.positions[0] -= atoms.cell[0]  # a fixed atom in another cell
    atoms.set_constraint([FixAtoms(LAYER), FixCartesian([SLIDING], mask=(False, False, True))])
    warm(atoms, kelvin, seed)
    return atoms


def slab_frames(steps: int, timestep_fs: float = 1.0, seed: int = 0, masked: bool = False) -> list[Atoms]:
    """Frames at constant energy, by ASE; `masked` forces are those of programs that write zeros for what is fixed."""
    atoms = slab(seed)
    atoms.calc = EMT()
    return recorded(VelocityVerlet(atoms, timestep_fs * ase.units.fs), steps, masked=masked)


def without_constraints(frames: list[Atoms]) -> list[Atoms]:
    """The same frames, which do not say what is fixed."""
    bare = []
    for atoms in frames:
        bare.append(atoms.copy())
        bare[-1].set_constraint()
        bare[-1].calc = SinglePointCalculator(bare[-1], **atoms.calc.results)
    return bare
