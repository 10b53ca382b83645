"""Argon as LAMMPS has it with pair_style lj/cut 7.0 and pair_modify shift yes, as a reference method."""

from matscipy.calculators.pair_potential import LennardJonesCut, PairPotential

EPSILON, SIGMA, CUTOFF = 0.0104, 3.4, 7.0  # eV, Å


class Argon(PairPotential):
    """By import path, ``helpers.argon_reference:Argon``."""

    def __init__(self):
        super().__init__({(18, 18): LennardJonesCut(EPSILON, SIGMA, CUTOFF)})
