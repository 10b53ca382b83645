"""Output of other programs, in its own units, gives the frames that were written; what is cut off is never a wrong frame."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.program_files import PROGRAMS, STEP_FS, write_abacus, write_qbox

from spk_dt.trajectories.readers import IncompleteFrameError, find_reader, program_output


@pytest.fixture
def frames(crystal, make_trajectory):
    """Five frames, two elements, of which one is an isotope."""
    atoms = crystal.copy()
    atoms.symbols[:2] = "Pd"
    return make_trajectory(atoms, 4, STEP_FS, 4)


def read(path):
    (raw,) = find_reader(path).read(path)
    return raw, list(raw.frames())


def compare(found, frames, velocities, pbc=True):
    assert len(found) == len(frames)
    for atoms, right in zip(found, frames, strict=True):
        np.testing.assert_array_equal(atoms.numbers, right.numbers)
        assert atoms.pbc.all() == pbc
        np.testing.assert_allclose(atoms.positions, right.positions, rtol=0.0, atol=3e-7)
        np.testing.assert_allclose(atoms.get_forces(), right.get_forces(), rtol=3e-7, atol=1e-8)
        results = atoms.calc.results
        energy = results["free_energy" if "free_energy" in results else "energy"]
        assert energy == pytest.approx(right.get_potential_energy(), abs=3e-6)
        assert atoms.has("momenta") == velocities
        if pbc:
            np.testing.assert_allclose(atoms.cell.array, right.cell.array, rtol=0.0, atol=3e-7)
        if velocities:
            np.testing.assert_allclose(atoms.get_velocities(), right.get_velocities(), rtol=0.0, atol=1e-7)


@pytest.mark.parametrize("program", PROGRAMS)
def test_units_and_velocities(tmp_path, frames, program):
    name, write, has_time, velocities = PROGRAMS[program]
    raw, found = read(write(tmp_path / name, frames))
    compare(found, frames, velocities, pbc=program != "Gaussian")
    if has_time:
        assert raw.timestep_fs == pytest.approx(STEP_FS, rel=1e-5)
    else:
        assert (raw.timestep_fs, raw.inner_steps) == (None, 2)
    wrong = [atoms.copy() for atoms in frames]  # a comparison that could not fail would show nothing
    for atoms, right in zip(wrong, frames, strict=True):
        atoms.calc, atoms.positions = right.calc, atoms.positions * (1.0 + 1e-4)
    with pytest.raises(AssertionError):
        compare(found, wrong, velocities, pbc=program != "Gaussian")


def test_every_format_is_tried():
    assert [one.name.split(",")[0] for one in program_output.FORMATS] == sorted(
        PROGRAMS, key=[one.name.split(",")[0] for one in program_output.FORMATS].index
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_file_that_is_cut_off_gives_whole_frames_and_an_error(tmp_path, frames, program):
    name, write, _, velocities = PROGRAMS[program]
    path = write(tmp_path / name, frames)
    text = path.read_text()
    errors = most = 0
    for cut in np.linspace(len(text) * 0.55, len(text) - 30, 9).astype(int):
        path.write_text(text[:cut])
        found = []
        try:
            (raw,) = find_reader(path).read(path)
            for atoms in raw.frames():
                found.append(atoms)
        except (IncompleteFrameError, ValueError):
            errors += 1
        compare(found, frames[: len(found)], velocities, pbc=program != "Gaussian")
        assert len(found) <= cut / len(text) * len(frames) + 0.2
        most = max(most, len(found))
    assert errors >= 1
    assert most >= 2  # it was read at all


@pytest.mark.parametrize("program", PROGRAMS)
def test_byte_order_mark_and_carriage_returns(tmp_path, frames, program):
    name, write, _, velocities = PROGRAMS[program]
    path = write(tmp_path / name, frames)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    compare(read(path)[1], frames, velocities, pbc=program != "Gaussian")


@pytest.mark.parametrize("program", [name for name in PROGRAMS if name not in ("Quantum ESPRESSO", "Qbox")])
def test_a_missing_frame_is_found(tmp_path, frames, program):
    name, write, *_ = PROGRAMS[program]
    path = write(tmp_path / name, frames)
    text = path.read_text().split("\n")
    marks = {
        "PWmat": " atoms,Iteration", "ABACUS": "MDSTEP", "OpenMX": f"{len(frames[0])} ", "SIESTA": "Begin MD step",
        "CASTEP": "<-- E", "FHI-aims": "uncorrected", "Gaussian": "Input orientation",
    }  # fmt: skip
    begins = [
        k for k, line in enumerate(text) if (line == marks[program] if program == "OpenMX" else marks[program] in line)
    ]
    if program == "CASTEP":
        begins = [k - 1 for k in begins]  # the time stands before the energy
    path.write_text("\n".join(text[: begins[2]] + text[begins[3] :]))
    with pytest.raises(ValueError, match="Frames are missing"):
        read(path)


def test_abacus_before_3_1_4_has_bohr_and_counts_energies(tmp_path, frames):
    compare(read(write_abacus(tmp_path / "MD_dump", frames, modern=False))[1], frames, velocities=False)
    (tmp_path / "running_md.log").unlink()
    with pytest.raises(ValueError, match=r"running_md\.log"):
        read(tmp_path / "MD_dump")


def test_deuterium_of_qbox_keeps_its_mass(tmp_path, frames):
    heavy = []
    for right in frames:
        atoms = Atoms(f"H{len(right)}", right.positions, cell=right.cell, pbc=True, masses=[2.014] * len(right))
        atoms.calc = SinglePointCalculator(atoms, energy=right.get_potential_energy(), forces=right.get_forces())
        heavy.append(atoms)
    frames = heavy
    path = write_qbox(tmp_path / "run.r", frames)
    path.write_text(path.read_text().replace("<symbol>H</symbol>", "<symbol>D</symbol>"))
    _, found = read(path)
    assert found[0].get_masses() == pytest.approx([2.014] * len(found[0]))
    assert set(found[0].symbols) == {"H"}


def test_velocities_of_aims_are_not_those_that_ase_reads(tmp_path, frames):
    """ASE takes Å/ps over as they are; if it does no longer, this tells."""
    import ase.io

    name, write, *_ = PROGRAMS["FHI-aims"]
    path = write(tmp_path / name, frames)
    with pytest.raises(Exception):  # noqa: B017, PT011  # ... and refuses an output without the last lines
        ase.io.read(path, ":", format="aims-output")
    assert abs(read(path)[1][0].get_velocities()).max() < 0.1 / ase.units.fs
