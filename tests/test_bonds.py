"""Bond lengths tell the unit of length; sound systems of all kinds raise no alarm."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, graphene, molecule
from ase.collections import g2
from ase.data import chemical_symbols
from helpers.diagnosis_data import Path, check, frames_of, keys, simulate
from helpers.round_trip import scaled
from helpers.springs import MorseBonds

from spk_dt.trajectories.diagnosis.bonds import measure_bonds
from spk_dt.trajectories.diagnosis.pieces import PieceReader

BOHR = 0.529177


def still(atoms: Atoms) -> Path:
    """Three frames that are alike."""
    n = len(atoms)
    cell, pbc = atoms.cell.array, atoms.pbc
    zero, x = np.zeros((3, n, 3)), np.tile(atoms.positions, (3, 1, 1))
    return Path(atoms.numbers, atoms.get_masses(), cell, pbc, x, zero, zero, np.zeros(3), 1.0)


def bonds_of(atoms: Atoms, scale: float = 1.0):
    return measure_bonds(PieceReader(frames_of(scaled(still(atoms), x=scale)), 0))


def slab_with(adsorbate: str, height: float) -> Atoms:
    slab = fcc111("Pd", (2, 2, 3), vacuum=8.0)
    add_adsorbate(slab, molecule(adsorbate) if adsorbate != "H" else "H", height, "fcc")
    return slab


def elements() -> list[Atoms]:
    found = []
    for symbol in chemical_symbols[1:96]:
        try:
            found.append(bulk(symbol))
        except (ValueError, KeyError, RuntimeError, NotImplementedError):
            continue
    return found


def everything() -> dict[str, Atoms]:
    found = {name: molecule(name) for name in g2.names}
    found |= {f"bulk {atoms.symbols}": atoms for atoms in elements()}
    salts = [
        ("NaCl", "rocksalt", 5.64),
        ("LiH", "rocksalt", 4.08),
        ("MgO", "rocksalt", 4.21),
        ("CsI", "cesiumchloride", 4.57),
    ]
    found |= {name: bulk(name, structure, a=a) for name, structure, a in salts}
    found |= {f"{what} on Pd": slab_with(what, height) for what, height in (("H", 0.9), ("CO", 1.3), ("H2", 3.5))}
    return found | {"graphene": graphene(vacuum=8.0), "Ar gas": Atoms("Ar2", [[0, 0, 0], [0, 0, 3.8]]), "H": Atoms("H")}


def test_bonds_of_all_molecules_and_crystals_of_ase_are_possible():
    """And with a margin: 14 % in length above the largest, 20 % below the least."""
    found = {name: bonds_of(atoms) for name, atoms in everything().items()}
    known = {name: bonds for name, bonds in found.items() if bonds is not None}
    assert len(known) > 200
    assert {name for name in found if name not in known} >= {"Ar gas", "H", "bulk Ar"}
    assert {name: bonds.ratio for name, bonds in known.items() if bonds.impossible} == {}
    ratios = [bonds.ratio for bonds in known.values()]
    assert min(ratios) > 0.58 * 1.2
    assert max(ratios) < 1.42 / 1.13


@pytest.mark.slow
def test_in_bohr_nearly_all_are_impossible_and_in_nm_all():
    """Negative control."""
    some = [atoms for name, atoms in everything().items() if bonds_of(atoms) is not None]
    in_bohr, in_nm = (
        [bonds_of(atoms, scale) for atoms in some[::every]] for scale, every in ((1 / BOHR, 2), (0.1, 24))
    )
    assert np.mean([bonds is not None and bonds.impossible for bonds in in_bohr]) > 0.9
    assert all(bonds is None or bonds.impossible for bonds in in_nm)
    assert np.mean([bonds is not None for bonds in in_nm]) > 0.95


def moving(atoms: Atoms, kelvin: float = 300.0, h: float = 0.5) -> Path:
    return simulate(atoms, 30, h, kelvin, 1, calculator=MorseBonds(atoms, depth=2.0))


@pytest.mark.parametrize(
    "atoms",
    [
        molecule("F2"),
        molecule("N2"),
        molecule("H2"),
        molecule("Li2"),
        molecule("C6H6"),
        bulk("NaCl", "rocksalt", a=5.64, cubic=True),
        bulk("Al", cubic=True),
        bulk("W", cubic=True),
        slab_with("H", 0.9),
        slab_with("CO", 1.3),
    ],
    ids=str,
)
@pytest.mark.parametrize("kelvin", [300.0, 1500.0])
def test_sound_systems_raise_no_alarm_and_scaled_ones_are_named(atoms, kelvin):
    path = moving(atoms, kelvin)
    assert {"bonds", "length_unit", "overlap"} & set(keys(check(path))) == set()
    for scale, name in ((1 / BOHR, "Bohr"), (0.1, "nm")):
        said = check(scaled(path, x=scale))
        assert said.remedies[0] == {"units": {"positions": name}}


def flying(symbols: str, distance: float, speed: float = 0.05) -> Path:
    """Two atoms or more on a line, which fly apart."""
    atoms = Atoms(symbols, [[0.0, 0.0, distance * i] for i in range(len(Atoms(symbols)))])
    path = still(atoms)
    n, h = 60, 0.5
    time = h * np.arange(n)[:, None, None]
    direction = np.sign(np.arange(len(atoms)) - 0.5 * (len(atoms) - 1))[None, :, None] * np.array([0.0, 0.0, 1.0])
    v = np.broadcast_to(speed * direction, (n, len(atoms), 3))
    return replace(path, x=path.x[:1] + time * v, v=v.copy(), f=np.zeros_like(v), e=np.zeros(n), h=h)


def test_atoms_that_are_not_bonded_raise_no_alarm():
    """Noble gases, isolated atoms, ions far apart, a molecule that dissociates."""
    argon = bulk("Ar", cubic=True)
    crystal = simulate(argon, 30, 2.0, 30.0, 1, calculator=MorseBonds(argon, 0.05, 1.6, reach=2.0))
    assert keys(check(crystal)) == []
    for path in (flying("H2", 1.5), flying("NaCl", 9.0), flying("H4", 6.0)):
        assert {"bonds", "length_unit", "overlap"} & set(keys(check(path))) == set()
    stretched = molecule("H2")
    breaking = MorseBonds(stretched, depth=4.5)
    path = simulate(stretched, 60, 0.2, 90000.0, 4, calculator=breaking)
    assert np.ptp(np.linalg.norm(path.x[:, 0] - path.x[:, 1], axis=1)) > 0.5
    assert {"bonds", "length_unit", "overlap"} & set(keys(check(path))) == set()


@pytest.mark.parametrize("how", ["", "positions"])
def test_what_is_physically_impossible_is_refused_though_all_numbers_fit(how):
    """O-H of 1.85 Å: positions in Bohr, and forces, energies multiplied until they fit."""
    sound = moving(molecule("H2O"))
    sound = sound.with_central_differences() if how else sound
    wrong = scaled(sound, x=1 / BOHR, v=1 / BOHR, f=1 / BOHR, e=1 / BOHR**2)
    (finding,) = check(wrong).findings
    assert (finding.key, finding.severity, dict(finding.options)) == ("bonds", "refused", {})
    assert "H-O 1.8" in finding.text
    assert "positions=Bohr" in finding.remedy
    assert check(sound).findings == ()
