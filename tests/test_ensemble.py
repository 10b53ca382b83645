"""Several models in ``spkmd``: mean and variance over them, in the units of the models, as numpy has them."""

from pathlib import Path

import ase.io
import ase.units
import numpy as np
import pytest
import torch
from ase import Atoms
from helpers.pair_potential import pair_model, tetrahedron
from helpers.programs import spkmd
from schnetpack import units as spk_units
from schnetpack.interfaces import AtomsConverter
from schnetpack.md.data import HDF5Loader
from schnetpack.transform import ASENeighborList
from schnetpack.utils import load_model

from spk_dt.md import EnsembleCalculator, VerletNeighborList

pytestmark = pytest.mark.usefixtures("quiet_hydra")

DEPTHS = (1.0, 1.1, 1.35)


@pytest.fixture
def ensemble(tmp_path, monkeypatch):
    """Three potentials of different depth, and the override that names them."""
    monkeypatch.chdir(tmp_path)
    atoms = tetrahedron()
    atoms.set_velocities(np.random.default_rng(0).normal(scale=0.02, size=(len(atoms), 3)))
    ase.io.write("start.traj", atoms)
    files = [Path(f"model_{i}") for i in range(len(DEPTHS))]
    for file, depth in zip(files, DEPTHS, strict=True):
        pair_model(file, depth=depth)
    return files


def run(files, *overrides, steps=5):
    """A simulation with the ensemble; what its file holds."""
    names = f"calculator.model_files=[{','.join(map(str, files))}]"
    model = ["calculator=spk_ensemble", names, "system/initializer=frames"]
    spkmd(*model, *overrides, callbacks="[checkpoint,hdf5]", steps=steps)
    return HDF5Loader("out/simulation.hdf5")


def of_each(files, positions, numbers):
    """[n_models, ...] energies and forces of the models at some positions, Å, without `spkmd`."""
    inputs = AtomsConverter(ASENeighborList(8.0), dtype=torch.float64)
    results = [load_model(str(file)).double().eval()(inputs(Atoms(numbers, positions))) for file in files]
    return {key: np.array([one[key].detach().numpy() for one in results]) for key in ("energy", "forces")}


@pytest.mark.parametrize("asked", ["[forces_var]", "[forces,energy_var]", "[energy_var,forces_var]"])
def test_variances(ensemble, asked):
    data = run(ensemble, f"calculator.required_properties={asked}")
    positions = data.get_positions()[:, :] * spk_units.convert_units(spk_units.length, "Ang")
    numbers = data.database["molecules"].attrs["atom_types"][: positions.shape[1]]
    stored = set(asked.strip("[]").split(","))
    for entry in range(len(positions)):
        expected = of_each(ensemble, positions[entry], numbers)
        for name in stored:
            key = name.removesuffix("_var")
            value = data.get_property(name, atomistic=key == "forces")[entry]
            over_models = np.var(expected[key], axis=0, ddof=1) if name.endswith("_var") else expected[key].mean(axis=0)
            assert np.abs(over_models).max() > 1e-6
            np.testing.assert_allclose(value, over_models.reshape(value.shape), rtol=1e-6, atol=1e-10)
            if name.endswith("_var"):  # that of the models, not of an infinite number of them
                assert not np.allclose(value, np.var(expected[key], axis=0).reshape(value.shape), rtol=0.1)
    data.database.close()


def test_a_unit_that_is_asked_for_is_squared(ensemble):
    """Of variances in SchNetPack's units: kcal/mol of the model are 4.184 kJ/mol, and their square 17.5."""
    calculator = EnsembleCalculator(
        [str(file) for file in ensemble], ["energy"], force_key="forces", energy_unit="kcal/mol", position_unit="Ang",
        neighbor_list=VerletNeighborList(cutoff=8.0), energy_key="energy",
        property_conversion={"energy": "kcal/mol"}, script_model=False,
    )  # fmt: skip
    conversion = calculator.property_conversion
    assert conversion["energy"] == pytest.approx(4.184)
    assert conversion["energy_var"] == pytest.approx(4.184**2)
    assert conversion["forces_var"] == 1.0


@pytest.mark.parametrize("number", [0, 1])
def test_one_model_has_no_variance(ensemble, number):
    with pytest.raises(Exception, match=r"model_files=.*two models at least.*calculator=spk"):
        run(ensemble[:number], "calculator.neighbor_list.cutoff=8.0")
