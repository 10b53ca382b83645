"""What a check names as a remedy leads to right data: spoil, check, do what is said, compare."""

from dataclasses import replace

import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from helpers.diagnosis_data import Path, join, simulate
from helpers.round_trip import mended, read, same, scaled, write
from helpers.springs import MorseBonds

HA, RY, BOHR, NM = ase.units.Hartree, ase.units.Rydberg, ase.units.Bohr, 10.0
KCAL, KJ = ase.units.kcal / ase.units.mol, ase.units.kJ / ase.units.mol
AUT = ase.units.AUT / ase.units.fs  # fs
FS = ase.units.fs


def bonded(atoms: Atoms, steps: int, h: float, kelvin: float = 300.0, seed: int = 0) -> Path:
    return simulate(atoms, steps, h, kelvin, seed, equilibrate=20, calculator=MorseBonds(atoms))


def heavy_water() -> Atoms:
    water = molecule("H2O")
    water.set_masses([15.999, 2.014, 2.014])
    return water


@pytest.fixture(scope="module")
def paths(cluster) -> dict[str, Path]:
    """Sound trajectories, with velocities of the simulation and from the positions."""
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    found = {
        "metal": simulate(bulk("Cu", cubic=True).repeat((2, 1, 1)), 40, 2.0, 300.0, 1, equilibrate=20),
        "cluster": simulate(cluster, 60, 0.5, 300.0, 3, equilibrate=50),
        "salt": bonded(salt, 40, 2.0),
        "alcohol": bonded(molecule("CH3CH2OH"), 60, 0.5),
        "heavy water": bonded(heavy_water(), 60, 0.5, seed=2),
    }
    return found | {f"{name}, positions": path.with_central_differences() for name, path in found.items()}


SYSTEMS = ["metal", "cluster", "salt", "alcohol", "heavy water"]
BOTH = [f"{name}{how}" for name in SYSTEMS for how in ("", ", positions")]

#: by what numbers are spoilt: factors of the numbers, which are those of the unit that they are written in
UNITS = {
    "Bohr": {"x": 1 / BOHR},
    "nm": {"x": 1 / NM},
    "Hartree energies": {"e": 1 / HA},
    "kcal/mol energies": {"e": 1 / KCAL},
    "kJ/mol energies": {"e": 1 / KJ},
    "Rydberg energies": {"e": 1 / RY},
    "Hartree/Bohr forces": {"f": BOHR / HA},
    "kcal/mol/Å forces": {"f": 1 / KCAL},
    "kJ/mol/nm forces": {"f": NM / KJ},
    "eV/Bohr forces": {"f": BOHR},
    "Hartree": {"e": 1 / HA, "f": 1 / HA},
    "gradients": {"f": -1.0},
    "gradients in Hartree/Bohr": {"f": -BOHR / HA},
    "kcal/mol with gradients": {"e": 1 / KCAL, "f": -1 / KCAL},
    "Bohr, eV/Bohr": {"x": 1 / BOHR, "f": BOHR},
    "Hartree and Hartree/Bohr, Å": {"e": 1 / HA, "f": BOHR / HA},
    "atomic units": {"x": 1 / BOHR, "e": 1 / HA, "f": BOHR / HA, "v": AUT / BOHR},
    "atomic units, velocities in Å/fs": {"x": 1 / BOHR, "e": 1 / HA, "f": BOHR / HA},
    "Rydberg atomic units": {"x": 1 / BOHR, "e": 1 / RY, "f": BOHR / RY},
    "GROMACS": {"x": 1 / NM, "e": 1 / KJ, "f": NM / KJ, "v": 1e3 / NM},
    "LAMMPS real": {"e": 1 / KCAL, "f": 1 / KCAL},
    "LAMMPS metal": {"v": 1e3},
}
#: and time steps, which are ambiguous with energies and forces where velocities do not say more
TIMES = {
    "twice the time step": {"h": 2.0},
    "a third of the time step": {"h": 1 / 3},
    "atomic units of time": {"h": 1 / AUT},
    "ps for fs": {"h": 1e-3},
    "the unit of ASE": {"h": FS},
    "time step and Bohr": {"x": 1 / BOHR, "h": 2.0},
    "time step and Hartree": {"e": 1 / HA, "h": 2.0},
    "time step and velocities": {"v": FS, "h": 2.0},
    "time step and gradients": {"f": -1.0, "h": 0.5},
}


def assert_mended(spoilt: Path, sound: Path, folder, unique: bool) -> None:
    """One of the remedies, the first if it is unique, makes the data equal to the sound ones, which are then accepted."""
    wrong = []
    for which in range(6):
        found, said, remedy = mended(spoilt, folder, which)
        ((path, then),) = found
        differs = same(path, sound)
        if not differs:
            assert then.verdict == "ok", [str(finding) for finding in then.findings]
            if which > 0:
                assert "the same would show" in str(said.findings[-1])
                assert any(word in str(said.findings[-1]) for word in ("temperature", "input"))
            return
        wrong.append(f"{remedy}: differs in {differs}, {[str(finding) for finding in said.findings]}")
        if unique or which + 1 == len(said.remedies):
            break
        for file in folder.glob("spoilt.db"):
            file.unlink()
    raise AssertionError("\n".join(wrong))


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("spoil", UNITS)
def test_units(paths, tmp_path, name, spoil):
    factors = dict(UNITS[spoil])
    if name.endswith("positions"):
        factors.pop("v", None)
        if not factors:
            return
    assert_mended(scaled(paths[name], **factors), paths[name], tmp_path, unique=False)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("spoil", TIMES)
def test_time_steps(paths, tmp_path, name, spoil):
    assert_mended(scaled(paths[name], **TIMES[spoil]), paths[name], tmp_path, unique=False)
