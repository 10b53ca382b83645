"""Velocities recovered from positions are those of the simulation."""

import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given, settings
from hypothesis import strategies as st

from spk_dt.trajectories.velocities import recover_velocities


def recovered(frames, timestep_fs, inner_steps=1):
    """[n_frames, n_atoms, 3] velocities, from frames without any."""
    bare = []
    for frame in frames:
        atoms = frame.copy()
        atoms.arrays.pop("momenta", None)
        atoms.calc = SinglePointCalculator(atoms, forces=frame.get_forces(apply_constraint=False))
        bare.append(atoms)
    return np.array([frame.get_velocities() for frame in recover_velocities(bare, timestep_fs, inner_steps)])


def velocities(frames):
    return np.array([frame.get_velocities() for frame in frames])


@pytest.fixture(scope="module")
def fine(crystal, make_trajectory):
    """48 steps of 1 fs and 96 steps of 0.5 fs from the same start."""
    return {1.0: make_trajectory(crystal, 48, 1.0, 1), 0.5: make_trajectory(crystal, 96, 0.5, 1)}


@pytest.mark.parametrize("n_frames", [2, 3, 49])
def test_every_step_saved_gives_the_velocities_of_velocity_verlet(fine, n_frames):
    frames = fine[1.0][:n_frames]
    np.testing.assert_allclose(recovered(frames, 1.0), velocities(frames), rtol=0.0, atol=1e-10)


def errors(frames, timestep_fs, n, inner_steps):
    """Largest error of the inner frames, and of the two at the ends, relative to the largest velocity."""
    sparse = frames[::n]
    error = np.abs(recovered(sparse, n * timestep_fs, inner_steps) - velocities(sparse)).max(axis=(1, 2))
    scale = np.abs(velocities(sparse)).max()
    return error[1:-1].max() / scale, max(error[0], error[-1]) / scale


def test_every_fourth_step_saved_leaves_a_small_error_that_shrinks_with_the_step(fine):
    inner, ends = errors(fine[1.0], 1.0, 4, 4)
    inner_half, ends_half = errors(fine[0.5], 0.5, 4, 4)
    assert inner < 1e-5
    assert ends < 1e-4
    assert np.log2(inner / inner_half) == pytest.approx(4.0, abs=0.2)
    assert np.log2(ends / ends_half) == pytest.approx(3.0, abs=0.2)


def test_without_the_correction_the_error_is_larger(fine):
    inner, ends = errors(fine[1.0], 1.0, 4, 4)
    uncorrected, uncorrected_ends = errors(fine[1.0], 1.0, 4, 1)
    assert uncorrected > 100.0 * inner
    assert uncorrected_ends > 10.0 * ends


def test_the_wrong_sign_of_the_force_is_seen(fine):
    frames = [frame.copy() for frame in fine[1.0]]
    for frame, right in zip(frames, fine[1.0], strict=True):
        frame.calc = SinglePointCalculator(frame, forces=-right.get_forces())
    inner, ends = errors(frames, 1.0, 4, 4)
    right_inner, right_ends = errors(fine[1.0], 1.0, 4, 4)
    assert inner > 100.0 * right_inner
    assert ends > 100.0 * right_ends


def make(positions, forces):
    frames = []
    for x, f in zip(positions, forces, strict=True):
        atoms = Atoms("HC", positions=x)
        atoms.calc = SinglePointCalculator(atoms, forces=f)
        frames.append(atoms)
    return frames


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.floats(0.05, 5.0), st.integers(1, 20), st.integers(0, 10_000))
def test_time_reversal_and_a_moving_frame(n_frames, timestep_fs, inner_steps, seed):
    rng = np.random.default_rng(seed)
    positions, forces = rng.standard_normal((2, n_frames, 2, 3))
    forward = recovered(make(positions, forces), timestep_fs, inner_steps)
    backward = recovered(make(positions[::-1], forces[::-1]), timestep_fs, inner_steps)
    scale = np.abs(forward).max()
    np.testing.assert_allclose(backward[::-1], -forward, rtol=0.0, atol=1e-12 * scale)
    drift = rng.standard_normal(3)
    times = timestep_fs * ase.units.fs * np.arange(n_frames)
    moving = recovered(make(positions + times[:, None, None] * drift, forces), timestep_fs, inner_steps)
    np.testing.assert_allclose(moving, forward + drift, rtol=0.0, atol=1e-11 * (scale + 10.0 / times[1]))


@pytest.mark.parametrize("inner_steps", [1, 4])
def test_coordinates_that_never_change_rest_whatever_force_acts_on_them(fine, inner_steps):
    positions = np.array([frame.positions[:2] for frame in fine[0.5][:5]])
    positions[:, 0] = positions[0, 0]
    forces = np.random.default_rng(0).standard_normal((5, 2, 3))
    found = recovered(make(positions, forces), 0.5, inner_steps)
    assert (found[:, 0] == 0.0).all()
    assert (found[:, 1] != 0.0).all()


def test_one_frame_is_refused(fine):
    with pytest.raises(ValueError, match=r"'a\.xyz' has only one frame"):
        list(recover_velocities(fine[0.5][:1], 0.5, source="'a.xyz'"))


def test_no_more_than_three_frames_are_in_memory(fine):
    read = 0

    def counted():
        nonlocal read
        for frame in fine[0.5]:
            read += 1
            yield frame.copy()

    frames = counted()
    source = (Atoms(frame, calculator=SinglePointCalculator(frame, forces=np.zeros((4, 3)))) for frame in frames)
    for given_back, _ in enumerate(recover_velocities(source, 0.5), start=1):
        assert read <= max(given_back + 1, 3)
