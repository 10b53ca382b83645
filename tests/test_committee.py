"""Several models as one: their mean, and by how far they differ, in certificates and where labels are chosen."""

import json

import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.atomic_pairs import atomic_model
from helpers.hardening import compute_in_this_process
from helpers.pair_potential import pair_trajectory, tetrahedron
from schnetpack.transform import AddOffsets
from typer.testing import CliRunner

from spk_dt.certificate.certify import Computing, certify
from spk_dt.certificate.committee import CommitteeEngine, WatchedEngine, too_uncertain
from spk_dt.certificate.conditions import Conditions
from spk_dt.certificate.criteria import Criteria, Scales
from spk_dt.certificate.engines import Motion
from spk_dt.certificate.verdict import UNCERTAINTY, first_sign, judged
from spk_dt.cli import app
from spk_dt.data import TrajectoryWriter
from spk_dt.training import TrialSimulations

REFERENCE = "helpers.pair_reference:Reference"
PLAIN = Computing(compile=False, precision=64, batch_size=3)
SHORT = Conditions(time_ps=0.1, n_states=5)
EXACT = {"compile": False, "precision": 64}


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    compute_in_this_process(monkeypatch)


@pytest.fixture(scope="module")
def frames():
    return pair_trajectory(tetrahedron(), 12, 1.0, 3, kelvin=300.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "clusters.db"
    with TrajectoryWriter(path) as writer:
        for seed in range(3):
            writer.add(f"cluster_{seed}", pair_trajectory(tetrahedron(), 20, 1.0, seed, kelvin=300.0), 1.0)
    return path


def committee(folder, *depths, **kwargs):
    return [atomic_model(folder / f"m{i}", depth=depth, **kwargs) for i, depth in enumerate(depths)]


def test_mean_and_uncertainty_are_those_of_the_models(frames, tmp_path):
    depths = (0.8, 1.0, 1.1)
    engine = CommitteeEngine(committee(tmp_path, *depths), **EXACT)
    for found, atoms in zip(engine.evaluated(frames[::4]), frames[::4], strict=True):
        assert found.get_potential_energy() == pytest.approx(np.mean(depths) * atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(found.get_forces(), np.mean(depths) * atoms.get_forces(), atol=1e-9)
        expected = np.std(depths, ddof=1) * np.linalg.norm(atoms.get_forces(), axis=1).max()
        assert found.info["uncertainty"] == pytest.approx(expected, rel=1e-6)


def test_models_that_are_equal_have_no_uncertainty_and_one_that_is_broken_is_seen(frames, tmp_path):
    equal = CommitteeEngine(committee(tmp_path / "equal", 1.0, 1.0), **EXACT).evaluated(frames)
    assert max(atoms.info["uncertainty"] for atoms in equal) < 1e-12
    broken = [atomic_model(tmp_path / "a"), atomic_model(tmp_path / "b", breaks_within=2.4)]
    found = CommitteeEngine(broken, **EXACT).evaluated(frames)
    near = np.array([atoms.get_all_distances()[np.triu_indices(4, 1)].min() < 2.4 for atoms in frames])
    uncertain = np.array([atoms.info["uncertainty"] for atoms in found]) > 1e-9
    assert near.any()
    assert not near.all()
    np.testing.assert_array_equal(uncertain, near)


def test_how_a_model_splits_the_energy_among_atoms_is_no_uncertainty(frames, tmp_path):
    """Models that differ in what they add to an atom of each element are equally right."""
    files = []
    for i, energies in enumerate(((-65.0, -65.0), (-66.0, -64.0))):
        of_elements = torch.zeros(100)
        of_elements[[1, 46]] = torch.tensor(energies)
        files.append(atomic_model(tmp_path / f"m{i}", [AddOffsets("energy", add_atomrefs=True, atomrefs=of_elements)]))
    (found,) = CommitteeEngine(files, **EXACT).evaluated(frames[:1])
    assert found.info["uncertainty"] < 1e-12


def test_the_mean_simulates(frames, tmp_path):
    mean = CommitteeEngine(committee(tmp_path, 0.7, 1.3), **EXACT)
    one = CommitteeEngine(committee(tmp_path / "one", 1.0, 1.0), **EXACT)
    motion = Motion(40, 1.0, None, 0.01, 0)
    (moved,), _ = mean.moved(frames[:1], motion)
    (expected,), _ = one.moved(frames[:1], motion)
    np.testing.assert_allclose(moved.positions, expected.positions, atol=1e-7)
    alone = WatchedEngine(tmp_path / "m0", [tmp_path / "m1"], **EXACT)
    (other,), _ = alone.moved(frames[:1], motion)
    assert np.abs(other.positions - expected.positions).max() > 1e-3  # the control: 0.7 alone


def test_a_certificate_of_a_committee(data, tmp_path):
    """Two models that are wrong in opposite ways: their mean is right, and the record says how far they differ."""
    models = dict(zip("ab", committee(tmp_path, 0.9, 1.1), strict=True))
    found = certify(models, data, tmp_path / "out", REFERENCE, 3, SHORT, computing=PLAIN, committee=True)
    assert list(found) == ["committee"]
    one = found["committee"]
    assert one["failures"] == 0
    assert one["committee"]["members"] == ["a", "b"]
    assert 0.0 < one["committee"]["largest_of_right_states"] <= one["committee"]["largest"]
    assert one["committee"]["smallest_of_wrong_states"] is None
    again = certify(models, data, tmp_path / "out", REFERENCE, 3, SHORT, computing=PLAIN, committee=True)
    assert again == found
    with pytest.raises(ValueError, match="is of another certificate"):
        certify(models, data, tmp_path / "out", REFERENCE, 3, SHORT, Criteria(), PLAIN)
    limit = one["committee"]["largest"]
    for factor, failures in ((0.5, 3), (1.01, 0)):  # judged again, with the simulations that are there
        criteria = Criteria(uncertainty=factor * limit)
        judged_again = certify(models, data, tmp_path / "out", REFERENCE, 3, SHORT, criteria, PLAIN, committee=True)[
            "committee"
        ]
        assert judged_again["failures"] == failures
        assert judged_again["committee"]["failures_by_uncertainty"] == failures
        assert {outcome["reason"] for outcome in judged_again["outcomes"]} == ({UNCERTAINTY} if failures else {None})


def state(frame, uncertainty, time_ps):
    atoms = frame.copy()
    atoms.calc = SinglePointCalculator(atoms, energy=frame.get_potential_energy(), forces=frame.get_forces())
    atoms.info |= {"uncertainty": uncertainty, "time_ps": time_ps}
    return atoms


def test_the_most_uncertain_state_is_labelled_and_a_limit_is_a_sign(frames):
    scales = Scales(300.0, {1: 1.0, 46: 1.0})
    uncertain = [0.01, 0.02, 0.01, 0.03, 0.09, 0.02, 0.01, 0.02]
    states = [state(atoms, value, 0.1 * k) for k, (atoms, value) in enumerate(zip(frames, uncertain, strict=False))]
    asked = next(judged(states, [None] * 8, Criteria(n_checks=0), scales))
    without = [atoms.copy() for atoms in states]
    for atoms, old in zip(without, states, strict=True):
        atoms.calc = old.calc
        del atoms.info["uncertainty"]
    assert asked - next(judged(without, [None] * 8, Criteria(n_checks=0), scales)) == {4}
    assert first_sign(states, [None] * 8, Criteria(uncertainty=0.05), scales) == (4, UNCERTAINTY)
    assert first_sign(states, [None] * 8, Criteria(uncertainty=0.1), scales) is None
    assert first_sign(without, [None] * 8, Criteria(uncertainty=0.05), scales) is None
    with pytest.raises(ValueError, match=r"uncertainty=0.0: a limit must be positive"):
        Criteria(uncertainty=0.0)
    states[0].info["uncertainty"] = 0.2  # a start is a frame of the data
    assert first_sign(states, [None] * 8, Criteria(uncertainty=0.1), scales) is None
    assert "differ by up to 0.2 eV/Å in the force on an atom in frames of the data" in too_uncertain(states[:1], 0.1)
    assert too_uncertain(states[:1], 0.3) == too_uncertain(without, None) == ""


def test_a_model_in_training_is_watched_by_others(frames, tmp_path):
    own, other = committee(tmp_path, 1.0, 1.2)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best_model").write_bytes(other.read_bytes())
    runs = TrialSimulations(committee=[str(tmp_path / "run")], **EXACT)
    engine = runs.engine(own, "eV", "Ang", "cpu")
    (found,) = engine.evaluated(frames[:1])
    assert found.get_potential_energy() == pytest.approx(frames[0].get_potential_energy(), abs=1e-9)
    expected = 0.2 / np.sqrt(2.0) * np.linalg.norm(frames[0].get_forces(), axis=1).max()
    assert found.info["uncertainty"] == pytest.approx(expected, rel=1e-6)
    state_dict = torch.load(own, weights_only=False)
    state_dict.representation.scale.data *= 1.2
    torch.save(state_dict, tmp_path / "later")
    engine.load(tmp_path / "later")
    (found,) = engine.evaluated(frames[:1])
    assert found.info["uncertainty"] == pytest.approx(0.0, abs=1e-9)
    assert type(TrialSimulations(**EXACT).engine(own, "eV", "Ang", "cpu")).__name__ == "ModelEngine"
    with pytest.raises(FileNotFoundError):
        TrialSimulations(committee=[str(tmp_path / "none")], **EXACT).engine(own, "eV", "Ang", "cpu")


def test_what_is_no_committee_is_refused(data, tmp_path):
    a, b = committee(tmp_path, 0.9, 1.1)

    def refused(*arguments):
        command = ["certify", *map(str, arguments), str(data), "--reference", REFERENCE, "--out", str(tmp_path / "out")]
        done = CliRunner().invoke(app, [*command, "--no-compile", "--time", "0.1", "--states", "5", "--number", "3"])
        assert done.exit_code == 1, done.stdout
        return " ".join(done.stderr.split())

    assert "has two models at least" in refused(a, "--committee")
    assert "one model has no uncertainty" in refused(a, b, "--uncertainty-limit", 0.1)
    assert "a committee is of stored models" in refused(f"x=ase:{REFERENCE}", a, "--committee")
    assert "a limit must be positive" in refused(a, b, "--committee", "--uncertainty-limit", -1)
    assert "Set it well above" in refused(a, b, "--committee", "--uncertainty-limit", 1e-6)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_tells_what_the_uncertainty_was(data, tmp_path):
    models = [str(file) for file in committee(tmp_path, 0.9, 1.1)]
    command = ["certify", *models, str(data), "--reference", REFERENCE, "--out", str(tmp_path / "done"), "--committee"]
    short = ["--no-compile", "--precision", "64", "--time", "0.1", "--states", "5", "--number", "3"]
    done = CliRunner().invoke(app, [*command, *short])
    assert done.exit_code == 0, done.stderr
    assert "of states that the reference method calls right at most" in done.stdout
    assert json.loads((tmp_path / "done" / "certificate.json").read_text())["models"]["committee"]["failures"] == 0
