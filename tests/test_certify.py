"""Certificates: right potentials pass, broken ones are found, and an interrupted one goes on as if it had not been."""

import json
from itertools import product

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import fs
from helpers.broken_potentials import DoubleWell
from helpers.pair_potential import pair_model, pair_trajectory, tetrahedron
from helpers.programs import spkdt

from spk_dt.certificate.certify import Computing, certify
from spk_dt.certificate.conditions import Conditions
from spk_dt.certificate.criteria import Criteria, Scales
from spk_dt.certificate.survival import failure_rate_bound, failure_share_bound, survival
from spk_dt.certificate.verdict import closest_contact, first_sign, judged
from spk_dt.data import TrajectoryWriter

REFERENCE = "helpers.pair_reference:Reference"
PLAIN = Computing(compile=False, precision=64, batch_size=3)
SHORT = Conditions(time_ps=0.4, n_states=8)


@pytest.fixture(scope="module")
def clusters(tmp_path_factory):
    """Three trajectories of a cluster of four atoms at 300 K or so."""
    path = tmp_path_factory.mktemp("clusters") / "clusters.db"
    with TrajectoryWriter(path) as writer:
        for seed in range(3):
            writer.add(f"cluster_{seed}", pair_trajectory(tetrahedron(), 40, 1.0, seed, kelvin=300.0), 1.0)
    return path


@pytest.fixture(scope="module")
def dimers(tmp_path_factory):
    """Trajectories of two atoms in the near well, which they do not leave at 600 K."""
    path = tmp_path_factory.mktemp("dimers") / "dimers.db"
    rng = np.random.default_rng(0)
    with TrajectoryWriter(path) as writer:
        for seed in range(3):
            frames = []
            for _ in range(4):
                atoms = Atoms("Ne2", positions=[[0.0, 0.0, 0.0], [1.5, 0.0, 0.0]], calculator=DoubleWell())
                speed = rng.uniform(0.6, 1.0) * np.sqrt(2.0 * 0.1 / 10.0)  # 0.04 to 0.1 eV along the bond, each way
                atoms.set_velocities([[speed * rng.choice([-1, 1]), 0.0, 0.0], [0.0, 0.0, 0.0]])
                atoms.positions[1, 0] += rng.normal(0.0, 0.03)
                at = atoms.copy()
                at.calc = SinglePointCalculator(at, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
                frames.append(at)
            writer.add(f"dimer_{seed}", frames, 1.0)
    return path


def verdict(found):
    return next(iter(found.values()))


def reasons(found):
    return {one["reason"] for one in verdict(found)["outcomes"] if one["reason"]}


def test_the_reference_itself_and_an_exact_model_pass(clusters, tmp_path):
    models = {"reference": f"ase:{REFERENCE}", "exact": pair_model(tmp_path / "exact")}
    told = []
    found = certify(
        models, clusters, tmp_path / "out", REFERENCE, 6, SHORT, computing=PLAIN, progress=lambda *one: told.append(one)
    )
    for name, one in found.items():
        assert [(done, all_) for what, done, all_ in told if what == f"simulating {name}"][-1] == (48, 48)
        assert sum(done == all_ for what, done, all_ in told if what == f"judging {name}") == 1  # in one round
        assert one["failures"] == 0
        assert one["statement"].startswith("safe to 0.4 ps at constant energy from ")
        assert one["statement"].endswith("with 95 % confidence: at most 39.3 % of simulations fail (none of 6 did)")
        assert one["share_failing_at_most"] == pytest.approx(1.0 - 0.05 ** (1 / 6))
        assert all(outcome["simulated_ps"] == pytest.approx(0.4) for outcome in one["outcomes"])
        largest = max(max(pair) for outcome in one["outcomes"] for pair in outcome["deviations"].values())
        assert largest < 1e-6
    # two potentials that are equal make the same simulations
    ends = [ase.io.read(tmp_path / "out" / name / "batch_0" / "00008.traj", "0") for name in models]
    np.testing.assert_allclose(ends[0].positions, ends[1].positions, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "data", "reference", "why"),
    [
        ("LowBarrier", "dimers", "helpers.broken_potentials:DoubleWell", {"energy", "force", "energy and force"}),
        ("Sticky", "clusters", REFERENCE, {"exploded", "energy", "force", "energy and force"}),
        pytest.param("Driving", "clusters", REFERENCE, {"energy not conserved"}, marks=pytest.mark.slow),
    ],
)
def test_broken_potentials_are_found(model, data, reference, why, tmp_path, request):
    out = tmp_path / "out"
    conditions = Conditions(time_ps=4.0 if model == "Driving" else 1.0, n_states=16, time_step=2.0)
    models = {"broken": f"ase:helpers.broken_potentials:{model}"}
    found = certify(models, request.getfixturevalue(data), out, reference, 4, conditions, computing=PLAIN)
    assert verdict(found)["failures"] == 4
    assert reasons(found) <= why
    assert not verdict(found)["statement"].startswith("safe")
    wrong = ase.io.read(out / "broken" / "first_wrong.traj", ":")
    assert len(wrong) == 4
    for atoms, outcome in zip(wrong, verdict(found)["outcomes"], strict=True):
        assert atoms.info["reason"] == outcome["reason"]
        assert (
            outcome["right_ps"] < outcome["failed_ps"] <= outcome["simulated_ps"] + 0.0021
        )  # an explosion is a step later
    right = {"right": f"ase:{reference}"}
    control = certify(right, request.getfixturevalue(data), tmp_path / "c", reference, 4, conditions, computing=PLAIN)
    assert verdict(control)["failures"] == 0


def test_the_heat_of_the_start_is_no_failure_but_heat_that_a_model_makes_is(clusters, tmp_path):
    """From frames at 300 K a weak thermostat at 50 K takes longer than the first states."""
    cold = Conditions(time_ps=0.6, n_states=6, temperature=50.0, friction=1e-3)
    models = {"right": f"ase:{REFERENCE}", "driving": "ase:helpers.broken_potentials:Driving"}
    found = certify(models, clusters, tmp_path / "out", REFERENCE, 4, cold, Criteria(force=20.0), computing=PLAIN)
    assert found["right"]["failures"] == 0
    assert "temperature" in {one["reason"] for one in found["driving"]["outcomes"]}


@pytest.mark.parametrize(
    ("kelvin", "friction", "sign"),
    [
        ([900.0, 630.0, 460.0, 362.0], 0.005, None),  # as the thermostat takes it away
        ([900.0, 890.0, 880.0, 870.0], 0.005, 2),
        ([900.0, 890.0, 880.0, 870.0], 0.0, None),  # a thermostat of which nothing is known
        ([300.0, 300.0, 900.0, 300.0], 0.0, 2),
    ],
)
def test_how_hot_a_simulation_may_be(kelvin, friction, sign):
    scales, states = Scales(300.0, {10: 1.0}), []
    for k, one in enumerate(kelvin):
        at = Atoms("Ne100", positions=np.random.default_rng(0).random((100, 3)))
        at.calc = SinglePointCalculator(at, energy=0.0, forces=np.zeros((100, 3)))
        at.set_momenta(np.random.default_rng(k).normal(size=(100, 3)))
        at.set_momenta(at.get_momenta() * np.sqrt(one / at.get_temperature()))
        at.info["time_ps"] = 0.1 * k
        states.append(at)
    found = first_sign(states, [300.0] * len(states), Criteria(), scales, friction)
    assert found == (None if sign is None else (sign, "temperature"))


@pytest.mark.slow
def test_wrong_states_are_those_of_the_limits_that_hold(clusters, tmp_path):
    """Judged again by wider limits, with the simulations that are there."""
    model, file = pair_model(tmp_path / "deep", depth=1.2), tmp_path / "out" / "deep" / "first_wrong.traj"
    for limits, failures in ((Criteria(0.01, 0.01), 3), (Criteria(1e3, 1e3), 0)):
        found = certify({"deep": model}, clusters, tmp_path / "out", REFERENCE, 3, SHORT, limits, computing=PLAIN)
        assert found["deep"]["failures"] == failures
        assert file.exists() == (failures > 0)


def test_a_model_that_explodes_fails_when_it_does(clusters, tmp_path):
    model = pair_model(tmp_path / "torn", breaks_beyond=2.9, kick=1e4)
    found = certify({"torn": model}, clusters, tmp_path / "out", REFERENCE, 3, SHORT, computing=PLAIN)
    assert verdict(found)["failures"] > 0
    for outcome in verdict(found)["outcomes"]:
        assert outcome["failed_ps"] is None or 0.0 < outcome["failed_ps"] <= 0.4


@pytest.mark.parametrize("temperature", [None, pytest.param(300.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("model", [pytest.param("exact", marks=pytest.mark.slow), f"ase:{REFERENCE}"])
def test_an_interrupted_certificate_goes_on_as_if_it_had_not_been(clusters, tmp_path, temperature, model):
    conditions = Conditions(0.08, 4, temperature)
    model = pair_model(tmp_path / "exact") if model == "exact" else model
    certify({"m": model}, clusters, tmp_path / "whole", REFERENCE, 4, conditions, computing=PLAIN)
    certify({"m": model}, clusters, tmp_path / "cut", REFERENCE, 4, conditions, computing=PLAIN)
    batch = tmp_path / "cut" / "m" / "batch_0"
    for number in (2, 3, 4):
        (batch / f"{number:05d}.traj").unlink()
    (batch / "00002.traj.part").write_bytes(b"half")
    certify({"m": model}, clusters, tmp_path / "cut", REFERENCE, 4, conditions, computing=PLAIN)
    for number in range(5):
        whole, cut = (
            ase.io.read(tmp_path / name / "m" / "batch_0" / f"{number:05d}.traj", ":") for name in ("whole", "cut")
        )
        assert len(whole) == len(cut) == 3
        for one, other in zip(whole, cut, strict=True):
            assert (one.positions == other.positions).all()
            assert (one.get_momenta() == other.get_momenta()).all()


@pytest.mark.slow
def test_processes_do_not_change_the_result(clusters, tmp_path):
    conditions, models = Conditions(0.04, 2, 300.0), {"m": f"ase:{REFERENCE}"}
    several = Computing(2, 3, 64, False)
    one = certify(models, clusters, tmp_path / "one", REFERENCE, 6, conditions, computing=PLAIN)
    two = certify(models, clusters, tmp_path / "two", REFERENCE, 6, conditions, computing=several)
    assert one == two
    end, other = (ase.io.read(tmp_path / name / "m" / "batch_1" / "00002.traj", "2") for name in ("one", "two"))
    assert (end.positions == other.positions).all()


def test_another_certificate_in_the_folder_is_refused(clusters, tmp_path):
    models = {"m": f"ase:{REFERENCE}"}
    certify(models, clusters, tmp_path, REFERENCE, 3, Conditions(0.01, 1), computing=PLAIN)
    with pytest.raises(ValueError, match=r"number: 3 there, 4 now"):
        certify(models, clusters, tmp_path, REFERENCE, 4, Conditions(0.01, 1), computing=PLAIN)


def test_a_model_in_another_unit_is_refused_before_it_simulates(clusters, tmp_path):
    model = pair_model(tmp_path / "kcal", energy_unit=0.0433641)
    with pytest.raises(ValueError, match="kcal / mol"):
        certify({"kcal": model}, clusters, tmp_path / "out", REFERENCE, 3, SHORT, computing=PLAIN)
    assert not (tmp_path / "out").exists()
    units = {"energy_unit": "kcal / mol"}
    found = certify({"kcal": model}, clusters, tmp_path / "out", REFERENCE, 3, SHORT, computing=PLAIN, **units)
    assert verdict(found)["failures"] == 0


def test_a_time_step_that_conserves_no_energy_is_refused_before_it_simulates(clusters, tmp_path):
    model = pair_model(tmp_path / "exact")
    with pytest.raises(ValueError, match=r"--time-step 12 fs: .* 'm' .* period of \d+\.\d fs, .* Take [3-9](\.\d)? fs"):
        certify({"m": model}, clusters, tmp_path / "a", REFERENCE, 3, Conditions(time_step=12.0), computing=PLAIN)
    assert not (tmp_path / "a" / "m").exists()
    short = Conditions(time_ps=0.12, n_states=4, time_step=3.0)
    found = certify({"m": model}, clusters, tmp_path / "b", REFERENCE, 3, short, computing=PLAIN)
    assert verdict(found)["failures"] == 0


def test_data_that_name_no_reference_are_refused(clusters, tmp_path):
    model = pair_model(tmp_path / "exact")
    with pytest.raises(ValueError, match=r"does not say by which .* made; name it: --reference package\.module:Class"):
        certify({"exact": model}, clusters, tmp_path / "out", number=3, conditions=SHORT, computing=PLAIN)
    assert not (tmp_path / "out").exists()


def test_the_command_tells_by_its_exit_code(clusters, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pair_model(tmp_path / "run" / "best_model")
    options = ["--reference", REFERENCE, "--time", "0.1", "--number", "3", "--states", "4", "--no-compile"]
    code, output, _ = spkdt("certify", "exact=run", str(clusters), "--out", "good", *options)
    assert code == 0
    assert "exact: too few simulations to call it safe to 0.1 ps at constant energy" in output
    assert "at most 63.2 % of simulations fail (none of 3 did)" in output
    for ending in ("png", "pdf", "svg"):
        assert (tmp_path / "good" / f"survival.{ending}").stat().st_size > 1000
    content = json.loads((tmp_path / "good" / "certificate.json").read_text())
    assert content["models"]["exact"]["failures"] == 0
    broken = "ase:helpers.broken_potentials:Sticky"
    code, output, _ = spkdt("certify", broken, str(clusters), "--out", "bad", *options, "--time", "1")
    assert code == 3
    assert "Sticky: not safe to 1 ps at constant energy" in output
    assert "3 of 3 simulations fail, the first at" in output


@pytest.mark.parametrize("wrong_from", [1, 2, 7, 40, 63, 64])
def test_the_first_wrong_state_is_found_with_few_labels(wrong_from):
    atoms = Atoms("Ne2", positions=[[0.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    states = []
    for k in range(65):
        at = atoms.copy()
        at.calc = SinglePointCalculator(at, energy=0.0, forces=np.zeros((2, 3)))
        at.set_velocities(np.full((2, 3), 0.001 / fs))
        at.info["time_ps"] = float(k)
        states.append(at)
    judge = judged(states, [None] * 65, Criteria(), Scales(300.0, {10: 1.0}))
    wanted, asked = next(judge), 0
    labels = {}
    while True:
        for k in wanted:
            asked += 1
            labels[k] = (10.0 if k >= wrong_from else 0.0, np.zeros((2, 3)))
        try:
            wanted = judge.send(labels)
        except StopIteration as stop:
            outcome = stop.value
            break
    assert outcome.state == wrong_from
    assert (outcome.failed_ps, outcome.right_ps) == (wrong_from, wrong_from - 1)
    assert outcome.reason == "energy"
    assert asked <= 9 + 4


def test_a_wrong_state_on_the_way_to_a_right_end_is_found():
    states = []
    for k in range(20):
        at = Atoms("Ne2", positions=[[0.0, 0.0, 0.0], [1.0 if k in (8, 9) else 3.0, 0.0, 0.0]])
        at.calc = SinglePointCalculator(at, energy=0.0, forces=np.zeros((2, 3)))
        at.set_velocities(np.zeros((2, 3)))
        at.info["time_ps"] = float(k)
        states.append(at)
    judge = judged(states, [None] * 20, Criteria(), Scales(300.0, {10: 1.0}))
    wanted, labels = next(judge), {}
    while True:
        labels |= {k: (50.0 if k in (8, 9) else 0.0, np.zeros((2, 3))) for k in wanted}
        try:
            wanted = judge.send(labels)
        except StopIteration as stop:
            outcome = stop.value
            break
    assert outcome.failed_ps == 8.0
    assert closest_contact(states[8]) < closest_contact(states[0])


def test_survival_and_bounds_are_those_of_the_textbook():
    # Kaplan and Meier by hand: 5 simulations, failures at 1 and 3, censored at 2, 4, 4
    curve = survival([1.0, None, 3.0, None, None], [4.0, 2.0, 4.0, 4.0, 4.0])
    at = dict(zip(curve.time_ps.tolist(), curve.share.tolist(), strict=True))
    assert at[1.0] == pytest.approx(4 / 5)
    assert at[3.0] == pytest.approx(4 / 5 * 2 / 3)
    assert failure_share_bound(0, 30) == pytest.approx(1.0 - 0.05 ** (1.0 / 30.0))
    assert failure_rate_bound(0, 3000.0) == pytest.approx(-np.log(0.05) / 3.0)
    assert failure_rate_bound(0, 3000.0) < 1.0  # per ns
    assert failure_rate_bound(1, 3000.0) > failure_rate_bound(0, 3000.0)
    assert failure_share_bound(20, 20) == 1.0


def test_a_ramp_ends_at_its_temperature():
    ramp = Conditions(10.0, 5, temperature=300.0, end_temperature=1100.0)
    assert [ramp.thermostat(k) for k in range(5)] == [300.0, 500.0, 700.0, 900.0, 1100.0]
    assert [ramp.thermostat_before(k) for k in (0, 1, 2, 5)] == [300.0, 300.0, 500.0, 1100.0]
    with pytest.raises(ValueError, match="needs the temperature"):
        Conditions(end_temperature=600.0)
    with pytest.raises(ValueError, match="closer than the time step"):
        Conditions(0.001, 100).steps(0.5)
    assert "while heated from 300 to 1100 K" in ramp.described
    assert "while cooled from 600 to 300 K" in Conditions(temperature=600.0, end_temperature=300.0).described


def test_simulations_are_as_long_as_the_statement_says():
    times, steps, numbers = (0.1, 0.25, 1.0, 12.34, 100.0), (0.25, 0.4838, 0.5, 1.0, 2.0), (1, 7, 40)
    for time_ps, step, n_states in product(times, steps, numbers):
        simulated = 1e-3 * step * n_states * Conditions(time_ps, n_states).steps(step)
        assert time_ps - 1e-6 <= simulated < time_ps + 1e-3 * step * n_states
