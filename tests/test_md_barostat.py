"""The anisotropic barostat in a sheared crystal: what its equations of motion conserve, and the pressure it leads to."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from schnetpack import units as spk_units
from schnetpack.md import MaxwellBoltzmannInit, Simulator, System
from schnetpack.md.calculators import LJCalculator
from schnetpack.md.integrators import NPTVelocityVerlet
from schnetpack.md.simulation_hooks import NHCBarostatIsotropic

from spk_dt.md import AnisotropicBarostat, VerletNeighborList, barostats

TEMPERATURE, PRESSURE = 60.0, 300.0  # K, bar


class Recorder(AnisotropicBarostat):
    """Also integrates the positions of the chains, which the conserved energy needs and the motion does not."""

    def __init__(self, pressure=PRESSURE):
        super().__init__(pressure, TEMPERATURE, 100.0, multi_step=1, integration_order=3)
        self.chain, self.cell_chain = 0.0, 0.0
        self.energies, self.pressures = [], []

    def _chain_forward(self, time_step):
        super()._chain_forward(time_step)
        self.chain = self.chain + 0.5 * time_step * self.t_velocities
        self.cell_chain = self.cell_chain + 0.5 * time_step * self.t_velocities_cell

    def on_step_finalize(self, simulator):
        system, kt = simulator.system, self.kb_temperature
        motion = (system.kinetic_energy + system.potential_energy).sum()
        cell = 0.5 * self._compute_kinetic_energy_cell().sum() + (self.target_pressure * system.volume).sum()
        chains = 0.5 * (self.t_masses * self.t_velocities**2).sum()
        chains += 0.5 * (self.t_masses_cell * self.t_velocities_cell**2).sum()
        bath = (self.degrees_of_freedom * kt * self.chain[..., 0]).sum() + (kt * self.chain[..., 1:]).sum()
        bath += (self.degrees_of_freedom_cell * kt * self.cell_chain[..., 0]).sum() + (
            kt * self.cell_chain[..., 1:]
        ).sum()
        self.energies.append([float(motion + cell + chains + bath), float(motion)])
        self.pressures.append(system.compute_pressure(kinetic_component=True, tensor=True)[0, 0] / spk_units.bar)


def simulate(barostat, time_step, duration, seed=0):
    """Argon, 32 atoms in a sheared cell; the conserved energy and that of the atoms in kJ/mol, and the last system."""
    torch.manual_seed(seed)
    atoms = bulk("Ar", cubic=True, a=5.4).repeat(2)
    shear = np.array([[1.0, 0.05, 0.03], [0.0, 1.02, 0.04], [0.0, 0.0, 0.97]])
    atoms.set_cell(atoms.cell.array @ shear, scale_atoms=True)
    system = System()
    system.load_molecules([atoms], 1)
    MaxwellBoltzmannInit(TEMPERATURE, remove_translation=True, remove_center_of_mass=False).initialize_system(system)
    calculator = LJCalculator(
        3.405, 0.041294, "forces", "eV", "Angstrom", VerletNeighborList(7.0), energy_key="energy", stress_key="stress"
    )
    integrator = NPTVelocityVerlet(time_step, barostat)
    simulator = Simulator(system, integrator, calculator, [barostat], progress=False).to(torch.float64)
    simulator.simulate(round(duration / time_step))
    return np.array(getattr(barostat, "energies", []))[1:], system  # the chains find their forces in the first step


@pytest.fixture(scope="module")
def spread():
    """Standard deviation of the conserved energy over 240 fs, relative to that of the energy of the atoms, by time step."""
    spread = {}
    for time_step in (4.0, 2.0):
        energies, system = simulate(Recorder(), time_step, duration=240.0)
        spread[time_step] = energies[:, 0].std() / energies[:, 1].std()
        assert bool(system.cells.isfinite().all())
        assert system.momenta.sum(1).abs().max() < 1e-4  # they began in single precision
    return spread


def test_conserved_energy(spread):
    """Its error is that of the integrator, of second order, and small beside what the atoms exchange with the baths."""
    assert spread[2.0] < 0.01
    assert 3.0 < spread[4.0] / spread[2.0] < 5.0


def transposed(matrix, function):
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors.mT * function(values)[..., None, :]) @ vectors


class WrongSign(Recorder):
    def propagate_half_step(self, system):
        self.b_velocities_cell = -self.b_velocities_cell
        super().propagate_half_step(system)
        self.b_velocities_cell = -self.b_velocities_cell


@pytest.mark.parametrize("wrong", [transposed, WrongSign])
def test_a_wrong_motion_does_not_conserve_it(wrong, spread, monkeypatch):
    if wrong is transposed:
        monkeypatch.setattr(barostats, "_function_of", transposed)
    energies, _ = simulate(Recorder() if wrong is transposed else WrongSign(), 2.0, duration=240.0)
    assert not energies[:, 0].std() / energies[:, 1].std() < 10.0 * spread[2.0]


@pytest.mark.parametrize("rate", [0.3, -0.3])
def test_a_cell_that_keeps_its_shape_moves_as_with_the_isotropic_barostat(rate):
    """Also the momenta, which the trace of the cell's velocities slows down."""
    ends = []
    for kind in (AnisotropicBarostat, NHCBarostatIsotropic):
        barostat = kind(PRESSURE, TEMPERATURE, 100.0)
        _, system = simulate(barostat, 2.0, duration=0.0)
        eye = torch.eye(3, dtype=torch.float64) if kind is AnisotropicBarostat else 1.0
        barostat.b_velocities_cell = rate * eye * torch.ones_like(barostat.b_velocities_cell)
        barostat.propagate_half_step(system)
        barostat.propagate_main_step(system)
        ends.append([system.momenta, system.positions, system.cells])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("pressure", [PRESSURE, 2000.0])
def test_mean_pressure(pressure):
    """All components, in a cell that is free to take its shape."""
    barostat = Recorder(pressure)
    simulate(barostat, 4.0, duration=1200.0)
    mean = torch.stack(barostat.pressures[50:]).mean(0)
    torch.testing.assert_close(mean, pressure * torch.eye(3, dtype=mean.dtype), rtol=0.0, atol=60.0)


def test_functions_of_matrices_and_the_limit_at_rest():
    matrix = torch.randn(5, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix = matrix + matrix.mT
    torch.testing.assert_close(barostats._function_of(matrix, torch.exp), torch.linalg.matrix_exp(matrix))
    x = torch.tensor([-2.0, -1e-9, 0.0, 1e-9, 0.5], dtype=torch.float64)
    torch.testing.assert_close(x * barostats._phi(x), torch.exp(x) - 1.0)
    assert barostats._phi(x)[2] == 1.0
