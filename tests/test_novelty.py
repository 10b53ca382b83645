"""What is new to a model is told by its own features, and is judged."""

import numpy as np
import pytest
import torch
from helpers.exported import REPRESENTATIONS
from helpers.models import potential
from helpers.pair_potential import PairEnergies, pair_model, pair_trajectory, tetrahedron

from spk_dt.certificate.criteria import Criteria, Deviation, Scales
from spk_dt.certificate.engines import ModelEngine
from spk_dt.certificate.novelty import Environments
from spk_dt.certificate.record import sign_record
from spk_dt.certificate.verdict import Outcome, judged

KNOWN = pair_trajectory(tetrahedron(), 40, 1.0, seed=0, kelvin=300.0)


def engine(file, known=KNOWN):
    return ModelEngine(file, precision=64, compile=False, known=known)


def stretched(by=0.8, atom=0):
    """A known frame with an atom that is pulled away from the others by `by` Å."""
    atoms = KNOWN[0].copy()
    away = atoms.positions[atom] - atoms.positions.mean(axis=0)
    atoms.positions[atom] += by * away / np.linalg.norm(away)
    return atoms


def features_of(rng, number, scales):
    return rng.normal(size=(number, len(scales))) * scales + 5.0


def test_the_mean_square_of_known_environments_is_one():
    rng, numbers = np.random.default_rng(0), np.repeat([1, 46], 300)
    features = np.concatenate([features_of(rng, 300, [1.0, 1e-2, 10.0]), features_of(rng, 300, [0.1, 3.0, 1.0])])
    known = Environments()
    for some in (slice(0, 250), slice(250, 600)):  # in pieces as at once
        known.add(features[some], numbers[some])
    found = known.novelty(features, numbers)
    for z in (1, 46):
        assert np.mean(found[numbers == z] ** 2) == pytest.approx(1.0)


def test_a_step_counts_by_how_far_known_environments_go_in_its_direction():
    known, scales = Environments(), np.array([1.0, 0.01])
    features = features_of(np.random.default_rng(0), 2000, scales)
    known.add(features, np.full(2000, 6))
    far, near = known.novelty(features.mean(axis=0) + np.array([[0.0, 0.1], [0.1, 0.0]]), np.array([6, 6]))
    assert far == pytest.approx(10.0 / np.sqrt(2.0), rel=0.05)
    assert near == pytest.approx(0.1 / np.sqrt(2.0), rel=0.05)


def test_elements_that_are_not_known_and_environments_that_are_all_alike():
    known = Environments()
    known.add(np.ones((3, 2)), np.array([6, 6, 6]))
    same, other, unknown = known.novelty(np.array([[1.0, 1.0], [1.0, 1.1], [1.0, 1.0]]), np.array([6, 6, 8]))
    assert same == 0.0
    assert other > 1e3
    assert unknown == np.inf


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_every_representation_tells_a_stretched_structure_from_known_ones(name, tmp_path):
    torch.manual_seed(0)
    torch.save(potential(REPRESENTATIONS[name]()).double(), tmp_path / "model")
    known, more = KNOWN[::2], KNOWN[1::2]
    new, *others = engine(tmp_path / "model", known).evaluated([stretched(), *more])
    assert new.info["novelty"] > 3.0 * max(atoms.info["novelty"] for atoms in others)
    assert "novelty" not in engine(tmp_path / "model", ()).evaluated([stretched()])[0].info


def states_with_a_stretched_one_between(engine):
    """Of a simulation that comes back; the closest contact and the largest force are at its start."""
    states = [KNOWN[k].copy() for k in range(20)]
    for k in (8, 9):
        momenta, states[k] = states[k].get_momenta(), stretched()
        states[k].set_momenta(momenta)
    for k, atoms in enumerate(states):
        atoms.info["time_ps"] = float(k)
    return engine.evaluated(states)


def outcome_of(states, wrong):
    """By a reference method that agrees but where the model is wrong; and the states that it was asked for."""
    wide = Criteria(1.0, 1e6, n_checks=0)
    judge = judged(states, [1e6] * len(states), wide, Scales(300.0, {int(z): 1.0 for z in states[0].numbers}))
    wanted, labels = next(judge), {}
    while True:
        for k in wanted:
            error = 1e6 if k in wrong else 0.0
            labels[k] = (states[k].get_potential_energy() + error, states[k].get_forces())
        try:
            wanted = judge.send(labels)
        except StopIteration as stop:
            return stop.value, set(labels)


@pytest.mark.parametrize(("known", "failed_ps"), [(KNOWN, 8.0), ((), None)])
def test_a_wrong_state_on_the_way_is_found_because_it_is_new(known, failed_ps, tmp_path):
    states = states_with_a_stretched_one_between(engine(pair_model(tmp_path / "model"), known))
    outcome, asked = outcome_of(states, {8, 9})
    assert outcome.failed_ps == failed_ps
    assert len(asked) < 10


class Closed(PairEnergies):
    """A representation that does not show its features."""

    def forward(self, inputs):
        return {key: value for key, value in super().forward(inputs).items() if key != "scalar_representation"}


def test_a_model_without_features_tells_no_novelty(tmp_path):
    model = torch.load(pair_model(tmp_path / "model"), weights_only=False)
    model.representation = Closed()
    torch.save(model, tmp_path / "model")
    states = states_with_a_stretched_one_between(engine(tmp_path / "model"))
    assert not any("novelty" in atoms.info for atoms in states)
    assert outcome_of(states, {8, 9})[0].failed_ps is None  # and is judged by the other signs


def test_a_sign_is_compared_with_what_the_reference_says():
    states = {1: []}
    for value in (1.0, 9.0, 30.0, float("inf")):
        atoms = KNOWN[0].copy()
        atoms.info["novelty"] = value
        states[1].append(atoms)
    deviations = {0: Deviation(0.0, 0.0), 1: Deviation(0.5, 0.5), 2: Deviation(2.0, 0.5), 3: Deviation(0.5, 2.0)}
    found = sign_record("novelty", states, {1: Outcome(3.0, 2.0, 1.0, "energy", 2, deviations)})
    assert found == {"largest": 30.0, "largest_of_right_states": 9.0, "smallest_of_wrong_states": 30.0}
