"""Vibrations, displacements, short distances, drift and speed, each with a value known otherwise and a control."""

import ase.units
import numpy as np
import pytest
from ase import Atoms
from helpers.pair_potential import pair_model, tetrahedron
from helpers.pair_reference import EPSILON, SIGMA
from scipy.stats import linregress

from spk_dt.certificate.engines import AseEngine, ModelEngine
from spk_dt.data.continuation import Continuation
from spk_dt.evaluation.conservation import energy_conservation
from spk_dt.evaluation.displacement import mean_square_displacement
from spk_dt.evaluation.motion import motion, pair_numbers
from spk_dt.evaluation.motion_figures import plot_displacement, plot_pairs, plot_vibrations
from spk_dt.evaluation.pair_curves import pair_curves, repulsive_down_to, shortest_distances
from spk_dt.evaluation.simulate import Group, Protocol, Speed
from spk_dt.evaluation.simulated_trajectory import SimulatedTrajectory
from spk_dt.evaluation.vibrations import highest_wavenumber, nyquist_wavenumber, vibrational_density

WELL = 2.0 ** (1.0 / 6.0) * SIGMA


def trajectory(positions, velocities, symbols, interval_fs, mobile=None):
    """Of [n_frames, n_atoms, 3] Å and Å/fs."""
    atoms, n = Atoms(symbols), len(positions)
    return SimulatedTrajectory(
        step=np.arange(n),
        time_fs=interval_fs * np.arange(n),
        positions=positions,
        velocities=velocities,
        potential_energy=np.zeros(n),
        forces=np.zeros_like(positions),
        atomic_numbers=atoms.numbers,
        masses=atoms.get_masses(),
        cell=np.zeros((3, 3)),
        pbc=np.zeros(3, dtype=bool),
        mobile=mobile,
    )


def oscillators(wavenumbers, symbols, interval_fs, n_frames, amplitude=0.1, mobile=None):
    """Each atom oscillates along x, with its wavenumber in cm⁻¹; all drift along y."""
    time = interval_fs * np.arange(n_frames)
    omega = 2.0 * np.pi * 2.99792458e-5 * np.asarray(wavenumbers)  # 1/fs
    positions = np.zeros((n_frames, len(omega), 3))
    positions[..., 0] = amplitude * np.sin(np.outer(time, omega))
    positions[..., 1] = 0.01 * time[:, None]
    velocities = np.zeros_like(positions)
    velocities[..., 0] = amplitude * omega * np.cos(np.outer(time, omega))
    velocities[..., 1] = 0.01
    return trajectory(positions, velocities, symbols, interval_fs, mobile)


def peak(found, element):
    return found["wavenumber"][int(np.argmax(found["density"][element]))]


def test_a_harmonic_oscillator_is_found_at_its_wavenumber():
    one = oscillators([3000.0, 500.0], "HPd", 1.0, 4000)
    found = vibrational_density([one, one])
    assert peak(found, "H") == pytest.approx(3000.0, abs=found["resolution"])
    assert peak(found, "Pd") == pytest.approx(500.0, abs=found["resolution"])
    assert found["resolution"] == pytest.approx(1e13 / 2.99792458e8 / 3.999e3 * 1e0, rel=1e-3)
    total = sum(np.trapezoid(curve, found["wavenumber"]) for curve in found["density"].values())
    assert total == pytest.approx(1.0, abs=1e-6)
    # parts are as the kinetic energies m v²: weighted by mass
    parts = {e: np.trapezoid(curve, found["wavenumber"]) for e, curve in found["density"].items()}
    assert parts["H"] / parts["Pd"] == pytest.approx(1.008 * 3000.0**2 / (106.42 * 500.0**2), rel=0.01)
    assert found["density"]["H"][0] < 1e-3 * max(found["density"]["H"])  # the drift is no vibration
    slower = one.velocities / 2.0  # the control: another scale of time is another place of the peak
    wrong = trajectory(one.positions, slower, "HPd", 2.0)
    assert abs(peak(vibrational_density([wrong]), "H") - 3000.0) > 1000.0


def test_a_spectrum_that_would_be_folded_is_refused():
    assert nyquist_wavenumber(5.0) == pytest.approx(3335.6, abs=0.1)
    found = vibrational_density([oscillators([3000.0], "H", 5.0, 500)])
    assert "density" not in found
    assert "velocities every 5 fs show wavenumbers up to 3336 cm⁻¹ only" in found["reason"]
    assert "keep frames every 3.7 fs" in found["reason"]
    assert "density" in vibrational_density([oscillators([3000.0], "H", 3.7, 500)])  # the remedy
    assert "density" in vibrational_density([oscillators([500.0], "Pd", 5.0, 500)])
    deuterium = highest_wavenumber(np.array([1]), np.array([2.014]))
    assert deuterium == pytest.approx(4500.0 / np.sqrt(2.0), rel=1e-2)


def test_fixed_atoms_and_exploded_simulations_are_no_vibrations():
    mobile = np.ones((2, 3), dtype=bool)
    mobile[1] = False
    one = oscillators([1000.0, 2000.0], "H2", 1.0, 2000, mobile=mobile)
    assert peak(vibrational_density([one]), "H") == pytest.approx(1000.0, abs=20.0)
    assert peak(vibrational_density([oscillators([1000.0, 2000.0], "H2", 1.0, 2000)]), "H") > 1900.0  # the control
    lost = oscillators([1000.0, 2000.0], "H2", 1.0, 2000)
    lost.positions[1500:] = np.nan
    assert vibrational_density([one, lost])["n_simulations"] == 1
    assert "exploded" in vibrational_density([lost])["reason"]
    assert "exploded" in mean_square_displacement([lost])["reason"]


def test_ballistic_displacement():
    """Two atoms that fly apart: v² t² each; the motion of both together is taken away."""
    time = np.arange(101.0)
    positions = np.zeros((101, 2, 3))
    positions[:, 0, 0], positions[:, 1, 0] = 0.02 * time, -0.02 * time
    positions[..., 2] = 0.5 * time[:, None]
    found = mean_square_displacement([trajectory(positions, np.zeros_like(positions), "H2", 2.0)])
    np.testing.assert_allclose(found["msd"]["H"], (0.01 * np.array(found["time_fs"])) ** 2, rtol=1e-9)
    assert found["time_fs"][0] == 2.0
    assert found["time_fs"][-1] == 100.0
    mobile = np.ones((2, 3), dtype=bool)
    mobile[1] = False  # the control: beside what is fixed nothing is taken away, and what is fixed does not count
    held = mean_square_displacement([trajectory(positions, np.zeros_like(positions), "H2", 2.0, mobile)])
    expected = (0.02**2 + 0.5**2) * (0.5 * np.array(held["time_fs"])) ** 2
    np.testing.assert_allclose(held["msd"]["H"], expected, rtol=1e-9)


def test_diffusive_displacement():
    """A random walk with D: 6 D t. The centre of mass of many atoms takes 1/N of it away."""
    diffusion, interval, n_atoms = 0.05, 2.0, 100  # Å²/fs, fs
    steps = np.random.default_rng(0).normal(0.0, np.sqrt(2.0 * diffusion * interval), (2000, n_atoms, 3))
    walk = trajectory(np.cumsum(steps, axis=0), np.zeros_like(steps), f"Pd{n_atoms}", interval)
    found = mean_square_displacement([walk])
    early = np.array(found["time_fs"]) < 500.0
    slope = linregress(np.array(found["time_fs"])[early], np.array(found["msd"]["Pd"])[early]).slope
    assert slope == pytest.approx(6.0 * diffusion * (1.0 - 1.0 / n_atoms), rel=0.05)


def test_the_force_of_a_pair_vanishes_where_it_is_known(tmp_path):
    """Two atoms alone: repulsive below the minimum of the pair potential, attractive above."""
    atoms = Atoms("HPd", [[0.0, 0.0, 0.0], [1.0 * WELL, 0.0, 0.0]])
    engine = ModelEngine(pair_model(tmp_path / "model"), compile=False)
    shortest = shortest_distances([atoms])
    assert list(shortest) == [(1, 46)]
    (curve,) = pair_curves(engine, [atoms], shortest).values()
    r, force, energy = (np.array(curve[key]) for key in ("r", "force", "energy"))
    assert (force[r < 0.999 * WELL] > 0.0).all()
    assert (force[r > 1.001 * WELL] < 0.0).all()
    x = SIGMA / r
    np.testing.assert_allclose(force, 24.0 * EPSILON * (2.0 * x**12 - x**6) / r, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(energy, 4.0 * EPSILON * (x**12 - x**6) + EPSILON, rtol=1e-6, atol=1e-9)
    assert curve["down_to"] == r[-1]
    assert pair_numbers({"H-Pd": curve})["pairs_that_stay_repulsive"] == 1


def test_a_potential_without_repulsion_is_found():
    atoms = tetrahedron()
    shortest = shortest_distances([atoms])
    sticky = pair_curves(AseEngine("helpers.broken_potentials:Sticky"), [atoms], shortest)
    right = pair_curves(AseEngine("helpers.pair_reference:Reference"), [atoms], shortest)
    assert set(sticky) == set(right) == {"H-Pd", "Pd-Pd"}  # the atoms of hydrogen are never close
    for pair, curve in sticky.items():
        assert curve["down_to"] is None or curve["down_to"] > curve["r"][-1]
        assert right[pair]["down_to"] == right[pair]["r"][-1]
    assert pair_numbers(sticky)["pairs_that_stay_repulsive"] == 0
    assert pair_numbers(right)["pairs_that_stay_repulsive"] == 2
    assert len(plot_pairs({"sticky": sticky, "right": right}, ["sticky", "right"]).axes) == 2


def test_down_to_where_a_force_is_repulsive():
    r = np.array([3.0, 2.5, 2.0, 1.5, 1.0])
    assert repulsive_down_to(r, np.array([-1.0, -1.0, 1.0, 2.0, -1.0]), 2.0) == 1.5
    assert repulsive_down_to(r, np.array([-1.0, -1.0, 1.0, np.nan, 3.0]), 2.0) == 2.0
    assert repulsive_down_to(r, np.array([1.0, 1.0, 1.0, 1.0, 1.0]), 2.0) == 1.0
    assert repulsive_down_to(r, np.array([1.0, 1.0, -1.0, 1.0, 1.0]), 2.0) is None


def test_an_added_drift_is_found_with_its_error():
    rng, n = np.random.default_rng(1), 4000
    time = 0.5 * np.arange(n)
    velocities = np.zeros((n, 2, 3))
    velocities[:, 0, 0] = 0.01 * np.sin(0.1 * time)
    masses = np.array([2.0, 2.0])
    kinetic = 0.5 * 2.0 * velocities[:, 0, 0] ** 2 / ase.units.fs**2
    noise = np.cumsum(rng.normal(0.0, 1e-6, n))  # neighbours depend on each other
    added = 2.0 * 5e-3 * 1e-3 * time  # eV: 5 meV per atom and ps
    found = energy_conservation(time, added + noise - kinetic, velocities, masses)
    error = found.drift_standard_error_mev_per_atom_per_ps
    assert 0.0 < error < 0.5
    assert found.drift_mev_per_atom_per_ps == pytest.approx(5.0, abs=5.0 * error + 0.05)
    deviation = 1e3 * kinetic.std() / 2.0
    assert found.drift_over_kinetic_deviation_per_ps == pytest.approx(found.drift_mev_per_atom_per_ps / deviation)
    none = energy_conservation(time, noise - kinetic, velocities, masses)  # the control
    assert abs(none.drift_mev_per_atom_per_ps) < 0.5
    every = linregress(1e-3 * time, 1e3 * noise / 2.0).stderr
    assert none.drift_standard_error_mev_per_atom_per_ps > 2.0 * every  # frames are not independent


def test_speed_counts_systems_side_by_side():
    group = Group((0, 1, 2, 3), 0.5)
    speed = Speed(Protocol(precision=32), group, 0.002).as_dict()
    assert speed["ns_per_day"] == pytest.approx(86400.0 / 0.002 * 0.5e-6)
    assert speed["ns_per_day_of_all"] == pytest.approx(4.0 * speed["ns_per_day"])
    assert (speed["systems_side_by_side"], speed["precision_bits"], speed["compiled"]) == (4, 32, False)
    assert Speed(Protocol(), group, None).as_dict()["ns_per_day"] is None


def test_the_reference_vibrates_as_its_model(tmp_path):
    """A reference trajectory has no velocities here: central differences of velocity Verlet are its own."""
    one = oscillators([3000.0, 500.0], "HPd", 0.5, 2000)
    atoms = Atoms("HPd", one.positions[0] + [[0, 0, 0], [WELL, 0, 0]])
    positions = one.positions + np.array([[0, 0, 0], [WELL, 0, 0]])
    start = Continuation("a", 0, 0.5, atoms, positions, np.zeros(2000), np.zeros_like(positions), 1999)
    engine = ModelEngine(pair_model(tmp_path / "model"), compile=False)
    found = motion({"m": [(0, one)]}, {"m": engine}, [start])
    for name in ("m", "reference"):
        assert peak(found["vibrations"][name], "H") == pytest.approx(3000.0, abs=40.0)
    assert [axes.get_title() for axes in plot_vibrations(found["vibrations"], ["m"]).axes] == ["H", "Pd"]
    assert [line.get_label() for line in plot_displacement(found["displacement"], ["m"]).axes[0].lines] == [
        "reference",
        "m",
    ]
    thinned = Continuation("a", 0, 0.5, atoms, positions, np.zeros(2000), np.zeros_like(positions), 3998, 2)
    assert "reference" not in motion({"m": [(0, one)]}, {"m": engine}, [thinned])["vibrations"]
    assert plot_vibrations({"m": {"reason": "none"}}, ["m"]) is None
