"""Conservation of energy: a harmonic dimer, whose motion is known in closed form, and the same with faults put in."""

import json

import ase.units
import numpy as np
import pytest

from spk_dt.evaluation.conservation import energy_conservation, kinetic_energy

MASSES = np.array([2.0, 6.0])
AMPLITUDE = 0.05  # Å
STIFFNESS = 30.0  # eV/Å^2
N_FRAMES = 2001


@pytest.fixture(scope="module")
def dimer():
    """A dimer along x through whole periods: time, potential energy, velocities in Å/fs, forces."""
    reduced = MASSES.prod() / MASSES.sum()
    frequency = np.sqrt(STIFFNESS / reduced) * ase.units.fs  # 1/fs
    time_fs = np.arange(N_FRAMES) / (N_FRAMES - 1) * 20 * 2 * np.pi / frequency
    stretch = AMPLITUDE * np.cos(frequency * time_fs)
    speed = -AMPLITUDE * frequency * np.sin(frequency * time_fs)
    velocities = np.zeros((N_FRAMES, 2, 3))
    velocities[:, 0, 0] = -speed * MASSES[1] / MASSES.sum()
    velocities[:, 1, 0] = speed * MASSES[0] / MASSES.sum()
    forces = np.zeros((N_FRAMES, 2, 3))
    forces[:, 1, 0] = -STIFFNESS * stretch
    forces[:, 0, 0] = STIFFNESS * stretch
    return time_fs, 0.5 * STIFFNESS * stretch**2, velocities, forces


def test_a_harmonic_dimer_conserves_its_energy(dimer):
    time_fs, potential, velocities, forces = dimer
    found = energy_conservation(time_fs, potential, velocities, MASSES, forces)
    assert found.drift_mev_per_atom_per_ps == pytest.approx(0.0, abs=1e-9)
    assert found.rms_fluctuation_mev_per_atom == pytest.approx(0.0, abs=1e-9)
    assert found.largest_force_ev_per_ang == pytest.approx(STIFFNESS * AMPLITUDE)
    assert found.complete
    assert found.n_frames == N_FRAMES
    # half of the energy 1/2 k A^2 is kinetic in the mean, spread over 3 N = 6 degrees of freedom
    expected = 2.0 * (0.25 * STIFFNESS * AMPLITUDE**2) / (6.0 * ase.units.kB)
    assert found.mean_temperature_k == pytest.approx(expected, rel=1e-3)
    assert json.loads(json.dumps(found.as_dict()))["n_frames"] == N_FRAMES


def test_a_ramp_is_the_drift(dimer):
    time_fs, potential, velocities, _ = dimer
    ramp = 0.7  # meV per atom and ps
    found = energy_conservation(time_fs, potential + 2 * 1e-3 * ramp * time_fs * 1e-3, velocities, MASSES)
    assert found.drift_mev_per_atom_per_ps == pytest.approx(ramp, rel=1e-6)
    assert found.rms_fluctuation_mev_per_atom == pytest.approx(0.0, abs=1e-9)
    assert found.largest_force_ev_per_ang is None


def test_a_ripple_is_the_fluctuation_and_not_a_drift(dimer):
    time_fs, potential, velocities, _ = dimer
    ripple = 2 * 1e-3 * 0.3 * np.cos(2 * np.pi * 100 * time_fs / time_fs[-1])
    found = energy_conservation(time_fs, potential + ripple, velocities, MASSES)
    assert found.rms_fluctuation_mev_per_atom == pytest.approx(0.3 / np.sqrt(2), rel=1e-2)
    assert abs(found.drift_mev_per_atom_per_ps) < 1e-2


def test_velocities_in_another_unit_are_seen(dimer):
    time_fs, potential, velocities, _ = dimer
    found = energy_conservation(time_fs, potential, velocities / ase.units.fs, MASSES)
    assert found.rms_fluctuation_mev_per_atom > 100.0


def test_kinetic_energy_in_ev():
    velocities = np.array([[[0.01, 0.0, 0.0]]])  # Å/fs, 1000 m/s
    joule = 0.5 * 1.66053907e-27 * 1000.0**2
    assert kinetic_energy(velocities, np.array([1.0])) == pytest.approx(joule / 1.602176634e-19, rel=1e-6)


def test_what_is_after_an_explosion_does_not_count(dimer):
    time_fs, potential, velocities, forces = dimer
    velocities, forces = velocities.copy(), forces.copy()
    velocities[1001:] = 1e200  # whose square is not finite
    forces[1001:] = np.nan
    found = energy_conservation(time_fs, potential, velocities, MASSES, forces)
    assert not found.complete
    assert found.n_frames == 1001
    assert found.drift_mev_per_atom_per_ps == pytest.approx(0.0, abs=1e-9)
    assert found.largest_force_ev_per_ang == pytest.approx(STIFFNESS * AMPLITUDE)


def test_too_few_frames_say_nothing(dimer):
    time_fs, potential, velocities, forces = dimer
    found = energy_conservation(time_fs[:2], potential[:2], velocities[:2], MASSES, forces[:2])
    assert found.drift_mev_per_atom_per_ps is None
    none = energy_conservation(time_fs, potential * np.nan, velocities, MASSES, forces)
    assert none.as_dict() == {
        "drift_mev_per_atom_per_ps": None,
        "drift_standard_error_mev_per_atom_per_ps": None,
        "drift_over_kinetic_deviation_per_ps": None,
        "rms_fluctuation_mev_per_atom": None,
        "mean_temperature_k": None,
        "largest_force_ev_per_ang": None,
        "n_frames": 0,
        "complete": False,
    }
