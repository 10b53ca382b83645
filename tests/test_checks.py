"""Frames that cannot be the reference of a rollout are refused, with the value, the file and the remedy."""

import re

import ase.units
import numpy as np
import pytest
from schnetpack.data import ASEAtomsData

from spk_dt.data import TrajectoryWriter, load_frames
from spk_dt.data.checks import check_frames


@pytest.fixture
def frames(cluster, make_trajectory):
    return make_trajectory(cluster, 20, 0.5, 3)


def check(path, frames, timestep_fs=0.5):
    with TrajectoryWriter(path) as writer:
        writer.add("run", frames, timestep_fs)
    check_frames(load_frames(ASEAtomsData(str(path))))


def refused(path, frames, *words, timestep_fs=0.5):
    with pytest.raises(ValueError, match="'run'") as error:
        check(path, frames, timestep_fs)
    for word in (str(path), *words):
        assert re.search(word, str(error.value)), f"'{word}' is not in: {error.value}"


def test_good_frames_pass(database, mixed_database):
    for path in (database, mixed_database):
        check_frames(load_frames(ASEAtomsData(str(path))))


@pytest.mark.parametrize(("energy", "length"), [("kcal/mol", "Bohr"), ("kJ/mol", "nm")])
def test_good_frames_pass_in_any_units(mixed_database, energy, length):
    units = {"energy": energy, "forces": f"{energy}/{length}"}
    check_frames(load_frames(ASEAtomsData(str(mixed_database), property_units=units, distance_unit=length)))


def test_a_single_frame_passes(tmp_path, frames):
    check(tmp_path / "a.db", frames[:1])


def test_a_first_frame_at_rest_passes(tmp_path, frames):
    frames[0].set_momenta(np.zeros((len(frames[0]), 3)))
    check(tmp_path / "a.db", frames)


@pytest.mark.parametrize("timestep_fs", [0.25, 1.0, 5.0])
def test_a_wrong_time_step(tmp_path, frames, timestep_fs):
    refused(tmp_path / "a.db", frames, rf"says {timestep_fs:g} fs", r"are 0\.5 fs apart", timestep_fs=timestep_fs)


def test_missing_frames(tmp_path, frames):
    refused(tmp_path / "a.db", frames[::4], r"says 0\.5 fs", r"are (1\.[89]|2)\d* fs apart", "frames are missing")


def test_velocities_in_another_unit(tmp_path, frames):
    for atoms in frames:
        atoms.set_velocities(atoms.get_velocities() * ase.units.fs)
    refused(tmp_path / "a.db", frames, r"says 0\.5 fs", "velocities are in another unit", r"are 10\.2 times too small")


def test_velocities_of_zero(tmp_path, frames):
    for atoms in frames:
        atoms.set_momenta(np.zeros((len(atoms), 3)))
    refused(tmp_path / "a.db", frames, "all velocities", r"\(x\(t \+ dt\) - x\(t - dt\)\) / \(2 dt\)")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite(tmp_path, frames, value):
    frames[7].calc.results["forces"][2, 1] = value
    frames[9].calc.results["forces"][0, 0] = value
    refused(tmp_path / "a.db", frames, "forces", "2 of 21 frames", "first in frame 7", "two trajectories")
