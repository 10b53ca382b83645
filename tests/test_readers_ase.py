"""Each format gives the frames that were written to it, to its digits, or says what is missing."""

import re

import ase.io
import ase.units
import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io.trajectory import Trajectory as TrajectoryFile
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from helpers.simulation_files import changed, write_dump, write_log, write_outcar, write_vasprun

from spk_dt.trajectories.readers import find_reader
from spk_dt.trajectories.unwrapping import checked_frames

VELOCITY_UNITS = {
    "Ang/fs": ase.units.fs,
    "Ang/ps": 1000.0 * ase.units.fs,
    "nm/ps": 100.0 * ase.units.fs,
    "m/s": 1e5 * ase.units.fs,
    "Bohr/aut": 0.0241888432658 * ase.units.fs / ase.units.Bohr,
    "ASE": 1.0,
}


@pytest.fixture
def frames(crystal, make_trajectory):
    """Seven frames of the crystal, two elements, not wrapped."""
    atoms = crystal.copy()
    atoms.symbols[:2] = "Pd"
    atoms.positions -= 0.3
    return make_trajectory(atoms, 6, 0.5, 4)


def read(path, **options):
    """The only trajectory of a file, and its frames, not yet unwrapped."""
    (raw,) = find_reader(path).read(path, **options)
    return raw, list(raw.frames())


def read_and_check(path, **options):
    _, found = read(path, **options)
    return list(checked_frames(found, f"'{path}'"))


def refused(path, *words, **options):
    with pytest.raises(ValueError, match=path.name) as error:
        read_and_check(path, **options)
    for word in words:
        assert word in str(error.value)


def compare(found, frames, digits, velocities=True):
    """Compare frames read with frames written, but for a shift that is the same for all frames; return it, in cells."""
    assert len(found) == len(frames)
    unwrapped = list(checked_frames(found, "file"))
    shift = unwrapped[0].positions - frames[0].positions
    for atoms, read_atoms, right in zip(unwrapped, found, frames, strict=True):
        np.testing.assert_array_equal(atoms.numbers, right.numbers)
        np.testing.assert_array_equal(atoms.pbc, right.pbc)
        np.testing.assert_allclose(atoms.cell.array, right.cell.array, rtol=0.0, atol=digits)
        np.testing.assert_allclose(atoms.positions - shift, right.positions, rtol=0.0, atol=10.0 * digits)
        np.testing.assert_allclose(atoms.get_forces(), right.get_forces(), rtol=0.0, atol=digits)
        assert atoms.get_potential_energy() == pytest.approx(right.get_potential_energy(), abs=max(digits, 1e-8))
        assert read_atoms.has("momenta") == velocities
        if velocities:
            np.testing.assert_allclose(atoms.get_velocities(), right.get_velocities(), rtol=0.0, atol=digits)
    return shift @ np.linalg.pinv(frames[0].cell.array)


# extended XYZ


def test_extxyz_of_ase(tmp_path, frames):
    ase.io.write(tmp_path / "a.extxyz", frames)
    raw, found = read(tmp_path / "a.extxyz")
    assert (raw.name, raw.timestep_fs, raw.n_frames, raw.inner_steps) == ("a", None, 7, None)
    compare(found, frames, 1e-8)


def test_extxyz_agrees_with_the_reader_of_ase(tmp_path, frames):
    frames = changed(frames, lambda atoms: atoms.set_masses([100.0, None, None, 60.0]))
    ase.io.write(tmp_path / "a.xyz", frames, format="extxyz")
    _, found = read(tmp_path / "a.xyz")
    for atoms, other in zip(found, ase.io.read(tmp_path / "a.xyz", ":"), strict=True):
        np.testing.assert_array_equal(atoms.positions, other.positions)
        np.testing.assert_array_equal(atoms.cell, other.cell)
        np.testing.assert_array_equal(atoms.get_momenta(), other.get_momenta())
        np.testing.assert_array_equal(atoms.get_masses(), other.get_masses())
        np.testing.assert_array_equal(atoms.get_forces(), other.get_forces())
        assert atoms.calc.results["energy"] == other.calc.results["energy"]


def renamed(frames, velocities="vel", factor=1.0):
    """Frames whose results are under the names of other programs."""
    out = []
    for number, right in enumerate(frames):
        atoms = right.copy()
        del atoms.arrays["momenta"]
        atoms.info |= {"REF_energy": right.get_potential_energy(), "time_fs": 0.5 * number}
        atoms.set_array("REF_forces", right.get_forces())
        if velocities is not None:
            atoms.set_array(velocities, right.get_velocities() * factor)
        out.append(atoms)
    return out


@pytest.mark.parametrize("unit", VELOCITY_UNITS)
def test_extxyz_with_other_names_and_units(tmp_path, frames, unit):
    path = tmp_path / "a.extxyz"
    ase.io.write(path, renamed(frames, "vel", VELOCITY_UNITS[unit]))
    names = {"energy_key": "REF_energy", "forces_key": "REF_forces"}
    raw, found = read(path, **names, velocity_unit=unit)
    assert raw.timestep_fs == pytest.approx(0.5)
    compare(found, frames, 2e-6 if unit in ("Ang/fs", "Bohr/aut") else 1e-7)
    refused(path, "REF_forces", "REF_energy", "--forces-key")
    refused(path, "REF_forces", "REF_energy", "--energy-key", forces_key="REF_forces")
    refused(path, "'vel'", "--velocity-unit", "Ang/fs", "--recover-velocities", **names)
    refused(path, "'speed'", **names, velocities_key="speed")
    compare(read(path, **names, recover_velocities=True)[1], frames, 1e-7, velocities=False)


def test_extxyz_takes_the_free_energy_along(tmp_path, frames):
    text = []
    for atoms in frames:
        copy = atoms.copy()
        copy.info |= {"energy": 1.0, "free_energy": atoms.get_potential_energy()}
        copy.set_array("forces", atoms.get_forces())
        text.append(copy)
    ase.io.write(tmp_path / "a.extxyz", text)
    compare(read(tmp_path / "a.extxyz")[1], frames, 1e-8)
    assert read(tmp_path / "a.extxyz", energy_key="energy")[1][0].calc.results["energy"] == 1.0
    assert "free_energy" not in read(tmp_path / "a.extxyz", energy_key="energy")[1][0].calc.results


def test_extxyz_without_cell_and_with_mixed_periodicity(tmp_path, cluster, frames, make_trajectory):
    open_frames = make_trajectory(cluster, 2, 0.5)
    ase.io.write(tmp_path / "a.xyz", open_frames, format="extxyz")
    compare(read(tmp_path / "a.xyz")[1], open_frames, 1e-8)
    frames = changed(frames, lambda atoms: atoms.set_pbc((True, False, True)))
    ase.io.write(tmp_path / "b.xyz", frames, format="extxyz")
    compare(read(tmp_path / "b.xyz")[1], frames, 1e-8)


GOOD = '1\nenergy=1.0 Properties=species:S:1:pos:R:3:forces:R:3 pbc="F F F"\nH 0 0 0 0 0 0\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1\nplain comment\nH 0 0 0\n", ("no forces", "plain XYZ")),
        (GOOD.replace("H", "Qq"), ("frame 0", "Qq", "not an element")),
        (GOOD.replace("energy=1.0", "energy=abc"), ("frame 0", "not a number")),
        (GOOD.replace("energy=1.0", "energy=nan"), ("energy", "not finite")),
        (GOOD + GOOD.replace("H 0 0 0 0", "H 0 0 0 x"), ("frame 1", "damaged")),
        (GOOD + GOOD.replace("H 0 0 0 0", "H 0 0 0"), ("frame 1", "7")),
        (GOOD + "H 0 0 0 0 0 0\n" + GOOD, ("frame 1", "not with a number of atoms")),
        (GOOD + "\n" + GOOD, ("frame 1", "empty line")),
        (GOOD + GOOD.replace("1\n", "2\n", 1) + "H 1 1 1 0 0 0\n", ("frame 1", "2 atoms", "1")),
        (GOOD.replace("pbc=", "pbd=") + GOOD[:-1], ("frame 1", "line feed", "--drop-incomplete")),
        (GOOD + GOOD[: GOOD.index("H 0")], ("frame 1", "--drop-incomplete")),
        (GOOD.replace('"F F F"', '"T T T"'), ("frame 0", "Lattice")),
        (GOOD.replace("1\n", "-1\n", 1), ()),
    ],
)
def test_extxyz_refusals(tmp_path, text, words):
    (tmp_path / "a.xyz").write_text(text)
    refused(tmp_path / "a.xyz", *words)


def test_extxyz_with_missing_and_with_repeated_frames(tmp_path, frames):
    path = tmp_path / "a.extxyz"
    names = {"energy_key": "REF_energy", "forces_key": "REF_forces"}
    all_frames = renamed(frames, None)
    ase.io.write(path, all_frames[:3] + all_frames[4:])
    refused(path, "frame 3", "time_fs=2", "missing", **names)
    ase.io.write(path, all_frames[:4] + all_frames[3:])  # of a restart; spkdt check names it
    assert len(read(path, **names)[1]) == 8


# .traj


def test_traj(tmp_path, frames):
    ase.io.write(tmp_path / "a.traj", frames)
    raw, found = read(tmp_path / "a.traj")
    assert (raw.timestep_fs, raw.n_frames) == (None, 7)
    compare(found, frames, 1e-14)


def test_traj_of_the_dynamics_of_ase_has_the_time_step(tmp_path, frames):
    atoms = frames[0].copy()
    atoms.calc = EMT()
    path = tmp_path / "md.traj"
    VelocityVerlet(atoms, 0.7 * ase.units.fs, trajectory=str(path), loginterval=3).run(6)
    assert read(path)[0].timestep_fs == pytest.approx(0.7)
    raw, found = read(path, save_every=3)
    assert raw.timestep_fs == pytest.approx(2.1)
    assert raw.inner_steps == 3
    assert len(found) == 3
    BFGS(atoms, trajectory=str(tmp_path / "relax.traj"), logfile=None).run(steps=2)
    refused(tmp_path / "relax.traj", "relaxation", "BFGS")


def test_traj_keeps_forces_on_constrained_atoms(tmp_path, frames):
    atoms = frames[3].copy()
    atoms.set_constraint(FixAtoms([1]))
    atoms.calc = EMT()
    with TrajectoryFile(tmp_path / "a.traj", "w", atoms) as file:
        atoms.get_potential_energy()
        file.write()
    (found,) = checked_frames(read(tmp_path / "a.traj")[1], "file")
    np.testing.assert_array_equal(found.calc.results["forces"], atoms.get_forces(apply_constraint=False))
    assert np.abs(found.calc.results["forces"][1]).max() > 0.01
    assert found.constraints[0].index.tolist() == [1]


def test_traj_that_is_cut_off(tmp_path, frames):
    ase.io.write(tmp_path / "a.traj", frames)
    whole = (tmp_path / "a.traj").read_bytes()
    (tmp_path / "a.traj").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "a.traj", "frame", "of 7", "cut off")


# VASP


def without_velocities(found, frames, digits):
    whole = compare(found, frames, digits, velocities=False)
    np.testing.assert_allclose(whole, np.round(whole), rtol=0.0, atol=1e-5)  # the start differs by lattice vectors only


def test_vasprun(tmp_path, frames):
    path = write_vasprun(tmp_path / "vasprun.xml", frames)
    raw, found = read(path)
    assert (raw.name, raw.timestep_fs, raw.n_frames, raw.inner_steps) == ("vasprun", 0.5, 7, 1)
    without_velocities(found, frames, 1e-8)
    for atoms, other in zip(found, ase.io.read(path, ":"), strict=True):
        np.testing.assert_allclose(atoms.positions, other.positions, rtol=0.0, atol=1e-12)
        np.testing.assert_array_equal(atoms.get_forces(), other.get_forces())
        assert atoms.calc.results["free_energy"] == other.calc.results["free_energy"]


def test_vasprun_has_the_masses_of_the_simulation(tmp_path, frames):
    frames = changed(frames, lambda atoms: atoms.set_masses([100.0, 100.0, 60.0, 60.0]))
    path = write_vasprun(tmp_path / "vasprun.xml", frames)
    np.testing.assert_array_equal(read(path)[1][0].get_masses(), [100.0, 100.0, 60.0, 60.0])
    path = write_outcar(tmp_path / "OUTCAR", frames)
    np.testing.assert_array_equal(read(path)[1][0].get_masses(), [100.0, 100.0, 60.0, 60.0])


def test_vasprun_with_a_target_pressure(tmp_path, frames):
    path = write_vasprun(tmp_path / "vasprun.xml", frames, pstress=50.0)
    without_velocities(read(path)[1], frames, 2e-8)


def test_outcar(tmp_path, frames):
    path = write_outcar(tmp_path / "OUTCAR", frames)
    raw, found = read(path)
    assert (raw.name, raw.timestep_fs, raw.n_frames, raw.inner_steps) == ("OUTCAR", 0.5, 7, 1)
    without_velocities(found, frames, 5.1e-6)
    for atoms, right, other in zip(found, frames, ase.io.read(path, ":", format="vasp-out"), strict=True):
        np.testing.assert_allclose(atoms.get_forces(), right.get_forces(), rtol=0.0, atol=5.1e-7)
        np.testing.assert_array_equal(atoms.positions, other.positions)
        assert atoms.calc.results["free_energy"] == other.calc.results["free_energy"]


def test_outcar_with_numbers_that_touch(tmp_path, frames):
    path = write_outcar(tmp_path / "OUTCAR", frames)
    lines = path.read_text().splitlines()
    touching = [re.sub(r"(\d) +-", r"\1-", line) if re.match(r"( +-?\d+\.\d{5}){3} ", line) else line for line in lines]
    assert lines != touching
    path.write_text("\n".join(touching) + "\n")
    without_velocities(read(path)[1], frames, 5.1e-6)


@pytest.mark.parametrize("write", [write_vasprun, write_outcar])
def test_vasp_refuses_a_relaxation(tmp_path, frames, write):
    refused(write(tmp_path / "run", frames, ibrion=2), "IBRION is 2", "relaxation")


def test_vasp_refuses_unfinished_files(tmp_path, frames):
    path = write_outcar(tmp_path / "OUTCAR", frames, finished=False)
    refused(path, "frame 7", "summary", "--drop-incomplete")
    path = write_vasprun(tmp_path / "vasprun.xml", frames)
    text = path.read_text()
    path.write_text(text[: text.rindex("<calculation>") + 300])
    refused(path, "frame 6", "XML breaks off", "--drop-incomplete")
    path.write_text(text[: text.index("<calculation>") + 300])
    refused(path, "no complete frame")
    path.write_text(text.replace("</structure>", "</structure", 3))
    refused(path, "damaged")
    path.write_text(text.replace('<i name="e_fr_energy">', '<i name="other">'))
    refused(path, "frame 0", "e_fr_energy")


# LAMMPS


@pytest.mark.parametrize("units", ["metal", "real"])
@pytest.mark.parametrize(
    "columns",
    [
        "id type element x y z vx vy vz fx fy fz",
        "fx fy fz vx vy vz xu yu zu element id",
        "id type xs ys zs vx vy vz fx fy fz mass",
    ],
)
def test_lammps(tmp_path, frames, units, columns):
    dump = write_dump(tmp_path / "md.dump", frames, units=units, columns=columns, every=5)
    energies = [atoms.get_potential_energy() for atoms in frames]
    step = {"metal": 0.0001, "real": 0.1}[units]
    log = write_log(tmp_path / "log.lammps", energies, len(frames[0]), units=units, timestep=step, every=5)
    elements = None if "element" in columns else ["Pd", "Cu"]
    raw, found = read(dump, lammps_log=log, lammps_elements=elements)
    assert raw.timestep_fs == pytest.approx(0.5)
    assert (raw.name, raw.inner_steps, raw.n_frames, raw.files) == ("md", 5, 7, (dump, log))
    compare(found, frames, 1e-10)
    assert found[0].has("masses") == ("mass" in columns)


def test_lammps_agrees_with_the_reader_of_ase(tmp_path, frames):
    orthogonal = changed(frames, lambda atoms: atoms.set_cell(np.diag([9.0, 10.0, 11.0])))
    dump = write_dump(tmp_path / "md.dump", orthogonal)
    log = write_log(tmp_path / "log.lammps", np.zeros(7), 4)
    others = ase.io.read(dump, ":", format="lammps-dump-text", units="metal")
    for atoms, other in zip(read(dump, lammps_log=log)[1], others, strict=True):
        np.testing.assert_allclose(atoms.positions, other.positions, rtol=0.0, atol=1e-12)
        np.testing.assert_allclose(atoms.get_forces(), other.get_forces(), rtol=0.0, atol=1e-12)
        np.testing.assert_allclose(atoms.get_velocities(), other.get_velocities(), rtol=1e-9)
        np.testing.assert_allclose(atoms.cell, other.cell, rtol=0.0, atol=1e-12)


def test_lammps_with_units_and_time_in_the_dump(tmp_path, frames):
    dump = write_dump(tmp_path / "a.lammpstrj", frames, said=True, timestep=0.0005, every=2)
    energies = [atoms.get_potential_energy() for atoms in frames]
    log = write_log(tmp_path / "log", energies, 4, units=None, timestep=None, every=2)
    raw, found = read(dump, lammps_log=log)
    assert raw.timestep_fs == pytest.approx(1.0)
    compare(found, frames, 1e-10)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("   Step    Temp    E_pair    E_mol    TotEng    Press", "{i} 300 {pair} {mol} 9 1"),
        ("Time Step E_pair PotEng E_mol", "{i}.5 {i} 9 {energy} 9"),
    ],
    ids=["one", "custom"],
)
def test_lammps_energies_of_other_styles(tmp_path, frames, header, row):
    """Without PotEng they are E_pair + E_mol; Step need not come first, and is not always that of a header."""
    dump = write_dump(tmp_path / "md.dump", frames)
    energies = [atoms.get_potential_energy() for atoms in frames]
    rows = [row.format(i=i, energy=e, pair=e - 0.25 * i, mol=0.25 * i) for i, e in enumerate(energies)]
    rows.insert(2, "Step 1 is done")
    log = tmp_path / "log.lammps"
    end = "Loop time of 0.1 on 1 procs for 7 steps with 4 atoms"
    log.write_text("\n".join(["units metal", "timestep 0.0005", header, *rows, end, ""]))
    compare(read(dump, lammps_log=log)[1], frames, 1e-10)


def test_lammps_refusals(tmp_path, frames):
    energies = [atoms.get_potential_energy() for atoms in frames]
    dump = write_dump(tmp_path / "md.dump", frames)
    log = write_log(tmp_path / "log.lammps", energies, 4)
    refused(dump, "no energies", "--lammps-log", "log.lammps")
    with pytest.raises(FileNotFoundError, match="no LAMMPS log"):
        read(dump, lammps_log=tmp_path / "absent")
    refused(dump, "differ: real in --lammps-units", "metal in", lammps_log=log, lammps_units="real")
    silent = write_log(tmp_path / "silent", energies, 4, units=None)
    refused(dump, "--lammps-units", "metal, real", lammps_log=silent)
    refused(dump, "units lj", lammps_log=silent, lammps_units="lj")
    refused(dump, "4 atoms", "had 9", lammps_log=write_log(tmp_path / "nine", energies, 9))
    refused(dump, "frame 1", "no energy of step 1", lammps_log=write_log(tmp_path / "rare", energies, 4, every=10))
    refused(dump, "frame 0", "several energies", lammps_log=write_log(tmp_path / "zero", energies, 4, every=0))
    bad = write_log(tmp_path / "bad", energies, 4, header="Step Temp KinEng TotEng")
    with pytest.raises(ValueError, match=r"bad' has no potential energies.*thermo_style custom step pe"):
        read(dump, lammps_log=bad)
    bad.write_text("thermo_modify lost warn norm yes\n" + log.read_text())
    with pytest.raises(ValueError, match="energies per atom"):
        read(dump, lammps_log=bad)
    typed = write_dump(tmp_path / "typed.dump", frames, columns="id type x y z fx fy fz")
    refused(typed, "--lammps-elements", lammps_log=log)
    refused(typed, "type 2", "1 types", lammps_log=log, lammps_elements=["Pd"])
    refused(typed, "'Qq' is not an element", lammps_log=log, lammps_elements=["Pd", "Qq"])
    refused(dump, "differs from --lammps-elements Cu,Pd", lammps_log=log, lammps_elements=["Cu", "Pd"])
    carbon = tmp_path / "carbon.dump"
    carbon.write_text(dump.read_text().replace(" Cu ", " C ").replace(" Pd ", " C "))
    refused(carbon, "what LAMMPS writes if no elements were given", lammps_log=log)
    compare(read(carbon, lammps_log=log, lammps_elements=["Pd", "Cu"])[1], frames, 1e-10)
    refused(write_dump(tmp_path / "noforce.dump", frames, columns="id element x y z"), "fx fy fz", lammps_log=log)
    text = dump.read_text()
    second = text.index("ITEM: TIMESTEP", 10)
    third = text.index("ITEM: TIMESTEP", second + 10)
    last = text.rindex("ITEM: TIMESTEP")
    dump.write_text(text[:third] + text[text.index("ITEM: TIMESTEP", third + 10) :])
    refused(dump, "frame 2", "step 3 follows step 1", "missing", lammps_log=log)
    dump.write_text(text[: last + 100])
    refused(dump, "frame 6", "--drop-incomplete", lammps_log=log)
    dump.write_text(text[: third - 2])
    refused(dump, "frame 1", lammps_log=log)


# what is not read


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("md.trr", "gmx traj"),
        ("XDATCAR", "vasprun.xml"),
        ("md.dcd", "dump 1 all custom"),
        ("a.cif", "no forces"),
    ],
)
def test_unknown_formats_name_the_remedy(tmp_path, name, word):
    (tmp_path / name).write_text("something\n")
    with pytest.raises(ValueError, match=name) as error:
        find_reader(tmp_path / name)
    assert word in str(error.value)


def test_no_file_and_an_empty_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        find_reader(tmp_path / "absent")
    (tmp_path / "a.xyz").write_text("")
    with pytest.raises(ValueError, match=r"a\.xyz' is empty"):
        find_reader(tmp_path / "a.xyz")
