"""`spkmd` with a barostat takes the stress of a model by itself, and refuses to begin without one."""

from pathlib import Path

import ase.io
import ase.units
import numpy as np
import pytest
import torch
from helpers.argon_model import argon, fcc, virial_pressure
from helpers.programs import spkmd
from schnetpack import units as spk_units
from schnetpack.atomistic import Strain

from spk_dt.dynamics import predict_stress
from spk_dt.md import InputsCalculator, VerletNeighborList

pytestmark = pytest.mark.usefixtures("quiet_hydra")

BAROSTAT = ("+dynamics/barostat=nhc_iso", "dynamics.barostat.temperature_bath=60.0")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ase.io.write("start.traj", fcc(5.0))
    argon("with")
    argon("without", stress=False)
    return tmp_path


def pressure(state):
    """Pressure of the potential in the state at the end of a run, by the stress there and by differences, bar."""
    stress = state["stress"][0, 0].numpy()
    positions, cells = (
        state[key][:, None if key == "positions" else 0].numpy() * 10.0 for key in ("positions", "cells")
    )
    expected = virial_pressure(positions.reshape(1, 1, -1, 3), cells.reshape(1, 3, 3))[0] / ase.units.bar
    return -np.trace(stress) / 3.0 / spk_units.bar, expected


@pytest.mark.parametrize(
    "calculator", [("calculator.model_file=with",), ("calculator=spk_ensemble", "calculator.model_files=[with,with]")]
)
def test_the_model_is_asked_for_its_stress(calculator):
    state = spkmd(*calculator, *BAROSTAT, steps=3)
    found, expected = pressure(state)
    assert expected > 1000.0  # bar
    assert found == pytest.approx(expected, rel=1e-4)
    assert np.abs(state["cells"][0, 0].numpy() * 10.0 - fcc(5.0).cell.array).max() > 1e-6


def test_in_the_units_of_the_model():
    """The same potential in other units of energy and length gives the same pressures."""
    argon("other", energy_unit=ase.units.kcal / ase.units.mol, length_unit=ase.units.Bohr)
    units = ("calculator.energy_unit='kcal / mol'", "calculator.position_unit=Bohr")
    state = spkmd("calculator.model_file=other", *units, *BAROSTAT, steps=3)
    found, expected = pressure(state)
    assert found == pytest.approx(expected, rel=1e-4)


def test_an_ensemble_of_which_some_have_no_stress():
    """At constant volume it runs, whichever comes first."""
    for i, files in enumerate(("[with,without]", "[without,with]")):
        command = ("calculator=spk_ensemble", f"calculator.model_files={files}", f"simulation_dir=out_{i}")
        assert bool(spkmd(*command)["positions"].isfinite().all())


@pytest.mark.parametrize(
    ("calculator", "named"),
    [
        (("calculator.model_file=without",), "without"),
        (("calculator=spk_ensemble", "calculator.model_files=[with,without]"), "without"),
        (("calculator=lj", "calculator.neighbor_list.cutoff=5.0", "calculator.stress_key=null"), "LJCalculator"),
    ],
)
def test_a_barostat_without_a_stress_is_refused(calculator, named, folder):
    with pytest.raises(
        SystemExit, match=f"(?s)spkmd: a barostat needs the stress.*{named}.*calculator.stress_key=stress"
    ):
        spkmd(*calculator, *BAROSTAT)
    assert not (folder / "out" / "checkpoint.chk").exists()


def test_settings_of_a_file_are_looked_at(folder):
    Path("settings.yaml").write_text("calculator:\n  model_file: without\n")
    with pytest.raises(SystemExit, match=r"a barostat needs the stress.*without' was not trained on it"):
        spkmd("load_config=settings.yaml", *BAROSTAT)


def test_a_model_that_was_not_trained_on_it_may_be_asked_all_the_same():
    state = spkmd("calculator.model_file=without", "calculator.stress_key=stress", *BAROSTAT, steps=3)
    assert "'without' was not trained on the stress" in Path("out/spkmd.log").read_text()
    found, expected = pressure(state)
    assert found == pytest.approx(expected, rel=1e-4)


def test_lennard_jones_needs_no_option():
    spkmd("calculator=lj", "calculator.neighbor_list.cutoff=5.0", *BAROSTAT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda atoms: atoms.set_cell(atoms.cell.array[[1, 0, 2]]), "left-handed: exchange two of its vectors"),
        (lambda atoms: atoms.set_cell(None), "has no volume or is not periodic"),
        (lambda atoms: atoms.set_pbc(False), "has no volume or is not periodic"),
    ],
)
def test_without_a_cell_it_is_refused(change, message):
    atoms = fcc(5.0)
    change(atoms)
    ase.io.write("start.traj", [fcc(5.0), atoms])
    with pytest.raises(SystemExit, match=f"structure 1 of system.molecule_file='start.traj' .*{message}"):
        spkmd("calculator.model_file=with", *BAROSTAT)


def test_without_a_barostat_nothing_is_refused():
    atoms = fcc(5.0)
    atoms.set_cell(None)
    atoms.pbc = False
    ase.io.write("start.traj", atoms)
    state = spkmd("calculator.model_file=with", callbacks="[checkpoint,hdf5]")
    assert bool(state["positions"].isfinite().all())
    spkmd("calculator.model_file=without", "simulation_dir=without_stress")


def test_it_is_strained_once():
    """SchNetPack's switch adds another strain to a model that strains already."""
    calculator = InputsCalculator("with", "forces", "eV", "Angstrom", VerletNeighborList(6.5), stress_key="stress")
    assert [isinstance(module, Strain) for module in calculator.model.input_modules] == [True, False]
    with pytest.raises(ValueError, match="calls its stress 'stress', not 'sigma'"):
        InputsCalculator("with", "forces", "eV", "Angstrom", VerletNeighborList(6.5), stress_key="sigma")
    model = torch.load("without", weights_only=False)
    predict_stress(model, "sigma")
    torch.save(model, "named")
    calculator = InputsCalculator("named", "forces", "eV", "Angstrom", VerletNeighborList(6.5))
    assert calculator.stress_key == "sigma"
