"""A model outside of training: as ASE calculator, in spkmd, and scripted as LAMMPS calls it. All give the same forces."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.models import CUTOFF, batch_of, crystal, lammps_input, painn, positions_to_forces, potential, tiny_egnn
from schnetpack import units as spk_units
from schnetpack.interfaces import SpkCalculator
from schnetpack.md import System
from schnetpack.md.calculators import SchNetPackCalculator
from schnetpack.transform import AddOffsets, CastTo64, MatScipyNeighborList

from spk_dt.md import FramesInit, VerletNeighborList
from spk_dt.representation import EGNN, RandomFourierFeatures

MEAN = -3.0  # eV per atom, the offset that training leaves out


def fourier_egnn():
    return EGNN(8, 2, RandomFourierFeatures(16, 4.0), tiny_egnn().cutoff_fn, coordinate_channel=True)


@pytest.fixture(params=[tiny_egnn, fourier_egnn, painn], ids=["egnn", "egnn with coordinates", "painn"])
def model(request):
    torch.manual_seed(0)
    offsets = AddOffsets("energy", add_mean=True, property_mean=torch.tensor(MEAN))
    return potential(request.param(), [CastTo64(), offsets]).eval()


@pytest.fixture
def model_file(model, tmp_path):
    torch.save(model, tmp_path / "best_model")
    return str(tmp_path / "best_model")


@pytest.fixture
def expected(model):
    """Energy, with the offset, and forces of the crystal."""
    atoms = crystal(1)
    force_fn = positions_to_forces(torch.nn.Module.double(model), batch_of(atoms))
    forces, outputs = force_fn(torch.tensor(atoms.positions))
    result = outputs["energy"].item(), forces.detach().numpy()
    model.float()
    return result


def with_calculator(atoms, model_file, **kwargs):
    atoms = atoms.copy()
    arguments = {"energy_unit": "eV", "dtype": torch.float64} | kwargs
    atoms.calc = SpkCalculator(model_file, MatScipyNeighborList(CUTOFF), **arguments)
    return atoms


def test_ase_calculator(expected, model_file):
    atoms = with_calculator(crystal(1), model_file)
    assert atoms.get_potential_energy() == pytest.approx(expected[0], abs=1e-6)
    np.testing.assert_allclose(atoms.get_forces(), expected[1], atol=1e-7)


def test_stress(model_file):
    """Against the change of energy with strain."""
    atoms = with_calculator(crystal(1), model_file, stress_key="stress")
    stress = atoms.get_stress(voigt=False)
    h, numeric = 1e-5, np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            energies = []
            for sign in (1, -1):
                strain = np.eye(3)
                strain[i, j] += sign * h / 2
                strain[j, i] += sign * h / 2
                moved = atoms.copy()
                moved.set_cell(atoms.cell.array @ strain, scale_atoms=True)
                energies.append(with_calculator(moved, model_file).get_potential_energy())
            numeric[i, j] = (energies[0] - energies[1]) / (2 * h) / atoms.get_volume()
    assert np.abs(stress).max() > 1e-4
    np.testing.assert_allclose(stress, numeric, atol=1e-6 * max(1.0, np.abs(stress).max()))


def test_spkmd(expected, model_file, tmp_path):
    import ase.io

    ase.io.write(tmp_path / "start.traj", crystal(1))
    system = System()
    system.load_molecules(crystal(1))
    FramesInit(tmp_path / "start.traj").initialize_system(system)
    neighbors = VerletNeighborList(model_file=model_file)
    calculator = SchNetPackCalculator(model_file, "forces", "eV", "Angstrom", neighbors, energy_key="energy")
    system.to(torch.float64)
    calculator.to(torch.float64).calculate(system)
    to_ev_per_angstrom = spk_units.convert_units("kJ/mol/nm", "eV/Ang")
    np.testing.assert_allclose(system.forces[0] * to_ev_per_angstrom, expected[1], atol=1e-7)


def test_deployed_for_lammps(expected, model_file, tmp_path):
    deploy = runpy.run_path(str(Path(sys.executable).with_name("spkdeploy")))
    model = torch.load(model_file, weights_only=False)
    deploy["save_jit_model"](model, str(tmp_path / "deployed"))
    extra = {"cutoff": ""}
    deployed = torch.jit.load(str(tmp_path / "deployed"), _extra_files=extra)
    assert float(extra["cutoff"]) == CUTOFF
    result = deployed(lammps_input(crystal(1)))
    assert result["energy"].dtype == result["forces"].dtype == torch.float32  # read as such
    assert result["energy"].item() == pytest.approx(expected[0], abs=1e-4)
    np.testing.assert_allclose(result["forces"].detach().numpy(), expected[1], atol=1e-4)
