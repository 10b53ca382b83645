"""VASP's fields have fixed widths: numbers that touch, numbers that do not fit, and lines that are not there."""

import re

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.simulation_files import write_outcar, write_vasprun

from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.readers import vasp_outcar, vasp_xml
from spk_dt.trajectories.readers.vasp_header import split_fields


@pytest.fixture(scope="module")
def frames(crystal, make_trajectory):
    return make_trajectory(crystal, 4, 0.5, 3)


def mixture(symbols):
    """Two frames of one atom of each element, with heavy masses that fill their fields."""
    frames = []
    for shift in (0.0, 0.01):
        atoms = Atoms(symbols, cell=[20.0, 20.0, 20.0], pbc=True)
        atoms.positions += np.arange(3 * len(atoms)).reshape(-1, 3) % 19 + shift
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.full((len(atoms), 3), 0.1))
        frames.append(atoms)
    return frames


def change(path, *pairs):
    text = path.read_text()
    for old, new in pairs:
        text, n = re.subn(old, new, text, flags=re.MULTILINE)
        assert n > 0, f"nothing like {old}"
    path.write_text(text)


def read(path):
    (raw,) = vasp_outcar.read(path)
    return list(raw.frames())


@pytest.mark.parametrize("symbols", ["CuPt", "AlTaWPtAu", "CrMnFeCoNiCuZnYZrNbMoRhPdWIrPt"])
@pytest.mark.parametrize("titles", [True, False])
def test_masses_that_touch(tmp_path, symbols, titles):
    """Six characters a mass, eight masses a line; with and without those of the potentials, which have three decimals."""
    frames = mixture(symbols)
    path = write_outcar(tmp_path / "OUTCAR", frames)
    masses = frames[0].get_masses()
    fields = [f"{mass:6.2f}" for mass in masses]
    lines = "\n".join(f"   POMASS = {''.join(fields[at : at + 8])}" for at in range(0, len(fields), 8))
    assert re.search(r"\d\.\d\d\d", lines)  # they do touch
    change(path, (r"^   POMASS = [ \d.]+$", lines))
    if not titles:
        change(path, (r"^   TITEL.*\n   POMASS.*$", "  "))
    found = read(path)
    assert found[0].get_chemical_symbols() == frames[0].get_chemical_symbols()
    np.testing.assert_allclose(found[0].get_masses(), masses, atol=0.0006 if titles else 0.0051)


def test_masses_of_the_run_count_not_those_of_the_potentials(tmp_path):
    """Deuterium is H with POMASS in the INCAR, which is copied at the top of the file."""
    path = write_outcar(tmp_path / "OUTCAR", mixture("HPt"))
    change(
        path,
        (r"^(.*build.*)$", r"\1\n   POMASS = 2.014 195.08"),
        (r"^   POMASS = [ \d.]+$", "   POMASS =   2.01195.08"),
    )
    np.testing.assert_allclose(read(path)[0].get_masses(), [2.01, 195.08], atol=1e-9)
    convert([path], tmp_path / "a.db")


@pytest.mark.parametrize("source", ["TITEL", "VRHFIN", "POTCAR"])
def test_elements_from_the_lines_that_are_there(tmp_path, frames, source):
    path = write_outcar(tmp_path / "OUTCAR", frames)
    order = ["TITEL", "VRHFIN", "POTCAR"]
    for name in order[: order.index(source)]:
        change(path, (rf"^.*{name}.*\n", ""))
    assert read(path)[0].get_chemical_symbols() == ["Cu"] * 4
    change(path, *[(rf"^.*{name}.*\n", "") for name in order[order.index(source) :]])
    with pytest.raises(ValueError, match=r"0 elements \(lines TITEL, VRHFIN or POTCAR\).*vasprun\.xml"):
        read(path)


def test_numbers_of_ions_that_touch(tmp_path):
    frames = mixture("Cu1000Pt2000")
    path = write_outcar(tmp_path / "OUTCAR", frames)
    change(
        path,
        (r"^   ions per type.*$", "   number of dos      NEDOS =    301   number of ions     NIONS =   3000\n"
         "   ions per type =            10002000"),
    )  # fmt: skip
    assert read(path)[0].get_chemical_formula() == "Cu1000Pt2000"


def test_positions_forces_cell_and_stress_that_touch(tmp_path, frames):
    path = write_outcar(tmp_path / "OUTCAR", frames)
    table = [[-123456.78901, 1234567.12345, -0.5, 1234567.123456, -123456.654321, 0.25]] * 4
    lines = ["".join(f"{x:13.5f}" for x in row[:3]) + "   " + "".join(f"{x:14.6f}" for x in row[3:]) for row in table]
    assert re.search(r"\d-\d|\d\.\d{5}\d", lines[0])
    text = path.read_text()
    start = text.index("\n", text.index(" ---", text.index("TOTAL-FORCE"))) + 1
    stop = text.index(" ---", start)
    stress = [-1234.56789, -12345.67891, 123456.78912, 1.5, -2.25, 100000.5]
    kilobar = "  in kB  " + "".join(f"{x:12.5f}" for x in stress)
    assert len(kilobar.split()) < 8
    path.write_text(text[:start] + "\n".join(lines) + "\n" + text[stop:].replace("  FREE", f"{kilobar}\n  FREE", 1))
    atoms = next(vasp_outcar.read(path)[0].frames())
    np.testing.assert_allclose(atoms.positions, np.array(table)[:, :3], rtol=1e-12)
    np.testing.assert_allclose(atoms.calc.results["forces"], np.array(table)[:, 3:], rtol=1e-12)
    xx, yy, zz, xy, yz, zx = stress
    np.testing.assert_allclose(
        atoms.calc.results["stress"], -vasp_outcar.KBAR * np.array([xx, yy, zz, yz, zx, xy]), rtol=1e-12
    )


def test_fields_are_not_made_up():
    """A line with too few numbers, or numbers that cannot be told apart, stays what it is."""
    assert len(split_fields(" 1.00000 2.00000", 3, (5, 5, 5))) == 2
    assert len(split_fields(" 1.000002.00 3.00000", 3, (5, 5, 5))) == 2
    assert split_fields("-1.00000-2.00000-3.00000", 3, (5, 5, 5)) == ["-1.00000", "-2.00000", "-3.00000"]


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (r"^ +-?[\d.]+( +-?\d\.\d{5} +-?\d\.\d{5} +-?\d\.\d{6})", r" *************\1", "POSITION, TOTAL-FORCE"),
        (r"TOTEN  = .*$", "TOTEN  = ****************** eV", "TOTEN"),
        (r"^  FREE", "  in kB  ************  1.00000  1.00000  1.00000  1.00000  1.00000\n  FREE", "in kB"),
    ],
)
def test_a_number_that_does_not_fit_its_field_is_named(tmp_path, frames, old, new, what):
    path = write_outcar(tmp_path / "OUTCAR", frames)
    change(path, (old, new))
    with pytest.raises(ValueError, match=rf"OUTCAR', frame \d: '.*\*\*.*' of {what} has asterisks"):
        read(path)


def test_asterisks_in_the_xml(tmp_path, frames):
    path = write_vasprun(tmp_path / "vasprun.xml", frames)
    change(path, (r'(<varray name="forces" >\n +<v>) +\S+', r"\1 ***************"))
    with pytest.raises(ValueError, match=r"vasprun\.xml', frame 0: .*of varray.*forces.* has asterisks"):
        list(vasp_xml.read(path)[0].frames())


def test_forces_of_some_steps_only(tmp_path, frames):
    """NWRITE = 0 writes them for the first and the last; the vasprun.xml, which is named as the remedy, has all."""
    path = write_outcar(tmp_path / "OUTCAR", frames)
    change(path, (r"^   NSW", "   NWRITE =      0    write-flag & timer\n   NSW"))
    assert len(read(path)) == 5  # where they are there, the setting does not matter
    first, *between, last = re.split(r"(?=^----- Iteration)", path.read_text(), flags=re.MULTILINE)[1:]
    header = path.read_text().split("----- Iteration")[0]
    short = [re.sub(r"      direct lattice.*?(?=  FREE)", "", block, flags=re.DOTALL) for block in between]
    path.write_text(header + first + "".join(short) + last)
    with pytest.raises(ValueError, match=r"frame 1: .*NWRITE = 0 .*vasprun\.xml") as raised:
        convert([path], tmp_path / "a.db")
    assert "damaged" not in str(raised.value)
    (found,) = convert([write_vasprun(tmp_path / "vasprun.xml", frames)], tmp_path / "a.db")
    assert found.trajectory.length == 5


@pytest.mark.parametrize(("isif", "refused"), [(2, False), (3, True)])
def test_a_cell_that_changes_must_be_written_for_each_frame(tmp_path, frames, isif, refused):
    path = write_outcar(tmp_path / "OUTCAR", frames)
    change(path, (r"^   NSW", f"   ISIF   = {isif:6d}    stress and relaxation\n   NSW"))
    assert len(read(path)) == 5
    blocks = path.read_text().split("----- Iteration")
    gone = re.compile(r"      direct lattice.*?\n\n", re.DOTALL)
    path.write_text("----- Iteration".join([*blocks[:3], *(gone.sub("", block) for block in blocks[3:])]))
    if refused:
        with pytest.raises(ValueError, match=r"frame 2: the cell .* ISIF = 3 changes the cell.*vasprun\.xml"):
            read(path)
    else:
        assert len(read(path)) == 5
