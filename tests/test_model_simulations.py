"""Simulations of a model in training at a given temperature: they have it, and its friction, in the units of any data."""

import ase.units
import numpy as np
import pytest
import torch
from helpers.models import CUTOFF, potential
from schnetpack.task import ModelOutput
from schnetpack.transform import CastTo64, MatScipyNeighborList

from spk_dt import properties, units
from spk_dt.data import TrajectoryDataModule
from spk_dt.dynamics import Langevin, VelocityVerlet
from spk_dt.training import DynamicTrainingTask, ModelSimulations

KELVIN, FRICTION = 300.0, 0.1
UNITS = {
    "eV, Å": {},
    "kcal/mol, Å": {"property_units": {"energy": "kcal/mol", "forces": "kcal/mol/Ang"}, "distance_unit": "Ang"},
    "kJ/mol, nm": {"property_units": {"energy": "kJ/mol", "forces": "kJ/mol/nm"}, "distance_unit": "nm"},
}
in_all_units = pytest.mark.parametrize("of_data", UNITS.values(), ids=UNITS)


def prepared(database, of_data):
    torch.manual_seed(0)
    losses = [ModelOutput(name, torch.nn.L1Loss(), metrics={}) for name in ("energy", "forces")]
    task = DynamicTrainingTask(potential().double(), losses, optimizer_args={"lr": 1e-4})
    data = TrajectoryDataModule(
        str(database),
        2,
        transforms=[MatScipyNeighborList(CUTOFF), CastTo64()],
        split_file=None,
        num_workers=0,
        **of_data,
    )
    data.setup()
    return task, data


def mean_temperature(task, data, **thermostat):
    """Of 16 simulations of 6 atoms, over the second of two runs; some 4,000 independent values: 2 % of error."""
    simulations = ModelSimulations(n_systems=16, steps=200, **thermostat)
    for _ in range(2):
        simulations.start(data.train_dataset)
        states, exploded = simulations.run(task, data.frames, 150)
        assert (len(states), exploded) == (150, 0)
    assert simulations.age == [400] * 16
    return np.mean([2.0 * atoms.get_kinetic_energy() / (3 * len(atoms) * ase.units.kB) for atoms in states])


@in_all_units
def test_simulations_have_their_temperature(database, of_data):
    task, data = prepared(database, of_data)
    assert mean_temperature(task, data, temperature=KELVIN, friction=FRICTION) == pytest.approx(KELVIN, rel=0.08)


def test_without_a_thermostat_they_do_not(database):
    """The data are at several hundred K, and the forces of an untrained model heat."""
    assert mean_temperature(*prepared(database, {})) > 2.0 * KELVIN


def test_a_wrong_unit_would_be_seen(database, monkeypatch):
    task, data = prepared(database, UNITS["kcal/mol, Å"])
    right = units.conversion
    monkeypatch.setattr(units, "conversion", lambda source, *others: 1.0 if source == "eV" else right(source, *others))
    assert mean_temperature(task, data, temperature=KELVIN, friction=FRICTION) < 0.2 * KELVIN


@in_all_units
def test_friction_is_per_fs(database, of_data):
    """Without forces and at no temperature velocities fall by exp(-friction t)."""
    task, data = prepared(database, of_data)
    for parameter in task.model.output_modules[0].parameters():
        parameter.data.zero_()
    simulations = ModelSimulations(n_systems=2, steps=50, time_step=2.0, temperature=1e-12, friction=0.02)
    simulations.start(data.train_dataset)
    before = [system[properties.velocities].clone() for system in simulations.systems]
    simulations.run(task, data.frames, 1)
    for start, system in zip(before, simulations.systems, strict=True):
        expected = start * np.exp(-0.02 * 50 * 2.0 * 0.5)
        torch.testing.assert_close(system[properties.velocities], expected, rtol=1e-4, atol=1e-8)


def test_the_integrator_reaches_the_rollout(database):
    """Constant energy is velocity Verlet, the default of rollouts."""
    task, data = prepared(database, {})
    batch = next(iter(data.train_dataloader()))
    default, verlet, hot = (
        list(task.rollout(batch, 5, integrator=integrator))[-1].state.positions
        for integrator in (None, VelocityVerlet(), Langevin(1.0, 0.1))
    )
    assert torch.equal(default, verlet)
    assert not torch.allclose(default, hot)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -1.0, "friction": 0.01}, r"simulations\.temperature=-1\.0 must be positive"),
        ({"temperature": float("nan"), "friction": 0.01}, r"simulations\.temperature=nan must be positive"),
        ({"temperature": 300.0, "friction": 0.0}, r"simulations\.friction=0\.0 must be positive"),
        ({"temperature": 300.0}, r"temperature=300\.0 \(K\) and friction=None \(1/fs\).*set both"),
        ({"friction": 0.01}, r"temperature=None \(K\) and friction=0\.01 \(1/fs\).*set both"),
        (
            {"temperature": 300.0, "friction": 0.01, "kinetic_energy": 1.5},
            r"kinetic_energy=1\.5 .*kinetic_energy=1, or",
        ),
        ({"time_step": 0.0}, r"simulations\.time_step=0\.0 must be positive"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        ModelSimulations(**arguments)
