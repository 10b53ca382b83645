"""What is not read says why, and the lines that it names bring right data here: each is run on files of that program."""

import re

import ase.units
import numpy as np
import pytest
from ase import Atoms
from helpers.program_files import AUT_FS, BOHR, HARTREE
from scipy.io import netcdf_file

from spk_dt import write_extxyz
from spk_dt.trajectories.readers import find_reader
from spk_dt.trajectories.readers.ways_out import WAYS_OUT

KCAL, KJ = 0.0433641043, 0.01036426966
#: atomic units, and those of the other programs: length in Å, energy in eV, velocity in Å/fs
ATOMIC = (BOHR, HARTREE, BOHR / AUT_FS)
SYMBOLS = ["O", "H", "H"]  # as in the scripts


@pytest.fixture
def run():
    """Five frames of three atoms, which move, with forces and energies: [frames, atoms, 3] in Å, eV/Å, Å/fs, and eV."""
    rng = np.random.default_rng(3)
    x = np.array([[0.1, 0.2, 0.3], [0.9, 0.2, 0.1], [0.2, 1.1, 0.4]]) + 0.02 * rng.standard_normal((5, 3, 3))
    return x, rng.standard_normal((5, 3, 3)), 1e-2 * rng.standard_normal((5, 3, 3)), -14.0 + rng.standard_normal(5)


def in_units(run, length, energy, velocity):
    x, f, v, e = run
    return x / length, f * length / energy, v / velocity, e / energy


def xyz(path, tables, comment):
    lines = []
    for k, table in enumerate(tables):
        lines += [str(len(SYMBOLS)), comment(k)]
        lines += [
            f"{symbol} {row[0]:.10f} {row[1]:.10f} {row[2]:.10f}" for symbol, row in zip(SYMBOLS, table, strict=True)
        ]
    path.write_text("\n".join(lines) + "\n")


def table(path, tables, header):
    rows = []
    for k, one in enumerate(tables):
        rows += [header(k)] + [" ".join(f"{value:.14E}" for value in row) for row in one]
    path.write_text("\n".join(rows) + "\n")


def orca(folder, run):
    x, f, v, e = in_units(run, 1.0, HARTREE, 1.0)
    for name, kind, values, unit in (
        ("pos", "Position", x, "Angstrom"),
        ("frc", "Force", f, "Hartree/Angstrom"),
        ("vel", "Velocity", v, "Angstrom/fs"),
    ):
        shown = e if name == "frc" else e + 0.1  # those of the other files are not taken
        xyz(
            folder / f"{name}.xyz", values,
            lambda k, kind=kind, shown=shown, unit=unit: f" ORCA AIMD {kind} Step {k}, t={k:.2f} fs, E_Pot={shown[k]:.8f} "
            f"Hartree, Unit is {unit}",
        )  # fmt: skip
    return folder / "pos.xyz"


def plain(folder, run):
    x, f, _, e = run
    xyz(folder / "positions.xyz", x, lambda k: "made by a program")
    xyz(folder / "forces.xyz", f, lambda k: "made by a program")
    np.savetxt(folder / "energies.txt", e)
    return folder / "positions.xyz"


def cp(folder, run):
    x, f, v, e = in_units(run, *ATOMIC)
    for name, values in (("pos", x), ("for", f), ("vel", v)):
        table(folder / f"cp.{name}", values, lambda k: f"     {5 * k}    {k * 0.001:.8f}")
    np.savetxt(
        folder / "cp.evp", np.c_[np.arange(5), np.zeros((5, 4)), e, e, e + 1, e + 2, np.ones((5, 2))], header="nfi time"
    )
    return folder / "cp.pos"


def cpmd(folder, run):
    x, f, v, e = in_units(run, *ATOMIC)
    steps = 2 * np.arange(1, 6)  # energies of every step, the others of every second one
    rows = [np.c_[np.full(3, steps[k]), x[k], v[k], f[k]] for k in range(5)]
    np.savetxt(folder / "FTRAJECTORY", np.vstack(rows))
    text = (folder / "FTRAJECTORY").read_text().split("\n")
    (folder / "FTRAJECTORY").write_text("\n".join([*text[:6], "  <<<<<<  NEW DATA  >>>>>>", *text[6:]]))
    every = np.repeat(e, 2) + np.tile([5.0, 0.0], 5)
    np.savetxt(folder / "ENERGIES", np.c_[np.arange(1, 11), np.zeros((10, 2)), every, every, every, np.zeros((10, 2))])
    return folder / "FTRAJECTORY"


def nwchem(folder, run):
    x, f, _, e = in_units(run, *ATOMIC)
    text = ["              Northwest Computational Chemistry Package (NWChem) 7.0.2"]
    for k in range(5):
        text += [f"         Total DFT energy = {e[k]:20.12f}", "                         DFT ENERGY GRADIENTS", ""]
        text += ["    atom               coordinates                        gradient"]
        for i, symbol in enumerate(SYMBOLS):
            text.append(f"{i + 1:4d} {symbol:2s}   " + "".join(f"{value:11.6f}" for value in (*x[k, i], *-f[k, i])))
        text.append("")
    (folder / "run.nwo").write_text("\n".join(text) + "\n")
    return folder / "run.nwo"


def gromacs(folder, run):
    x, f, v, e = in_units(run, 10.0, KJ, 1e-2)
    for name, values in (("x", x), ("f", f), ("v", v), ("e", e)):
        np.savetxt(
            folder / f"{name}.xvg", np.c_[np.arange(5), values.reshape(5, -1)], header="# made\n@ title", comments=""
        )
    (folder / "md.trr").write_bytes(b"\0\0\x07\xc9")
    return folder / "md.trr"


def amber(folder, run):
    x, f, _, e = in_units(run, 1.0, KCAL, 1.0)
    for name, what, values in (("md.nc", "coordinates", x), ("md.mdfrc", "forces", f)):
        with netcdf_file(folder / name, "w") as file:
            for dimension, n in (("frame", None), ("atom", 3), ("spatial", 3)):
                file.createDimension(dimension, n)
            for key, dimensions, data in (
                (what, ("frame", "atom", "spatial"), values),
                ("time", ("frame",), np.arange(5.0)),
                ("cell_lengths", ("frame", "spatial"), np.full((5, 3), 20.0)),
            ):
                file.createVariable(key, "d", dimensions)[:] = data
    text = "".join(f" NSTEP = {k}\n EPtot      = {energy:14.6f}  EGB = 0.0\n" for k, energy in enumerate([-1.0, *e]))
    (folder / "md.out").write_text(text + "      A V E R A G E S   O V E R       5 S T E P S\n EPtot      =    -99.0\n")
    return folder / "md.nc"


#: program -> what writes its files and names one of them; digits of what it prints; whether there are velocities
TRIED = {
    "ORCA, `*_md.xyz`": (orca, 1e-6, True),
    "Quantum ESPRESSO, `cp.x` (`.pos`, `.for`, `.vel`, `.evp`)": (cp, 1e-6, True),
    "CPMD, `TRAJECTORY`, `FTRAJECTORY`": (cpmd, 1e-6, True),
    "NWChem, output": (nwchem, 5e-5, False),
    "GROMACS, `.trr`, `.xtc`, `.gro`, `.edr`, `.tpr`": (gromacs, 1e-6, True),
    "Amber, `.nc`, `.mdcrd`, `.mdfrc`, `.mdout`": (amber, 1e-6, False),
    "plain XYZ": (plain, 1e-6, False),
}


def message(path):
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        find_reader(path).read(path)
    return str(error.value)


@pytest.mark.parametrize("program", TRIED)
def test_the_lines_that_are_named_bring_right_data(tmp_path, monkeypatch, run, program):
    write, digits, has_velocities = TRIED[program]
    text = message(write(tmp_path, run))
    assert "ase convert" not in text
    script = text[re.search(r"^(?:import|from) ", text, re.M).start() :]
    monkeypatch.chdir(tmp_path)
    exec(script, {})
    (raw,) = find_reader(tmp_path / "run.extxyz").read(tmp_path / "run.extxyz")
    found = list(raw.frames())
    x, f, v, e = run
    assert [list(atoms.symbols) for atoms in found] == [SYMBOLS] * 5
    np.testing.assert_allclose([atoms.positions for atoms in found], x, rtol=0.0, atol=digits)
    np.testing.assert_allclose([atoms.get_forces() for atoms in found], f, rtol=0.0, atol=digits)
    np.testing.assert_allclose([atoms.get_potential_energy() for atoms in found], e, rtol=0.0, atol=digits)
    assert found[0].has("momenta") == has_velocities
    if has_velocities:
        np.testing.assert_allclose([atoms.get_velocities() * ase.units.fs for atoms in found], v, rtol=0.0, atol=1e-7)
    with pytest.raises(FileExistsError):
        exec(script, {})


def test_dftb_computes_forces_again(tmp_path, monkeypatch, run):
    """DFTB+ itself is not here: its calculator is replaced, all else is run."""
    x, *_ = run
    path = tmp_path / "geo_end.xyz"
    lines = []
    for k, one in enumerate(x):
        lines += ["    3", f"MD iter: {k}"]
        lines += [
            f"{symbol} {' '.join(f'{value:.8f}' for value in row)} 0.1 1.0 2.0 3.0"
            for symbol, row in zip(SYMBOLS, one, strict=True)
        ]
    path.write_text("\n".join(lines) + "\n")
    text = message(path)
    assert "has no forces" in text
    assert "the last step only" in text
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "ase.calculators.dftb.Dftb", lambda **_: __import__("ase.calculators.emt").calculators.emt.EMT()
    )
    exec(text[text.index("from ase.io") :], {})
    (raw,) = find_reader(tmp_path / "run.traj").read(tmp_path / "run.traj")
    np.testing.assert_allclose([atoms.positions for atoms in raw.frames()], x, rtol=0.0, atol=1e-8)
    assert all(np.isfinite(atoms.get_forces()).all() for atoms in raw.frames())


def test_every_script_is_run():
    with_script = [
        one for one in WAYS_OUT if one.script and "ORCA, output" not in one.name
    ]  # its script is that of ORCA's XYZ
    assert {one.name for one in with_script} - {"DFTB+, `geo_end.xyz`"} == set(TRIED) - {"plain XYZ"}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "md_md.xyz",
            "1\n ORCA AIMD Position Step 0, t=0.00 fs, E_Pot=-5.7 Hartree, Unit is Angstrom\nH 0 0 0\n",
            ("Dump Force",),
        ),
        ("a.pdb", "ATOM\n", ()),
        ("XDATCAR", "H\n 1.0\n", ("vasprun.xml", "OUTCAR")),
        ("a.dcd", "CORD\n", ("text form",)),
        ("a.xtc", "\0\0\7\xcb", (".trr",)),
        ("a.cif", "data_\n", ()),
        ("a.xyz", "1\n\nH 0 0 0\n", ("plain XYZ",)),
        ("run.ANI", "1\n\nH 0 0 0\n", ("WriteForces",)),
        ("run.engrad", "# The current gradient in Eh/bohr\n", ("Dump Force",)),
        ("running_md.log", "  ABACUS v3.2\n", ("MD_dump",)),
        ("run.geom", " BEGIN header\n", (".md",)),
    ],
)
def test_a_format_without_forces_says_so(tmp_path, name, text, words):
    path = tmp_path / name
    path.write_bytes(text.encode("latin-1"))
    found = message(path)
    assert "no forces" in found or name == "run.geom"
    assert all(word in found for word in words)
    assert "ase convert" not in found


def test_what_nobody_knows_names_the_table_and_the_function(tmp_path):
    (tmp_path / "a.abc").write_text("something\n")
    assert "write_extxyz" in message(tmp_path / "a.abc")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_utf_16_is_named(tmp_path, encoding):
    path = tmp_path / "run.extxyz"
    path.write_text(
        '1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1.0 pbc="F F F"\nH 0 0 0 0 0 0\n', encoding=encoding
    )
    assert f"iconv -f {encoding.upper()} -t UTF-8" in message(path)


def test_write_extxyz_refuses_what_does_not_fit(tmp_path, run):
    x, f, v, e = run
    out = tmp_path / "a.extxyz"
    for arguments, options, word in (
        ((SYMBOLS, x, f, e[:4]), {}, "same steps"),
        ((SYMBOLS[:2], x, f, e), {}, "2 symbols"),
        ((SYMBOLS, x, f, e, v), {"velocity": "Bohr/fs"}, "velocity unit"),
        ((SYMBOLS, x, f, e), {"length": "foot"}, "unknown unit"),
        ((SYMBOLS, x, f * np.nan, e), {}, "not finite"),
        ((SYMBOLS, x, f, e), {"cell": np.zeros((2, 3, 3))}, "cell"),
    ):
        with pytest.raises(ValueError, match=word):
            write_extxyz(out, *arguments, **options)
    assert not out.exists()


def test_cells_of_write_extxyz(tmp_path, run):
    x, f, _, e = run
    vectors = np.array([[8.0, 0.0, 0.0], [1.0, 9.0, 0.0], [0.0, 0.5, 7.0]])
    for k, cell in enumerate((vectors, np.tile(vectors, (5, 1, 1)), Atoms(cell=vectors).cell.cellpar())):
        in_bohr = np.array(cell)
        in_bohr[..., :3] /= BOHR  # lengths and vectors, not angles
        write_extxyz(tmp_path / f"{k}.extxyz", SYMBOLS, x / BOHR, f * BOHR, e, cell=in_bohr, length="Bohr")
        (raw,) = find_reader(tmp_path / f"{k}.extxyz").read(tmp_path / f"{k}.extxyz")
        for atoms in raw.frames():
            np.testing.assert_allclose(atoms.cell.cellpar(), Atoms(cell=vectors).cell.cellpar(), atol=1e-6)
