"""``spkdt evaluate``: simulations from the data, force errors along the reference, and what is refused."""

import csv
import json
import shutil

import ase.io
import ase.units
import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.db import connect
from helpers.models import painn, potential
from helpers.pair_potential import pair_model, pair_trajectory, tetrahedron
from schnetpack.md.data import HDF5Loader
from schnetpack.transform import AddOffsets
from typer.testing import CliRunner

from spk_dt.cli import app
from spk_dt.data import TrajectoryWriter
from spk_dt.data.continuation import continuation
from spk_dt.evaluation.force_error import ErrorCurve, average_curves, element_errors, summary
from spk_dt.evaluation.judge import _largest
from spk_dt.evaluation.named_models import named_models
from spk_dt.evaluation.results import read_results
from spk_dt.evaluation.tables import verdict
from spk_dt.evaluation.true_error import true_errors
from spk_dt.labels.unit_check import check_units

STEPS = 120


def spkdt(*arguments):
    result = CliRunner().invoke(app, ["evaluate", *(str(argument) for argument in arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def evaluated(*arguments):
    code, out, err = spkdt(*arguments)
    assert code == 0, err
    return out


def refused(*arguments):
    code, out, err = spkdt(*arguments)
    assert code == 1
    assert out == ""
    return err


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def curve(path, model, element, column="mae", **where):
    return np.array(
        [
            float(row[column])
            for row in table(path)
            if (row["model"], row["element"]) == (model, element) and all(row[key] == one for key, one in where.items())
        ]
    )


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    return pair_model(tmp_path_factory.mktemp("models") / "exact" / "best_model")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three test trajectories of Pd2H2, the last one shorter, and one for training."""
    path = tmp_path_factory.mktemp("data") / "pd2h2.db"
    with TrajectoryWriter(path, splits={"train": ["t"], "test": ["a", "b", "c"]}) as writer:
        for seed, (name, steps) in enumerate({"t": 3, "a": STEPS, "b": STEPS, "c": 20}.items()):
            writer.add(name, pair_trajectory(tetrahedron(), steps, 0.5, seed), timestep_fs=0.5)
    return path


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Molecules and a crystal, 0.5 and 2 fs; two groups of 0.5 fs since one has no cell."""
    path = tmp_path_factory.mktemp("mixed") / "mixed.db"
    crystal = bulk("Cu", cubic=True, a=3.7)
    with TrajectoryWriter(path) as writer:
        writer.add("cluster", pair_trajectory(tetrahedron(), 30, 0.5, 0), timestep_fs=0.5)
        writer.add("slow", pair_trajectory(crystal, 20, 2.0, 1), timestep_fs=2.0)
        writer.add("fast", pair_trajectory(crystal.repeat((2, 1, 1)), 20, 0.5, 2), timestep_fs=0.5)
        writer.add("other", pair_trajectory(tetrahedron("PdAu2H"), 12, 0.5, 3), timestep_fs=0.5)
    return path


@pytest.fixture(scope="module")
def result(data, exact, tmp_path_factory):
    """Three models, beyond the end of the reference."""
    folder = tmp_path_factory.mktemp("result")
    pair_model(folder / "deep", depth=1.1)
    pair_model(folder / "runs" / "deeper" / "best_model", depth=1.3)
    out = folder / "out"
    arguments = (exact, f"off={folder / 'deep'}", folder / "runs" / "deeper", "--steps", STEPS + 20, "--out", out)
    printed = evaluated(data, *arguments)
    assert printed.splitlines()[-1] == str(out)
    return out


# ------------------------------------------------------------------------------------------------------------ results


def test_files(result):
    names = {str(path.relative_to(result)) for path in result.rglob("*") if path.is_file()}
    figures = {name for name in names if name.startswith("figures/")}
    assert {"figures/error_along_reference.png", "figures/error_along_reference.pdf"} <= figures
    assert names - figures == {
        *(
            "distributions.json",
            "motion.json",
            "settings.json",
            "start.traj",
            "force_error.csv",
            "force_error_by_start.csv",
            "metrics.json",
        ),
        *(f"{name}/simulation_0.hdf5" for name in ("exact", "off", "deeper")),
    }
    assert list(table(result / "force_error.csv")[0]) == ["model", "step", "time_fs", "element", "mae", "std"]
    assert list(table(result / "force_error_by_start.csv")[0]) == [
        "model",
        "start",
        "step",
        "time_fs",
        "element",
        "mae",
    ]


def test_settings(result, data, exact):
    settings = json.loads((result / "settings.json").read_text())
    assert settings["data"] == str(data)
    assert (settings["split"], settings["steps"], settings["every"]) == ("test", STEPS + 20, 1)
    assert (settings["energy_unit"], settings["distance_unit"]) == ("eV", "Ang")
    assert list(settings["models"]) == ["exact", "off", "deeper"]
    assert settings["models"]["exact"] == str(exact)
    assert settings["elements"] == ["H", "Pd"]
    assert settings["starts"] == [
        {
            **{"trajectory": name, "frame": 0, "group": 0, "molecule": i, "timestep_fs": 0.5},
            "reference_steps": {"a": STEPS, "b": STEPS, "c": 20}[name],
            "inner_steps": 1,
        }
        for i, name in enumerate("abc")
    ]
    assert set(settings["versions"]) == {"spk_dt", "schnetpack", "torch", "ase", "python"}
    assert isinstance(settings["command"], list)


def test_start_frames(result, data):
    frames = ase.io.read(result / "start.traj", index=":")
    for atoms, name in zip(frames, "abc", strict=True):
        expected = continuation(data, name, 0).start
        np.testing.assert_allclose(atoms.positions, expected.positions, atol=1e-12)
        np.testing.assert_allclose(atoms.get_momenta(), expected.get_momenta(), atol=1e-12)
        np.testing.assert_allclose(atoms.get_forces(), expected.get_forces(), atol=1e-12)
        assert atoms.get_potential_energy() == pytest.approx(expected.get_potential_energy())


def test_the_reference_itself_follows_the_reference(result, data):
    """The potential of the data as a model: no error from the first to the last step, and the same positions."""
    by_start = result / "force_error_by_start.csv"
    for start, steps in enumerate((STEPS, STEPS, 20)):
        for element in ("H", "Pd"):
            errors = curve(by_start, "exact", element, start=str(start))
            assert len(errors) == steps + 1  # to the end of the reference, not of the simulation
            assert errors.max() < 1e-9  # eV/Å
    loader = HDF5Loader(str(result / "exact" / "simulation_0.hdf5"))
    assert loader.entries == STEPS + 20
    rows = [row for row in connect(data).select(sort="id")][4 : 4 + STEPS + 1]
    np.testing.assert_allclose(10.0 * loader.get_positions(0)[:STEPS], [row.positions for row in rows[1:]], atol=1e-9)
    moved = np.abs(rows[-1].positions - rows[0].positions).max()
    assert moved > 0.3
    energies = loader.get_property("energy", atomistic=False)[:STEPS]
    np.testing.assert_allclose(energies, [row.data["energy"][0] for row in rows[1:]], atol=1e-9)  # eV
    loader.database.close()


def test_other_models_leave_the_reference(result):
    """Negative control: a potential that is too deep goes wrong from the start, and more and more."""
    errors = {name: curve(result / "force_error.csv", name, "H") for name in ("exact", "off", "deeper")}
    assert errors["off"][0] > 1e-3
    for name in ("off", "deeper"):
        assert errors[name][-10:].mean() > 2 * errors[name][0]
    assert errors["deeper"].mean() > errors["off"].mean() > 1e6 * errors["exact"].mean()


def test_tables_from_the_files_with_numpy_alone(result, data):
    settings = json.loads((result / "settings.json").read_text())
    database = connect(data)
    first = {record["name"]: record["start"] for record in database.metadata["trajectories"]}
    for name in settings["models"]:
        loader = HDF5Loader(str(result / name / "simulation_0.hdf5"))
        single = {"H": [], "Pd": []}
        for i, start in enumerate(settings["starts"]):
            steps = start["reference_steps"]
            forces = loader.get_property("forces", atomistic=True, mol_idx=start["molecule"])[:steps]
            rows = [database.get(first[start["trajectory"]] + 1 + step) for step in range(1, steps + 1)]
            error = np.abs(forces - np.array([row.data["forces"] for row in rows]))
            for element, atoms in (("Pd", slice(0, 2)), ("H", slice(2, 4))):
                expected = error[:, atoms].reshape(steps, -1).mean(1)
                written = curve(result / "force_error_by_start.csv", name, element, start=str(i))
                np.testing.assert_allclose(written[1:], expected, rtol=1e-10, atol=1e-13)
                single[element].append(np.append(written, np.full(STEPS - steps, np.nan)))
        for element, values in single.items():
            mae, std = (curve(result / "force_error.csv", name, element, column) for column in ("mae", "std"))
            np.testing.assert_allclose(mae, np.nanmean(values, axis=0), rtol=1e-12)
            np.testing.assert_allclose(std, np.nanstd(values, axis=0), rtol=1e-9, atol=1e-15)
        times = curve(result / "force_error.csv", name, "H", "time_fs")
        np.testing.assert_allclose(times, 0.5 * np.arange(STEPS + 1))
        metrics = json.loads((result / "metrics.json").read_text())[name]
        along = metrics["along_reference"]
        for element in ("H", "Pd"):
            mae = curve(result / "force_error.csv", name, element)
            assert along["mean_over_steps"][element] == pytest.approx(mae.mean(), rel=1e-12)
            assert along["step_0"][element] == pytest.approx(mae[0], rel=1e-12)
        assert along["sum_over_elements"] == pytest.approx(sum(along["mean_over_steps"].values()))
        assert metrics["exploded"] == []
        loader.database.close()


@pytest.mark.slow
def test_mixed_systems(mixed, exact, tmp_path):
    """Molecules, cells and time steps in one database, from several frames of each trajectory."""
    evaluated(mixed, exact, "--steps", 10, "--starts-per-trajectory", 2, "--out", tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    found = [[one[key] for key in ("trajectory", "frame", "group", "molecule")] for one in settings["starts"]]
    assert found == [
        *(["cluster", 0, 0, 0], ["cluster", 15, 0, 1], ["slow", 0, 1, 0], ["slow", 10, 1, 1]),
        *(["fast", 0, 2, 0], ["fast", 10, 2, 1], ["other", 0, 0, 2], ["other", 6, 0, 3]),
    ]
    assert [one["reference_steps"] for one in settings["starts"]] == [30, 15, 20, 10, 20, 10, 12, 6]
    rows = table(tmp_path / "out" / "force_error_by_start.csv")
    assert max(float(row["mae"]) for row in rows) < 1e-9
    assert sum(row["start"] == "7" and row["element"] == "Au" for row in rows) == 7  # its reference ends first
    means = table(tmp_path / "out" / "force_error.csv")
    times = {element: [float(row["time_fs"]) for row in means if row["element"] == element] for element in ("Cu", "Au")}
    fast, slow = 0.5 * np.arange(11), 2.0 * np.arange(11)
    np.testing.assert_allclose(times["Cu"], [*fast, *slow])
    np.testing.assert_allclose(times["Au"], fast)
    found = true_errors(tmp_path / "out", "helpers.pair_reference:Reference", every=5)["exact"]
    assert found["last_time_fs"] == 20.0
    times = [float(row["time_fs"]) for row in table(tmp_path / "out" / "true_error.csv") if row["element"] == "Cu"]
    np.testing.assert_allclose(times, [*fast[::5], *slow[::5]])  # one curve after the other
    ends = read_results(tmp_path / "out").true_errors["exact"]["Cu"].time_fs
    np.testing.assert_allclose(ends, [*fast[::5], np.nan, *slow[::5]])
    loaders = [HDF5Loader(str(tmp_path / "out" / "exact" / f"simulation_{g}.hdf5")) for g in range(3)]
    assert [loader.properties["_cell"] is not None for loader in loaders] == [False, True, True]
    for loader in loaders:
        loader.database.close()


def test_unseen_by_the_models(data, exact, tmp_path):
    """What is test data in the run of the model, of that of the database."""
    frames = next(r for r in connect(data).metadata["trajectories"] if r["name"] == "b")
    (tmp_path / "run").mkdir()
    shutil.copy(exact, tmp_path / "run" / "best_model")
    records = json.dumps(connect(data).metadata["trajectories"])
    np.savez(
        tmp_path / "run" / "split.npz", trajectories=records, test_idx=frames["start"] + np.arange(frames["length"])
    )
    evaluated(data, tmp_path / "run", exact, "--steps", 2, "--out", tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["split"] == "test"
    assert [one["trajectory"] for one in settings["starts"]] == ["b"]


def test_a_relaxed_start_is_no_wrong_model(exact, tmp_path):
    """At the first frame of an optimised structure forces vanish, and any model is worse than none."""
    frames = pair_trajectory(tetrahedron(), 10, 0.5, 0)
    frames[0].calc.results["forces"] = 0.01 * frames[0].get_forces()
    with TrajectoryWriter(tmp_path / "relaxed.db") as writer:
        writer.add("a", frames, timestep_fs=0.5)
    evaluated(tmp_path / "relaxed.db", exact, "--steps", 2, "--out", tmp_path / "out")


def test_thinned_data(exact, tmp_path):
    """With a thermostat nothing is compared, so any steps may be kept; else the next number that fits is named."""
    with TrajectoryWriter(tmp_path / "thin.db") as writer:
        writer.add("a", pair_trajectory(tetrahedron(), 20, 0.5, 0)[::2], timestep_fs=1.0, inner_steps=2)
    some = (tmp_path / "thin.db", exact, "--steps", 20, "--every", 4, "--out", tmp_path / "out")
    assert "Take every=5, or every=1" in refused(*some)
    evaluated(*some, "--temperature", 300)


def test_largest_of_what_is_not_known():
    assert _largest([1.0, -3.0]) == 3.0
    assert _largest([1.0, None]) is None
    assert _largest([]) is None


def test_every(data, exact, tmp_path):
    evaluated(data, exact, "--steps", 22, "--every", 5, "--number", 2, "--out", tmp_path / "out")
    times = curve(tmp_path / "out" / "force_error.csv", "exact", "H", "time_fs")
    np.testing.assert_allclose(times, 0.5 * np.array([0, 1, 6, 11, 16, 21]))
    assert curve(tmp_path / "out" / "force_error.csv", "exact", "H").max() < 1e-9


def test_single_precision(data, exact, tmp_path):
    """Follows the reference as far as single precision can, and is not the same as double."""
    evaluated(data, exact, "--steps", 20, "--precision", 32, "--out", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["precision"] == 32
    largest = curve(tmp_path / "out" / "force_error.csv", "exact", "H").max()
    assert 1e-9 < largest < 1e-3
    assert "precision=16: floating-point numbers have 32 or 64 bits" in refused(
        data, exact, "--precision", 16, "--out", tmp_path / "new"
    )


@pytest.mark.slow
def test_compiled(data, exact, tmp_path, monkeypatch):
    """What is compiled is what simulates; here it is traced and differentiated as always, but run as it is."""
    evaluations = []

    def compile(function, **kwargs):
        def counted(*args):
            evaluations.append(1)
            return function(*args)

        return counted

    monkeypatch.setattr("torch.compile", compile)
    evaluated(data, exact, "--steps", 20, "--out", tmp_path / "plain")
    assert not evaluations
    evaluated(data, exact, "--steps", 20, "--compile", "--out", tmp_path / "compiled")
    assert len(evaluations) >= 20
    assert curve(tmp_path / "compiled" / "force_error.csv", "exact", "Pd").max() < 1e-9


@pytest.mark.gpu
def test_on_a_gpu(mixed, exact, tmp_path):
    evaluated(mixed, exact, "--steps", 10, "--device", "cuda", "--out", tmp_path / "out")
    assert max(float(row["mae"]) for row in table(tmp_path / "out" / "force_error_by_start.csv")) < 1e-9


def test_names_of_outputs_and_offsets(data, tmp_path):
    """A model that calls its outputs otherwise; offsets of the energy do not matter."""
    pair_model(tmp_path / "md17", energy_key="E", force_key="F")
    model = torch.load(tmp_path / "md17", weights_only=False)
    offsets = AddOffsets("E", add_mean=True, is_extensive=True, property_mean=torch.tensor(-5.0))
    model.postprocessors = torch.nn.ModuleList([offsets])
    torch.save(model, tmp_path / "md17")
    evaluated(data, tmp_path / "md17", "--steps", 5, "--out", tmp_path / "out")
    assert curve(tmp_path / "out" / "force_error.csv", "md17", "Pd").max() < 1e-9


# --------------------------------------------------------------------------------------------------------- explosions


@pytest.mark.parametrize("kick", [1e6, float("nan")])
def test_exploded_molecules_do_not_harm_the_others(data, tmp_path, kick):
    """A model that tears bonds beyond some length, or gives no number: one molecule reaches it, the others do not."""
    lengths = {}
    for name in "abc":
        one = continuation(data, name, 0)
        rows = list(connect(data).select(sort="id"))
        record = next(r for r in connect(data).metadata["trajectories"] if r["name"] == name)
        frames = [row.toatoms() for row in rows[record["start"] : record["start"] + one.steps + 1]]
        lengths[name] = [atoms.get_all_distances().max() for atoms in frames]
    worst, second = sorted(lengths, key=lambda name: -max(lengths[name]))[:2]
    limit = 0.5 * (max(lengths[worst]) + max(lengths[second]))
    breaks = next(step for step, length in enumerate(lengths[worst]) if length > limit)
    assert breaks > 3
    pair_model(tmp_path / "brittle", breaks_beyond=limit, kick=kick)
    pair_model(tmp_path / "deep", depth=1.1)
    out = evaluated(data, tmp_path / "brittle", tmp_path / "deep", "--steps", STEPS, "--out", tmp_path / "out")
    assert "1 exploded" in out
    marks = {name: best for name, _, best in verdict(read_results(tmp_path / "out")).rows}
    assert not any(
        marks["divergence: force error along the reference, H (eV/Å)"]
    )  # what is left of the brittle one has no error
    assert not any(marks["largest drift of the energy (meV per atom and ps)"])
    assert marks["simulations that exploded, of 3"] == [False, True]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())["brittle"]
    (exploded,) = metrics["exploded"]
    assert exploded["trajectory"] == worst
    assert exploded["step"] == breaks + 1
    assert exploded["time_fs"] == pytest.approx(0.5 * (breaks + 1))
    by_start = tmp_path / "out" / "force_error_by_start.csv"
    for start, name in enumerate("abc"):
        errors = curve(by_start, "brittle", "H", start=str(start))
        if name == worst:
            assert errors[:breaks].max() < 1e-9
            assert np.isnan(errors[breaks + 1 :]).all()
        else:
            assert errors.max() < 1e-9
    means = curve(tmp_path / "out" / "force_error.csv", "brittle", "H")
    assert np.isfinite(means).all()
    assert np.nanmax(means[breaks + 1 :]) < 1e-9
    loader = HDF5Loader(str(tmp_path / "out" / "brittle" / "simulation_0.hdf5"))
    frozen = loader.get_positions("abc".index(worst))[breaks:]
    assert np.ptp(frozen, axis=0).max() == 0.0
    assert np.abs(loader.get_velocities("abc".index(worst))[breaks:]).max() == 0.0
    assert loader.database.attrs["exploded_step"][["abc".index(worst)]] == breaks + 1
    loader.database.close()


# --------------------------------------------------------------------------------------------------------------- units


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        ("kcal / mol", ase.units.kcal / ase.units.mol),
        ("kJ / mol", ase.units.kJ / ase.units.mol),
        ("Hartree", ase.units.Hartree),
        ("0.001", 1e-3),
    ],
)
def test_wrong_energy_unit_is_named(data, tmp_path, unit, size):
    """Hartree too, which makes forces so small that they are still better than none."""
    model = pair_model(tmp_path / "model", energy_unit=size)
    out = tmp_path / "out"
    err = refused(data, model, "--steps", 3, "--out", out)
    assert f"use --energy-unit '{unit}'" in err
    assert err.count("\n") == 1
    assert not out.exists()
    evaluated(data, model, "--steps", 3, "--out", out, "--energy-unit", unit)
    assert curve(out / "force_error.csv", "model", "H").max() < 1e-9


def test_wrong_unit_of_length_is_named(data, exact, tmp_path):
    atomic = pair_model(tmp_path / "model", energy_unit=ase.units.Hartree, length_unit=ase.units.Bohr)
    err = refused(data, atomic, "--steps", 3, "--out", tmp_path / "out")
    assert "looks like Hartree and Bohr: use --energy-unit 'Hartree' --position-unit 'Bohr'" in err
    units = ("--energy-unit", "Hartree", "--position-unit", "Bohr")
    evaluated(data, atomic, "--steps", 3, "--out", tmp_path / "out", *units)
    assert curve(tmp_path / "out" / "force_error.csv", "model", "H").max() < 1e-9
    err = refused(data, exact, "--steps", 3, "--out", tmp_path / "new", "--position-unit", "Bohr")
    assert "looks like Angstrom: use --position-unit 'Angstrom'" in err


def test_a_model_that_knows_nothing_is_refused(database, tmp_path):
    torch.manual_seed(0)
    model = potential(painn())
    for parameter in model.output_modules[0].parameters():
        parameter.data *= 300.0
    torch.save(model, tmp_path / "random")
    err = refused(database, tmp_path / "random", "--out", tmp_path / "out")
    assert "'random' is no better than zero forces" in err
    assert not (tmp_path / "out").exists()


def test_weak_models_pass_the_unit_check():
    """Half of the force, or a large error, is no wrong unit."""
    reference = np.random.default_rng(0).normal(size=(200, 3))
    noise = np.random.default_rng(1).normal(size=(200, 3))
    for forces in (0.45 * reference, 0.3 * reference + 0.1 * noise, reference + 0.9 * noise):
        check_units("weak", reference, {"Angstrom": forces, "Bohr": noise}.get, "eV", "Angstrom")
    check_units("any", 0.0 * reference, lambda unit: noise, "eV", "Angstrom")


# ------------------------------------------------------------------------------------------------------------ refusals


def test_refusals(data, exact, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes").write_text("mine")
    assert f"'{out}' is not empty" in refused(data, exact, "--out", out)
    assert [path.name for path in out.iterdir()] == ["notes"]
    new = ("--out", tmp_path / "new")
    assert "no trajectory database" in refused(tmp_path / "none.db", exact, *new)
    assert "no model file" in refused(data, tmp_path / "none", *new)
    assert "two models are called 'exact'" in refused(data, exact, exact.parent, *new)
    assert "cannot be the name of a model" in refused(data, f"..={exact}", *new)
    (tmp_path / "text").write_text("no model")
    assert "is not a SchNetPack model" in refused(data, tmp_path / "text", *new)
    assert "no partition 'val'" in refused(data, exact, *new, "--split", "val")
    assert "starts_per_trajectory=30: trajectory 'c'" in refused(data, exact, *new, "--starts-per-trajectory", 30)
    assert "unknown unit" in refused(data, exact, *new, "--energy-unit", "parsec per year")
    assert "a unit is a positive number" in refused(data, exact, *new, "--energy-unit", "-1")
    assert "device 'nonsense' cannot be used" in refused(data, exact, *new, "--device", "nonsense")
    assert not (tmp_path / "new").exists()


def test_names_of_models(tmp_path):
    for path in ("a/best_model", "b=1/best_model", "c.pt"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("")
    arguments = ["a/best_model", "b=1/best_model", "c.pt", "other=a/best_model"]
    names = named_models([*(str(tmp_path / one) for one in arguments[:3]), f"other={tmp_path / 'a'}"])
    assert list(names) == ["a", "b=1", "c", "other"]
    assert names["other"] == names["a"] == tmp_path / "a" / "best_model"
    with pytest.raises(ValueError, match="at least one model"):
        named_models([])


# ------------------------------------------------------------------------------------------------------ pure functions


def test_element_errors():
    numbers = np.array([1, 8, 1])
    reference = np.zeros((2, 3, 3))
    predicted = reference.copy()
    predicted[1, 0] = [3.0, 0.0, -3.0]
    errors = element_errors(predicted, reference, numbers)
    assert list(errors) == ["H", "O"]
    np.testing.assert_allclose(errors["H"], [0.0, 1.0])
    np.testing.assert_allclose(errors["O"], [0.0, 0.0])
    with pytest.raises(ValueError, match="belong to 3 atoms"):
        element_errors(predicted[:1], reference, numbers)


def test_averages_of_curves_of_other_length_and_elements():
    def single(**mae):
        n = len(next(iter(mae.values())))
        return ErrorCurve(np.arange(n), 0.5 * np.arange(n), {key: np.array(one) for key, one in mae.items()}, {})

    nan = float("nan")
    average = average_curves([single(H=[1.0, 2.0], O=[1.0, 1.0]), single(H=[3.0, nan, nan], Au=[0.0, nan, nan])])
    assert list(average.mae) == ["H", "O", "Au"]
    np.testing.assert_allclose(average.mae["H"], [2.0, 2.0, nan])
    np.testing.assert_allclose(average.std["H"], [1.0, 0.0, nan])
    np.testing.assert_allclose(average.mae["O"], [1.0, 1.0, nan])
    np.testing.assert_allclose(average.time_fs, [0.0, 0.5, 1.0])
    found = summary([average])
    assert found["mean_over_steps"] == {"H": 2.0, "O": 1.0, "Au": 0.0}
    assert found["sum_over_elements"] == 3.0
    assert found["step_0"] == {"H": 2.0, "O": 1.0, "Au": 0.0}
