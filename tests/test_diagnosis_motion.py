"""What moves atoms beside the forces is found, told apart and measured; good data of any kind raise no alarm."""

from dataclasses import replace
from functools import cache

import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms, FixBondLengths
from ase.md.andersen import Andersen
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import NoseHooverChainNVT
from helpers.diagnosis_data import Path, check, keys, simulate

FS = ase.units.fs
CRYSTAL = bulk("Cu", cubic=True).repeat((2, 2, 1))


def langevin(per_ps: float, kelvin: float = 600.0):
    """Friction in 1/ps; the centre of mass is left alone, since ASE's way to fix it kicks light atoms with heavy ones."""

    def make(atoms, step):
        friction = 1e-3 * per_ps / FS
        rng = np.random.default_rng(5)
        return Langevin(atoms, step, temperature_K=kelvin, friction=friction, fixcm=False, rng=rng)

    return make


@cache
def langevin_crystal(per_ps: float) -> Path:
    return simulate(CRYSTAL, 400, 2.0, kelvin=1200, seed=1, equilibrate=100, dynamics=langevin(per_ps))


def nose_hoover(damping_fs: float):
    return lambda atoms, step: NoseHooverChainNVT(atoms, step, temperature_K=600, tdamp=damping_fs * FS)


@pytest.fixture(scope="module")
def quiet(cluster) -> dict[str, Path]:
    """Constant energy: a cluster with a molecule of hydrogen, and a crystal."""
    return {
        "cluster": simulate(cluster, 320, 0.5, seed=3, equilibrate=50),
        "crystal": simulate(CRYSTAL, 240, 2.0, seed=1, equilibrate=20),
    }


@pytest.fixture(params=["cluster", "crystal"])
def path(request, quiet) -> Path:
    return quiet[request.param]


def findings(path: Path, **kwargs) -> dict:
    return {finding.key: finding for finding in check(path, **kwargs).findings}


# --- good data


@pytest.mark.parametrize("central", [False, True])
@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_frames_of_every_nth_step_raise_no_alarm(path, n, central):
    sparse = path.every(n)
    if central:  # as spkdt convert recovers them
        a = FS**2 * sparse.f / sparse.masses[:, None]
        v = (sparse.x[2:] - sparse.x[:-2]) / (2 * sparse.h) - (1 - 1 / n**2) * sparse.h / 12 * (a[2:] - a[:-2])
        sparse = replace(sparse.take(slice(1, -1)), v=v, velocities="central differences")
    diagnosis = check(sparse)
    assert keys(diagnosis) == []
    assert {finding.key for finding in diagnosis.findings} <= {"too_sparse"}


def test_what_cannot_be_told_is_said(quiet):
    found = findings(quiet["cluster"].every(8))
    assert "(H" in found["too_sparse"].text
    assert found["too_sparse"].severity == "note"
    hydrogen = quiet["cluster"].every(8)
    alone = replace(
        hydrogen,
        numbers=hydrogen.numbers[4:],
        masses=hydrogen.masses[4:],
        x=hydrogen.x[:, 4:],
        v=hydrogen.v[:, 4:],
        f=hydrogen.f[:, 4:],
    )
    assert "are not checked" in findings(alone)["too_sparse"].text
    assert check(alone).verdict == "warning"


def test_faults_of_sparse_frames_are_found(path):
    for n in (2, 4):
        sparse = path.every(n)
        assert keys(check(replace(sparse, h=2.0 * sparse.h))) == ["time_step"]
        assert keys(check(replace(sparse, v=0.0982 * sparse.v))) == ["velocity_unit"]
        assert keys(check(replace(sparse, f=-sparse.f))) == ["force_sign"]
        assert keys(check(replace(sparse, f=sparse.f / 51.422))) == ["force_unit"]
        assert keys(check(replace(sparse, e=sparse.e / 27.211))) == ["energy_unit"]
        assert keys(check(sparse.take(np.delete(np.arange(40), 20)))) == ["dropped_frames"]


def test_a_start_at_rest_raises_no_alarm(cluster):
    assert check(simulate(cluster, 60, 0.5, momenta=False)).findings == ()


# --- thermostats


@pytest.mark.parametrize("central", [False, True])
@pytest.mark.parametrize("per_ps", [0.2, 1.0, 5.0, 20.0])
def test_langevin_dynamics_and_its_friction(per_ps, central):
    path = langevin_crystal(per_ps)
    path = path.with_central_differences() if central else path
    (finding,) = check(path).findings
    assert finding.key == "thermostat"
    assert 1 / 1.5 < finding.values["friction_per_ps"] / per_ps < 1.5
    expected = np.sqrt(2e-3 * per_ps * 20.0 / 3.0)
    assert 0.6 < finding.values["displaced"] / expected < 1.5
    assert finding.severity == "refused"
    assert "replay_kicks=true" in finding.remedy
    assert check(path, replay_kicks=True).verdict == "ok"


def test_a_weak_thermostat_is_a_warning():
    path = simulate(CRYSTAL, 300, 2.0, kelvin=1200, seed=1, dynamics=langevin(0.03))
    (finding,) = check(path).findings
    assert (finding.key, finding.severity) == ("thermostat", "warning")
    assert finding.values["displaced"] < 0.05


@pytest.mark.parametrize("friction", [0.1, 3.0])
def test_light_atoms_in_langevin_dynamics(cluster, friction):
    path = simulate(cluster, 400, 0.5, seed=3, dynamics=langevin(friction, 300.0))
    assert set(findings(path)) == {"thermostat"}
    assert check(path, replay_kicks=True).verdict == "ok"


@pytest.mark.parametrize("central", [False, True])
@pytest.mark.parametrize("damping_fs", [15.0, 50.0])
def test_a_nose_hoover_thermostat(path, damping_fs, central):
    atoms = Atoms(numbers=path.numbers, positions=path.x[0], cell=path.cell, pbc=path.pbc)
    path = simulate(atoms, 300, path.h, kelvin=900, seed=2, dynamics=nose_hoover(damping_fs))
    path = path.with_central_differences() if central else path
    (finding,) = check(path).findings
    assert finding.key == "thermostat"
    assert finding.values["scaling_per_ps"] > 0.5
    assert check(path, replay_kicks=True).verdict == "ok"


def test_the_rate_of_a_nose_hoover_thermostat():
    weak, strong = (
        findings(simulate(CRYSTAL, 200, 2.0, kelvin=900, seed=2, dynamics=nose_hoover(damping)))["thermostat"]
        for damping in (300.0, 15.0)
    )
    assert weak.severity == "warning"
    assert strong.severity == "refused"
    assert strong.values["scaling_per_ps"] > 5 * weak.values["scaling_per_ps"]


@pytest.mark.parametrize(
    "dynamics",
    [
        lambda atoms, step: Bussi(atoms, step, temperature_K=600, taut=20 * FS, rng=np.random.default_rng(3)),
        lambda atoms, step: Andersen(
            atoms, step, temperature_K=600, andersen_prob=0.01, fixcm=False, rng=np.random.default_rng(3)
        ),
    ],
)
def test_other_thermostats(path, dynamics):
    atoms = Atoms(numbers=path.numbers, positions=path.x[0], cell=path.cell, pbc=path.pbc)
    assert set(findings(simulate(atoms, 300, path.h, kelvin=900, seed=2, dynamics=dynamics))) == {"thermostat"}


def kicked(at: int, speed: float) -> Path:
    """A crystal of which one atom is kicked once, after step `at`, as by a weak Andersen thermostat."""
    done = []

    def kick(atoms: Atoms) -> None:
        done.append(atoms)
        if len(done) == at:
            velocities = atoms.get_velocities()
            velocities[3, 1] += speed / FS  # Å/fs
            atoms.set_velocities(velocities)

    return simulate(CRYSTAL, 240, 2.0, seed=1, during=kick)


@pytest.mark.parametrize(("speed", "severity"), [(0.001, "warning"), (0.02, "refused")])
def test_a_single_kick_is_judged_as_many_are(speed, severity):
    path = kicked(120, speed)
    (finding,) = check(path).findings
    assert (finding.key, finding.severity, list(finding.frames)) == ("single_kicks", severity, [119])
    assert (finding.values["displaced"] > 0.05) == (severity == "refused")
    assert "replay_kicks=true" in finding.remedy
    assert "two trajectories" in finding.remedy
    replayed = check(path, replay_kicks=True)
    assert (keys(replayed), keys(replayed, "note")) == ([], ["single_kicks"])


def test_a_corrupted_frame_is_no_kick_to_replay(quiet):
    path = quiet["crystal"]
    f = path.f.copy()
    f[120, 3, 1] += 2.0
    for replay in (False, True):
        finding = findings(replace(path, f=f), replay_kicks=replay)["corrupted_frame"]
        assert (finding.severity, list(finding.frames)) == ("refused", [120])
        assert "forces in frame 120 do not fit" in finding.text


@pytest.mark.parametrize("dynamics", [langevin(10.0), nose_hoover(20.0)])
def test_a_thermostat_hides_no_fault(dynamics):
    path = simulate(CRYSTAL, 300, 2.0, kelvin=1200, seed=1, equilibrate=50, dynamics=dynamics)
    faults = {
        "time_step": replace(path, h=2.0 * path.h),
        "velocity_unit": replace(path, v=0.0982 * path.v),
        "force_sign": replace(path, f=-path.f),
        "force_unit": replace(path, f=path.f / 51.422),
        "energy_unit": replace(path, e=path.e / 27.211),
        "energy_and_force_unit": replace(path, e=path.e * 23.06, f=path.f * 23.06),
        "dropped_frames": path.take(np.delete(np.arange(len(path)), 20)),
    }
    for key, faulty in faults.items():
        assert keys(check(faulty, replay_kicks=True)) == [key]


def test_a_thermostat_in_sparse_frames_cannot_be_replayed():
    path = langevin_crystal(5.0).every(2)
    (finding,) = check(path, replay_kicks=True).findings
    assert (finding.key, finding.severity) == ("thermostat", "refused")
    assert "Save every step" in finding.remedy


# --- constraints, masses, noise, and what else there is


def test_frozen_atoms():
    atoms = CRYSTAL.copy()
    atoms.set_constraint(FixAtoms(range(4)))
    path = simulate(atoms, 150, 2.0, seed=2)
    (finding,) = check(path).findings
    assert (finding.key, finding.severity) == ("frozen_atoms", "refused")
    assert list(finding.values["atoms"]) == [0, 1, 2, 3]
    assert "--fixed 0-3" in finding.remedy
    assert check(path, replay_kicks=True).verdict == "refused"  # kicks do not hold atoms that a model pushes
    assert keys(check(replace(path, h=2.0 * path.h))) == ["time_step"]


@pytest.mark.parametrize("dynamics", [None, langevin(2.0)])
def test_bonds_of_fixed_length(cluster, dynamics):
    atoms = cluster.copy()
    atoms.set_constraint(FixBondLengths([(4, 5)]))
    path = simulate(atoms, 300, 0.5, seed=2, **({"dynamics": dynamics} if dynamics else {}))
    found = findings(path)
    assert set(found) == {"constraints"} | ({"thermostat"} if dynamics else set())
    assert found["constraints"].values["atoms"] == [4, 5]
    assert "H-H" in found["constraints"].text
    assert check(path, replay_kicks=True).verdict == "ok"


@pytest.mark.parametrize(("factor", "severity"), [(0.5, "refused"), (0.992, "warning")])
def test_other_masses(quiet, factor, severity):
    path = quiet["cluster"]
    said = replace(path, masses=np.where(path.numbers == 1, factor * path.masses, path.masses))
    (finding,) = check(said).findings
    assert (finding.key, finding.severity) == ("masses", severity)
    assert finding.values["masses"]["H"] == pytest.approx(1.008, rel=1e-3)


@pytest.mark.parametrize("decimals", [8, 5])
def test_rounded_positions(path, decimals):
    diagnosis = check(replace(path, x=path.x.round(decimals)).with_central_differences())
    assert set(keys(diagnosis)) <= ({"noise"} if decimals < 6 else set())
    assert diagnosis.verdict != "refused"


def test_coarse_positions_are_noise(path):
    for faulty in (path, path.with_central_differences()):
        assert set(findings(replace(faulty, x=faulty.x.round(3)).take(slice(None)))) == {"noise"}


def test_forces_that_are_not_converged(path):
    noise = 0.02 * np.random.default_rng(0).standard_normal(path.f.shape)
    found = findings(replace(path, f=path.f + noise))
    assert set(found) - {"net_force"} == {"noise"}
    assert "forces differ by 0.02" in found["noise"].text


def test_a_field_that_is_not_in_the_forces(quiet):
    path = quiet["cluster"]
    found = findings(replace(path, f=path.f + np.array([0.0, 0.0, 0.1])))
    assert set(found) == {"other_forces", "net_force"}


def test_a_drift_of_all_atoms(path):
    velocity = np.array([0.05, 0.0, 0.0])
    moving = replace(path, x=path.x + velocity * path.h * np.arange(len(path))[:, None, None], v=path.v + velocity)
    found = findings(moving)
    assert set(found) - {"wrapped"} == {"centre_of_mass"}
    assert found["centre_of_mass"].severity == "warning"


def test_a_drift_of_the_energy(quiet):
    path = quiet["crystal"]
    drifting = replace(path, e=path.e + 5e-5 * len(path.numbers) * np.arange(len(path)) * path.h)
    (finding,) = check(drifting).findings
    assert (finding.key, finding.severity) == ("energy_drift", "warning")
    assert finding.values["drift"] == pytest.approx(50.0, rel=0.02)


@pytest.mark.parametrize("n", [2, 4])
def test_steps_between_frames_that_nobody_told(path, n):
    (finding,) = check(replace(path.every(n), inner=1)).findings[:1]
    assert finding.key == "inner_steps"
    assert ("2 steps" if n == 2 else "3 or more steps") in finding.text


@pytest.mark.parametrize(("which", "n"), [(which, n) for which in ("cluster", "crystal") for n in (8, 10, 12)])
def test_so_many_steps_between_frames_that_these_hardly_follow(quiet, which, n):
    """The remedy is the one that helps."""
    found = check(replace(quiet[which].every(n), inner=1))
    assert found.verdict == "refused"
    assert "--save-every N" in found.findings[0].remedy
    assert check(quiet[which].every(n)).verdict != "refused"


def test_steps_between_frames_that_are_not_there(quiet):
    (finding,) = check(replace(quiet["cluster"], inner=4)).findings
    assert finding.key == "inner_steps"
    assert "Write inner_steps=1" in finding.remedy


def test_plain_central_differences_of_sparse_frames(quiet):
    (finding,) = check(quiet["crystal"].every(4).with_central_differences()).findings
    assert finding.key == "sparse_velocities"
