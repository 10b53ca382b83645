"""Making reference trajectories: what the recipe says, continuing after an interruption, refusals."""

import json
import subprocess
import sys
from dataclasses import replace

import ase.io
import ase.units
import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.db import connect
from schnetpack.data import ASEAtomsData

from spk_dt.data import load_frames, read_trajectories
from spk_dt.data.checks import check_frames
from spk_dt.labels.calculator import TBLITE_SETTINGS, reference_calculator
from spk_dt.labels.generate import Recipe, generate, place_molecule, surface

SHORT = Recipe(relax_steps=5, equilibration_fs=5.0, start_interval_fs=2.0, steps=6)
EMT_ = "ase.calculators.emt:EMT"  # knows H, C and Pd, if badly


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """A database of four short trajectories, and what its progress reported."""
    path = tmp_path_factory.mktemp("generated") / "sub" / "small.db"
    reports = []
    folder = generate(path, SHORT, 4, seed=1, reference=EMT_, progress=lambda *report: reports.append(report))
    return path, folder, reports


def rows_of(path):
    return list(connect(path).select(sort="id"))


def test_the_database(generated):
    path, _, _ = generated
    metadata = connect(path).metadata
    trajectories = read_trajectories(metadata, str(path))
    assert [t.name for t in trajectories] == ["traj_01", "traj_02", "traj_03", "traj_04"]
    assert {(t.length, t.timestep_fs) for t in trajectories} == {(7, 0.5)}
    splits = {name: sorted({frame // 7 for frame in frames[0]}) for name, frames in metadata["splits"].items()}
    assert splits == {"train": [0, 1], "val": [2], "test": [3]}
    assert rows_of(path)[0].toatoms().get_chemical_formula(mode="reduce") == "C31Pd6H2"
    check_frames(load_frames(ASEAtomsData(str(path))))


def test_energies_and_forces_are_those_of_the_reference(generated):
    row = rows_of(generated[0])[10]
    atoms = row.toatoms()
    atoms.calc = EMT()
    np.testing.assert_allclose(row.data["energy"], atoms.get_potential_energy(), rtol=1e-10)
    np.testing.assert_allclose(row.data["forces"], atoms.get_forces(), atol=1e-9)


def test_the_surface_is_that_of_the_recipe():
    atoms = surface(Recipe())
    np.testing.assert_allclose(atoms.cell.cellpar(), [9.84, 9.84, 20.0, 90.0, 90.0, 120.0])
    assert atoms.pbc.all()
    assert str(atoms.symbols) == "C31Pd6"
    carbon, palladium = atoms[:31], atoms[31:]
    bonds = carbon.get_all_distances(mic=True) + 10.0 * np.eye(31)
    np.testing.assert_allclose(bonds.min(axis=0), 2.46 / np.sqrt(3.0))
    assert (np.isclose(bonds, 2.46 / np.sqrt(3.0)).sum(axis=0) == 2).sum() == 3  # three atoms around the vacancy
    edges = palladium.get_all_distances() + 10.0 * np.eye(6)
    assert (np.isclose(edges, edges.min()).sum(axis=0) == 4).all()  # an octahedron
    foot = palladium[palladium.positions[:, 2].argmin()].position
    above = np.linalg.norm((carbon.positions - foot)[:, :2], axis=1)
    assert (np.sort(above)[:3] > 1.4).all()  # over the vacancy
    assert foot[2] > carbon.positions[:, 2].max()


def test_the_molecule_is_that_of_the_recipe(generated):
    starts = [row.toatoms() for row in rows_of(generated[0])[::7]]
    for row, atoms in zip(rows_of(generated[0])[::7], starts, strict=True):
        atoms.set_velocities(row.data["velocities"] / ase.units.fs)
        check_molecule(atoms, Recipe())
    axes = [atoms.positions[-1] - atoms.positions[-2] for atoms in starts]
    assert np.linalg.matrix_rank(axes, tol=0.05) == 3  # orientations differ


def check_molecule(atoms, recipe):
    molecule, palladium = atoms[-2:], atoms[31:37]
    assert str(molecule.symbols) == "H2"
    centre, velocity = molecule.positions.mean(axis=0), molecule.get_velocities().mean(axis=0)
    assert molecule.get_distance(0, 1) == pytest.approx(recipe.molecule_bond_ang)
    assert centre[2] - palladium.positions[:, 2].max() == pytest.approx(recipe.molecule_height_ang)
    assert (np.abs(centre - palladium.positions.mean(axis=0))[:2] <= recipe.molecule_offset_ang).all()
    assert velocity[2] < 0.0
    np.testing.assert_allclose(velocity[:2], 0.0, atol=1e-12)
    energy = 0.5 * molecule.get_masses().sum() * velocity @ velocity
    assert energy == pytest.approx(recipe.molecule_energy_ev)


def test_the_molecule_turns_and_vibrates_as_at_its_temperature():
    bare, recipe = surface(Recipe()), Recipe(molecule_height_ang=5.0, molecule_bond_ang=0.9, molecule_energy_ev=0.3)
    relative, offsets = [], []
    for seed in range(400):
        atoms = place_molecule(bare, recipe, np.random.default_rng(seed))
        check_molecule(atoms, recipe)
        v = atoms.get_velocities()[-2:]
        relative.append(0.25 * atoms.get_masses()[-1] * ((v[1] - v[0]) ** 2).sum())
        offsets.append(atoms.positions[-2:].mean(axis=0)[:2] - bare.positions[31:].mean(axis=0)[:2])
    thermal = 1.5 * ase.units.kB * recipe.temperature_k
    assert np.mean(relative) == pytest.approx(thermal, rel=0.12)  # 3 standard errors
    assert np.max(np.abs(offsets)) == pytest.approx(1.8, abs=0.05)
    np.testing.assert_allclose(np.mean(offsets, axis=0), 0.0, atol=0.16)


def test_the_surface_is_heated_and_its_centre_rests(tmp_path):
    recipe = replace(SHORT, equilibration_fs=100.0, start_interval_fs=10.0, friction_per_fs=0.1, steps=1)
    folder = generate(tmp_path / "a.db", recipe, 10, reference=EMT_)
    temperatures = []
    for i in range(1, 11):
        start = ase.io.read(folder / f"start_{i:02d}.traj")
        assert start.constraints == []
        np.testing.assert_allclose(start.get_momenta().sum(axis=0), 0.0, atol=1e-10)
        temperatures.append(start.get_kinetic_energy() / (0.5 * (3 * 37 - 3) * ase.units.kB))
    assert np.mean(temperatures) == pytest.approx(300.0, rel=0.25)


def test_momentum_and_energy_of_a_trajectory_are_conserved(generated):
    for rows in np.array_split(np.array(rows_of(generated[0]), dtype=object), 4):
        masses = rows[0].toatoms().get_masses()[:, None]
        v = np.array([row.data["velocities"] / ase.units.fs for row in rows])
        momentum = (masses * v).sum(axis=1)
        np.testing.assert_allclose(momentum, momentum[:1].repeat(7, axis=0), atol=1e-9)
        energy = np.array([row.data["energy"][0] for row in rows]) + 0.5 * (masses * v**2).sum(axis=(1, 2))
        assert np.ptp(energy) < 0.02


def test_progress_names_pieces_and_counts_steps(generated):
    _, _, reports = generated
    pieces = list(dict.fromkeys(name for name, _, _ in reports))
    numbers = ["01", "02", "03", "04"]
    assert pieces == ["relaxed", *(f"{kind}_{i}" for i in numbers for kind in ("start", "traj"))]
    assert [report[1:] for report in reports if report[0] == "traj_01"][:6] == [(i, 6) for i in range(1, 7)]
    assert all(done <= total for _, done, total in reports)


class Interrupted(Exception):
    """What a user's Ctrl-C is to the library."""


@pytest.mark.parametrize(
    "when",
    [*(pytest.param(one, marks=pytest.mark.slow) for one in (("traj_02", 3), ("start_02", 2))), ("relaxed", 4)],
    ids=str,
)
def test_resumed_equals_uninterrupted(tmp_path, generated, when):
    path = tmp_path / "small.db"

    def interrupt(name, done, total):
        if (name, done) == when:
            raise Interrupted

    with pytest.raises(Interrupted):
        generate(path, SHORT, 4, seed=1, reference=EMT_, progress=interrupt)
    assert not path.exists()
    finished = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "small.generate").glob("*.traj")}
    assert f"{when[0]}.traj" not in finished

    folder = generate(path, SHORT, 4, seed=1, reference=EMT_)
    assert {name: (folder / name).stat().st_mtime_ns for name in finished} == finished
    assert not list(folder.glob("*.part"))
    for one, other in zip(rows_of(path), rows_of(generated[0]), strict=True):
        np.testing.assert_array_equal(one.positions, other.positions)
        for key in ("energy", "forces", "velocities"):
            np.testing.assert_array_equal(one.data[key], other.data[key])


def test_pieces_keep_all_digits_and_more_trajectories_may_follow(tmp_path):
    path = tmp_path / "a.db"
    folder = generate(path, SHORT, 1, reference=EMT_)
    assert "splits" not in connect(path).metadata
    first = rows_of(path)
    frames = ase.io.read(folder / "traj_01.traj", ":")
    for atoms, row in zip(frames, first, strict=True):
        np.testing.assert_array_equal(row.positions, atoms.positions)
        np.testing.assert_array_equal(row.data["forces"], atoms.get_forces())
    path.unlink()
    generate(path, SHORT, 3, reference=EMT_)
    np.testing.assert_array_equal(rows_of(path)[6].positions, first[6].positions)
    assert len(rows_of(path)) == 21


def test_seeds_give_different_trajectories(tmp_path, generated):
    generate(tmp_path / "other.db", SHORT, 1, seed=2, reference=EMT_)
    assert np.abs(rows_of(tmp_path / "other.db")[0].positions - rows_of(generated[0])[0].positions).max() > 0.01


def test_an_existing_database_is_refused_before_anything_is_computed(generated):
    path, folder, _ = generated
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"small\.db' exists"):
        generate(path, reference="not:there")
    assert path.read_bytes() == before
    assert json.loads((folder / "recipe.json").read_text())["seed"] == 1


def test_other_settings_are_refused(tmp_path):
    path = tmp_path / "a.db"
    folder = generate(path, SHORT, 1, reference=EMT_)
    path.unlink()
    with pytest.raises(ValueError, match=r"a\.generate' holds pieces made with steps=6, seed=0, .* steps=8, seed=3"):
        generate(path, replace(SHORT, steps=8), 1, seed=3, reference=EMT_)
    assert json.loads((folder / "recipe.json").read_text())["steps"] == 6
    assert not path.exists()


def test_two_at_once_are_refused(tmp_path):
    folder = tmp_path / "a.generate"
    folder.mkdir()
    hold = (
        "import fasteners as f, sys; lock = f.InterProcessLock(sys.argv[1]); lock.acquire(); print(1); sys.stdin.read()"
    )
    command = [sys.executable, "-u", "-c", hold, str(folder / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(ValueError, match=r"another process makes trajectories in '.*a\.generate'"):
            generate(tmp_path / "a.db", SHORT, 1, reference=EMT_)
        other.stdin.close()
    assert generate(tmp_path / "a.db", SHORT, 1, reference=EMT_) == folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "a.xyz"}, r"ends in \.db"),
        ({"n_trajectories": 0}, "n_trajectories=0"),
        ({"reference": "EMT"}, "'EMT' is not the name of a calculator"),
    ],
)
def test_wrong_arguments_leave_nothing_behind(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        generate(**{"path": "a.db", "recipe": SHORT, "reference": EMT_, **arguments})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["timestep_fs", "steps", "equilibration_fs", "start_interval_fs"])
def test_a_recipe_in_which_nothing_moves_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}=0: must be larger than zero"):
        Recipe(**{name: 0})


def test_reference_by_import_path():
    assert isinstance(reference_calculator(EMT_), EMT)
    assert reference_calculator(EMT_, asap_cutoff=True).parameters["asap_cutoff"] is True


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("EMT", ValueError, "'EMT' is not the name of a calculator.*ase.calculators.emt:EMT"),
        ("ase.calculators.emt:", ValueError, "is not the name of a calculator"),
        ("ase.calculators.emt:TEM", ValueError, "module 'ase.calculators.emt' has no calculator 'TEM'"),
        ("ase:Atoms", ValueError, "is not an ASE calculator"),
        ("collections:OrderedDict", ValueError, "OrderedDict, which is not an ASE calculator"),
        ("tblite:GFN7-xTB", ValueError, "no method 'GFN7-xTB'; it has GFN1-xTB, GFN2-xTB"),
        ("nowhere.at_all:Calculator", ImportError, "'nowhere.at_all:Calculator': there is no module 'nowhere'"),
    ],
)
def test_a_wrong_reference_is_refused(spec, error, message):
    with pytest.raises(error, match=message):
        reference_calculator(spec)


def test_wrong_arguments_of_a_reference_are_refused():
    with pytest.raises(ValueError, match=r"'builtins:list' cannot be made with the arguments {'colour': 1}"):
        reference_calculator("builtins:list", colour=1)


def test_without_tblite_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tblite", None)
    monkeypatch.setitem(sys.modules, "tblite.ase", None)
    with pytest.raises(ImportError, match=r"'tblite:GFN1-xTB' needs .*pip install 'spk_dt\[reference\]'"):
        reference_calculator("tblite:GFN1-xTB")


def test_tblite_has_the_settings_of_the_embedded_data():
    pytest.importorskip("tblite.ase")
    parameters = reference_calculator("tblite:GFN1-xTB").parameters
    assert {"method": "GFN1-xTB", **TBLITE_SETTINGS}.items() <= parameters.items()
    assert TBLITE_SETTINGS["electronic_temperature"] == 1000.0
    assert reference_calculator("tblite:GFN2-xTB", accuracy=1.0).parameters["accuracy"] == 1.0


@pytest.mark.slow
def test_tight_binding_conserves_energy_and_gives_the_embedded_energies(tmp_path):
    pytest.importorskip("tblite.ase")
    recipe = Recipe(relax_steps=20, equilibration_fs=5.0, steps=10)
    generate(tmp_path / "a.db", recipe, 1)
    rows = rows_of(tmp_path / "a.db")
    masses = rows[0].toatoms().get_masses()[:, None]
    total = [
        row.data["energy"][0] + 0.5 * (masses * (row.data["velocities"] / ase.units.fs) ** 2).sum() for row in rows
    ]
    assert np.ptp(total) < 0.005  # eV, over 5 fs

    from spk_dt.data.embedded import unpack

    unpack(tmp_path / "embedded.db")
    row = connect(tmp_path / "embedded.db").get(1)
    atoms = row.toatoms()
    atoms.calc = reference_calculator("tblite:GFN1-xTB")
    assert atoms.get_potential_energy() == pytest.approx(row.data["energy"][0], abs=1e-4)
    np.testing.assert_allclose(atoms.get_forces(), row.data["forces"], atol=1e-4)
