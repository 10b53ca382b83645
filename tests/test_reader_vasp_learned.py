"""Runs of VASP with its machine-learned force field: ab initio and machine-learned frames are never mixed."""

import re

import numpy as np
import pytest
from ase.db import connect
from helpers.simulation_files import write_outcar
from helpers.vasp_learned import WRITERS, of_the_force_field, write_learned_outcar
from typer.testing import CliRunner

from spk_dt.cli import app
from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.inputs import Reading
from spk_dt.trajectories.readers import IncompleteFrameError, find_reader

N_FRAMES = 9
FILES = sorted(WRITERS)


@pytest.fixture(scope="module")
def frames(crystal, make_trajectory):
    return make_trajectory(crystal, N_FRAMES - 1, 0.5, 3)


def read(path, **options):
    return find_reader(path).read(path, **options)


def assert_same(found, expected):
    assert len(found) == len(expected) > 0
    for atoms, sound in zip(found, expected, strict=True):
        np.testing.assert_allclose(atoms.calc.results["free_energy"], sound.calc.results["energy"], atol=1e-8)
        np.testing.assert_allclose(atoms.calc.results["forces"], sound.calc.results["forces"], atol=1e-6)
        moves = atoms.positions - sound.positions
        moves -= np.round(moves @ np.linalg.inv(sound.cell.array)) @ sound.cell.array
        np.testing.assert_allclose(moves, 0.0, atol=6e-6)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("steps", "rows", "said"),
    [
        ({1, 2, 3, 4, 8}, {"NAME": (0, 4)}, "1 to 4, 8; .* and step 8, which has no"),
        ({2, 3, 6, 7, 8}, {"NAME_2_3": (1, 3), "NAME_6_8": (5, 8)}, "2 to 3, 6 to 8; .* left out$"),
        ({9, 8, 1}, {"NAME": (7, 9)}, "1, 8 to 9; .* and step 1, which has no"),
    ],
)
def test_rows_of_ab_initio_steps_are_trajectories(tmp_path, frames, name, steps, rows, said):
    path = WRITERS[name](tmp_path / name, frames, steps)
    found = read(path)
    stem = name.removesuffix(".xml")
    assert [raw.name for raw in found] == [row.replace("NAME", stem) for row in rows]
    for raw, (start, stop) in zip(found, rows.values(), strict=True):
        assert (raw.timestep_fs, raw.inner_steps, raw.n_frames) == (0.5, 1, stop - start)
        assert_same(list(raw.frames()), frames[start:stop])
    assert len(found[0].notes) == 1
    assert not any(raw.notes for raw in found[1:])
    assert re.search(said, found[0].notes[0])


def test_the_older_name_of_the_energy_and_the_database(tmp_path, frames):
    """From the command to the database; what was left out is said."""
    path = write_learned_outcar(tmp_path / "OUTCAR", frames, {1, 2, 3, 4, 8}, energy="MLTOTEN")
    out = tmp_path / "out.db"
    result = CliRunner().invoke(app, ["convert", str(path), str(out)])
    assert result.exit_code == 0, result.output
    assert "ab initio steps are 1 to 4, 8; 9 frames of the force field were left out" in " ".join(result.output.split())
    rows = list(connect(out).select(sort="id"))
    assert [float(row.data["energy"][0]) for row in rows] == pytest.approx(
        [atoms.calc.results["energy"] for atoms in frames[:4]], abs=1e-8
    )


@pytest.mark.parametrize("name", FILES)
def test_a_run_of_the_force_field_alone_is_taken_on_purpose_only(tmp_path, frames, name):
    path = WRITERS[name](tmp_path / name, frames, set())
    with pytest.raises(ValueError, match=r"all frames of .*machine-learned force field.*--vasp-mlff"):
        convert([path], tmp_path / "a.db")
    (found,) = convert([path], tmp_path / "a.db", Reading(vasp_mlff=True))
    assert found.trajectory.length == N_FRAMES
    assert any("machine-learned force field, not ab initio" in note for note in found.notes)
    (raw,) = read(path, vasp_mlff=True)
    assert_same(list(raw.frames()), of_the_force_field(frames))


@pytest.mark.parametrize("name", FILES)
def test_a_force_field_that_changed_is_no_reference(tmp_path, frames, name):
    path = WRITERS[name](tmp_path / name, frames, {1, 5, 6})
    with pytest.raises(ValueError, match="3 steps are ab initio, and it learned from them"):
        read(path, vasp_mlff=True)
    path = WRITERS[name](tmp_path / name, frames, {1, 3, 5})
    with pytest.raises(ValueError, match=r"no two ab initio steps .* follow each other \(1, 3, 5\)"):
        read(path)


def test_only_some_steps_of_the_force_field_are_written(tmp_path, frames):
    path = write_learned_outcar(tmp_path / "OUTCAR", frames, set())
    path.write_text(path.read_text().replace("   ML_LMLFF = .TRUE.\n", "   ML_LMLFF = .TRUE.\n   ML_OUTBLOCK = 5\n"))
    (raw,) = read(path, vasp_mlff=True)
    assert (raw.timestep_fs, raw.inner_steps) == (2.5, 5)


def test_options_and_files_that_do_not_go_together(tmp_path, frames):
    path = write_learned_outcar(tmp_path / "OUTCAR", frames, set(range(1, N_FRAMES + 1)))
    text = path.read_text().replace("   ML_LMLFF = .TRUE.\n", "")
    path.write_text(text)
    with pytest.raises(ValueError, match="does not say ML_LMLFF"):  # but has its frames
        list(read(path)[0].frames())
    with pytest.raises(ValueError, match="no frames of a machine-learned force field; leave --vasp-mlff away"):
        read(write_outcar(path, frames), vasp_mlff=True)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_off_is_told(tmp_path, frames, name):
    """Also if the cut is behind the last row: it may have been longer."""
    steps = {1, 2, 3, 4, 8}
    whole = WRITERS[name](tmp_path / name, frames, steps).read_text()
    mark = "Iteration" if name == "OUTCAR" else "<calculation>"
    for cut in (len(whole) * 95 // 100, whole.rindex(mark) - 5):
        (tmp_path / name).write_text(whole[:cut])
        (raw,) = read(tmp_path / name)
        found = []
        with pytest.raises(IncompleteFrameError, match="--drop-incomplete"):
            found.extend(raw.frames())
        assert_same(found, frames[:4])
    (found,) = convert([tmp_path / name], tmp_path / "a.db", Reading(drop_incomplete=True))
    assert found.trajectory.length == 4
