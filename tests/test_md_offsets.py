"""Models that add reference energies of atoms, and no mean, can be simulated: these offsets make no forces."""

import pytest
import torch
from helpers.models import potential
from schnetpack.md import System
from schnetpack.transform import AddOffsets

from spk_dt.md import EnsembleCalculator, ModelCalculator


def calculated(calculator, atoms):
    system = System()
    system.load_molecules([atoms])
    calculator.calculate(system)
    return system.properties["energy"], system.properties["forces"]


@pytest.mark.parametrize("ensemble", [False, True])
def test_reference_energies_of_atoms(tmp_path, cluster, ensemble):
    files = [str(tmp_path / name) for name in ("plain", "with_offsets")]
    model = potential()
    torch.save(model, files[0])
    model.postprocessors.append(AddOffsets("energy", add_mean=False, atomrefs=torch.arange(100.0)))
    torch.save(model, files[1])

    def make(file):
        if not ensemble:
            return ModelCalculator(file, "eV", "Angstrom")
        neighbors = ModelCalculator(file, "eV", "Angstrom").neighbor_list
        return EnsembleCalculator(
            [file, file], ["energy", "forces"], force_key="forces", energy_unit="eV", position_unit="Angstrom",
            neighbor_list=neighbors, energy_key="energy",
        )  # fmt: skip

    plain, other = (calculated(make(file), cluster) for file in files)
    assert plain[1].abs().max() > 0.0
    for one, two in zip(plain, other, strict=True):
        torch.testing.assert_close(one, two)
