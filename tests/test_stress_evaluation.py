"""The evaluation compares the stress of models with that of the data, where both have it, and says nothing where not."""

import json
import re

import ase.units
import numpy as np
import pytest
import torch
from ase.calculators.lj import LennardJones
from ase.db import connect
from helpers.pair_potential import pair_model
from helpers.pair_reference import CUTOFF, EPSILON, SIGMA
from helpers.programs import spkdt
from helpers.stressed_data import copper, trajectory, write

from spk_dt.data.start_frames import start_frames
from spk_dt.dynamics import predict_stress
from spk_dt.evaluation.report import write_report
from spk_dt.evaluation.stress_error import compare_stress


def stressed_model(path, **kwargs):
    model = torch.load(pair_model(path, **kwargs), weights_only=False)
    predict_stress(model)
    torch.save(model, path)
    return path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Trajectories of crystals with the pair potential, and its stress."""
    calculator = LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=CUTOFF)
    frames = [trajectory(copper(3.9), 11, 1.0, i, 300.0, calculator) for i in range(3)]
    return write(tmp_path_factory.mktemp("pairs") / "pairs.db", frames, 1.0)


@pytest.fixture(scope="module")
def evaluated(pairs, tmp_path_factory):
    """The potential itself, one with forces and stresses 10 % larger, and one without a stress; what was printed."""
    folder = tmp_path_factory.mktemp("evaluated")
    models = [stressed_model(folder / "exact"), stressed_model(folder / "deep", depth=1.1), pair_model(folder / "none")]
    arguments = ["evaluate", pairs, *models, "--steps", "5", "--out", folder / "out"]
    code, printed, error = spkdt(*arguments)
    assert code == 0, error
    return folder / "out", printed


def test_errors_of_the_stress(evaluated, pairs):
    folder, printed = evaluated
    metrics = json.loads((folder / "metrics.json").read_text())
    assert "stress" not in metrics["none"]
    assert metrics["exact"]["stress"]["mae_gpa"] < 1e-5
    rows = list(connect(pairs).select())[12:24]  # the test trajectory
    reference = np.array([row.data["stress"][0] for row in rows])[[i * 12 // 10 for i in range(10)]] / ase.units.GPa
    found = metrics["deep"]["stress"]
    assert found["n_frames"] == 10
    assert found["mean_absolute_gpa"] == pytest.approx(np.abs(reference).mean())
    assert found["mae_gpa"] == pytest.approx(0.1 * np.abs(reference).mean(), rel=1e-4)
    pressures = -np.trace(reference, axis1=1, axis2=2) / 3.0
    assert found["mean_pressure_error_gpa"] == pytest.approx(0.1 * pressures.mean(), rel=1e-4)
    assert found["pressure_mae_gpa"] == pytest.approx(0.1 * np.abs(pressures).mean(), rel=1e-4)
    lines = [line for line in printed.splitlines() if "stress" in line]
    assert len(lines) == 2
    assert f"deep: stress error at 10 frames of the data {found['mae_gpa']:.3f} GPa" in lines[1]


def test_the_report_shows_it(evaluated):
    page = write_report(evaluated[0]).read_text()
    assert "error of the stress at frames of the data (GPa)" in page
    assert "error of the mean pressure there (GPa)" in page


@pytest.mark.slow
@pytest.mark.parametrize("lacking", ["data", "model"])
def test_nothing_is_shown_where_there_is_none(lacking, pairs, tmp_path):
    database = pairs
    if lacking == "data":
        calculator = LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=CUTOFF)
        frames = [trajectory(copper(3.9), 6, 1.0, i, 300.0, calculator) for i in range(3)]
        for atoms in (atoms for one in frames for atoms in one):
            del atoms.calc.results["stress"]
        database = write(tmp_path / "without.db", frames, 1.0)
    model = pair_model(tmp_path / "model") if lacking == "model" else stressed_model(tmp_path / "model")
    code, printed, error = spkdt("evaluate", database, model, "--steps", "5", "--out", tmp_path / "out")
    assert code == 0, error
    assert "stress" not in printed + (tmp_path / "out" / "metrics.json").read_text()
    tables = write_report(tmp_path / "out").read_text().partition("<h2>Configurations")[0]
    assert not re.search(r"<t[dh][^>]*>[^<]*stress", tables)


def test_in_the_units_of_the_model(pairs, tmp_path):
    units = {"energy_unit": ase.units.kcal / ase.units.mol, "length_unit": ase.units.Bohr}
    model = stressed_model(tmp_path / "model", **units)
    options = ["--energy-unit", "kcal / mol", "--position-unit", "Bohr", "--steps", "2", "--out", tmp_path / "out"]
    code, _, error = spkdt("evaluate", pairs, model, *options)
    assert code == 0, error
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["model"]["stress"]
    assert found["mae_gpa"] < 1e-5 < found["mean_absolute_gpa"]


def test_signs_and_components():
    reference = np.array([[[1.0, 2.0, 0.0], [2.0, -3.0, 0.5], [0.0, 0.5, 4.0]]]) * ase.units.GPa
    assert compare_stress(reference, reference)["mae_gpa"] == 0.0
    off = compare_stress(reference + 0.3 * np.eye(3) * ase.units.GPa, reference)
    assert off["mean_pressure_error_gpa"] == pytest.approx(-0.3)  # a stress that is too large is a pressure too low
    assert off["mae_gpa"] == pytest.approx(0.1)
    assert compare_stress(-reference, reference)["mae_gpa"] == pytest.approx(
        2.0 * np.abs(reference).mean() / ase.units.GPa
    )


def test_start_frames_have_the_stress_of_the_data(pairs):
    (atoms,) = start_frames(pairs, "test")
    calculator = LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=CUTOFF)
    stress = atoms.get_stress(voigt=False)
    atoms.calc = calculator
    np.testing.assert_allclose(stress, atoms.get_stress(voigt=False), atol=1e-9)
    assert np.abs(stress).max() > 1e-3
