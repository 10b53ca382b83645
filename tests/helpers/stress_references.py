"""Reference methods without a stress, and with a wrong one; their processes need nothing but ASE."""

from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT


class WithoutStress(Calculator):
    """EMT that only gives energy and forces, as most programs do unless they are told otherwise."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, *args, **kwargs):
        super().calculate(atoms, *args, **kwargs)
        bare = atoms.copy()
        bare.calc = EMT()
        self.results = {"energy": bare.get_potential_energy(), "forces": bare.get_forces()}


class WrongSign(EMT):
    """A pressure for a stress."""

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        self.results["stress"] = -self.results["stress"]
