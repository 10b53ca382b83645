"""CP2K: extended XYZ, files under other names, isotopes, and ensembles whose cells are not at hand."""

import re

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.stress import full_3x3_to_voigt_6_stress
from schnetpack.data import ASEAtomsData

from spk_dt.data import load_frames
from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.readers import cp2k
from spk_dt.trajectories.readers.cp2k_files import printed_name

HARTREE, BOHR, AU_TIME, FS = 27.211386, 0.52917721, 2.4188843e-2, 0.09822694788  # eV, Å, fs, fs in ASE's unit
VALUES = {
    "pos": lambda atoms: atoms.positions,
    "frc": lambda atoms: atoms.get_forces() * BOHR / HARTREE,
    "vel": lambda atoms: atoms.get_velocities() * FS * AU_TIME / BOHR,
}
COLUMN = {"pos": "pos", "frc": "force", "vel": "velo"}


@pytest.fixture(scope="module")
def frames(crystal, make_trajectory):
    atoms = crystal.copy()
    atoms.symbols[:2] = "Al"
    return make_trajectory(atoms, 5, 0.5, 3)


def write(folder, frames, *, project="liq", kinds=("pos", "frc", "vel"), extended=False, cells=None, names=None):
    """The XYZ files of a run; `names` are those of the atoms."""
    for kind in kinds:
        text = ""
        for step, atoms in enumerate(frames):
            energy = atoms.get_potential_energy() / HARTREE
            cell = atoms.cell.array if cells is None else cells[step]
            title = f" i = {step:8d}, time = {0.5 * step:12.3f}, E = {energy:20.10f}"
            if extended:
                lattice = " ".join(f"{x:.10f}" for x in np.ravel(cell))
                title = f'Lattice="{lattice}" Properties=species:S:1:{COLUMN[kind]}:R:3 pbc="T T F" '
                title += f"Step={step} Time={0.5 * step:.3f} Energy={energy:.10f}"
            text += f"{len(atoms):8d}\n{title}\n"
            for name, row in zip(names or atoms.symbols, VALUES[kind](atoms), strict=True):
                text += f"{name:>3s}" + "".join(f"{x:20.10f}" for x in row) + "\n"
        (folder / f"{project}-{kind}-1.xyz").write_text(text)


def write_input(folder, *, name="liq.inp", ensemble="NVE", printed="", subsystem="", cell="ABC 3.6 3.6 3.9", top=""):
    (folder / name).write_text(
        f"{top}&GLOBAL\n  PROJECT liq\n&END GLOBAL\n&MOTION\n  &MD\n    ENSEMBLE {ensemble}\n  &END MD\n  "
        f"&PRINT\n{printed}\n  &END PRINT\n&END MOTION\n&FORCE_EVAL\n  &SUBSYS\n    &CELL\n      {cell}\n    &END "
        f"CELL\n{subsystem}\n  &END SUBSYS\n&END FORCE_EVAL\n"
    )


def write_cells(folder, cells, steps, name="liq-1.cell"):
    rows = [f"{s} {0.5 * s} " + " ".join(f"{x:.10f}" for x in np.ravel(c)) for s, c in zip(steps, cells, strict=True)]
    (folder / name).write_text("# Step   Time [fs]\n" + "\n".join(rows) + "\n")


def only(path):
    (raw,) = cp2k.read(path)
    return raw, list(raw.frames())


@pytest.mark.parametrize("given", ["liq-pos-1.xyz", "liq-frc-1.xyz", "liq-vel-1.xyz", "."])
def test_extended_xyz_of_cp2k_is_in_its_units(tmp_path, frames, given):
    """Hartree, Hartree/Bohr and Bohr per atomic unit of time; the cell of the comments, also where an input has another."""
    write(tmp_path, frames, extended=True)
    write_input(tmp_path)
    raw, found = only(tmp_path / given)
    assert (raw.name, raw.timestep_fs, raw.n_frames) == ("liq", 0.5, 6)
    assert len(found) == 6
    for atoms, sound in zip(found, frames, strict=True):
        np.testing.assert_allclose(atoms.get_potential_energy(), sound.get_potential_energy(), rtol=2e-7)
        np.testing.assert_allclose(atoms.get_forces(), sound.get_forces(), rtol=2e-7, atol=1e-8)
        np.testing.assert_allclose(atoms.get_velocities(), sound.get_velocities(), rtol=2e-7, atol=2e-8)
        np.testing.assert_allclose(atoms.cell, sound.cell, atol=1e-9)
        assert atoms.pbc.tolist() == [True, True, False]
    (converted,) = convert([tmp_path / given], tmp_path / "a.db")
    assert converted.trajectory.velocities == "file"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("Energy=", "Energy=x"), "no readable step, time and energy"),
        (("Time=", "Tme="), "no line 'i ="),
        (('pbc="T T F"', 'pbc="T T"'), "no line 'i ="),
    ],
)
def test_damaged_comments_of_extended_xyz(tmp_path, frames, change, message):
    write(tmp_path, frames, extended=True)
    path = tmp_path / "liq-frc-1.xyz"
    first, second = path.read_text().split("Step=3", 1)
    head, tail = first.rsplit("Lattice", 1)
    path.write_text(head + ("Lattice" + tail + "Step=3" + second).replace(*change))
    with pytest.raises(ValueError, match=rf"frame 3 of .*liq-frc-1\.xyz' .*{message}"):
        cp2k.read(tmp_path / "liq-pos-1.xyz")


@pytest.mark.parametrize(
    ("filename", "ending", "expected"),
    [
        (None, "-frc-1.xyz", "liq-frc-1.xyz"),
        ("nvt.force", "-frc-1.xyz", "liq-nvt.force-frc-1.xyz"),
        ("./nvt", "-frc-1.xyz", "./nvt-frc-1.xyz"),
        ("=forces.xyz", "-frc-1.xyz", "forces.xyz"),
    ],
)
def test_the_names_that_cp2k_gives(filename, ending, expected):
    assert printed_name("liq", filename, ending) == expected


@pytest.mark.parametrize("name", ["liq-nvt.force-frc-1.xyz", "nvt-frc-1.xyz", "forces.xyz"])
def test_forces_under_another_name(tmp_path, frames, name):
    """By the input, also beside others; else the only ones there; several are named, with a remedy that works."""
    write(tmp_path, frames)
    text = (tmp_path / "liq-frc-1.xyz").read_text()
    (tmp_path / "liq-frc-1.xyz").rename(tmp_path / name)
    (tmp_path / "else-frc-1.xyz").write_text(re.sub(r"\d\.\d{3}", "0.111", text))
    filename = {"liq-nvt.force-frc-1.xyz": "nvt.force", "nvt-frc-1.xyz": "./nvt", "forces.xyz": "=forces.xyz"}[name]
    write_input(tmp_path, printed=f"    &FORCES\n      FILENAME {filename}\n    &END FORCES")
    raw, found = only(tmp_path / "liq-pos-1.xyz")
    assert tmp_path / name in raw.files
    np.testing.assert_allclose(found[2].get_forces(), frames[2].get_forces(), rtol=2e-7, atol=1e-8)
    if name == "forces.xyz":
        return
    write_input(tmp_path)
    with pytest.raises(ValueError, match=r"not clear which of .*else-frc-1\.xyz.*ln -s .* liq-frc-1\.xyz") as raised:
        cp2k.read(tmp_path / "liq-pos-1.xyz")
    assert name in str(raised.value)
    (tmp_path / "liq-frc-1.xyz").symlink_to(tmp_path / name)
    only(tmp_path / "liq-pos-1.xyz")
    (tmp_path / "liq-frc-1.xyz").unlink()
    (tmp_path / "else-frc-1.xyz").unlink()
    raw, found = only(tmp_path / "liq-pos-1.xyz")
    assert tmp_path / name in raw.files
    raw, _ = only(tmp_path / name)  # they may be what is given
    assert tmp_path / name in raw.files


def test_forces_of_another_run_are_not_taken(tmp_path, frames):
    write(tmp_path, frames)
    write(tmp_path, frames, project="b", kinds=("pos", "frc"))
    write_input(tmp_path)
    (tmp_path / "liq-frc-1.xyz").unlink()
    with pytest.raises(ValueError, match=r"no '.*liq-frc-1\.xyz'.*\n&MOTION"):
        cp2k.read(tmp_path / "liq-pos-1.xyz")
    (tmp_path / "b-pos-1.xyz").unlink()  # now its forces have nobody else: but their energies are not those of this run
    text = (tmp_path / "b-frc-1.xyz").read_text()
    (tmp_path / "b-frc-1.xyz").write_text(re.sub(r"E = +-?\d", "E = 7", text))
    with pytest.raises(ValueError, match=r"has the energy 7.* not of the same run"):
        only(tmp_path / "liq-pos-1.xyz")


@pytest.mark.parametrize("ensemble", ["NPT_I", "npt_f", "NPE_F", "MSST", "${ENS}"])
def test_a_cell_that_changes_must_be_at_hand(tmp_path, frames, ensemble):
    top = "@SET ENS NPT_I\n"
    write(tmp_path, frames)
    write_input(tmp_path, ensemble=ensemble, top=top)
    with pytest.raises(ValueError, match=r"ENSEMBLE \w+ of .*liq\.inp' changes the cell.*no '.*liq-1\.cell'.*&CELL"):
        convert([tmp_path], tmp_path / "a.db")
    cells = [frames[0].cell.array * (1.0 + 1e-3 * step) for step in range(6)]
    write_cells(tmp_path, cells, range(6), name="other-1.cell")
    with pytest.raises(ValueError, match=r"other-1\.cell is of this run, give it that name"):
        cp2k.read(tmp_path)
    write_cells(tmp_path, cells[:1], [0])  # printed once only
    with pytest.raises(ValueError, match=r"liq-1\.cell' lacks that of step 1"):
        cp2k.read(tmp_path)
    write_cells(tmp_path, cells, range(6))
    for atoms, cell in zip(only(tmp_path)[1], cells, strict=True):
        np.testing.assert_allclose(atoms.cell, cell, atol=1e-9)
    (tmp_path / "liq-1.cell").unlink()
    write(tmp_path, frames, extended=True, cells=cells)
    for atoms, cell in zip(only(tmp_path)[1], cells, strict=True):
        np.testing.assert_allclose(atoms.cell, cell, atol=1e-9)


@pytest.mark.parametrize("ensemble", ["NVE", "NVT", "LANGEVIN"])
def test_a_fixed_cell_needs_none(tmp_path, frames, ensemble):
    write(tmp_path, frames)
    write_input(tmp_path, ensemble=ensemble)
    assert len(only(tmp_path)[1]) == 6


DEUTERIUM = (
    "    &KIND D\n      ELEMENT H\n      MASS 2.014\n    &END KIND\n    &KIND H\n      BASIS_SET X\n    &END KIND\n"
)


@pytest.fixture
def hydrogen(frames):
    found = []
    for atoms in frames:
        copy = atoms.copy()
        copy.numbers[:] = [1, 1, 1, 29]
        copy.calc = SinglePointCalculator(copy, **atoms.calc.results)
        found.append(copy)
    return found


def masses(folder):
    return only(folder / "liq-pos-1.xyz")[1][0].get_masses().tolist()


def test_masses_of_kinds(tmp_path, hydrogen):
    """By the names of the atoms, or the kinds of the coordinates in the input; where neither tells, it is refused."""
    light, heavy, copper = 1.008, 2.014, 63.546
    write_input(tmp_path, subsystem="    &KIND H\n      MASS 2.014\n    &END KIND")
    write(tmp_path, hydrogen)
    assert masses(tmp_path) == [heavy, heavy, heavy, copper]
    write_input(tmp_path, subsystem=DEUTERIUM)
    write(tmp_path, hydrogen, names=["D", "H", "D", "Cu"])
    assert masses(tmp_path) == [heavy, light, heavy, copper]
    assert only(tmp_path / "liq-pos-1.xyz")[1][0].get_chemical_symbols() == ["H", "H", "H", "Cu"]
    write(tmp_path, hydrogen)  # CP2K writes H for all of them
    with pytest.raises(ValueError, match=r"atoms H .* may be of the kinds D \(2\.014\), H \(1\.008\).*restart file"):
        masses(tmp_path)
    coordinates = "    &COORD\n" + "".join(f"      {name} 0 0 {i}\n" for i, name in enumerate(["H", "D", "D", "Cu"]))
    write_input(tmp_path, name="liq-1.restart", subsystem=f"{coordinates}    &END COORD\n{DEUTERIUM}")
    assert masses(tmp_path) == [light, heavy, heavy, copper]
    write_input(tmp_path, name="liq-1.restart", subsystem="    &KIND H\n      MASS -1\n    &END KIND")
    with pytest.raises(ValueError, match=r"MASS -1 in &KIND H"):
        masses(tmp_path)


def test_masses_come_to_the_frames_that_are_trained_on(tmp_path, hydrogen):
    """And velocities of the file are kept with them."""
    write_input(tmp_path, subsystem="    &KIND H\n      MASS 2.014\n    &END KIND")
    write(tmp_path, hydrogen)
    convert([tmp_path / "liq-pos-1.xyz"], tmp_path / "a.db")
    loaded = load_frames(ASEAtomsData(str(tmp_path / "a.db")))
    np.testing.assert_allclose(loaded.masses[0], [2.014, 2.014, 2.014, 63.546])
    row = next(connect(tmp_path / "a.db").select())
    velocities = row.toatoms().get_velocities()
    np.testing.assert_allclose(velocities, hydrogen[0].get_velocities(), rtol=3e-7, atol=2e-8)


def test_a_name_that_is_no_element(tmp_path, hydrogen):
    write_input(tmp_path)
    write(tmp_path, hydrogen, names=["D", "H", "D", "Cu"])
    with pytest.raises(ValueError, match=r"atoms named 'D', which is not an element.*&KIND and ELEMENT"):
        masses(tmp_path)


def test_pressures_that_are_incomplete_or_damaged(tmp_path, frames, caplog):
    write(tmp_path, frames)
    write_input(tmp_path)
    rows = [
        f"{step} {0.5 * step} " + " ".join(["1000.0", "0", "0", "0", "2000", "0", "0", "0", "3000"])
        for step in range(6)
    ]
    file = tmp_path / "liq-1.stress"
    file.write_text("# Step\n" + "\n".join(rows) + "\n")
    raw, found = only(tmp_path / "liq-pos-1.xyz")
    assert file in raw.files
    v, m = frames[0].get_velocities(), frames[0].get_masses()
    kinetic = np.einsum("a,ai,aj->ij", m, v, v) / (3.6 * 3.6 * 3.9)
    expected = full_3x3_to_voigt_6_stress(kinetic - np.diag([1e3, 2e3, 3e3]) * 6.241509e-7)
    np.testing.assert_allclose(found[0].calc.results["stress"], expected, rtol=1e-5)
    file.write_text("\n".join(rows[:4]) + "\n")
    assert "stress" not in only(tmp_path / "liq-pos-1.xyz")[1][0].calc.results
    assert "lacks step 4" in caplog.text
    file.write_text("\n".join([*rows[:4], "4 2.0 1 2 3"]) + "\n")
    with pytest.raises(ValueError, match=r"line 5 of '.*liq-1\.stress' is not step, time and nine components"):
        cp2k.read(tmp_path / "liq-pos-1.xyz")
