"""Whatever the numbers, a diagnosis comes out, without a warning of numpy."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from helpers.diagnosis_data import Path, check, keys
from hypothesis import given, settings
from hypothesis import strategies as st


def garbage(n_frames: int, n_atoms: int, seed: int, periodic: bool, inner: int, velocities: str, still: str) -> Path:
    """Random numbers, of which those named in `still` are zero."""
    rng = np.random.default_rng(seed)
    sizes = {"x": 3.0, "v": 0.01, "f": 1.0}
    arrays = {key: size * rng.standard_normal((n_frames, n_atoms, 3)) for key, size in sizes.items()}
    arrays["e"] = rng.standard_normal(n_frames)
    for key in still:
        arrays[key] = np.zeros_like(arrays[key])
    return Path(
        numbers=rng.choice([1, 6, 8], n_atoms),
        masses=rng.uniform(1.0, 20.0, n_atoms),
        cell=np.diag([9.0, 9.0, 9.0]) if periodic else np.zeros((3, 3)),
        pbc=np.full(3, periodic),
        h=0.5,
        inner=inner,
        velocities=velocities,
        **arrays,
    )


@settings(max_examples=150, deadline=None)
@given(
    n_frames=st.integers(1, 30),
    n_atoms=st.integers(1, 5),
    seed=st.integers(0, 1000),
    periodic=st.booleans(),
    inner=st.sampled_from([1, 2, 7]),
    velocities=st.sampled_from(["file", "central differences"]),
    still=st.sets(st.sampled_from("xvfe")),
)
def test_garbage_is_never_fine_and_never_an_error(n_frames, n_atoms, seed, periodic, inner, velocities, still):
    path = garbage(n_frames, n_atoms, seed, periodic, inner, velocities, "".join(still))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        diagnosis = check(path)
    assert diagnosis.verdict in ("warning", "refused")


@pytest.mark.parametrize("n_atoms", [1, 2, 30])
@pytest.mark.parametrize("n_frames", [3, 4, 20, 200])
def test_free_flight(n_atoms, n_frames):
    """Without forces a wrong time step looks like a wrong unit of the velocities, and both are said."""
    path = garbage(n_frames, n_atoms, 1, False, 1, "file", "fe")
    v = np.broadcast_to(path.v[0], path.v.shape)
    x = 10.0 * path.x[0] + path.h * np.arange(n_frames)[:, None, None] * v
    flight = replace(path, x=x, v=v.copy())
    assert keys(check(flight)) in ([], ["centre_of_mass"])
    (finding,) = check(replace(flight, v=0.0982 * v)).findings
    assert finding.key == "velocity_unit"
    assert "the same would show if the frames were 5.09 fs apart" in finding.text
