"""The fit of an offset per element, and what it does not explain. All numbers are of a model whose errors are known."""

import numpy as np
import pytest

from spk_dt.training.energy_offsets import energy_difference

OFFSETS = np.array([-13.6, 431.0, 27.2])
COMPOSITIONS = {
    "one": [[2, 31, 6]],
    "two": [[2, 31, 6], [4, 31, 6]],
    "four": [[2, 10, 0], [2, 0, 6], [0, 8, 4], [6, 6, 6]],
}
FORCE, FORCE_ERROR = 1.0, 0.05  # eV/Å


def energies(compositions, n_frames=32, error=0.1, seed=0, thermal=1.0):
    """Of a model, with thermal changes, and of the data in its zero; and the compositions of the frames."""
    rng = np.random.default_rng(seed)
    counts = np.array(COMPOSITIONS[compositions], dtype=float)[np.arange(n_frames) % len(COMPOSITIONS[compositions])]
    size = np.sqrt(counts.sum(axis=1) / 39.0)
    truth = -5.0 * counts.sum(axis=1) + thermal * size * rng.normal(size=n_frames)
    return truth + error * size * rng.normal(size=n_frames), truth, counts


def compare(data, model, counts, force_error=FORCE_ERROR):
    return energy_difference(data, model, counts, force_error, FORCE)


@pytest.mark.parametrize(("compositions", "determined"), [("one", False), ("two", False), ("four", True)])
def test_offsets_are_found(compositions, determined):
    model, data, counts = energies(compositions)
    found = compare(data + counts @ OFFSETS, model, counts)
    assert found.another_zero
    assert found.explained
    assert found.determined is determined
    np.testing.assert_allclose(counts @ found.offsets, counts @ OFFSETS, atol=0.15)
    if determined:
        np.testing.assert_allclose(found.offsets, OFFSETS, atol=0.05)
    if compositions == "one":
        np.testing.assert_allclose(found.offsets, found.offsets.mean(), rtol=1e-6)  # no reason to tell atoms apart


@pytest.mark.parametrize("compositions", COMPOSITIONS)
@pytest.mark.parametrize("error", [0.0, 0.1, 0.9])
def test_errors_of_a_model_are_no_offsets(compositions, error):
    """Also of a bad model, and if it is off on average."""
    for seed in range(5):
        model, data, counts = energies(compositions, error=error, seed=seed)
        found = compare(data + 0.02 * counts.sum(axis=1), model, counts, force_error=max(error, 0.01))
        assert not found.another_zero
        assert found.explained
        assert not found.outliers.any()


def test_offsets_that_cancel_in_the_mean_count():
    """H +3, O -6 eV: nothing for water alone, but 1.5 eV an atom for hydrogen."""
    counts = np.array([[2.0, 1.0]] * 8 + [[2.0, 0.0]] * 8)
    model = np.random.default_rng(0).normal(size=16)
    found = compare(model + counts @ np.array([3.0, -6.0]), model, counts)
    assert found.another_zero
    np.testing.assert_allclose(found.offsets, [3.0, -6.0], atol=1e-6)
    assert not compare(model[:8] + counts[:8] @ np.array([3.0, -6.0]), model[:8], counts[:8]).another_zero


def test_single_wrong_energies_are_named_and_do_not_matter():
    model, data, counts = energies("two")
    data = data + counts @ OFFSETS
    data[[3, 20]] += [4000.0, -70.0]
    found = compare(data, model, counts)
    assert found.explained
    assert np.flatnonzero(found.outliers).tolist() == [3, 20]
    np.testing.assert_allclose(counts @ found.offsets, counts @ OFFSETS, atol=0.15)


@pytest.mark.parametrize("share", [0.2, 0.5])
@pytest.mark.parametrize("force_error", [FORCE_ERROR, 0.9])
def test_two_zeros_are_not_explained(share, force_error):
    model, data, counts = energies("one")
    other = np.arange(len(data)) < share * len(data)
    found = compare(data + np.where(other, counts @ OFFSETS, 0.0), model, counts, force_error)
    assert not found.explained
    assert "more than one zero" in found.reason()


@pytest.mark.parametrize(
    ("factor", "cause"),
    [
        (23.06, "those in kcal / mol do that are taken for eV"),
        (96.5, "those in kJ / mol do that are taken for eV"),
        (1 / 27.2, "those in Hartree do that are taken for eV"),
        (1000.0, "those in meV do that are taken for eV"),
        (0.0, "have the kinetic energy in them"),
    ],
)
@pytest.mark.parametrize("compositions", COMPOSITIONS)
def test_a_factor_is_not_explained(factor, cause, compositions):
    model, data, counts = energies(compositions)
    found = compare(factor * (data + 5.0 * counts.sum(axis=1)) + counts @ OFFSETS, model, counts, force_error=0.02)
    assert not found.explained
    assert cause in found.reason()


def test_energies_of_other_frames_are_not_explained():
    model, data, counts = energies("four", thermal=3.0)
    found = compare(np.roll(data, len(COMPOSITIONS["four"])), model, counts)
    assert not found.explained
    assert "of other frames" in found.reason()


def test_rounded_energies_of_a_perfect_model_are_explained():
    """And of frames that hardly differ, as at the start of a simulation."""
    model, _, counts = energies("one", thermal=1e-3)
    found = compare(np.round(model + counts @ OFFSETS, 2), model, counts, force_error=1e-6)
    assert found.explained
    assert found.another_zero


def test_too_few_frames_explain_nothing():
    model, data, counts = energies("four", n_frames=4)
    found = compare(data + counts @ OFFSETS, model, counts)
    assert not found.explained
    assert "too few" in found.reason()
    assert compare(data, model, counts).explained
