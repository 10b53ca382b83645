"""Names in extended XYZ: those that differ in case only are taken, others are named with the option that takes them."""

import re

import numpy as np
import pytest

from spk_dt.trajectories.readers import find_reader

ROWS = "H 0 0 0 1 2 3\nH 0 0 1.5 -1 -2 -3\n"


def write(tmp_path, comment, columns="forces", rows=ROWS, frames=3):
    path = tmp_path / "run.extxyz"
    path.write_text(f"2\n{comment} Properties=species:S:1:pos:R:3:{columns}:R:3\n{rows}" * frames)
    return path


def read(path, **options):
    (raw,) = find_reader(path).read(path, **options)
    return raw, list(raw.frames())


@pytest.mark.parametrize(
    ("comment", "columns"),
    [("Energy=-7.5", "Forces"), ("ENERGY=-7.5", "forces"), ("energy=-7.5", "force"), ("Free_Energy=-7.5", "Force")],
)
def test_case_alone_makes_no_other_name(tmp_path, comment, columns):
    raw, (atoms, *_) = read(write(tmp_path, comment, columns))
    assert atoms.calc.results["energy"] == -7.5
    np.testing.assert_array_equal(atoms.get_forces(), [[1, 2, 3], [-1, -2, -3]])
    renamed = [name for name in (comment.split("=")[0], columns) if name not in ("energy", "forces")]
    assert len(raw.notes) == len(renamed)
    assert all(f"'{name}'" in " ".join(raw.notes) for name in renamed)


def test_keys_of_gpumd(tmp_path):
    """https://gpumd.org: Energy and Virial in eV, velocities in Å/fs."""
    path = tmp_path / "dump.xyz"
    frame = '2\nTime=0.5 PBC="T T T" lattice="5 0 0 0 6 0 0 0 7" properties=species:S:1:pos:R:3:vel:R:3:force:R:3 '
    frame += 'Energy=-3.5 Virial="1 0 0 0 2 0 0 0 3"\nCu 0 0 0 0.01 0 0 1 2 3\nCu 2 2 2 0 0.02 0 -1 -2 -3\n'
    path.write_text(frame * 3)
    with pytest.raises(ValueError, match=r"'vel' is not in the file.*--velocity-unit.*GPUMD.*--recover-velocities"):
        read(path)
    _, (atoms, *_) = read(path, velocity_unit="Ang/fs")
    assert atoms.calc.results["energy"] == -3.5
    np.testing.assert_array_equal(atoms.cell.lengths(), [5, 6, 7])
    assert atoms.pbc.all()
    np.testing.assert_allclose(atoms.calc.results["stress"], -np.diag([1.0, 2.0, 3.0]) / 210.0)


def test_two_ways_to_write_a_name_are_not_guessed_between(tmp_path):
    with pytest.raises(ValueError, match=r"no energy 'energy'.*Energy, ENERGY"):
        read(write(tmp_path, "Energy=1.0 ENERGY=2.0"))
    assert read(write(tmp_path, "energy=1.0 Energy=2.0"))[1][0].calc.results["energy"] == 1.0


@pytest.mark.parametrize(
    ("energy", "forces"),
    [("REF_energy", "REF_forces"), ("dft_energy", "dft_forces"), ("DFT_Energy", "DFT_Force"), ("QM_energy", "frc")],
)
def test_what_is_named_in_the_message_reads_the_file(tmp_path, energy, forces):
    path = write(tmp_path, f"{energy}=-7.5", forces)
    with pytest.raises(ValueError, match="there are no forces 'forces'") as error:
        read(path)
    named = dict(re.findall(r"--(\w+)-key (\w+)", str(error.value)))
    assert named == {"forces": forces, "energy": energy}
    _, (atoms, *_) = read(path, forces_key=named["forces"], energy_key=named["energy"])
    assert atoms.calc.results["energy"] == -7.5
    assert atoms.get_forces()[0, 2] == 3.0


def test_a_gradient_and_nothing_are_told_apart(tmp_path):
    with pytest.raises(ValueError, match="minus the forces"):
        read(write(tmp_path, "energy=1.0", "gradient"))
    with pytest.raises(ValueError, match="the file has no forces"):
        read(write(tmp_path, "energy=1.0", "vel"))


def test_byte_order_mark_and_carriage_returns(tmp_path):
    path = write(tmp_path, "energy=1.0")
    before = read(path)[1]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    after = read(path)[1]
    assert len(after) == len(before) == 3
    np.testing.assert_array_equal(after[2].get_forces(), before[2].get_forces())
