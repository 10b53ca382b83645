"""Our rollout and SchNetPack's molecular dynamics are the same dynamics."""

import ase.units
import numpy as np
import pytest
import torch
from helpers.models import batch_of, crystal, molecule, positions_to_forces, potential
from schnetpack import properties
from schnetpack import units as spk_units
from schnetpack.md import Simulator, System
from schnetpack.md.calculators import SchNetPackCalculator
from schnetpack.md.integrators import VelocityVerlet
from schnetpack.md.simulation_hooks import SimulationHook

from spk_dt import properties as dt_properties
from spk_dt.dynamics import Detached, rollout
from spk_dt.md import FramesInit, VerletNeighborList


class Recorder(SimulationHook):
    def __init__(self):
        super().__init__()
        self.positions, self.energies = [], []

    def on_step_finalize(self, simulator):
        system = simulator.system
        self.positions.append(10.0 * system.positions[0].clone())  # nm -> Å
        kinetic = system.sum_atoms(0.5 * system.momenta**2 / system.masses).sum(-1, keepdim=True)
        self.energies.append((kinetic + system.energy)[0, :, 0])


@pytest.fixture
def model_file(tmp_path):
    torch.manual_seed(0)
    torch.save(potential(), tmp_path / "best_model")
    return str(tmp_path / "best_model")


def simulate(model_file, systems, folder, n_steps, time_step_fs=0.5, energy_unit="eV", **list_arguments):
    """Positions after each step [n_steps, n_atoms, 3] Å, and total energies in kJ/mol."""
    file = folder / "frames.traj"
    ase.io.write(file, systems)
    system = System()
    system.load_molecules(systems)
    FramesInit(file).initialize_system(system)
    calculator = SchNetPackCalculator(
        model_file, "forces", energy_unit, "Angstrom", VerletNeighborList(model_file=model_file), energy_key="energy"
    )
    recorder = Recorder()
    simulator = Simulator(system, VelocityVerlet(time_step_fs), calculator, [recorder], progress=False)
    simulator.to(torch.float64).simulate(n_steps)
    return torch.stack(recorder.positions), torch.stack(recorder.energies)


def rolled_out(model_file, systems, n_steps):
    model = torch.load(model_file, weights_only=False).double().eval()
    batch = batch_of(*systems)
    time_step = batch[dt_properties.time_step][batch[properties.idx_m]]
    args = (batch[properties.R], batch[dt_properties.velocities], batch[properties.masses], time_step, n_steps + 1)
    visited = rollout(positions_to_forces(model, batch), *args, Detached())
    return torch.stack([v.state.positions for v in visited])[1:]


def test_same_trajectory(model_file, tmp_path):
    systems = [molecule(), crystal(1), crystal(2, pbc=[True, True, False])]
    ours = rolled_out(model_file, systems, 100)
    theirs, _ = simulate(model_file, systems, tmp_path, 100)
    start = torch.tensor(np.concatenate([atoms.positions for atoms in systems]))
    assert (theirs[-1] - start).abs().max() > 0.1
    assert (ours - theirs).abs().max() < 1e-6  # Å

    wrong, _ = simulate(model_file, systems, tmp_path, 100, energy_unit="kcal/mol")
    assert (ours - wrong).abs().max() > 1e-3


def test_energy_is_conserved(model_file, tmp_path):
    """200 fs at constant energy; with a time step that is far too long it is not."""
    systems = [molecule(), crystal(1)]
    _, energies = simulate(model_file, systems, tmp_path, 400)
    spread = (energies.max(0).values - energies.min(0).values) * spk_units.convert_units(spk_units.energy, "eV")
    assert spread.max() < 2e-3
    _, energies = simulate(model_file, systems, tmp_path, 40, time_step_fs=10.0)
    wrong = (energies.max(0).values - energies.min(0).values) * spk_units.convert_units(spk_units.energy, "eV")
    assert wrong.max() > 10 * spread.max()


def test_neighbour_list_of_the_calculator(model_file, tmp_path):
    assert VerletNeighborList(model_file=model_file).cutoff == 4.0
    assert VerletNeighborList(5.0, model_file=model_file).cutoff == 5.0
    with pytest.raises(ValueError, match="3 is shorter than the cutoff 4"):
        VerletNeighborList(3.0, model_file=model_file)
    with pytest.raises(ValueError, match="model_file"):
        VerletNeighborList()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        VerletNeighborList(model_file="nowhere")
    (tmp_path / "text").write_text("no model")
    with pytest.raises(ValueError, match="not a SchNetPack model"):
        VerletNeighborList(model_file=str(tmp_path / "text"))
