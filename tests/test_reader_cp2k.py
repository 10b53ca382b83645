"""CP2K's XYZ files: values, units, restarts, cells, and what is refused."""

import logging
import random

import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.db import connect

from spk_dt import properties
from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.inputs import Reading
from spk_dt.trajectories.readers import cp2k
from spk_dt.trajectories.readers.cp2k_input import read_input, unit_factor
from spk_dt.trajectories.readers.incomplete import IncompleteFrameError
from spk_dt.trajectories.verlet_residual import verlet_residual

HARTREE, BOHR = 27.211386245988, 0.529177210903  # eV, Å (CODATA 2018); ASE's are of 2014
AU_TIME_FS = 2.4188843265857e-2
TIMESTEP_FS = 0.5
VALUES = {
    "pos": lambda atoms: atoms.positions,
    "frc": lambda atoms: atoms.get_forces() * BOHR / HARTREE,
    "vel": lambda atoms: atoms.get_velocities() * ase.units.fs * AU_TIME_FS / BOHR,
}


def block(kind, atoms, step, timestep_fs=TIMESTEP_FS):
    """A frame as CP2K's write_trajectory prints it."""
    energy = atoms.get_potential_energy() / HARTREE
    rows = [
        f"{symbol:>3s}" + "".join(f"{x:20.10f}" for x in row)
        for symbol, row in zip(atoms.symbols, VALUES[kind](atoms), strict=True)
    ]
    title = f" i = {step:8d}, time = {step * timestep_fs:12.3f}, E = {energy:20.10f}"
    return "\n".join([f"{len(atoms):8d}", title, *rows]) + "\n"


def write_xyz(folder, frames, steps=None, kinds=("pos", "frc", "vel"), project="copper", timestep_fs=TIMESTEP_FS):
    steps = list(range(len(frames))) if steps is None else steps
    for kind in kinds:
        text = "".join(block(kind, atoms, step, timestep_fs) for atoms, step in zip(frames, steps, strict=True))
        (folder / f"{project}-{kind}-1.xyz").write_text(text)
    return folder / f"{project}-pos-1.xyz"


def write_cell(folder, cells, steps, project="copper"):
    axes = "".join(f"       {axis} [Angstrom]" for axis in ("Ax", "Ay", "Az", "Bx", "By", "Bz", "Cx", "Cy", "Cz"))
    lines = [f"#   Step   Time [fs]{axes}      Volume [Angstrom^3]"]
    for cell, step in zip(cells, steps, strict=True):
        row = "".join(f" {x:19.10f}" for x in np.ravel(cell))
        lines.append(f"{step:8d}{step * TIMESTEP_FS:12.3f}{row} {abs(np.linalg.det(cell)):24.10f}")
    (folder / f"{project}-1.cell").write_text("\n".join(lines) + "\n")


def write_input(path, cell_lines, project="copper", motion=""):
    cell = "\n".join(f"      {line}" for line in cell_lines)
    path.write_text(
        f"&GLOBAL\n  PROJECT {project} ! name\n&END GLOBAL\n@SET X 1\n&MOTION\n  &PRINT\n    &CELL\n      ABC 1 1 1\n"
        f"    &END CELL\n{motion}  &END PRINT\n&END MOTION\n&FORCE_EVAL\n  &SUBSYS\n    &cell\n{cell}\n      &CELL_REF\n"
        "        ABC 99 99 99\n      &END CELL_REF\n    &END\n  &END SUBSYS\n&END FORCE_EVAL\n"
    )
    return path


def residual(frames, timestep_fs=TIMESTEP_FS, inner_steps=1):
    """Largest miss of positions (Å) and velocities (Å/fs) from velocity Verlet."""
    arrays = [
        np.array([f(atoms) for atoms in frames]) for f in (Atoms.get_positions, Atoms.get_velocities, Atoms.get_forces)
    ]
    step = timestep_fs * ase.units.fs
    first = frames[0]
    x, v = verlet_residual(*arrays, first.get_masses(), step, first.cell.array, first.pbc, inner_steps)
    return np.abs(x).max(), np.abs(v).max() * ase.units.fs


@pytest.fixture(scope="module")
def frames(crystal, make_trajectory):
    return make_trajectory(crystal, 12, TIMESTEP_FS, 3)


@pytest.fixture
def folder(tmp_path, frames):
    write_xyz(tmp_path, frames)
    write_cell(tmp_path, [frames[0].cell.array], [0])
    return tmp_path


@pytest.mark.parametrize("given", ["copper-pos-1.xyz", "copper-frc-1.xyz", "copper-vel-1.xyz", "copper-1.ener", "."])
def test_values_units_and_physics(folder, frames, given):
    header = "#     Step Nr.          Time[fs]        Kin.[a.u.]          Temp[K]            Pot.[a.u.]"
    (folder / "copper-1.ener").write_text(f"{header}        Cons Qty[a.u.]        UsedTime[s]\n")
    assert cp2k.recognises(folder / given)
    (raw,) = cp2k.read(folder / given)
    assert (raw.name, raw.timestep_fs, raw.n_frames, raw.inner_steps) == ("copper", 0.5, 13, 1)
    assert {path.name for path in raw.files} == {
        "copper-pos-1.xyz",
        "copper-frc-1.xyz",
        "copper-vel-1.xyz",
        "copper-1.cell",
    }
    for _ in range(2):  # it can be read more than once
        found = list(raw.frames())
        assert len(found) == 13
        for atoms, expected in zip(found, frames, strict=True):
            np.testing.assert_array_equal(atoms.numbers, expected.numbers)
            np.testing.assert_allclose(atoms.positions, expected.positions, rtol=0, atol=0.51e-10)
            np.testing.assert_allclose(atoms.cell, expected.cell, rtol=0, atol=0.51e-10)
            np.testing.assert_allclose(atoms.get_forces(), expected.get_forces(), rtol=2e-7, atol=1e-8)
            speed = 0.51e-10 * BOHR / AU_TIME_FS / ase.units.fs
            np.testing.assert_allclose(atoms.get_velocities(), expected.get_velocities(), rtol=2e-7, atol=speed)
            assert atoms.get_potential_energy() == pytest.approx(expected.get_potential_energy(), rel=1e-7, abs=2e-9)
            assert atoms.pbc.all()
    x, v = residual(found)
    assert x < 2e-9  # Å, the tenth digit
    assert v < 1e-8  # Å/fs


def test_wrong_units_fail_the_physical_criterion(folder, frames):
    (raw,) = cp2k.read(folder)
    write_input(
        folder / "a.inp", ["ABC 4 4 4"], motion="    &VELOCITIES\n      UNIT angstrom*fs^-1\n    &END VELOCITIES\n"
    )
    (wrong,) = cp2k.read(folder)
    assert residual(list(wrong.frames()))[0] > 1e3 * residual(list(raw.frames()))[0]
    write_input(folder / "a.inp", ["ABC 4 4 4"], motion="    &FORCES\n      UNIT [eV*angstrom^-1]\n    &END FORCES\n")
    (wrong,) = cp2k.read(folder)
    assert residual(list(wrong.frames()))[1] > 1e3 * residual(list(raw.frames()))[1]


def test_units_of_the_input_are_used(tmp_path, frames):
    write_xyz(tmp_path, frames, kinds=("pos", "vel"))
    rows = []
    for step, atoms in enumerate(frames):
        body = [f"Cu {x:.12f} {y:.12f} {z:.12f}" for x, y, z in atoms.get_forces()]
        rows += [f"{len(atoms)}", block("frc", atoms, step).splitlines()[1], *body]
    (tmp_path / "copper-frc-1.xyz").write_text("\n".join(rows) + "\n")
    motion = "    &FORCES\n      UNIT eV*angstrom^-1\n    &END FORCES\n"
    cell = [
        f"{axis} {' '.join(map(repr, vector.tolist()))}" for axis, vector in zip("abc", frames[0].cell, strict=True)
    ]
    write_input(tmp_path / "run.inp", cell, motion=motion)
    (raw,) = cp2k.read(tmp_path / "copper-pos-1.xyz")
    assert residual(list(raw.frames()))[0] < 2e-9


def test_velocities_may_be_missing(folder):
    (folder / "copper-vel-1.xyz").unlink()
    (raw,) = cp2k.read(folder / "copper-pos-1.xyz")
    assert not any(atoms.has("momenta") for atoms in raw.frames())
    assert len(raw.files) == 3


def test_frames_between_saved_ones(tmp_path, frames):
    write_xyz(tmp_path, frames[::3], steps=[100, 103, 106, 109, 112])
    write_cell(tmp_path, [frames[0].cell.array], [0])
    (raw,) = cp2k.read(tmp_path)
    assert (raw.timestep_fs, raw.inner_steps, raw.n_frames) == (1.5, 3, 5)
    assert residual(list(raw.frames()), 1.5, 3)[0] < residual(list(raw.frames()), 1.5, 1)[0] / 5


def test_time_step_is_more_precise_than_the_printed_times(tmp_path, cluster, make_trajectory):
    step_fs = 0.125 / 3
    write_xyz(tmp_path, make_trajectory(cluster, 60, step_fs, 0), timestep_fs=step_fs)
    write_input(tmp_path / "a.inp", ["ABC 20 20 20", "PERIODIC NONE"])
    (raw,) = cp2k.read(tmp_path)
    assert raw.timestep_fs == pytest.approx(step_fs, abs=2e-5)


def test_a_restart_repeats_steps(tmp_path, frames, caplog):
    steps = [*range(9), *range(6, 13)]  # killed after step 8; the restart file was of step 5
    write_xyz(tmp_path, [frames[step] for step in steps], steps)
    spoiled = (tmp_path / "copper-pos-1.xyz").read_text().split("\n")
    spoiled[6 * 6 + 2] = " Cu 9.0 9.0 9.0"  # of the first step 6, which does not count
    (tmp_path / "copper-pos-1.xyz").write_text("\n".join(spoiled))
    write_cell(tmp_path, [frames[0].cell.array] * 2, [0, 1])
    with caplog.at_level(logging.WARNING):
        (raw,) = cp2k.read(tmp_path)
    assert "restart" in caplog.text
    found = list(raw.frames())
    assert len(found) == raw.n_frames == 13
    assert residual(found)[0] < 2e-9


def test_ends_that_other_files_lack_are_left_out(folder, frames, caplog):
    write_xyz(folder, frames[1:-1], steps=range(1, 12), kinds=["frc"])
    with caplog.at_level(logging.WARNING):
        (raw,) = cp2k.read(folder)
    assert "left out" in caplog.text
    found = list(raw.frames())
    assert len(found) == raw.n_frames == 11
    np.testing.assert_allclose(found[0].positions, frames[1].positions, atol=1e-9)
    assert residual(found)[0] < 2e-9


def test_several_projects_of_a_folder(folder, frames):
    write_xyz(folder, frames[:4], project="other-1")
    write_cell(folder, [frames[0].cell.array], [0], project="other-1")
    assert [(raw.name, raw.n_frames) for raw in cp2k.read(folder)] == [("copper", 13), ("other-1", 4)]


def test_a_cell_that_changes(folder, frames):
    cells = [frames[0].cell.array * (1 + 0.01 * step) for step in range(13)]
    write_cell(folder, cells, range(13))
    (raw,) = cp2k.read(folder)
    for atoms, cell in zip(raw.frames(), cells, strict=True):
        np.testing.assert_allclose(atoms.cell, cell, atol=1e-9)
    write_cell(folder, cells[::2], range(0, 13, 2))
    with pytest.raises(ValueError, match=r"copper-1\.cell' lacks that of step 1\. Print it"):
        cp2k.read(folder)


@pytest.mark.parametrize(
    ("lines", "lengths", "angles", "pbc"),
    [
        (["ABC 3 4 5"], (3, 4, 5), (90, 90, 90), "TTT"),
        (["ABC [bohr] 3 4 5", "PERIODIC XY"], 3 * (BOHR,), (90, 90, 90), "TTF"),
        (["ABC [angstrom] 3.0 4.0 5.0D0", "ALPHA_BETA_GAMMA 90 90 120"], (3, 4, 5), (90, 90, 120), "TTT"),
        (["ABC 3 4 5", "MULTIPLE_UNIT_CELL 1 2 3"], (3, 8, 15), (90, 90, 90), "TTT"),
        (["A 3 0 0", "B 0 4 0", "C 0 0 5", "periodic Z # of a wire"], (3, 4, 5), (90, 90, 90), "FFT"),
    ],
)
def test_cell_of_the_input(folder, lines, lengths, angles, pbc):
    (folder / "copper-1.cell").unlink()
    write_input(folder / "some.inp", lines)
    (raw,) = cp2k.read(folder)
    atoms = next(raw.frames())
    expected = np.multiply(lengths, (3, 4, 5)) if "bohr" in lines[0] else lengths
    np.testing.assert_allclose(atoms.cell.cellpar(), [*expected, *angles], rtol=1e-7)
    assert "".join("FT"[int(value)] for value in atoms.pbc) == pbc
    assert folder / "some.inp" in raw.files


def test_which_input_counts(folder, frames):
    (folder / "copper-1.cell").unlink()
    write_input(folder / "a.inp", ["ABC 3 3 3"], project="else")
    write_input(folder / "b.inp", ["ABC 4 4 4"])
    assert next(cp2k.read(folder)[0].frames()).cell[0, 0] == 4.0
    write_input(folder / "copper-1.restart", ["ABC 5 5 5"])
    assert next(cp2k.read(folder)[0].frames()).cell[0, 0] == 5.0
    write_cell(folder, [frames[0].cell.array], [0])
    np.testing.assert_allclose(next(cp2k.read(folder)[0].frames()).cell, frames[0].cell, atol=1e-9)


def test_several_inputs_of_a_run(folder):
    """A printed cell says nothing of periodicity and units, so the inputs must agree on them."""
    forces = "    &FORCES\n      UNIT eV*angstrom^-1\n    &END FORCES\n"
    lines = ["ABC 4 4 4", "PERIODIC NONE"]
    write_input(folder / "a.inp", lines, motion=forces)
    write_input(folder / "b.inp", ["A 4 0 0", "B 0 4 0", "C 0 0 4", "PERIODIC NONE"], motion=forces.replace("eV", "EV"))
    (raw,) = cp2k.read(folder)
    assert not next(raw.frames()).pbc.any()
    for said, other, motion in (
        ("PERIODIC", ["ABC 4 4 4"], forces),
        ("units", lines, ""),
        ("cell", ["ABC 5 4 4", "PERIODIC NONE"], forces),
        ("cell and PERIODIC", ["PERIODIC XY"], forces),
    ):
        write_input(folder / "b.inp", other, motion=motion)
        with pytest.raises(ValueError, match=rf"a\.inp' and '.*b\.inp' .*differ in {said}\. .*copper-1\.restart'"):
            cp2k.read(folder)
    write_input(folder / "copper-1.restart", lines, motion=forces)
    assert not next(cp2k.read(folder)[0].frames()).pbc.any()


def test_a_printed_cell_alone_is_taken_as_periodic(folder, caplog):
    with caplog.at_level(logging.WARNING):
        (raw,) = cp2k.read(folder)
    assert next(raw.frames()).pbc.all()
    assert "copper-1.cell' does not say where it is periodic: taken as PERIODIC XYZ" in caplog.text
    assert "copper-1.restart or the input" in caplog.text
    caplog.clear()
    written = write_input(folder / "a.inp", ["ABC 4 4 4", "PERIODIC XY"])
    with caplog.at_level(logging.WARNING):
        (raw,) = cp2k.read(folder)
    assert next(raw.frames()).pbc.tolist() == [True, True, False]
    assert caplog.text == ""
    assert {folder / "copper-1.cell", written} <= set(raw.files)  # a change of either makes a conversion begin anew


def test_without_a_cell(tmp_path, cluster, make_trajectory):
    frames = make_trajectory(cluster, 5, TIMESTEP_FS, 0)
    path = write_xyz(tmp_path, frames)
    with pytest.raises(
        ValueError, match=r"cell of .*copper-pos-1\.xyz' is not known.*copper-1\.restart.*PERIODIC NONE"
    ):
        cp2k.read(path)
    write_input(tmp_path / "a.inp", ["ABC 20 20 20", "PERIODIC NONE"])
    found = list(cp2k.read(path)[0].frames())
    assert not found[0].pbc.any()
    assert not found[0].cell.any()
    assert residual(found)[0] < 2e-9


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["ABC 3 4"], "not three numbers"),
        (["ABC ${L} 4 5"], "could not convert"),
        (["A 1 0 0", "B 1 0 0", "C 0 0 1"], "no volume"),
        (["ABC [parsec] 3 4 5"], "unit 'parsec'"),
        (["ABC 3 4 5", "ABC 3 4 6"], "twice"),
    ],
)
def test_cells_that_are_not_understood(folder, frames, lines, message):
    """A printed cell serves as well."""
    write_input(folder / "a.inp", lines)
    np.testing.assert_allclose(next(cp2k.read(folder)[0].frames()).cell, frames[0].cell, atol=1e-9)
    (folder / "copper-1.cell").unlink()
    with pytest.raises(ValueError, match=rf"a\.inp' .*{message}.*copper-1\.cell with the line"):
        cp2k.read(folder)


def test_a_periodicity_that_is_not_understood(tmp_path):
    with pytest.raises(ValueError, match=r"a\.inp' has PERIODIC W"):
        read_input(write_input(tmp_path / "a.inp", ["ABC 3 4 5", "PERIODIC W"]))


def test_units_by_name():
    assert unit_factor("hartree*bohr^-1", "") == pytest.approx(HARTREE / BOHR, rel=1e-7)
    assert unit_factor("BOHR*AU_T^-1", "") == pytest.approx(BOHR / AU_TIME_FS / ase.units.fs, rel=1e-7)
    with pytest.raises(ValueError, match=r"'furlong\*ps\^-1', which is not understood"):
        unit_factor("furlong*ps^-1", "'a.inp'")


def edit(path, change):
    lines = path.read_text().split("\n")
    change(lines)
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("copper-pos-1.xyz", lambda t: t.__setitem__(20, " Cu 1.0 ****** 3.0"), r"frame 3 .*pos-1.*three numbers.*-n 18"),
        ("copper-vel-1.xyz", lambda t: t.__setitem__(20, " Cu 1.0 nan 3.0"), r"frame 3 .*vel-1.*three numbers"),
        ("copper-frc-1.xyz", lambda t: t.__setitem__(20, " Cu 1.0 3.0"), r"frame 3 .*frc-1.*three numbers"),
        ("copper-frc-1.xyz", lambda t: t.__setitem__(20, " Ag 1.0 2.0 3.0"), r"step 3 .*frc-1.*other atoms"),
        ("copper-pos-1.xyz", lambda t: t.__setitem__(2, " Q7 1.0 2.0 3.0"), r"'Q7', which is not an element"),
        ("copper-pos-1.xyz", lambda t: t.pop(20), r"frame 4 .*does not start with the number|frame 3"),
        ("copper-pos-1.xyz", lambda t: t.__setitem__(18, "       5"), r"frame 3 .*has 5 atoms, not 4"),
        ("copper-pos-1.xyz", lambda t: t.__setitem__(19, " i = 3, E = -1.0"), r"no time: it is not of molecular dynamics"),
        ("copper-pos-1.xyz", lambda t: t.__setitem__(19, " nothing"), r"frame 3 .*no line 'i ="),
        ("copper-pos-1.xyz", lambda t: t.__setitem__(19, " i = 3, time = 1.5, E = ****"), r"frame 3 .*no readable step"),
        ("copper-pos-1.xyz", lambda t: t.__setitem__(19, " i = 3, time = 1.9, E = 1.0"), r"different times"),
        ("copper-frc-1.xyz", lambda t: t.__setitem__(slice(18, 24), []), r"step 3 is only in one.*same &EACH"),
        ("copper-1.cell", lambda t: t.__setitem__(1, "0 0.0 1 2 3"), r"line 2 of .*copper-1\.cell"),
        ("copper-1.cell", lambda t: t.pop(1), r"copper-1\.cell' holds no cell"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused(folder, name, change, message):
    edit(folder / name, change)
    with pytest.raises(ValueError, match=message):
        list(cp2k.read(folder / "copper-pos-1.xyz")[0].frames())


def test_missing_files(folder, frames):
    (folder / "copper-frc-1.xyz").unlink()
    with pytest.raises(ValueError, match=r"no '.*copper-frc-1\.xyz'.*\n&MOTION\n  &PRINT\n    &FORCES"):
        cp2k.read(folder / "copper-vel-1.xyz")
    (folder / "copper-pos-1.xyz").unlink()
    with pytest.raises(ValueError, match=r"no '.*copper-pos-1\.xyz'.*&TRAJECTORY"):
        cp2k.read(folder / "copper-vel-1.xyz")


def test_uneven_steps(folder, frames):
    kept = [*range(5), *range(6, 13)]
    write_xyz(folder, [frames[i] for i in kept], kept)
    with pytest.raises(ValueError, match="step 6 comes after 4, but earlier frames are 1 steps apart"):
        cp2k.read(folder)
    for kind in VALUES:
        text = "".join(block(kind, a, i, 0.5 if i < 6 else 0.6) for i, a in enumerate(frames))
        (folder / f"copper-{kind}-1.xyz").write_text(text)
    with pytest.raises(ValueError, match="the time step changes"):
        cp2k.read(folder)
    write_xyz(folder, frames[:1])
    with pytest.raises(ValueError, match="one frame"):
        cp2k.read(folder)


@pytest.mark.parametrize("name", ["copper-pos-1.xyz", "copper-frc-1.xyz", "copper-vel-1.xyz"])
def test_every_truncation_gives_whole_frames_and_an_error(folder, frames, name):
    """Wherever a file ends, the frames before are right, and the end is told."""
    text = (folder / name).read_text()
    frame = len(text) // 13
    for length in [*range(2 * frame, 4 * frame, 37), len(text) - 2]:
        (folder / name).write_text(text[:length])
        (raw,) = cp2k.read(folder)
        found: list[Atoms] = []
        if length % frame in (0, frame - 1):  # ends between two frames, but for a line feed: nothing is missing
            found = list(raw.frames())
        else:
            with pytest.raises(IncompleteFrameError, match=rf"{name}' ends within frame {length // frame}"):
                found.extend(raw.frames())
        assert len(found) == (length + 1) // frame
        for atoms, expected in zip(found, frames, strict=False):
            np.testing.assert_allclose(atoms.get_forces(), expected.get_forces(), rtol=2e-7, atol=1e-8)
            np.testing.assert_allclose(atoms.positions, expected.positions, atol=1e-9)


def test_random_damage_gives_value_errors_only(folder):
    generator = random.Random(0)
    whole = {path: path.read_bytes() for path in folder.iterdir()}
    messages = []
    for _ in range(300):
        path = generator.choice(sorted(whole))
        data = bytearray(whole[path])
        for _ in range(generator.choice((1, 1, 5))):
            at = generator.randrange(len(data))
            choice = generator.randrange(3)
            if choice == 0:
                data[at] = generator.randrange(256)
            elif choice == 1:
                del data[at : at + generator.randrange(1, 200)]
            else:
                data[at:at] = generator.randbytes(3)
        path.write_bytes(data)
        try:
            if cp2k.recognises(path):
                list(cp2k.read(path)[0].frames())
            list(cp2k.read(folder / "copper-pos-1.xyz")[0].frames())
        except ValueError as error:
            messages.append(str(error))
        path.write_bytes(whole[path])
    assert len(messages) > 100
    assert all("copper" in message for message in messages)


def test_what_is_not_of_cp2k(tmp_path, folder):
    (tmp_path / "x-pos-1.xyz").write_text("1\ncomment\nH 0 0 0\n")
    (tmp_path / "copper-1.xyz").write_text((folder / "copper-pos-1.xyz").read_text())
    (tmp_path / "b-pos-1.xyz").write_bytes(b"")
    for name in ("x-pos-1.xyz", "copper-1.xyz", "b-pos-1.xyz", "missing-pos-1.xyz", "copper-1.cell"):
        assert not cp2k.recognises(tmp_path / name)
    assert not cp2k.recognises(tmp_path / "nothing")


def test_conversion(folder, frames, tmp_path_factory):
    """From the files to the database; without velocities they are recovered; the end of a file may be left out."""
    out = tmp_path_factory.mktemp("out")
    (found,) = convert([folder], out / "a.db")
    assert (found.trajectory.name, found.trajectory.length, found.trajectory.velocities) == ("copper", 13, "file")
    (folder / "copper-vel-1.xyz").unlink()
    (found,) = convert([folder / "copper-pos-1.xyz"], out / "b.db")
    assert found.trajectory.velocities == "central differences"
    for one, other, atoms in zip(
        *(connect(out / name).select(sort="id") for name in ("a.db", "b.db")), frames, strict=True
    ):
        np.testing.assert_allclose(one.data["energy"], atoms.get_potential_energy(), rtol=1e-7, atol=2e-9)
        np.testing.assert_allclose(one.data[properties.velocities], other.data[properties.velocities], atol=1e-8)
        np.testing.assert_allclose(one.data["forces"], atoms.get_forces(), rtol=2e-7, atol=1e-8)
    text = (folder / "copper-frc-1.xyz").read_text()
    (folder / "copper-frc-1.xyz").write_text(text[: len(text) * 11 // 13 + 50])
    with pytest.raises(IncompleteFrameError, match=r"copper-frc-1\.xyz' ends within frame 11.*--drop-incomplete"):
        convert([folder], out / "c.db")
    (found,) = convert([folder], out / "c.db", Reading(drop_incomplete=True))
    assert found.trajectory.length == 11
