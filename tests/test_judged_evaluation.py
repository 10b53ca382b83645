"""What an evaluation says of models, computed again from its HDF5 files with nothing but numpy and ASE."""

import csv
import json

import ase.io
import ase.units
import numpy as np
import pytest
from helpers.pair_potential import pair_model, pair_trajectory, tetrahedron
from helpers.pair_reference import Reference
from schnetpack.md.data import HDF5Loader
from typer.testing import CliRunner

from spk_dt.cli import app
from spk_dt.data import TrajectoryWriter

STEPS, EVERY = 60, 20
NAMES = ("exact", "off")
NM, KJ_PER_MOL = 10.0, ase.units.kJ / ase.units.mol  # in Å, eV


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A model that is the reference and one whose wells are half as deep again, beyond the end of the reference."""
    folder = tmp_path_factory.mktemp("judged")
    with TrajectoryWriter(folder / "data.db") as writer:
        for seed in range(2):
            writer.add(f"run_{seed}", pair_trajectory(tetrahedron(), STEPS - 20, 0.5, seed), timestep_fs=0.5)
    models = [f"exact={pair_model(folder / 'exact')}", f"off={pair_model(folder / 'off', depth=1.5)}"]
    command = ["evaluate", str(folder / "data.db"), *models, "--steps", str(STEPS), "--out", str(folder / "out")]
    command += ["--reference", "helpers.pair_reference:Reference", "--relabel-every", str(EVERY)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.stderr
    return folder / "out"


def simulation(result, name):
    """Positions, velocities, forces [n_steps + 1, 2, n_atoms, 3] in Å, Å/fs, eV/Å, and energies [n_steps + 1, 2] in eV."""
    starts = ase.io.read(result / "start.traj", ":")
    loader = HDF5Loader(str(result / name / "simulation_0.hdf5"))
    time_unit = np.sqrt(NM**2 / KJ_PER_MOL) / ase.units.fs  # of the file, in fs, with the Dalton
    n = len(starts[0])
    x = loader.properties["_positions"][:, 0].reshape(-1, 2, n, 3) * NM
    v = loader.properties["velocities"][:, 0].reshape(-1, 2, n, 3) * NM / time_unit
    f = loader.properties["forces"][:, 0].reshape(-1, 2, n, 3)
    e = loader.properties["energy"][:, 0].reshape(-1, 2)
    f0, e0 = loader.database["start/forces"][:].reshape(1, 2, n, 3), loader.database["start/energy"][:].reshape(1, 2)
    loader.database.close()
    x0 = np.stack([atoms.positions for atoms in starts])[None]
    v0 = np.stack([atoms.get_velocities() * ase.units.fs for atoms in starts])[None]
    return tuple(np.concatenate(pair) for pair in ((x0, x), (v0, v), (f0, f), (e0, e)))


def metrics(result, name):
    return json.loads((result / "metrics.json").read_text())[name]


def test_true_error(result):
    """The error at visited geometries, labelled anew here, also where the reference trajectory has ended."""
    atoms = tetrahedron()
    atoms.calc = Reference()
    rows = list(csv.DictReader((result / "true_error.csv").open(newline="")))
    by_start = list(csv.DictReader((result / "true_error_by_start.csv").open(newline="")))
    for name in NAMES:
        x, _, f, _ = simulation(result, name)
        for step in range(0, STEPS + 1, EVERY):
            errors = []
            for start in range(2):
                atoms.positions = x[step, start]
                errors.append(np.abs(f[step, start] - atoms.get_forces()))
            for element, which in (("H", atoms.numbers == 1), ("Pd", atoms.numbers == 46)):
                expected = np.array([error[which].mean() for error in errors])
                (row,) = (r for r in rows if (r["model"], r["element"], int(r["step"])) == (name, element, step))
                assert float(row["time_fs"]) == 0.5 * step
                assert float(row["mae"]) == pytest.approx(expected.mean(), abs=1e-12)
                assert float(row["std"]) == pytest.approx(expected.std(), abs=1e-12)
                each = [r for r in by_start if (r["model"], r["element"], int(r["step"])) == (name, element, step)]
                assert [int(r["start"]) for r in each] == [0, 1]
                np.testing.assert_allclose([float(r["mae"]) for r in each], expected, atol=1e-12)
    largest = {name: max(float(row["mae"]) for row in rows if row["model"] == name) for name in NAMES}
    assert largest["exact"] < 1e-9
    assert largest["off"] > 1e-2  # the control
    for name in NAMES:
        of_h = [float(row["mae"]) for row in rows if (row["model"], row["element"]) == (name, "H")]
        assert metrics(result, name)["true_error"]["mean_over_time"]["H"] == pytest.approx(np.mean(of_h))
        assert metrics(result, name)["true_error"]["n_geometries"] == 2 * (STEPS // EVERY + 1)


def test_true_error_of_the_energy(result):
    """Of the change since the start, so that a common shift does not count; by the energies of the reference."""
    atoms = tetrahedron()
    atoms.calc = Reference()
    rows = list(csv.DictReader((result / "true_energy_error_by_start.csv").open(newline="")))
    largest = {}
    for name in NAMES:
        x, _, _, e = simulation(result, name)
        reference = np.zeros_like(e)
        for step in range(0, STEPS + 1, EVERY):
            for start in range(2):
                atoms.positions = x[step, start]
                reference[step, start] = atoms.get_potential_energy()
        expected = 1000.0 * ((e - e[0]) - (reference - reference[0])) / len(atoms)
        found = {(int(r["start"]), int(r["step"])): r for r in rows if r["model"] == name}
        assert len(found) == 2 * (STEPS // EVERY + 1)
        for (start, step), row in found.items():
            assert float(row["time_fs"]) == 0.5 * step
            assert float(row["error_mev_per_atom"]) == pytest.approx(expected[step, start], abs=1e-6)
        later = np.abs(expected[EVERY::EVERY])
        summary = metrics(result, name)["true_error"]["energy"]
        assert summary["mae_mev_per_atom"] == pytest.approx(later.mean(), abs=1e-6)
        largest[name] = summary["largest_mev_per_atom"]
        assert largest[name] == pytest.approx(later.max(), abs=1e-6)
    assert largest["exact"] < 1e-5
    assert largest["off"] > 1.0  # the control


def test_relabelling_again_computes_nothing(result):
    before = (result / "true_error.csv").read_text()
    labels = (result / "off" / "labels.jsonl").read_text()
    command = ["relabel", str(result), "--reference", "helpers.pair_reference:Reference", "--every", str(EVERY)]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert (result / "true_error.csv").read_text() == before
    assert (result / "off" / "labels.jsonl").read_text() == labels
    other = ["relabel", str(result), "--reference", "ase.calculators.emt:EMT", "--another-reference"]
    other = CliRunner().invoke(app, other)
    assert other.exit_code == 1
    assert "helpers.pair_reference:Reference" in other.stderr


def test_conservation(result):
    atoms = tetrahedron()
    m = atoms.get_masses()[None, None, :, None] / ase.units.fs**2  # so that Å/fs gives eV
    for name in NAMES:
        _, v, f, e = simulation(result, name)
        total = e + 0.5 * (m * v**2).sum(axis=(2, 3))
        slopes = [np.polyfit(5e-4 * np.arange(STEPS + 1), total[:, s], 1)[0] * 1e3 / len(atoms) for s in range(2)]
        found = metrics(result, name)["conservation"]
        assert found["mean_drift_mev_per_atom_per_ps"] == pytest.approx(np.mean(slopes), rel=1e-5, abs=1e-6)
        kelvin = (m * v**2).sum(axis=(2, 3)) / (3 * len(atoms) * ase.units.kB)
        assert found["mean_temperature_k"] == pytest.approx(kelvin.mean(), rel=1e-6)
        largest = np.linalg.norm(f, axis=3).max()
        assert found["largest_force_ev_per_ang"] == pytest.approx(largest, rel=1e-9)


def test_structure_and_stability(result):
    """The model that is the reference has its distances and bonds; the other one is elsewhere."""
    exact, off = (metrics(result, name) for name in NAMES)
    assert exact["structure"]["mae_of_h_of_r"] == pytest.approx(0.0, abs=1e-9)
    assert off["structure"]["mae_of_h_of_r"] > 0.01
    distributions = json.loads((result / "distributions.json").read_text())["h_of_r"]
    np.testing.assert_allclose(distributions["exact"]["h"], distributions["reference"]["h"])
    r, h = (np.array(distributions["off"][key]) for key in ("r", "h"))
    assert h.sum() * (r[1] - r[0]) == pytest.approx(1.0)
    for one in exact["by_start"]:
        stable, reference = one["stability"], one["stability_of_reference"]
        limit = 0.5 * (STEPS - 20)
        assert stable["simulated_fs"] == 0.5 * STEPS
        assert reference["simulated_fs"] == limit
        assert min(stable["stable_fs"], limit) == pytest.approx(reference["stable_fs"])


def test_report(result):
    assert CliRunner().invoke(app, ["report", str(result)]).exit_code == 0
    page = (result / "report.html").read_text()
    for text in ("exact", "off", "true force error of visited geometries", "keep the bonds that the reference keeps"):
        assert text in page
    names = {path.name for path in (result / "figures").glob("*.pdf")}
    assert {"error_pairs.pdf", "error_along_reference.pdf", "distances.pdf", "total_energy.pdf"} <= names
