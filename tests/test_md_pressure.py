"""Each barostat of the configs holds the pressure that it is asked for, with the stress of a model.

The pressure is measured without the stress, by differences of the energy in cells that are larger and smaller, and from the
momenta of the atoms, or of the centres of ring polymers.
"""

from pathlib import Path

import ase.units
import numpy as np
import pytest
import torch
from helpers.argon_model import CUTOFF, argon, fcc, virial_pressure
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from schnetpack.atomistic import Forces
from schnetpack.md import MaxwellBoltzmannInit, Simulator, System
from schnetpack.md.integrators import NPTRingPolymer, NPTVelocityVerlet
from schnetpack.md.simulation_hooks import PILEBarostat, PILELocalThermostat, SimulationHook

from spk_dt.md import InputsCalculator, VerletNeighborList

BAROSTATS = sorted(path.stem for path in (Path(__file__).parents[1] / "configs/md/dynamics/barostat").glob("*.yaml"))
PRESSURE, TEMPERATURE = 3000.0, 60.0  # bar, K
LIGHT = 4.0  # Dalton, so that the beads of a ring polymer are far from its centre
BEADS = 4
TIME_CONSTANT = 200.0  # fs


class Measured(SimulationHook):
    """The pressures of all systems, [n_samples, n_systems] in bar."""

    def __init__(self, first, every):
        super().__init__()
        self.first, self.every, self.pressures = first, every, []

    def on_step_finalize(self, simulator):
        if simulator.step < self.first or simulator.step % self.every:
            return
        system = simulator.system
        n_atoms = int(system.n_atoms[0])
        positions = system.positions.unflatten(1, (-1, n_atoms)).transpose(0, 1).numpy() * 10.0  # Å
        cells = system.cells[0].numpy() * 10.0
        kinetic = system.centroid_kinetic_energy[0, :, 0].numpy() * ase.units.kJ / ase.units.mol
        kinetic *= 2.0 / (3.0 * np.abs(np.linalg.det(cells)))
        self.pressures.append((virial_pressure(positions, cells) + kinetic) / ase.units.bar)


def barostat_of(name):
    overrides = [f"+dynamics/barostat={name}", f"dynamics.barostat.time_constant={TIME_CONSTANT}"]
    overrides += [f"dynamics.barostat.target_pressure={PRESSURE}", f"dynamics.barostat.temperature_bath={TEMPERATURE}"]
    if name.startswith("nhc"):  # fewer substeps of the chains
        overrides += ["dynamics.barostat.multi_step=1", "dynamics.barostat.integration_order=3"]
    with initialize_config_module("schnetpack.md.md_configs", version_base="1.2"):
        return instantiate(compose("config", overrides=overrides).dynamics.barostat)


def simulate(model_file, barostat, steps, first, n_systems=4):
    """Crystals that begin with other volumes each; mean pressures, [n_systems] in bar."""
    torch.manual_seed(0)
    ring = barostat.ring_polymer
    beads, mass, time_step = (BEADS, LIGHT, 2.0) if ring else (1, None, 5.0)
    system = System()
    system.load_molecules([fcc(a, mass=mass) for a in np.linspace(5.12, 5.24, n_systems)], beads)
    MaxwellBoltzmannInit(
        2.0 * beads * TEMPERATURE, remove_translation=True, remove_center_of_mass=False
    ).initialize_system(system)
    neighbors = VerletNeighborList(CUTOFF)
    calculator = InputsCalculator(str(model_file), "forces", "eV", "Angstrom", neighbors, energy_key="energy")
    if ring:
        integrator = NPTRingPolymer(time_step, beads, TEMPERATURE, barostat)
        hooks = [PILELocalThermostat(TEMPERATURE, 100.0), barostat]
    else:
        integrator, hooks = NPTVelocityVerlet(time_step, barostat), [barostat]
    measured = Measured(first, every=10)
    simulator = Simulator(system, integrator, calculator, [*hooks, measured], progress=False).to(torch.float64)
    simulator.simulate(steps)
    return np.mean(measured.pressures, axis=0)


def deviation(pressures):
    """How far the mean is from what was asked for, and its standard error, bar."""
    return abs(pressures.mean() - PRESSURE), pressures.std(ddof=1) / np.sqrt(len(pressures))


def holds(pressures, bias=20.0):
    """Within four standard errors, beside what the beginning and the time step leave, in bar."""
    off, error = deviation(pressures)
    return bool(off < 4.0 * error + bias)


def test_there_are_barostats():
    assert {"nhc_iso", "nhc_aniso", "pile_rpmd"} <= set(BAROSTATS)


@pytest.mark.parametrize("name", BAROSTATS)
def test_pressure(name, tmp_path):
    steps = 300 if name == "pile_rpmd" else 500
    pressures = simulate(argon(tmp_path / "model"), barostat_of(name), steps, first=150)
    assert deviation(pressures)[1] < 60.0
    assert holds(pressures)


@pytest.mark.slow
@pytest.mark.parametrize("name", BAROSTATS)
def test_pressure_of_long_simulations(name, tmp_path):
    pressures = simulate(argon(tmp_path / "model"), barostat_of(name), steps=3000, first=500)
    assert deviation(pressures)[1] < 20.0
    assert holds(pressures, bias=5.0)


class WrongStress(Forces):
    """The stress times a factor."""

    factor = -1.0

    def forward(self, inputs):
        inputs = super().forward(inputs)
        inputs[self.stress_key] = self.factor * inputs[self.stress_key]
        return inputs


class InGigapascal(WrongStress):
    factor = 1.0 / ase.units.GPa


class TenPercentOff(WrongStress):
    factor = 1.1


@pytest.mark.parametrize("wrong", [WrongStress, TenPercentOff, pytest.param(InGigapascal, marks=pytest.mark.slow)])
def test_a_wrong_stress_is_found(wrong, tmp_path):
    try:
        pressures = simulate(argon(tmp_path / "model", cls=wrong), barostat_of("nhc_iso"), steps=500, first=150)
    except (ValueError, RuntimeError):  # the cell has burst
        return
    assert not holds(pressures)


@pytest.mark.slow
def test_without_the_quantum_part_of_the_pressure_it_is_missed(tmp_path):
    """SchNetPack's barostat for ring polymers takes the beads' virial for that of their centres."""
    barostat = PILEBarostat(PRESSURE, TEMPERATURE, TIME_CONSTANT)
    pressures = simulate(argon(tmp_path / "model"), barostat, steps=300, first=150)
    assert not holds(pressures)
