"""What is held fixed: read from files of each format or named by an option, checked against frames, kept in the database."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixBondLengths, FixCartesian, FixedLine, FixedPlane, FixScaled
from ase.db import connect
from helpers.programs import spkdt
from helpers.slab import LAYER, MOBILE, SLIDING, slab, slab_frames, without_constraints
from helpers.slab_files import cp2k, outcar, poscar, vasprun
from schnetpack.data import ASEAtomsData

from spk_dt.data.load import load_frames
from spk_dt.data.start_frames import open_dataset, read_frame
from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.database import TrajectoryWriter, read_trajectories
from spk_dt.trajectories.fixed_atoms import FixedSelection, forces_held, index_ranges, mobile_of, set_mobile
from spk_dt.trajectories.inputs import Reading
from spk_dt.trajectories.readers.cp2k_fixed import fixed_atoms
from spk_dt.trajectories.readers.vasp_outcar import read as read_outcar

STEPS = 6


@pytest.fixture(scope="module")
def frames():
    return slab_frames(STEPS)


def mobile_in(path):
    (mobile,) = load_frames(ASEAtomsData(str(path))).mobile
    return mobile


def in_skew_cell(constraint):
    atoms = Atoms("Cu2", positions=[[0, 0, 0], [1.5, 1.5, 1.5]], cell=[[3, 0, 0], [1, 3, 0], [0, 0, 4]], pbc=True)
    atoms.set_constraint(constraint)
    return atoms


# --- constraints of ASE


@pytest.mark.parametrize(
    ("constraint", "second"),
    [
        (FixAtoms([1]), "..."),
        (FixCartesian([1], mask=(True, False, True)), ".y."),
        (FixScaled([1], mask=(True, True, True)), "..."),
        (FixScaled([1], mask=(True, True, False)), "..z"),
        (FixScaled([1], mask=(False, False, True)), "xy."),
        (FixScaled([1], mask=(False, True, True)), "x.."),
        (FixedPlane([1], (0, 0, 1)), "xy."),
        (FixedLine([1], (0, 1, 0)), ".y."),
        (FixBondLengths([(0, 1)]), "xyz"),
        ([FixedPlane([1], (0, 0, 1)), FixedPlane([1], (1, 0, 0))], ".y."),
    ],
)
def test_masks_of_constraints(constraint, second):
    """As ASE itself moves the atoms, whatever the directions."""
    atoms = in_skew_cell(constraint)
    assert "".join("xyz"[i] if free else "." for i, free in enumerate(mobile_of(atoms)[1])) == second
    assert mobile_of(atoms)[0].all()
    if not isinstance(constraint, FixBondLengths):
        before = atoms.positions.copy()
        atoms.set_positions(before + np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]]))
        moved = np.abs(atoms.positions - before) > 1e-12
        assert (moved <= mobile_of(atoms)).all()
    mask = mobile_of(atoms)
    set_mobile(atoms, mask)
    np.testing.assert_array_equal(mobile_of(atoms), mask)
    kinds = {type(one) for one in atoms.constraints}
    assert kinds <= {FixAtoms, FixCartesian, FixBondLengths}


@pytest.mark.parametrize(
    "constraint", [FixScaled([1], mask=(True, False, True)), FixedLine([1], (1, 1, 0)), FixedPlane([1], (1, 0, 1))]
)
def test_skew_directions_are_refused(constraint):
    with pytest.raises(ValueError, match="some of x, y and z"):
        mobile_of(in_skew_cell(constraint))


def test_masked_forces_are_told_apart():
    forces = np.ones((3, 2, 3))
    mobile = np.array([[True, True, False], [True, True, True]])
    assert forces_held(forces, mobile).all()
    forces[:, 0, 2] = -0.0
    np.testing.assert_array_equal(forces_held(forces, mobile), mobile)
    forces[2, 0, 2] = 1e-12
    assert forces_held(forces, mobile).all()
    assert forces_held(0.0 * forces, np.ones((2, 3), dtype=bool)).all()


def test_index_ranges():
    assert index_ranges([3, 0, 1, 2, 7, 9, 10]) == "0-3,7,9-10"
    mask = FixedSelection("0-3,7,9-10").mobile(slab(), "x")
    assert np.flatnonzero(~mask.all(axis=1)).tolist() == [0, 1, 2, 3, 7, 9, 10]


# --- formats


FIXED_ATOMS = """&FIXED_ATOMS
  LIST 1..3 \\
   4   ! the lowest layer
&END FIXED_ATOMS
&fixed_atoms
  COMPONENTS_TO_FIX Z
  LIST 5
&END
"""


@pytest.mark.parametrize("name", ["extxyz", "traj", "POSCAR", "CONTCAR", "vasprun", "cp2k"])
def test_files_say_what_is_fixed(name, frames, tmp_path):
    if name in ("extxyz", "traj"):
        path = tmp_path / f"run.{name}"
        ase.io.write(path, frames)
    elif name == "vasprun":
        path = tmp_path / "vasprun.xml"
        vasprun(path, frames, MOBILE)
    elif name == "cp2k":
        path = cp2k(tmp_path, frames, FIXED_ATOMS)
    else:
        path = tmp_path / "OUTCAR"
        outcar(path, frames)
        poscar(tmp_path / name, frames[0], MOBILE)
    step = 1.0 if name in ("extxyz", "traj") else None
    (found,) = convert([path], tmp_path / "out.db", Reading(timestep_fs=step))
    (note,) = (note for note in found.notes if "fixed" in note)
    assert note == "fixed atoms: 4 of 13 (0-3), and components of 1 (4)"
    np.testing.assert_array_equal(mobile_in(tmp_path / "out.db"), MOBILE)
    rows = list(connect(tmp_path / "out.db").select())
    for row, atoms in zip(rows, frames, strict=True):
        assert row.positions[LAYER].tobytes() == rows[0].positions[LAYER].tobytes()
        assert not row.data["velocities"][~MOBILE].any()
        assert np.abs(row.data["forces"] - atoms.calc.results["forces"]).max() < 1e-5
        assert np.abs(row.data["forces"][LAYER]).max() > 0.01  # not those after constraints
    _, out, err = spkdt("check", tmp_path / "out.db")
    assert "frozen" not in out + err


def test_one_flag_for_each_atom(frames, tmp_path):
    """ASE writes one column if whole atoms are fixed, three otherwise."""
    only = without_constraints(frames)
    for atoms in only:
        atoms.set_constraint(FixAtoms(LAYER))
    ase.io.write(tmp_path / "run.extxyz", only)
    assert "move_mask:L:1" in (tmp_path / "run.extxyz").read_text()
    convert([tmp_path / "run.extxyz"], tmp_path / "out.db", Reading(timestep_fs=1.0))
    mobile = np.ones((13, 3), dtype=bool)
    mobile[LAYER] = False
    np.testing.assert_array_equal(mobile_in(tmp_path / "out.db"), mobile)


def test_a_mask_that_is_none(frames, tmp_path):
    ase.io.write(tmp_path / "run.extxyz", frames)
    text = (tmp_path / "run.extxyz").read_text()
    (tmp_path / "bad.extxyz").write_text(text.replace(" F  F  F ", " ?  F  F ", 1))
    with pytest.raises(ValueError, match=r"frame 0: 'move_mask' is not one T or F.*--fixed"):
        convert([tmp_path / "bad.extxyz"], tmp_path / "out.db", Reading(timestep_fs=1.0))


def test_poscar_of_another_run_is_not_used(frames, tmp_path, caplog):
    outcar(tmp_path / "OUTCAR", frames)
    other = frames[0].copy()
    other.numbers[-1] = 29
    poscar(tmp_path / "POSCAR", other, MOBILE)
    (tmp_path / "POSCAR").write_text((tmp_path / "POSCAR").read_text().replace("Cu O", "Cu N"))
    (raw,) = read_outcar(tmp_path / "OUTCAR")
    assert raw.mobile() is None
    assert "other atoms" in caplog.text


def test_selective_dynamics_along_skew_vectors(frames, tmp_path):
    """Scaled coordinates: a row F T F moves along the second vector of the cell, which is no axis."""
    flags = MOBILE.copy()
    flags[SLIDING] = [False, True, False]
    vasprun(tmp_path / "vasprun.xml", frames, flags)
    with pytest.raises(ValueError, match=r"selective dynamics: .* some of x, y and z"):
        convert([tmp_path / "vasprun.xml"], tmp_path / "out.db")
    (found,) = convert([tmp_path / "vasprun.xml"], tmp_path / "out.db", Reading(fixed="0-3,4:z"))  # the remedy
    assert "4 of 13" in " ".join(found.notes)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ("&FIXED_ATOMS\nLIST 1..14\n&END\n", r"LIST 1\.\.14 .* atoms 1 to 13"),
        ("&FIXED_ATOMS\nLIST ${FROZEN}\n&END\n", "FROZEN"),
        ("&FIXED_ATOMS\nMOLNAME SLAB\n&END\n", "MOLNAME"),
        ("&FIXED_ATOMS\nCOMPONENTS_TO_FIX UP\nLIST 1\n&END\n", "COMPONENTS_TO_FIX UP"),
    ],
)
def test_sections_of_cp2k_that_do_not_tell(sections, message, frames, tmp_path):
    path = cp2k(tmp_path, frames, sections)
    with pytest.raises(ValueError, match=message):
        convert([path], tmp_path / "out.db")
    convert([path], tmp_path / "out.db", Reading(fixed="0-3,4:z"))  # the remedy works
    np.testing.assert_array_equal(mobile_in(tmp_path / "out.db"), MOBILE)


def test_other_sections_of_cp2k_fix_nothing(tmp_path):
    (tmp_path / "a.inp").write_text(
        "&MOTION\n&CONSTRAINT\n&COLLECTIVE\nLIST 1\n&END\n&FIXED_ATOMS OFF\nLIST 2\n&END\n&END\n&END\n"
    )
    assert fixed_atoms(tmp_path / "a.inp", 3) is None


# --- the option


@pytest.mark.parametrize("option", ["0-3,4:z", "4:z, 0-3", "0,1,2-3,4:z"])
def test_option(option, frames, tmp_path):
    ase.io.write(tmp_path / "run.extxyz", without_constraints(frames))
    code, out, err = spkdt(
        "convert", tmp_path / "run.extxyz", tmp_path / "out.db", "--timestep-fs", 1, "--fixed", option
    )
    assert code == 0, err
    assert "fixed atoms: 4 of 13 (0-3), and components of 1 (4)" in out
    np.testing.assert_array_equal(mobile_in(tmp_path / "out.db"), MOBILE)


def test_option_by_height(frames, tmp_path):
    bare = without_constraints(frames)
    height = 0.5 * (bare[0].positions[LAYER, 2].max() + bare[0].positions[4:, 2].min())
    ase.io.write(tmp_path / "run.traj", bare)
    convert([tmp_path / "run.traj"], tmp_path / "out.db", Reading(timestep_fs=1.0, fixed=f"z<{height}"))
    assert np.flatnonzero(~mobile_in(tmp_path / "out.db").any(axis=1)).tolist() == LAYER


def test_option_wins_over_files(frames, tmp_path):
    ase.io.write(tmp_path / "run.traj", frames)
    convert([tmp_path / "run.traj"], tmp_path / "out.db", Reading(timestep_fs=1.0, fixed="none"))
    assert mobile_in(tmp_path / "out.db").all()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("1-", r"--fixed '1-' is not understood"),
        ("Cu", "not understood"),
        ("z<", "not understood"),
        ("z<nan", "not understood"),
        ("", "not understood"),
        ("3-1", "atoms 0 to 12, not 3 to 1"),
        ("0-13", "atoms 0 to 12, not 0 to 13"),
        ("z<-50", "no atom lies there"),
        ("0-5", r"frame 1: --fixed '0-5' hold atom [45] fixed, but it moves by .* Name others"),
    ],
)
def test_options_that_make_no_sense(option, message, frames, tmp_path):
    ase.io.write(tmp_path / "run.traj", without_constraints(frames))
    with pytest.raises(ValueError, match=message):
        convert([tmp_path / "run.traj"], tmp_path / "out.db", Reading(timestep_fs=1.0, fixed=option))
    assert not (tmp_path / "out.db").exists()


def test_constraints_that_the_frames_contradict(frames, tmp_path):
    wrong = without_constraints(frames)
    for atoms in wrong:
        atoms.set_constraint(FixAtoms([0, 12]))
    ase.io.write(tmp_path / "run.traj", wrong)
    with pytest.raises(ValueError, match=r"the constraints hold atom 12 fixed, but it moves .* --fixed none"):
        convert([tmp_path / "run.traj"], tmp_path / "out.db", Reading(timestep_fs=1.0))
    changed = without_constraints(frames)
    changed[3].set_constraint(FixAtoms([0]))
    ase.io.write(tmp_path / "other.traj", changed)
    with pytest.raises(ValueError, match=r"frame 3: it holds other atoms fixed than the first frame"):
        convert([tmp_path / "other.traj"], tmp_path / "out.db", Reading(timestep_fs=1.0))


def test_rounding_of_a_file_does_not_move_what_is_fixed(frames, tmp_path):
    rounded = without_constraints(frames)
    for i, atoms in enumerate(rounded):
        atoms.positions += 1e-6 * (-1) ** i
        atoms.calc = SinglePointCalculator(atoms, **atoms.calc.results)
    ase.io.write(tmp_path / "run.traj", rounded)
    convert([tmp_path / "run.traj"], tmp_path / "out.db", Reading(timestep_fs=1.0, fixed="0-3,4:z"))
    rows = list(connect(tmp_path / "out.db").select())
    assert all(row.positions[LAYER].tobytes() == rows[0].positions[LAYER].tobytes() for row in rows)


def test_what_never_moves_is_named_with_the_option(frames, tmp_path):
    ase.io.write(tmp_path / "run.traj", without_constraints(frames))
    (found,) = convert([tmp_path / "run.traj"], tmp_path / "out.db", Reading(timestep_fs=1.0))
    (note,) = found.notes
    assert "never move: 4" in note
    assert "--fixed 0-3" in note


def test_masked_forces_are_said(tmp_path):
    ase.io.write(tmp_path / "run.traj", slab_frames(4, masked=True))
    (found,) = convert([tmp_path / "run.traj"], tmp_path / "out.db", Reading(timestep_fs=1.0))
    assert "forces are zero" in found.notes[0]


# --- the database


def test_frames_of_a_database_say_what_is_fixed(frames, tmp_path):
    """So that what is exported or simulated from it holds the same."""
    with TrajectoryWriter(tmp_path / "out.db") as writer:
        writer.add("run", frames, 1.0)
    (record,) = read_trajectories(connect(tmp_path / "out.db").metadata, "out.db")
    np.testing.assert_array_equal(mobile_of(read_frame(open_dataset(tmp_path / "out.db"), record, 2)), MOBILE)
    for suffix in ("extxyz", "traj"):
        code, _, err = spkdt("frames", tmp_path / f"start.{suffix}", "--data", tmp_path / "out.db", "--split", "all")
        assert code == 0, err
        start = ase.io.read(tmp_path / f"start.{suffix}")
        np.testing.assert_array_equal(mobile_of(start), MOBILE)
        forces = start.get_forces(apply_constraint=False)
        assert np.abs(forces - frames[0].calc.results["forces"]).max() < 1e-7


def test_frames_that_differ_are_refused(frames, tmp_path):
    other = frames[1].copy()
    other.set_constraint(FixAtoms([0]))
    other.calc = SinglePointCalculator(other, **frames[1].calc.results)
    with TrajectoryWriter(tmp_path / "out.db") as writer:
        writer.add("good", frames, 1.0)
        with pytest.raises(ValueError, match="frame 1 of trajectory 'run' holds other atoms fixed"):
            writer.add("run", [frames[0], other], 1.0)
