"""Certificates in the report: what decides stands first, and of which models it is."""

import json
import shutil

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.pair_potential import pair_model, pair_trajectory, tetrahedron
from helpers.pair_reference import Reference
from helpers.programs import spkdt
from matplotlib import pyplot as plt
from scipy.stats import binomtest

from spk_dt.certificate.certify import Computing, certify
from spk_dt.certificate.conditions import Conditions
from spk_dt.certificate.scales_of_data import scales_of_data
from spk_dt.certificate.survival import survival
from spk_dt.data import TrajectoryWriter
from spk_dt.data.partition import read_partition
from spk_dt.evaluation.certificate_figure import plot_survival
from spk_dt.evaluation.certificates import WrongState, read_certificate
from spk_dt.evaluation.results import read_results
from spk_dt.evaluation.tables import verdict
from spk_dt.evaluation.wrong_state_figure import plot_wrong_states

REFERENCE = "helpers.pair_reference:Reference"
PLAIN = Computing(compile=False, precision=64, batch_size=6)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data, two models, an evaluation in ``ev``, and a certificate in ``ev/certificate``."""
    folder = tmp_path_factory.mktemp("certified")
    with TrajectoryWriter(folder / "data.db") as writer:
        for seed in range(3):
            writer.add(f"run_{seed}", pair_trajectory(tetrahedron(), 40, 1.0, seed, kelvin=300.0), 1.0)
    models = {"torn": pair_model(folder / "torn", breaks_beyond=2.8, kick=0.15), "exact": pair_model(folder / "exact")}
    command = ["evaluate", str(folder / "data.db"), *(f"{name}={file}" for name, file in models.items())]
    command += ["--steps", "400", "--out", str(folder / "ev"), "--reference", REFERENCE, "--relabel-every", "50"]
    code, _, error = spkdt(*command)
    assert code == 0, error
    conditions = Conditions(time_ps=0.4, n_states=8, time_step=1.0)
    certify(models, folder / "data.db", folder / "ev" / "certificate", REFERENCE, 6, conditions, computing=PLAIN)
    return folder


def report(*arguments):
    code, output, error = spkdt("report", *map(str, arguments))
    return code, output + error


def test_the_certificate_leads_and_divergence_comes_last(folder):
    assert report(folder / "ev")[0] == 0
    page = (folder / "ev" / "report.html").read_text()
    content = json.loads((folder / "ev" / "certificate" / "certificate.json").read_text())["models"]
    assert (content["exact"]["failures"], content["torn"]["failures"] > 0) == (0, True)
    statement = "safe to 0.4 ps at constant energy from 173 K"
    order = (
        "not safe to 0.4 ps",
        f"judged by {REFERENCE}: energies within 3",
        f"</strong>: {statement}",
        'id="survival_0.4ps"',
        "simulations that fail</th>",
        'id="wrong_states_0.4ps"',
        "Models compared",
        "simulations that failed, of 3",
        "true force error of visited",
        "divergence: force error",
        'id="survival"',
        'id="error_pairs"',
        'id="error_along_reference"',
    )
    places = [page.index(text) for text in order]
    assert places == sorted(places)
    assert "at most 39.3 % of simulations fail (none of 6 did)" in page
    failed = [one for one in content["torn"]["outcomes"] if one["state"] is not None]
    assert page.count('<tr><th scope="row">torn</th>') == len(failed) > 0
    assert "cannot be told" not in page
    assert len(list((folder / "ev" / "figures").glob("survival_0.4ps.*"))) == 3


def test_what_is_best_follows_from_what_decides(folder):
    rows = {name: marks for name, _, marks in verdict(read_results(folder / "ev")).rows}
    assert rows["simulations that failed, of 3"] == [False, True]
    assert not any(any(marks) for name, marks in rows.items() if name.startswith("divergence"))
    table = {name: (shown, marks) for name, shown, marks in read_certificate(folder / "ev" / "certificate").table.rows}
    assert table["simulations that fail"][1] == [False, True]
    assert table["survival to 0.4 ps (%)"][0][1] == "100 (54 to 100)"  # 0.025 ** (1 / 6) = 0.54
    assert table["share that fails, at most (%)"][0][1] == "39.3"


def test_a_certificate_alone_is_a_page_too(folder, tmp_path):
    shutil.copytree(folder / "ev" / "certificate", tmp_path / "c", ignore=shutil.ignore_patterns("first_wrong.traj"))
    assert report(tmp_path / "c")[0] == 0
    page = (tmp_path / "c" / "report.html").read_text()
    assert "<title>Certificate of torn, exact</title>" in page
    assert "Models compared" not in page
    assert "wrong_states" not in page  # the file of states is not there; the table is
    assert '<tr><th scope="row">torn</th>' in page
    (tmp_path / "c" / "certificate.json").unlink()
    code, said = report(tmp_path / "c", "--certificate", tmp_path / "c")
    assert code == 1
    assert "it was interrupted; the same command ends it" in said
    code, said = report(tmp_path)
    assert code == 1
    assert "not the folder of an evaluation" in said


@pytest.mark.slow
def test_a_ramp_tells_the_temperature_and_two_certificates_do_not_mix(folder, tmp_path):
    model, conditions = folder / "torn", Conditions(0.4, 8, 300.0, 1000.0, time_step=1.0)
    for name in ("one", "two"):
        certify({name: model}, folder / "data.db", tmp_path / name, REFERENCE, 3, conditions, computing=PLAIN)
    assert report(tmp_path / "one", "--certificate", tmp_path / "two")[0] == 0
    page = (tmp_path / "one" / "report.html").read_text()
    assert 'id="survival_0.4ps_300K_1000K"' in page
    assert 'id="survival_0.4ps_300K_1000K_no2"' in page
    certificate = read_certificate(tmp_path / "one")
    assert "while heated from 300 to 1000 K (Langevin thermostat): " in certificate.statements["one"]
    first = min(o["failed_ps"] for o in certificate.models["one"]["outcomes"] if o["failed_ps"] is not None)
    interval = int(np.ceil(first / 0.05 - 1e-9)) - 1
    kelvin = 300.0 + 100.0 * interval
    assert f" ps and {kelvin:.0f} K (" in certificate.statements["one"]
    assert ("temperature at the first failure (K)", [f"{kelvin:.4g}"], [False]) in certificate.table.rows


def test_certificates_of_other_models_are_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("spk_dt.evaluation.report.write_figures", lambda results: [])
    monkeypatch.setattr("spk_dt.evaluation.report.chemiscope_script", lambda: None)
    shutil.copytree(folder / "ev", tmp_path / "ev")
    file = tmp_path / "ev" / "certificate" / "certificate.json"
    content = json.loads(file.read_text())
    digest = content["settings"]["model_sha256"]["torn"]
    content["settings"]["model_sha256"]["torn"] = "0" * 64
    file.write_text(json.dumps(content))
    code, said = report(tmp_path / "ev")
    assert code == 1
    assert "certifies another file as 'torn'" in said
    assert digest[:12] in said
    del content["settings"]["model_sha256"]  # as older versions wrote it, with None where the band was not known
    for record in content["models"].values():
        record["survival"]["low"][0] = record["survival"]["high"][0] = None
    file.write_text(json.dumps(content))
    assert report(tmp_path / "ev")[0] == 0
    assert "cannot be told" in (tmp_path / "ev" / "report.html").read_text()


def test_a_certificate_does_not_go_on_with_another_model(folder, tmp_path):
    model = pair_model(tmp_path / "model")
    conditions = Conditions(0.02, 2, time_step=1.0)
    certify({"m": model}, folder / "data.db", tmp_path / "c", REFERENCE, 3, conditions, computing=PLAIN)
    pair_model(tmp_path / "model", depth=1.001)
    with pytest.raises(ValueError, match="have been trained since"):
        certify({"m": model}, folder / "data.db", tmp_path / "c", REFERENCE, 3, conditions, computing=PLAIN)


def test_first_wrong_states_have_the_forces_of_the_reference(folder):
    frames = ase.io.read(folder / "ev" / "certificate" / "torn" / "first_wrong.traj", ":")
    compared = 0
    for atoms in frames:
        if "reference_energy" in atoms.info:
            again = atoms.copy()
            again.calc = Reference()
            np.testing.assert_allclose(atoms.info["reference_forces"], again.get_forces(), atol=1e-9)
            compared += 1
    assert compared > 0


def test_failures_of_an_evaluation_are_those_of_the_criteria(folder):
    metrics = json.loads((folder / "ev" / "metrics.json").read_text())
    failures = {name: metrics[name]["true_error"]["failures"] for name in ("torn", "exact")}
    assert failures["exact"]["n_failed"] == 0
    assert 0 < failures["torn"]["n_failed"] == sum(failures["torn"]["by_reason"].values())
    first = [one["failed_fs"] for one in failures["torn"]["by_start"] if one["failed_fs"] is not None]
    assert all(time % 50.0 == 0.0 for time in first)


def test_limits_do_not_follow_from_relaxed_start_frames(tmp_path):
    """Of trajectories whose first frame has hardly any forces."""
    frames = pair_trajectory(tetrahedron(), 40, 1.0, 0, kelvin=300.0)
    relaxed = frames[0].copy()
    relaxed.calc = SinglePointCalculator(relaxed, energy=0.0, forces=np.full((4, 3), 1e-4))
    with TrajectoryWriter(tmp_path / "data.db") as writer:
        writer.add("run", [relaxed, *frames[1:]], 1.0)
    scales = scales_of_data(read_partition(tmp_path / "data.db", "all", []))
    thermal = np.sqrt(np.mean([(atoms.get_forces()[atoms.numbers == 1] ** 2).sum(axis=1) for atoms in frames[1:]]))
    assert 0.5 * thermal < scales.force[1] < 1.5 * thermal


def test_the_band_has_no_gap():
    """Before the first failure and after the last simulation it is the exact interval of Clopper and Pearson."""
    curve = survival([1.0, 2.0, 2.5, 3.0], [4.0] * 4)
    for k, survivors in ((0, 4), (-1, 0)):
        exact = binomtest(survivors, 4).proportion_ci(0.95, "exact")
        assert (curve.low[k], curve.high[k]) == pytest.approx((exact.low, exact.high))
    assert (np.diff(curve.low) <= 0.0).all()
    assert (np.diff(curve.high) <= 0.0).all()
    assert np.isfinite([curve.low, curve.high]).all()
    assert curve.at(1.99) == (curve.share[1], curve.low[1], curve.high[1])
    assert curve.at(9.0)[0] == 0.0
    none = survival([None] * 4, [4.0] * 4)
    assert none.low[-1] == pytest.approx(0.025 ** (1 / 4))
    outcomes = [{"failed_ps": None, "simulated_ps": 4.0}] * 4
    (band,) = plot_survival({"m": {"outcomes": outcomes}}, 4.0).axes[0].collections
    assert band.get_paths()[0].vertices[:, 1].min() == pytest.approx(100.0 * none.low[-1])


@pytest.mark.parametrize("across", [False, True])
def test_the_picture_marks_the_closest_contact(across):
    atoms = Atoms("PdH", [[0.1, 5.0, 5.0], [9.4 if across else 0.8, 5.0, 5.0]], cell=[10.0] * 3, pbc=across)
    atoms += Atoms("Pd", [[5.0, 5.0, 5.0]])
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((3, 3)))
    atoms.info["reference_forces"] = np.eye(3)
    (axes,) = plot_wrong_states([WrongState("m", 3, 1.25, 1.0, "force", (0.1, 2.0), atoms)]).axes
    assert axes.get_title() == "m, simulation 3\n1.25 ps: force"
    (text,) = axes.texts
    assert text.get_text().startswith("Pd–H 0.70 Å")
    (line,) = axes.lines
    assert np.hypot(*np.ptp(line.get_xydata(), axis=0)) == pytest.approx(0.7)
    atoms.positions[1, 0] = 2.5  # the control: elsewhere, the contact is longer
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((3, 3)))
    again = plot_wrong_states([WrongState("m", 3, 1.25, 1.0, "force", (0.1, 2.0), atoms)]).axes[0]
    assert not again.texts[0].get_text().startswith("Pd–H 0.70")
