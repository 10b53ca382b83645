"""Light calculators for tests of `spkdt generate`, whose processes need nothing but ASE, and structures for them."""

import os
import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.constraints import FixAtoms, FixCartesian
from ase.db import connect

from spk_dt.labels.calculator import reference_factory
from spk_dt.labels.reference_process import Computed, NoLabelError, ReferenceProcess
from spk_dt.labels.reference_worker import _computed

#: distance of sites, Å, and spring constant, eV/Å²
SPACING, STIFFNESS = 3.0, 2.0


def name(calculator: type) -> str:
    """The calculator as `--reference` has it."""
    return f"helpers.generation:{calculator.__name__}"


class Sites(Calculator):
    """Each atom on a spring to the nearest site of a cubic lattice."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=(), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        away = atoms.positions - SPACING * np.round(atoms.positions / SPACING)
        self.results = {"energy": 0.5 * STIFFNESS * (away**2).sum(), "forces": -STIFFNESS * away}


class WithoutTorch(Sites):
    """Fails in a process that has loaded torch."""

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        if "torch" in sys.modules:
            raise RuntimeError("the process has loaded torch")


class Fragile(Sites):
    """Fails at its fifth geometry of the formula that the file FRAGILE names."""

    calls = 0

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        self.calls += 1
        file = Path(os.environ["FRAGILE"])
        if self.calls == 5 and file.exists() and self.atoms.get_chemical_formula() == file.read_text():
            raise RuntimeError("SCF not converged")


class Generous(Sites):
    """All results that a database keeps; another energy for each charge and multiplicity, as ASE's calculators find them."""

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        number, charges = len(self.atoms), self.atoms.get_initial_charges()
        self.results["energy"] += 100.0 * charges.sum() + self.atoms.get_initial_magnetic_moments().sum()
        self.results |= {"stress": 0.1 * np.arange(6), "dipole": self.atoms.positions.sum(axis=0)}
        self.results |= {"charges": charges, "magmoms": np.linspace(0, 1, number)}


class Odd(Sites):
    """Results beside energy and forces that are none."""

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        number = len(self.atoms)
        self.results |= {"stress": np.zeros(5), "dipole": None, "charges": ["much"] * number}
        self.results |= {"magmoms": np.full(number, np.nan)}


class Pushed(Sites):
    """Forces that are not those of the energy: one atom is pushed."""

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        self.results["forces"][0, 0] += float(os.environ["PUSH"])


class InThisProcess(ReferenceProcess):
    """Computes here, for tests of what has nothing to do with processes: to start one takes a second."""

    def describe(self):
        return {"calculator": self.reference}

    def compute(self, atoms, fresh=True, stress=False):
        if fresh:
            self.calculator = reference_factory(self.reference)()
        try:
            answer = _computed(atoms.copy(), self.calculator, Path("no folder"), stress)
        except RuntimeError as error:
            raise NoLabelError(f"RuntimeError: {error}") from error
        return Computed(**answer)


def compute_here(monkeypatch) -> None:
    """Let all calculations of `spkdt generate` be done in this process."""
    for module in ("reference_process", "relabel"):
        monkeypatch.setattr(f"spk_dt.labels.{module}.ReferenceProcess", InThisProcess)


def crystal(symbols: str = "Ar8", fixed: bool = True) -> Atoms:
    """Atoms on sites in a periodic cell, near which they move; the first two are fixed, the third slides."""
    atoms = Atoms(symbols)
    atoms.positions = SPACING * np.array(list(np.ndindex(2, 2, 2)))[: len(atoms)] + 0.05
    if fixed:
        atoms.cell, atoms.pbc = [2.0 * SPACING] * 3, True
        atoms.set_constraint([FixAtoms([0, 1]), FixCartesian([2], mask=(False, False, True))])
    return atoms


def columns(path: Path) -> dict[str, np.ndarray]:
    """[n_frames, ...] all that the frames of a database of one system have."""
    rows = list(connect(path).select(sort="id"))
    keys = rows[0].data.keys()
    return {"positions": np.array([row.positions for row in rows])} | {
        key: np.array([row.data[key] for row in rows]) for key in keys
    }


def assert_equal(one: Path, other: Path) -> None:
    """That frames, constraints and metadata are the same to the last bit, and that something was compared."""
    first, second = list(connect(one).select(sort="id")), list(connect(other).select(sort="id"))
    assert len(first) == len(second) > 1
    for a, b in zip(first, second, strict=True):
        assert a.data.keys() == b.data.keys() >= {"energy", "forces", "velocities"}
        for key in a.data:
            assert np.array_equal(a.data[key], b.data[key]), key
        for key in ("numbers", "positions", "cell", "pbc"):
            assert np.array_equal(a[key], b[key]), key
        assert str(a.toatoms().constraints) == str(b.toatoms().constraints)
        assert np.array_equal(a.toatoms().get_masses(), b.toatoms().get_masses())
    assert connect(one).metadata == connect(other).metadata
