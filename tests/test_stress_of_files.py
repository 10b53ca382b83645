"""The stress of each format, written in the convention of its program, is the derivative of the energy by strain.

What a program prints is computed here from differences of the energy of EMT, in its unit, sign and order of components, and
with the part of the momenta where it has one.
"""

import re

import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.simulation_files import write_dump, write_log, write_outcar, write_vasprun
from helpers.stress_differences import stress_by_differences
from schnetpack.data import ASEAtomsData

from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.inputs import Reading

KBAR = 6.241509074e-4  # eV/Å^3, from the charge of the electron
BAR, ATM = 1e-3 * KBAR, 1.01325e-3 * KBAR
HARTREE, BOHR, AU_TIME_FS = 27.211386, 0.52917721, 2.4188843e-2
FS = 0.09822694788  # of ASE: Å sqrt(Dalton/eV)


@pytest.fixture(scope="module")
def frames(crystal, make_trajectory):
    atoms = crystal.copy()
    atoms.symbols[0] = "Pd"
    atoms.set_cell([[3.7, 0.0, 0.0], [0.3, 3.6, 0.0], [-0.2, 0.15, 3.9]], scale_atoms=True)
    return make_trajectory(atoms, 3, 0.5, 5)


@pytest.fixture(scope="module")
def stresses(frames):
    """[n_frames, 3, 3]; the six numbers are so different that none can be taken for another, or for its opposite."""
    found = np.array([stress_by_differences(atoms) for atoms in frames])
    found = 0.5 * (found + found.transpose(0, 2, 1))
    for stress in found:
        six = np.abs(stress[np.triu_indices(3)])
        assert np.min(np.diff(np.sort([0.0, *six]))) > 1e-4
    return found


def pressure(atoms, stress):
    """[3, 3] pressure tensor with the part of the momenta, eV/Å^3."""
    velocities = atoms.get_velocities()
    return (
        sum(m * np.outer(v, v) for m, v in zip(atoms.get_masses(), velocities, strict=True)) / atoms.get_volume()
        - stress
    )


def outcar(folder, frames, stresses):
    path = write_outcar(folder / "OUTCAR", frames)
    rest = iter(stresses)

    def lines(match):
        xx, xy, xz, _, yy, yz, _, _, zz = (-next(rest) / KBAR).ravel()
        values = "".join(f"{x:12.5f}" for x in (xx, yy, zz, xy, yz, xz))
        return f"  FORCE on cell =-STRESS in cart. coord.  units (eV):\n  in kB  {values}\n{match[0]}"

    path.write_text(re.sub(r"^ POSITION", lines, path.read_text(), flags=re.MULTILINE))
    return path, {}


def vasprun(folder, frames, stresses):
    path = write_vasprun(folder / "vasprun.xml", frames)
    rest = iter(stresses)

    def rows(match):
        lines = "".join(f"   <v> {x:15.8f} {y:15.8f} {z:15.8f} </v>\n" for x, y, z in -next(rest) / KBAR)
        return f"{match[1]}{lines}{match[2]}"

    text = re.sub(r'(<varray name="stress" >\n).*?( *</varray>)', rows, path.read_text(), flags=re.DOTALL)
    path.write_text(text)
    return path, {}


def cp2k(folder, frames, stresses):
    values = {
        "pos": lambda atoms: atoms.positions,
        "frc": lambda atoms: atoms.get_forces() * BOHR / HARTREE,
        "vel": lambda atoms: atoms.get_velocities() * FS * AU_TIME_FS / BOHR,
    }
    for kind, value in values.items():
        text = ""
        for step, atoms in enumerate(frames):
            energy = atoms.get_potential_energy() / HARTREE
            text += f"{len(atoms):8d}\n i = {step}, time = {0.5 * step:.3f}, E = {energy:.10f}\n"
            for symbol, row in zip(atoms.symbols, value(atoms), strict=True):
                text += f"{symbol:>3s}" + "".join(f"{x:20.10f}" for x in row) + "\n"
        (folder / f"run-{kind}-1.xyz").write_text(text)
    cell = "\n".join(f"{axis} {x} {y} {z}" for axis, (x, y, z) in zip("ABC", frames[0].cell.array, strict=True))
    (folder / "run.inp").write_text(
        f"&GLOBAL\nPROJECT run\n&END\n&FORCE_EVAL\n&SUBSYS\n&CELL\n{cell}\n&END\n&END\n&END\n"
    )
    text = "#   Step   Time [fs]            xx [bar]            xy [bar] ...\n"
    for step, (atoms, stress) in enumerate(zip(frames, stresses, strict=True)):
        text += (
            f"{step:8d}{0.5 * step:12.3f}"
            + "".join(f" {x:19.10f}" for x in (pressure(atoms, stress) / BAR).ravel())
            + "\n"
        )
    (folder / "run-1.stress").write_text(text)
    return folder / "run-pos-1.xyz", {}


def lammps(folder, frames, stresses, units="metal"):
    path = write_dump(folder / "dump", frames, units=units, columns="id type element mass x y z vx vy vz fx fy fz")
    log = folder / "log.lammps"
    write_log(log, [atoms.get_potential_energy() for atoms in frames], len(frames[0]), units=units,
              timestep={"metal": 0.0005, "real": 0.5}[units])  # fmt: skip
    rest = iter(zip(frames, stresses, strict=True))

    def row(match):
        xx, xy, xz, _, yy, yz, _, _, zz = (pressure(*next(rest)) / {"metal": BAR, "real": ATM}[units]).ravel()
        return match[0] + "".join(f" {x:.6f}" for x in (xx, yy, zz, xy, xz, yz))

    text = log.read_text().replace("         TotEng", "         TotEng  Pxx Pyy Pzz Pxy Pxz Pyz")
    log.write_text(re.sub(r"^ +\d+   300\.0.*$", row, text, flags=re.MULTILINE))
    return path, {"lammps_logs": [log]}


def lammps_real(folder, frames, stresses):
    return lammps(folder, frames, stresses, "real")


def extended_xyz(folder, frames, stresses, key="stress", six=False):
    path = folder / "run.xyz"
    bare = []
    for atoms, stress in zip(frames, stresses, strict=True):
        copy = atoms.copy()
        results = {name: atoms.calc.results[name] for name in ("energy", "forces")}
        copy.calc = SinglePointCalculator(copy, **results)
        value = stress if key == "stress" else -stress * atoms.get_volume()
        order = value[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] if six else value.ravel()
        copy.info["TENSOR"] = " ".join(f"{x:.10f}" for x in order)
        bare.append(copy)
    ase.io.write(path, bare, format="extxyz")
    path.write_text(path.read_text().replace("TENSOR=", f"{key}="))
    return path, {"timestep_fs": 0.5}


def traj(folder, frames, stresses):
    named = []
    for atoms, stress in zip(frames, stresses, strict=True):
        copy = atoms.copy()
        results = {name: atoms.calc.results[name] for name in ("energy", "forces")}
        copy.calc = SinglePointCalculator(copy, **results, stress=stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]])
        named.append(copy)
    ase.io.write(folder / "run.traj", named)
    return folder / "run.traj", {"timestep_fs": 0.5}


WRITERS = {
    "OUTCAR": outcar,
    "vasprun.xml": vasprun,
    "CP2K": cp2k,
    "LAMMPS metal": lammps,
    "LAMMPS real": lammps_real,
    "stress, nine numbers": extended_xyz,
    "stress, six": lambda *args: extended_xyz(*args, six=True),
    "virial": lambda *args: extended_xyz(*args, key="virial"),
    "virials, six": lambda *args: extended_xyz(*args, key="virials", six=True),
    "traj": traj,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_stress_is_the_derivative_of_the_energy(tmp_path, frames, stresses, kind):
    path, options = WRITERS[kind](tmp_path, frames, stresses)
    convert([path], tmp_path / "out.db", Reading(**options))
    dataset = ASEAtomsData(str(tmp_path / "out.db"))
    for i, stress in enumerate(stresses):
        found = dataset[i]["stress"][0].numpy()
        np.testing.assert_allclose(found, stress, atol=3e-6)
        # the comparison would see a wrong sign, two components exchanged, or the part of the momenta
        for wrong in (
            -stress,
            stress[[1, 0, 2]][:, [1, 0, 2]],
            stress[[0, 2, 1]][:, [0, 2, 1]],
            -pressure(frames[i], stress),
        ):
            assert np.abs(found - wrong).max() > 30 * np.abs(found - stress).max() + 1e-5


def test_without_velocities_a_pressure_is_no_stress(tmp_path, frames, stresses):
    """It has the part of the momenta, which is not known then."""
    path, _ = cp2k(tmp_path, frames, stresses)
    (tmp_path / "run-vel-1.xyz").unlink()
    (found,) = convert([path], tmp_path / "a.db")
    assert any("run-1.stress was left out" in note and "&VELOCITIES" in note for note in found.notes)
    (tmp_path / "l").mkdir()
    path, options = lammps(tmp_path / "l", frames, stresses)
    write_dump(path, frames, columns="id type element mass x y z fx fy fz")
    convert([path], tmp_path / "b.db", Reading(**options))
    for name in ("a.db", "b.db"):
        assert "stress" not in ASEAtomsData(str(tmp_path / name)).available_properties


def test_only_the_trace_is_known(tmp_path, frames, stresses):
    """ISIF = 1 of VASP computes the pressure alone."""
    path, _ = outcar(tmp_path, frames, stresses)
    path.write_text(path.read_text().replace("   NSW ", "   ISIF   =      1    stress\n   NSW ", 1))
    convert([path], tmp_path / "out.db")
    assert "stress" not in ASEAtomsData(str(tmp_path / "out.db")).available_properties


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('stress="1 2 3"', "cannot be understood .*stress"),
        ("virial=high", "cannot be understood .*virial"),
        ('virials="1 2 3"', "virials=.* is not six or nine numbers"),
        ('stress="1 0 0 0 1 0 0 0 1" virial="1 0 0 0 1 0 0 0 1"', "stress and virial contradict each other"),
    ],
)
def test_stress_that_makes_no_sense(tmp_path, text, message):
    path = tmp_path / "run.xyz"
    frame = f'1\nLattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3:forces:R:3 energy=0 {text}\nH 0 0 0 0 0 0\n'
    path.write_text(2 * frame)
    with pytest.raises(ValueError, match=message):
        convert([path], tmp_path / "a.db", Reading(timestep_fs=1.0))


def test_a_virial_without_a_volume(tmp_path):
    path = tmp_path / "run.xyz"
    path.write_text(
        2 * '1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=0 virial="1 0 0 0 1 0 0 0 1"\nH 0 0 0 0 0 0\n'
    )
    with pytest.raises(ValueError, match="virial, but no Lattice"):
        convert([path], tmp_path / "a.db", Reading(timestep_fs=1.0))
