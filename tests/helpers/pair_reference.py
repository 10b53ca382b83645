"""The Lennard-Jones potential of `helpers.pair_potential` as reference methods, whose processes need nothing but ASE."""

from ase.calculators.lj import LennardJones

SIGMA, EPSILON, CUTOFF = 2.3, 0.15, 6.0  # Å, eV, Å

#: eV an atom, of another code
ZERO = {1: -13.25, 46: 431.5}


class Reference(LennardJones):
    """The potential as a calculator by import path, ``helpers.pair_reference:Reference``."""

    def __init__(self):
        super().__init__(sigma=SIGMA, epsilon=EPSILON, rc=CUTOFF)


class Deeper(Reference):
    """A neighbouring method: forces that are five per cent larger."""

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        self.results["forces"] = 1.05 * self.results["forces"]


class OfAnotherZero(Reference):
    """The potential with the zero of another code."""

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        for name in ("energy", "free_energy"):
            self.results[name] += sum(ZERO[z] for z in self.atoms.numbers)


class OfAnotherCommonZero(Reference):
    """The potential with 7 eV more for each atom."""

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        for name in ("energy", "free_energy"):
            self.results[name] += 7.0 * len(self.atoms)
