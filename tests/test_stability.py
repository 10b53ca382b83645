"""Bonds along a trajectory: cut by hand, across boundaries, dissociation in the embedded data; all metrics in one."""

import json
from importlib.resources import as_file, files

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from helpers.simulated import simulated_trajectory

from spk_dt.data.embedded import _read
from spk_dt.evaluation.bonds import find_bonds, first_broken, usual_lengths
from spk_dt.evaluation.simulated_trajectory import SimulatedTrajectory
from spk_dt.evaluation.stability import stability_metrics


def trajectory_of(atoms, positions, timestep_fs=0.5):
    """A trajectory with these positions, in which nothing else happens."""
    n_frames = len(positions)
    return SimulatedTrajectory(
        step=np.arange(n_frames),
        time_fs=timestep_fs * np.arange(n_frames),
        positions=positions,
        velocities=np.zeros_like(positions),
        potential_energy=np.zeros(n_frames),
        forces=np.zeros_like(positions),
        atomic_numbers=atoms.numbers,
        masses=atoms.get_masses(),
        cell=atoms.cell.array,
        pbc=atoms.pbc,
    )


def stretched(atoms, i, j, by, frame, n_frames=20):
    """Positions in which the bond of i and j is longer from a frame on."""
    positions = np.repeat(atoms.positions[None], n_frames, axis=0)
    vector = atoms.positions[j] - atoms.positions[i]
    positions[frame:, j] += by * vector / np.linalg.norm(vector)
    return positions


@pytest.fixture(scope="module")
def embedded():
    """Frames of a trajectory in which H2 dissociates, and of one in which it does not."""
    with as_file(files("spk_dt.data") / "h2_pd6_graphene.npz") as path:
        return {name: list(frames) for name, frames, _ in _read(path) if name in ("traj_03", "traj_10")}


def test_bonds():
    assert find_bonds(molecule("H2")).tolist() == [[0, 1]]
    ethanol = molecule("CH3CH2OH")
    assert len(find_bonds(ethanol)) == 8
    assert len(find_bonds(ethanol, margin=0.0, multiplier=0.5)) == 0
    assert find_bonds(Atoms("He")).shape == (0, 2)
    lone = Atoms("C", cell=[1.5, 1.5, 1.5], pbc=True)
    assert len(find_bonds(lone)) == 0  # its own images


def test_a_bond_that_is_cut_is_found():
    water = molecule("H2O")
    intact = np.repeat(water.positions[None], 20, axis=0)
    for by, found in ((0.49, False), (0.51, True), (-0.49, False), (-0.51, True)):
        metrics = stability_metrics(trajectory_of(water, stretched(water, 0, 2, by, frame=7)), intact)
        stability = metrics["stability"]
        assert stability["n_bonds"] == 2
        assert stability["simulated_fs"] == 9.5
        assert stability["stable"] is not found
        assert stability["stable_fs"] == (3.5 if found else 9.5)
        if found:
            first = stability["first_broken_bond"]
            assert first["frame"] == 7
            assert first["time_fs"] == 3.5
            assert first["atoms"] == (0, 2)
            assert first["elements"] == ("O", "H")
            assert first["length_ang"] - first["usual_length_ang"] == pytest.approx(by)
            assert first["kept_by_reference"]
            assert len(stability["broken_bonds"]) == 1
        else:
            assert stability["first_broken_bond"] is None
        assert metrics["stability_of_reference"]["stable"]


def test_the_tolerance_is_an_option():
    water = molecule("H2O")
    trajectory = trajectory_of(water, stretched(water, 0, 2, 0.3, frame=7))
    assert stability_metrics(trajectory)["stability"]["stable"]
    assert stability_metrics(trajectory, tolerance=0.29)["stability"]["stable_fs"] == 3.5


def test_bonds_are_reported_in_order_of_time():
    water = molecule("H2O")
    positions = stretched(water, 0, 1, 1.0, frame=9)
    positions[4:, 2] += 5.0
    stability = stability_metrics(trajectory_of(water, positions))["stability"]
    assert [bond["frame"] for bond in stability["broken_bonds"]] == [4, 9]
    assert stability["first_broken_bond"]["atoms"] == (0, 2)


def test_bonds_across_a_boundary_hold():
    """H2 flies through the boundary of a skewed cell, its positions wrapped or not; cut there it is seen."""
    atoms = Atoms("H2", cell=[[6.0, 0.0, 0.0], [-3.0, 5.2, 0.0], [0.0, 0.0, 8.0]], pbc=True)
    atoms.positions = [[5.7, 0.2, 7.8], [6.3, 0.2, 8.2]]
    moving = atoms.positions + np.linspace(0, 20, 200)[:, None, None] * [0.3, 0.5, 0.8]
    wrapped = np.array([Atoms(atoms, positions=x).get_positions(wrap=True) for x in moving])
    assert (
        np.linalg.norm(wrapped[:, 1] - wrapped[:, 0], axis=-1).max() > 4.0
    )  # of which a careless test would be shocked
    for positions in (moving, wrapped):
        for reference in (moving, wrapped, None):
            metrics = stability_metrics(trajectory_of(atoms, positions), reference)
            assert metrics["stability"]["n_bonds"] == 1
            assert metrics["stability"]["stable"]
    wrapped[50:, 1] += [0.6, 0.0, 0.4]
    assert stability_metrics(trajectory_of(atoms, wrapped), moving)["stability"]["stable_fs"] == 25.0


def test_usual_lengths():
    swinging = 2.6 + 0.4 * np.sin(np.linspace(0, 40 * np.pi, 4000))
    cut = np.where(np.arange(4000) < 1000, 0.77, 3.0)
    lengths = np.stack([swinging, cut], axis=1)
    usual = usual_lengths(lengths)
    assert usual == pytest.approx([2.6, 0.77], abs=1e-3)  # the mean of `cut` is 2.44
    assert first_broken(lengths, usual).tolist() == [4000, 1000]
    assert usual_lengths(lengths[:1]) == pytest.approx(lengths[0])
    assert first_broken(np.array([[np.nan, np.inf, 1.0]]), np.ones(3)).tolist() == [0, 0, 1]


def test_not_a_number_is_not_stable():
    atoms = Atoms("HHe", positions=[[0, 0, 0], [5, 0, 0]])  # without any bond
    positions = np.repeat(atoms.positions[None], 10, axis=0)
    positions[6:] = np.nan
    metrics = stability_metrics(trajectory_of(atoms, positions), np.repeat(atoms.positions[None], 10, axis=0))
    assert metrics["stability"]["n_bonds"] == 0
    assert not metrics["stability"]["stable"]
    assert metrics["stability"]["stable_fs"] == 3.0
    assert metrics["distances"]["n_frames"] == 6
    water = molecule("H2O")
    positions = np.repeat(water.positions[None], 10, axis=0)
    positions[6:] = np.nan
    stability = stability_metrics(trajectory_of(water, positions))["stability"]
    assert stability["first_broken_bond"]["length_ang"] is None
    assert len(stability["broken_bonds"]) == 2


def test_dissociation_in_the_embedded_data(embedded):
    """H2 of traj_10 dissociates, and the usual length of its bond stays that of the molecule; traj_03 keeps every bond."""
    frames = embedded["traj_10"]
    trajectory = simulated_trajectory(frames, 0.5)
    metrics = stability_metrics(trajectory, trajectory.positions, max_frames=50)
    stability = metrics["stability"]
    assert stability == metrics["stability_of_reference"]
    (bond,) = stability["broken_bonds"]
    assert bond["elements"] == ("H", "H")
    assert 0.74 < bond["usual_length_ang"] < 0.9
    assert 50.0 < bond["time_fs"] < 65.0
    assert not bond["kept_by_reference"]
    assert metrics["stability_of_kept_bonds"]["stable"]  # no bond breaks that should not
    assert metrics["stability_of_kept_bonds"]["n_bonds"] == stability["n_bonds"] - 1

    quiet = simulated_trajectory(embedded["traj_03"], 0.5)
    kept = stability_metrics(quiet, quiet.positions, max_frames=50)
    assert kept["stability"]["stable"]
    assert kept["stability"]["stable_fs"] == 200.0
    # from the length in the first frame alone, Pd atoms that swing would seem to part
    assert stability_metrics(quiet)["stability"]["first_broken_bond"]["elements"] == ("Pd", "Pd")

    # a model that dissociates H2 where the reference does not
    wrong = quiet.positions.copy()
    wrong[300:, 38] += [0.0, 0.0, 2.0]
    found = stability_metrics(trajectory_of(embedded["traj_03"][0], wrong), quiet.positions, max_frames=50)
    assert found["stability"]["first_broken_bond"]["elements"] == ("H", "H")
    assert found["stability"]["stable_fs"] == 150.0
    assert found["stability_of_kept_bonds"]["stable_fs"] == 150.0
    assert found["stability_of_reference"]["stable"]


def test_all_metrics_of_the_embedded_data(embedded):
    trajectory = simulated_trajectory(embedded["traj_03"], 0.5)
    metrics = stability_metrics(trajectory, trajectory.positions, max_frames=50)
    assert json.loads(json.dumps(metrics, allow_nan=False)).keys() == metrics.keys()
    assert metrics["distances"]["mae"] == 0.0
    assert metrics["distances"]["span_fs"] == 200.0
    assert set(metrics["rdf_mae_ang"]) == {"H-H", "H-C", "H-Pd", "C-C", "C-Pd", "Pd-Pd"}
    assert set(metrics["rdf_mae_ang"].values()) == {0.0}
    conservation = metrics["conservation"]
    assert 200.0 < conservation["mean_temperature_k"] < 500.0
    assert abs(conservation["drift_mev_per_atom_per_ps"]) < 2.0
    assert 0.0 < conservation["rms_fluctuation_mev_per_atom"] < 1.0
    other = simulated_trajectory(embedded["traj_10"], 0.5)
    compared = stability_metrics(other, trajectory.positions, max_frames=50)
    assert 0.0 < compared["distances"]["mae"] < 2.0
    assert all(value > 0.0 for value in compared["rdf_mae_ang"].values())


def test_only_the_common_time_is_compared():
    atoms = molecule("H2")
    away = stretched(atoms, 0, 1, 5.0, frame=10, n_frames=20)
    short = trajectory_of(atoms, away[:10])
    assert stability_metrics(short, away)["distances"]["mae"] == 0.0
    metrics = stability_metrics(trajectory_of(atoms, away), away[::2], reference_time_fs=1.0 * np.arange(10))
    assert metrics["distances"]["span_fs"] == 9.0
    assert metrics["distances"]["n_frames"] == 19
    assert metrics["stability_of_reference"]["stable_fs"] == 5.0
    assert "rdf_mae_ang" not in metrics


def test_what_does_not_fit_is_refused():
    water = molecule("H2O")
    trajectory = trajectory_of(water, np.repeat(water.positions[None], 3, axis=0))
    with pytest.raises(ValueError, match="the reference has 2 atoms"):
        stability_metrics(trajectory, trajectory.positions[:, :2])
    with pytest.raises(ValueError, match="3 reference frames"):
        stability_metrics(trajectory, trajectory.positions, reference_time_fs=np.arange(4.0))
    with pytest.raises(ValueError, match="forces has shape"):
        SimulatedTrajectory(**{**vars(trajectory), "forces": np.zeros((3, 2, 3))})
    with pytest.raises(ValueError, match="time that increases"):
        SimulatedTrajectory(**{**vars(trajectory), "time_fs": np.zeros(3)})
    with pytest.raises(ValueError, match="give reference_time_fs"):
        stability_metrics(trajectory_of(water, water.positions[None]), trajectory.positions)
