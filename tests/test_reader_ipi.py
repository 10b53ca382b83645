"""Output of i-PI: files as i-PI writes them, in every unit, and what i-PI itself writes."""

import subprocess
import sys
from pathlib import Path

import ase.io
import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.ipi_files import write_ipi

from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.readers import IncompleteFrameError, find_reader, ipi

SYMBOLS, STEPS, K = ["O", "H", "D"], 6, 2.0  # eV/Å^2 of springs to the origin
CELL = np.array([[8.0, 0.0, 0.0], [1.0, 9.0, 0.0], [-0.5, 0.7, 10.0]])
INPUT = """<simulation verbosity='low' threading='False'>
  <output prefix='out'>
    <properties filename='txt' stride='2'>
      [ step, time{{picosecond}}, conserved{{electronvolt}}, cell_h, {potential} ]
    </properties>
    <trajectory filename='pos' stride='4' format='{format}'> positions{unit} </trajectory>
    <trajectory filename='frc' stride='4' format='{format}'> forces </trajectory>
    <trajectory filename='vel' stride='2' format='{format}'> velocities </trajectory>
  </output>
  <total_steps>20</total_steps><prng><seed>3</seed></prng>
  <ffdirect name='driver'><pes>harmonic</pes><parameters>{{k1: 0.05}}</parameters></ffdirect>
  <system>
    <initialize nbeads='{beads}'>
      <file mode='ase' units='ase'> start.xyz </file> <velocities mode='thermal' units='kelvin'> 50 </velocities>
    </initialize>
    <forces><force forcefield='driver'/></forces><ensemble><temperature units='kelvin'>50</temperature></ensemble>
    <motion mode='dynamics'><dynamics mode='nve'><timestep units='femtosecond'>0.25</timestep></dynamics></motion>
  </system>
</simulation>
"""


def motion():
    """Positions, forces, velocities and energies of atoms on springs, velocity Verlet of 0.5 fs, in the units of ASE."""
    masses = Atoms("OHH", masses=[15.999, 1.008, 2.014102]).get_masses()[:, None]
    dt, x = 0.5 * ase.units.fs, np.array([[0.1, 0.2, 0.3], [1.0, 0.1, -0.2], [-0.3, 1.1, 0.4]])
    v = np.array([[0.01, 0.0, 0.02], [-0.1, 0.05, 0.0], [0.02, -0.03, 0.04]])
    found = []
    for _ in range(STEPS):
        found.append((x, -K * x, v, 0.5 * K * (x**2).sum()))
        half = v - 0.5 * dt * K * x / masses
        x = x + dt * half
        v = half - 0.5 * dt * K * x / masses
    return [np.array(values) for values in zip(*found, strict=True)]


def write(folder, units=("atomic_unit",) * 4, **kwargs):
    """The files of that motion, two steps from frame to frame."""
    frames = []
    for x, f, v, e in zip(*motion(), strict=True):
        atoms = Atoms("OHH", x, cell=CELL, pbc=True, masses=[15.999, 1.008, 2.014102])
        atoms.set_velocities(v)
        atoms.calc = SinglePointCalculator(atoms, energy=e, forces=f)
        frames.append(atoms)
    return write_ipi(folder, frames, units=units, timestep_fs=0.25, every=2, **kwargs)


@pytest.mark.parametrize(
    ("units", "cell", "energy"),
    [
        (("atomic_unit",) * 4, "abcABC", "electronvolt"),
        (("", "", "", "angstrom"), "abcABC", "atomic_unit"),
        (("angstrom", "ev/ang", "m/s", "angstrom"), "H", "kilocal/mol"),
        (("nanometer", "piconewton", "atomic_unit", "automatic"), "H", "millielectronvolt"),
    ],
)
def test_units_are_those_that_the_files_say(tmp_path, units, cell, energy):
    path = write(tmp_path, units, cell=cell, energy=energy)
    assert find_reader(path) is ipi
    (raw,) = ipi.read(path)
    assert (raw.name, raw.inner_steps, raw.beads, raw.periodic_said) == ("run", 2, 1, False)
    assert raw.timestep_fs == pytest.approx(0.5, rel=1e-6)
    x, f, v, e = motion()
    found = list(raw.frames())
    assert raw.n_frames == len(found) == STEPS
    assert found[0].get_chemical_formula() == "H2O"
    assert found[0].get_masses()[2] == pytest.approx(2.014102)
    np.testing.assert_allclose([atoms.positions for atoms in found], x, atol=1e-7)
    np.testing.assert_allclose([atoms.get_forces() for atoms in found], f, atol=1e-6)
    np.testing.assert_allclose([atoms.get_velocities() for atoms in found], v, atol=1e-6)
    np.testing.assert_allclose([atoms.get_potential_energy() for atoms in found], e, atol=1e-6)
    np.testing.assert_allclose(found[0].cell.cellpar(), Atoms(cell=CELL).cell.cellpar(), atol=1e-6)
    if cell == "H":
        np.testing.assert_allclose(found[0].cell.array, CELL, atol=1e-6)


def test_what_is_not_there_is_refused_or_left_out(tmp_path):
    path = write(tmp_path)
    with pytest.raises(ValueError, match=r"has forces, not positions"):
        ipi.read(tmp_path / "run.frc_0.xyz")
    (tmp_path / "run.out").unlink()
    with pytest.raises(ValueError, match=r"no energies beside it.*potential\{electronvolt\}"):
        ipi.read(path)
    (tmp_path / "run.vel_0.xyz").unlink()
    (raw,) = ipi.read(path, lenient=True)
    atoms = next(raw.frames())
    assert raw.timestep_fs is None
    assert raw.inner_steps == 2
    assert not atoms.has("momenta")
    assert set(atoms.calc.results) == {"forces"}
    (tmp_path / "run.frc_0.xyz").unlink()
    with pytest.raises(ValueError, match="no forces and no energies"):
        ipi.read(path)
    assert not next(ipi.read(path, lenient=True)[0].frames()).calc.results


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    path = write(tmp_path)
    whole = (tmp_path / "run.frc_0.xyz").read_text()
    lines = whole.splitlines(keepends=True)
    (tmp_path / "run.frc_0.xyz").write_text("".join(lines[:5] + lines[10:]))  # without its second frame
    with pytest.raises(ValueError, match=r"frame 1 is of step 2, but .*frc_0.xyz' has step 4 there"):
        list(ipi.read(path)[0].frames())
    (tmp_path / "run.frc_0.xyz").write_text(whole)
    (tmp_path / "run.more_0.xyz").write_text(whole)
    with pytest.raises(ValueError, match="several files with the forces of bead 0"):
        ipi.read(path)
    (tmp_path / "run.more_0.xyz").unlink()
    text = (tmp_path / "run.out").read_text()
    (tmp_path / "run.out").write_text("\n".join(text.split("\n")[:-3]) + "\n")
    with pytest.raises(ValueError, match=r"has no energy of step 8"):
        list(ipi.read(path)[0].frames())
    path.write_text(path.read_text().replace("positions{atomic_unit}", "positions{furlong}"))
    with pytest.raises(ValueError, match=r"'furlong' is not a unit of length"):
        ipi.read(path)


def test_every_truncation_gives_whole_frames_and_an_error(tmp_path):
    path = write(tmp_path)
    text = path.read_text()
    x = motion()[0]
    for end in range(text.index("  O "), len(text), 37):
        path.write_text(text[:end])
        found = []
        try:
            for atoms in ipi.read(path, lenient=True)[0].frames() if ipi.recognises(path) else ():
                found.append(atoms.positions)
        except IncompleteFrameError:
            pass
        np.testing.assert_allclose(np.reshape(found, (-1, 3, 3)), x[: len(found)], atol=1e-7)


def test_other_formats_are_not_recognised(tmp_path):
    atoms = Atoms([*SYMBOLS[:2], "H"], positions=motion()[0][0])
    ase.io.write(tmp_path / "a.xyz", atoms, format="extxyz")
    assert not ipi.recognises(tmp_path / "a.xyz")
    (tmp_path / "b.xyz").write_text("1\nnothing\nH 0 0 0\n")
    assert not ipi.recognises(tmp_path / "b.xyz")


@pytest.mark.parametrize(
    ("style", "unit", "beads"), [("xyz", "{angstrom}", 3), pytest.param("ase", "", 1, marks=pytest.mark.slow)]
)
def test_what_ipi_itself_writes(tmp_path, style, unit, beads):
    pytest.importorskip("ipi", reason="needs i-PI")
    ase.io.write(tmp_path / "start.xyz", Atoms("HOH", [[0.3, 0, 0], [1, 0.1, 0], [0, 0.9, 0.2]], cell=CELL, pbc=True))
    potential = "potential{electronvolt}"
    if beads > 1:
        potential = ", ".join(f"potential{{electronvolt}}(bead={k})" for k in range(beads))
    text = INPUT.format(format=style, unit=unit, beads=beads, potential=potential)
    (tmp_path / "input.xml").write_text(text)
    program = Path(sys.executable).with_name("i-pi")
    subprocess.run([program, "input.xml"], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    path = tmp_path / f"out.pos_0.{'xyz' if style == 'xyz' else 'extxyz'}"
    raws = find_reader(path).read(path)
    assert [raw.beads for raw in raws] == [beads] * beads
    k = 0.05 * ase.units.Hartree / ase.units.Bohr**2
    for raw in raws:
        frames = list(raw.frames())
        assert (len(frames), raw.inner_steps) == (6, 4)
        assert raw.timestep_fs == pytest.approx(1.0, rel=1e-5)
        for atoms in frames:
            np.testing.assert_allclose(atoms.get_forces(), -k * atoms.positions, atol=1e-4)
            assert atoms.get_potential_energy() == pytest.approx(0.5 * k * (atoms.positions**2).sum(), abs=1e-3)
    if beads == 1:  # those of a bead are not conserved
        energies = [atoms.get_total_energy() for atoms in frames]
        assert np.ptp(energies) < 0.03 * np.ptp([atoms.get_potential_energy() for atoms in frames])
    (converted, *others) = convert([path], tmp_path / "out.db")
    assert len(others) == beads - 1
    assert any("springs" in note for note in converted.notes) == (beads > 1)
    if beads > 1:
        with pytest.raises(ValueError, match="brings all beads"):
            convert([path, tmp_path / "out.pos_1.xyz"], tmp_path / "twice.db")
