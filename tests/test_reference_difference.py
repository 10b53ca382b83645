"""What a difference between a reference method and data looks like: each likely reason, and the nearest case without it."""

import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.pair_potential import tetrahedron
from helpers.pair_reference import Reference

from spk_dt.labels.difference import NOISE, difference

KCAL, BOHR, HARTREE = ase.units.kcal / ase.units.mol, ase.units.Bohr, ase.units.Hartree


def labelled(atoms, energy=None, forces=None):
    """A frame with results, of the pair potential unless they are given."""
    atoms = atoms.copy()
    other = atoms.copy()
    other.calc = Reference()
    energy = other.get_potential_energy() if energy is None else energy
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=other.get_forces() if forces is None else forces)
    return atoms


def rattled(symbols, seed, pbc=False):
    atoms = tetrahedron(symbols)
    atoms.rattle(0.1, rng=np.random.default_rng(seed))
    atoms.cell, atoms.pbc = [20.0, 20.0, 20.0], pbc
    return atoms


@pytest.fixture
def frames():
    """Three frames of two compositions, with an even number of electrons."""
    return [labelled(rattled(symbols, seed)) for seed, symbols in enumerate(("Pd2H2", "Pd2H2", "Pd3C"))]


def found(frames, forces=lambda one, atoms: one, energy=lambda one, atoms: one):
    """With forces and energies of the reference method changed."""
    energies = np.array([energy(atoms.get_potential_energy(), atoms) for atoms in frames])
    return difference(frames, energies, [forces(atoms.get_forces(), atoms) for atoms in frames])


def test_the_same_method(frames):
    same = found(frames)
    assert (same.same_forces, same.reason, same.error, same.n_fixed) == (True, "", 0.0, 0)
    assert same.energy.same_zero


@pytest.mark.parametrize(("part", "same"), [(0.8, True), (1.3, False)])
def test_noise(frames, part, same):
    """Random differences below and above the threshold."""
    rng = np.random.default_rng(0)

    def noisy(forces, atoms):
        signs = rng.choice([-1.0, 1.0], forces.shape)
        return forces + part * NOISE * np.sqrt(np.mean(forces**2)) * signs

    one = found(frames[:1] * 3, noisy)
    assert one.size > 0.35
    assert one.same_forces is same
    assert one.error == pytest.approx(part * NOISE * one.size)
    assert ("neighbouring method" in one.reason) is not same


@pytest.mark.parametrize(
    ("unit", "name"),
    [
        (KCAL, "kcal/mol/Å"), (ase.units.kJ / ase.units.mol, "kJ/mol/Å"), (HARTREE, "Hartree/Å"),
        (HARTREE / BOHR, "Hartree/Bohr"), (ase.units.Ry / BOHR, "Rydberg/Bohr"), (1.0 / BOHR, "eV/Bohr"),
        (1e-3, "meV/Å"),
    ],
)  # fmt: skip
def test_units(frames, unit, name):
    """Of the reference method, and of the data; with the sign of gradients; and no unit for a factor that is none."""
    assert f"it gives {name} where eV/Å is asked for" in found(frames, lambda one, _: one / unit).reason
    assert f"the data are in {name}, not in eV/Å" in found(frames, lambda one, _: one * unit).reason
    turned = found(frames, lambda one, _: -one / unit).reason
    assert f"it gives {name} where eV/Å is asked for and the sign" in turned
    no_unit = found(frames, lambda one, _: one / (1.12 * unit))
    assert not no_unit.same_forces
    assert "which is no unit" in no_unit.reason


def test_sign_alone_and_no_factor(frames):
    turned = found(frames, lambda one, _: -one).reason
    assert "-1 times its forces: the sign: one of them has gradients, not forces" in turned
    other = found(frames, lambda one, _: one[:, ::-1] * [1.0, 2.0, 3.0]).reason
    assert "factor: another method" in other
    assert "hardly any" in found(frames, lambda one, _: 0.0 * one).reason


@pytest.mark.parametrize("what", ["vector", "acceleration"])
def test_net_force(frames, what):
    """Said, and the same method if small; refused if it is large."""

    def shifted(size):
        def forces(one, atoms):
            weight = np.ones(len(atoms)) if what == "vector" else atoms.get_masses() / atoms.get_masses().max()
            return one + size * weight[:, None] * [1.0, -0.5, 0.2]

        return forces

    size = found(frames).size
    small, large = found(frames, shifted(0.08 * size)), found(frames, shifted(size))
    assert small.same_forces
    assert not large.same_forces
    for one in (small, large):
        assert f"the same {what} at all atoms of a frame" in one.reason


def test_fixed_atoms_are_left_out():
    """Zeros of the data where the method has forces; but not if nothing else is left, nor numbers that are merely small."""
    atoms = rattled("Pd2H2", 0)
    forces = labelled(atoms).get_forces()
    fixed = forces.copy()
    fixed[:2] = 0.0
    fixed[2, 2] = 0.0
    one = difference([labelled(atoms, forces=fixed)], np.zeros(1), [forces])
    assert one.same_forces
    assert one.n_fixed == 3
    assert one.error == 0.0
    almost = difference([labelled(atoms, forces=np.where(fixed == 0.0, 1e-3, fixed))], np.zeros(1), [forces])
    assert not almost.same_forces
    wrong = difference([labelled(atoms, forces=fixed)], np.zeros(1), [1.2 * forces])
    assert not wrong.same_forces
    assert not difference([labelled(atoms, forces=0.0 * forces)], np.zeros(1), [forces]).same_forces


def test_one_element(frames):
    """At its atoms, or in frames that have it; frames that agree acquit their elements."""

    def carbon(forces, atoms):
        return forces + 0.3 * np.array([[z == 6] for z in atoms.numbers]) * [1.0, -1.0, 1.0]

    assert "Only the forces at C are off: another basis set" in found(frames[2:], carbon).reason
    with_carbon = found(frames, lambda one, atoms: one[::-1] if 6 in atoms.numbers else one)
    assert not with_carbon.same_forces
    assert "All frames that are off have C, frames without agree" in with_carbon.reason
    all_off = found(frames, lambda one, atoms: one[::-1])
    assert "another method" in all_off.reason
    assert "frames without agree" not in all_off.reason


def test_charge():
    """An odd number of electrons of a molecule, or what the frames state; not of crystals, nor of even numbers."""

    def reason(symbols, charge=None, pbc=False):
        atoms = labelled(rattled(symbols, 0, pbc))
        if charge is not None:
            atoms.info["total_charge"] = charge
        return found([atoms], lambda one, _: one[::-1] * [1.0, 2.0, 0.5]).reason

    assert "H3O has an odd number of electrons if it is neutral" in reason("OH3")
    assert "odd number" not in reason("NH3")
    assert "odd number" not in reason("OH3", pbc=True)
    assert "total charge of +1 e: does the calculator use it" in reason("OH3", charge=1.0)


def test_offset_per_element(frames):
    """Told apart by compositions; of one composition alone a constant per atom; and what no offset explains."""
    per_atom = {1: -13.0, 46: 120.0, 6: 7.0}
    shift = lambda one, atoms: one - sum(per_atom[z] for z in atoms.numbers)  # noqa: E731
    more = [*frames, labelled(rattled("PdH3", 5)), labelled(rattled("Pd2C2", 6))]
    several = found(more, energy=shift)
    assert several.same_forces
    assert not several.energy.same_zero
    assert several.energy.determined
    assert several.energy.by_element == pytest.approx({"H": -13.0, "Pd": 120.0, "C": 7.0})
    assert several.energy.left < 1e-9
    water = molecule("H2O")
    assert several.energy.of(np.array([1, 1, 46])) == pytest.approx(94.0)
    with pytest.raises(ValueError, match="not of"):
        several.energy.of(water.numbers)
    alone = found(frames[:2], energy=shift).energy
    assert not alone.determined
    assert alone.by_element == pytest.approx(dict.fromkeys(("H", "Pd"), (120.0 - 13.0) / 2))
    assert alone.explains
    rng = np.random.default_rng(0)
    unexplained = found(more, energy=lambda one, atoms: shift(one, atoms) + rng.normal()).energy
    assert not unexplained.explains


def test_one_wrong_frame_does_not_hide_among_many(frames):
    small = Atoms("Pd2", positions=[[0, 0, 0], [0, 0, 2.75]])
    frames = [*frames, labelled(small)]
    one = found(frames, lambda forces, atoms: forces * (1.2 if len(atoms) == 2 else 1.0))
    assert one.error < NOISE * one.size
    assert not one.same_forces
