"""What is held fixed in the check of data and in the judgement of models: degrees of freedom, faults, forces that count."""

from dataclasses import replace

import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from helpers.diagnosis_data import frames_of, keys, simulate
from helpers.pair_potential import pair_model, pair_trajectory, tetrahedron
from helpers.pair_reference import Reference
from helpers.programs import spkdt
from helpers.simulated import recorded, simulated_trajectory
from helpers.slab import LAYER, MOBILE, slab
from schnetpack.md.data import HDF5Loader

from spk_dt.certificate.criteria import scales_of
from spk_dt.certificate.engines import AseEngine, ModelEngine, Motion
from spk_dt.data import TrajectoryWriter
from spk_dt.evaluation.conservation import energy_conservation
from spk_dt.evaluation.evaluate import evaluate
from spk_dt.evaluation.force_error import element_errors
from spk_dt.evaluation.simulate import Protocol
from spk_dt.trajectories.diagnosis import diagnose


def check(path, mobile=None, **kwargs):
    frames = frames_of(path)
    return diagnose(frames if mobile is None else replace(frames, mobile=(mobile,)), 0, **kwargs)


@pytest.fixture(scope="module")
def sound():
    atoms = slab()
    return simulate(atoms, 150, 1.0, seed=2)


def kelvin(path, freedom):
    kinetic = 0.5 * np.einsum("i,kix,kix->k", path.masses, path.v, path.v) / ase.units.fs**2
    return 2.0 * kinetic.mean() / (freedom * ase.units.kB)


# --- the check of data


def test_what_is_declared_is_fine(sound):
    found = check(sound, MOBILE)
    assert (keys(found), found.verdict) == ([], "ok")
    assert found.temperature_k == pytest.approx(kelvin(sound, MOBILE.sum()))
    assert found.residual < 1e-6
    assert abs(found.energy_slope - 1.0) < 1e-2


def test_what_is_not_declared_is_refused_with_the_option(sound):
    (finding,) = check(sound).findings
    assert (finding.key, finding.severity) == ("frozen_atoms", "refused")
    assert finding.remedy.endswith("--fixed 0-3,4:z")
    assert finding.values["atoms"] == [0, 1, 2, 3, 4]
    assert check(sound, replay_kicks=True).verdict == "refused"  # a model would push them off their places
    part = MOBILE.copy()
    part[LAYER[:2]] = True
    (finding,) = check(sound, part).findings
    assert finding.remedy.endswith("--fixed 0-3")


def test_masked_forces(sound):
    path = replace(sound, f=np.where(MOBILE, sound.f, 0.0))
    (finding,) = check(path).findings
    assert (finding.key, finding.severity) == ("frozen_atoms", "refused")
    assert "--fixed 0-3" in finding.remedy
    (finding,) = check(path, MOBILE).findings
    assert (finding.key, finding.severity) == ("masked_forces", "note")


def test_what_is_declared_and_moves_is_refused(sound):
    mobile = MOBILE.copy()
    mobile[[6, 7]] = False
    (finding,) = check(sound, mobile).findings
    assert (finding.key, finding.severity) == ("fixed_atoms_move", "refused")
    assert "(6-7)" in finding.text


@pytest.mark.parametrize(
    "change",
    [
        lambda path: replace(path, h=2.0 * path.h),
        lambda path: replace(path, f=path.f * 96.4853),
        lambda path: replace(path, v=path.v * 1.1),
        lambda path: path.take(np.delete(np.arange(len(path)), 70)),
    ],
    ids=["time step", "unit of forces", "unit of velocities", "missing frame"],
)
def test_other_faults_are_still_found(sound, change):
    """As they are without fixed atoms, and not more of them."""
    found = keys(check(change(sound), MOBILE), "refused")
    free = simulate(Atoms(slab(), constraint=[]), 150, 1.0, seed=2)
    assert found == keys(check(change(free)), "refused")
    assert found


def test_thermostat_and_its_friction():
    def langevin(atoms, step):
        friction = 0.005 / ase.units.fs
        rng = np.random.default_rng(0)
        return Langevin(atoms, step, temperature_K=600.0, friction=friction, rng=rng, fixcm=False)

    path = simulate(slab(), 400, 1.0, seed=2, dynamics=langevin, equilibrate=50)
    found = check(path, MOBILE)
    (finding,) = (one for one in found.findings if one.key == "thermostat")
    assert finding.values["friction_per_ps"] == pytest.approx(5.0, rel=0.25)


def test_drift_is_that_of_what_moves(sound):
    """Fixed atoms do not hide it: per atom that moves."""
    n = len(sound)
    drifting = replace(sound, e=sound.e + 1e-3 * 1e-3 * np.arange(n) * MOBILE.sum() / 3.0 * 50.0)
    found = check(drifting, MOBILE)
    assert found.drift_mev_per_atom_per_ps == pytest.approx(50.0, abs=2.0)


def test_planar_molecules_are_not_fixed():
    """No force acts out of their plane."""
    atoms = Atoms("H2O", positions=[[0.75, 0.6, 0.0], [-0.75, 0.6, 0.0], [0.0, 0.0, 0.0]])
    atoms.set_velocities([[0.02, 0.01, 0], [-0.03, 0.01, 0], [0.0, -0.001, 0]])
    path = simulate(atoms, 100, 0.25, momenta=False, calculator=EMT())
    assert not path.v[..., 2].any()
    assert "frozen_atoms" not in keys(check(path))


# --- the judgement of models


def test_conservation_counts_what_moves():
    rng = np.random.default_rng(0)
    masses, time = np.full(13, 63.5), np.arange(200.0)
    velocities = 0.01 * rng.standard_normal((200, 13, 3)) * MOBILE
    potential = -0.5 * np.einsum("i,tix,tix->t", masses, velocities, velocities) / ase.units.fs**2
    potential = potential + 1e-3 * 1e-3 * time * MOBILE.sum() / 3.0 * 7.0
    found = energy_conservation(time, potential, velocities, masses, mobile=MOBILE)
    assert found.drift_mev_per_atom_per_ps == pytest.approx(7.0)
    everything = energy_conservation(time, potential, velocities, masses)
    ratio = MOBILE.size / MOBILE.sum()
    assert found.mean_temperature_k == pytest.approx(ratio * everything.mean_temperature_k)
    assert found.drift_mev_per_atom_per_ps == pytest.approx(ratio * everything.drift_mev_per_atom_per_ps)


def test_element_errors_over_what_counts():
    rng = np.random.default_rng(0)
    predicted, reference = rng.standard_normal((2, 5, 3, 3))
    numbers = np.array([29, 8, 8])
    counted = np.array([[False] * 3, [True] * 3, [True, False, False]])
    found = element_errors(predicted, reference, numbers, counted)
    assert list(found) == ["O"]
    by_hand = np.abs(predicted - reference).reshape(5, 9)[:, [3, 4, 5, 6]].mean(axis=1)
    np.testing.assert_allclose(found["O"], by_hand)


@pytest.fixture(scope="module", params=["true", "masked"])
def evaluation(request, tmp_path_factory):
    """An exact model against data with a fixed atom, with its true force or a masked one."""
    folder = tmp_path_factory.mktemp("evaluation")
    atoms = tetrahedron()
    atoms.set_constraint(FixAtoms([0]))
    frames = pair_trajectory(atoms, 40, 0.5)
    if request.param == "true":
        for frame in frames:
            bare = Atoms(frame, constraint=[])
            bare.calc = Reference()
            frame.calc = SinglePointCalculator(frame, energy=bare.get_potential_energy(), forces=bare.get_forces())
    with TrajectoryWriter(folder / "data.db") as writer:
        writer.add("run", frames, 0.5)
    model = pair_model(folder / "exact")
    metrics = evaluate(folder / "data.db", {"exact": model}, folder / "out", Protocol(steps=40), split="all")
    return folder, frames, metrics["exact"]


def test_evaluation_follows_the_reference(evaluation):
    """Forces that are masked do not count, and so an exact model has no error."""
    folder, frames, metrics = evaluation
    for error in metrics["along_reference"]["mean_over_steps"].values():
        assert error < 1e-6
    positions = HDF5Loader(str(folder / "out" / "exact" / "simulation_0.hdf5")).get_positions(0)
    assert (positions[:, 0] == 0.1 * frames[0].positions[0]).all()
    assert (positions[1:, 1:] != positions[:-1, 1:]).all()
    kinetic = np.mean([atoms.get_kinetic_energy() for atoms in frames])
    expected = 2.0 * kinetic / (9 * ase.units.kB)
    conservation = metrics["by_start"][0]["conservation"]
    assert conservation["mean_temperature_k"] == pytest.approx(expected, rel=0.02)
    assert conservation["rms_fluctuation_mev_per_atom"] < 1.0


def test_check_command_takes_the_database(evaluation):
    folder, _, _ = evaluation
    code, out, err = spkdt("check", folder / "data.db")
    assert code == 0, out + err


def test_a_thermostat_in_evaluations_has_the_temperature_of_what_moves(evaluation, tmp_path):
    folder, *_ = evaluation
    protocol = Protocol(steps=3000, every=10, temperature=300.0, friction=0.2)
    metrics = evaluate(folder / "data.db", {"exact": folder / "exact"}, tmp_path / "out", protocol, split="all")
    found = metrics["exact"]["conservation"]["mean_temperature_k"]
    assert found == pytest.approx(300.0, rel=0.15)


def test_frames_of_ase_tell_what_is_fixed():
    atoms = slab()
    atoms.calc = EMT()
    frames = recorded(VelocityVerlet(atoms, ase.units.fs), 3, masked=False)[1:]
    np.testing.assert_array_equal(simulated_trajectory(frames, 1.0).mobile, MOBILE)


@pytest.mark.parametrize("engine", ["model", "ase"])
@pytest.mark.parametrize("kelvin", [None, 300.0])
def test_simulations_of_certificates(engine, kelvin, tmp_path):
    """Fixed atoms stay; limits and temperature are those of what moves."""
    atoms = tetrahedron()
    atoms.set_constraint(FixAtoms([0]))
    frames = pair_trajectory(atoms, 10, 0.5)
    run = (
        AseEngine("helpers.pair_reference:Reference")
        if engine == "ase"
        else ModelEngine(pair_model(tmp_path / "m"), compile=False)
    )
    states, exploded = run.moved(frames[:2], Motion(20, 0.5, kelvin, 0.1, 0))
    assert exploded == [-1, -1]
    for state, start in zip(states, frames, strict=False):
        np.testing.assert_allclose(state.positions[0], start.positions[0], rtol=1e-6)  # single precision
        assert (np.abs(state.positions - start.positions)[1:] > 1e-4).any(axis=1).all()
    scales = scales_of(frames)
    kinetic = np.mean([frame.get_kinetic_energy() for frame in frames])
    assert scales.temperature == pytest.approx(2.0 * kinetic / (9 * ase.units.kB))
    palladium = [frame.get_forces(apply_constraint=False)[1] for frame in frames]  # of atom 0 it is masked
    assert scales.force[46] == pytest.approx(np.sqrt(np.mean(np.sum(np.square(palladium), axis=1))))
