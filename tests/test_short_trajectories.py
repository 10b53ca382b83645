"""Too few frames to judge refuse nothing: sound runs, cut short and printed with few digits, as convert reads them."""

from dataclasses import replace

import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from helpers.diagnosis_data import check, keys, simulate
from schnetpack.data import ASEAtomsData

from spk_dt.data import load_frames
from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.diagnosis import diagnose
from spk_dt.trajectories.inputs import Reading
from spk_dt.trajectories.velocities import recover_velocities

FS = ase.units.fs
SYSTEMS = {
    "crystal": (bulk("Al", cubic=True).repeat((2, 1, 1)), 600.0, 2.0),
    "H2O": (molecule("H2O"), 300.0, 0.5),
    "ethanol": (molecule("CH3CH2OH"), 300.0, 0.5),
    "NH3": (molecule("NH3"), 50.0, 0.25),
}


def simulated(name: str, n_frames: int, seed: int) -> list[Atoms]:
    atoms, temperature, step = SYSTEMS[name]
    atoms = atoms.copy()
    atoms.calc = EMT()
    rng = np.random.default_rng(seed)
    atoms.rattle(0.03, rng=rng)
    thermalize_momenta(atoms, temperature, rng=rng)
    frames: list[Atoms] = []

    def keep() -> None:
        energy, forces = round(atoms.get_potential_energy(), 8), atoms.get_forces().round(6)
        frame = Atoms(atoms.symbols, atoms.positions.round(5), cell=atoms.cell, pbc=atoms.pbc)
        frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)
        frames.append(frame)

    dynamics = VelocityVerlet(atoms, step * FS)
    dynamics.attach(keep)
    dynamics.run(n_frames - 1)
    return frames


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("n_frames", [3, 4, 5, 8])
@pytest.mark.parametrize("name", SYSTEMS)
def test_sound_runs_cut_short_are_not_warned_of(tmp_path, name, n_frames, seed):
    write(tmp_path / "run.traj", simulated(name, n_frames, seed))
    convert([tmp_path / "run.traj"], tmp_path / "a.db", Reading(timestep_fs=SYSTEMS[name][2]))
    found = diagnose(load_frames(ASEAtomsData(str(tmp_path / "a.db"))), 0)
    assert [str(finding) for finding in found.findings if finding.severity != "note"] == []


def test_a_coordinate_that_turns_round_is_not_frozen():
    """It is the same in the first two frames, and has a velocity; one that never changes has none."""
    step = 0.5 * FS
    mass, force = 2.0, 3.0
    acceleration = force / mass
    frames = []
    for k in range(4):
        turning = 1.0 + 0.5 * acceleration * (k - 0.5) ** 2 * step**2
        atoms = Atoms("H", [[round(turning, 10), 7.0, 0.1 * k]], masses=[mass])
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=[[force, force, 0.0]])
        frames.append(atoms)
    for order, sign in ((frames, 1.0), (frames[::-1], -1.0)):
        found = [atoms.get_velocities()[0] for atoms in recover_velocities(order, 0.5)]
        at = found[0] if sign > 0 else found[-1]
        assert at[0] == pytest.approx(-0.5 * acceleration * step * sign, rel=1e-4)
        assert [velocity[1] for velocity in found] == [0.0] * 4


def test_a_thermostat_in_a_few_frames_is_said_but_not_refused():
    def make(atoms, step):
        return Langevin(atoms, step, temperature_K=300, friction=0.01 / FS, fixcm=False, rng=np.random.default_rng(5))

    path = simulate(bulk("Cu", cubic=True).repeat((2, 2, 1)), 60, 2.0, 300.0, 1, equilibrate=20, dynamics=make)
    whole = check(path)
    assert keys(whole) == ["thermostat"]
    assert whole.findings[0].severity == "refused"
    for n_frames in (4, 5, 8):
        found = check(path.take(slice(n_frames))).findings
        (other,) = [finding for finding in found if finding.key == "other_forces"]
        assert other.severity == "warning"
        assert f"{n_frames} frames are too few to judge" in other.text
        assert all(finding.severity != "refused" for finding in found)


@pytest.mark.parametrize("n_frames", [3, 4, 5, 8])
def test_faults_are_found_in_a_few_frames(n_frames):
    path = simulate(bulk("Cu", cubic=True).repeat((2, 2, 1)), 20, 2.0, 300.0, 1, equilibrate=20).take(slice(n_frames))
    assert not set(keys(check(path))) - {"centre_of_mass"}
    assert [one.severity for one in check(replace(path, h=2.0 * path.h, v=0.5 * path.v)).findings] == ["refused"]
    (finding,) = check(replace(path, f=-path.f)).findings
    assert finding.severity == "refused"
    assert finding.key == "force_sign"
    assert keys(check(replace(path, f=path.f / 51.4221))) == ["force_unit"]
