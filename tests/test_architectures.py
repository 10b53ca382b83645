"""Every architecture is trained, run and deployed in the same way: its config alone knows which one it is."""

import functools
import runpy
import sys
from pathlib import Path

import ase.io
import ase.units
import numpy as np
import pytest
import torch
from ase import Atoms
from helpers.models import crystal, lammps_input
from helpers.programs import composed, spkmd
from helpers.training import loss_and_gradient
from hydra.utils import instantiate
from schnetpack import properties as p
from schnetpack.data.loader import _atoms_collate_fn
from schnetpack.md.data import HDF5Loader

from spk_dt import properties
from spk_dt.data.continuation import Continuation
from spk_dt.dynamics import Detached, Full
from spk_dt.evaluation.simulate import Group, Protocol, simulate
from spk_dt.md import ModelCalculator, VerletNeighborList

ARCHITECTURES = ("egnn", "painn", "schnet", "so3net", "field_schnet")
STEPS = 12  # of dynamics, 6 fs
TINY = ("model.representation.n_atom_basis=8", "model.representation.n_interactions=2")

pytestmark = pytest.mark.usefixtures("quiet_hydra")
every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


def new_task(name, *overrides):
    """The task of the experiment with a new, tiny model, in double precision."""
    config = composed(f"experiment=dt_{name}", *TINY, *overrides)
    torch.manual_seed(0)
    model = instantiate(config.model)
    model.postprocessors[-1].mean = torch.tensor(-3.0)  # eV per atom; training finds it in the data
    return instantiate(config.task, model=model).double()


@pytest.fixture(scope="module")
def batch(embedded):
    """Two windows of the embedded data, in double precision."""
    window = f"globals.max_rollout_length={STEPS + 1}"
    config = composed("experiment=dt_egnn", window, f"data.datapath={embedded}", "data.check_data=false")
    data = instantiate(config.data, split_file=None)
    data.setup()
    samples = [data.train_dataset[index] for index in (0, len(data.train_dataset) - 1)]
    return {k: v.double() if v.is_floating_point() else v for k, v in _atoms_collate_fn(samples).items()}


@pytest.fixture
def frames(batch):
    """The first frames of the windows."""
    systems = []
    for i, cell in enumerate(batch[p.cell].numpy()):
        Z, R, masses, velocities = (
            batch[key][batch[p.idx_m] == i].numpy() for key in (p.Z, p.R, p.masses, properties.velocities)
        )
        systems.append(Atoms(Z, R, masses=masses, cell=cell, pbc=batch[p.pbc].view(-1, 3)[i].numpy()))
        systems[-1].set_velocities(velocities)
    return systems


def with_spkmd(model_file, frames, timestep_fs, energy_unit):
    """Positions in Å at the end of a run of the program."""
    ase.io.write("start.traj", frames)
    overrides = (f"calculator.model_file={model_file}", f"calculator.energy_unit={energy_unit}")
    step = f"dynamics.integrator.time_step={timestep_fs}"
    state = spkmd(*overrides, "system/initializer=frames", step, "overwrite=true", steps=STEPS)
    return 10.0 * state["positions"][0].numpy()


def with_evaluation(model_file, frames, timestep_fs, energy_unit):
    """The same in a simulation of `spkdt evaluate`."""
    file, group = model_file.with_name("simulation.hdf5"), Group(tuple(range(len(frames))), timestep_fs)
    none = np.empty(0)
    starts = [Continuation("", 0, timestep_fs, atoms, none, none, none, following=0) for atoms in frames]
    calculator = ModelCalculator(model_file, energy_unit, "Angstrom")
    assert (simulate(calculator, starts, group, file, Protocol(STEPS))[0] == -1).all()
    loader = HDF5Loader(str(file))
    positions = [10.0 * loader.get_positions(mol_idx=i)[-1] for i in range(len(frames))]
    loader.database.close()
    file.unlink()
    return np.concatenate(positions)


@pytest.mark.parametrize("dynamics", [with_spkmd, with_evaluation])
@every_architecture
def test_rollouts_are_the_molecular_dynamics_of_the_stored_model(name, dynamics, batch, frames, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = new_task(name).eval()
    torch.save(task.model, tmp_path / "best_model")
    with torch.no_grad():
        *_, (visited, _, _) = task._visit(batch, STEPS + 1, Detached())
    ours = visited.state.positions.numpy()

    timestep_fs = batch[properties.time_step][0].item() / ase.units.fs
    run = functools.partial(dynamics, tmp_path / "best_model", frames, timestep_fs)
    np.testing.assert_allclose(ours, run("eV"), rtol=0.0, atol=1e-6)
    assert np.abs(ours - run("kcal / mol")).max() > 1e-4  # the forces matter


def deploy(model, file):
    """What the program `spkdeploy` makes of a model."""
    program = runpy.run_path(str(Path(sys.executable).with_name("spkdeploy")))
    program["save_jit_model"](model, str(file))
    extra = {"cutoff": ""}
    deployed = torch.jit.load(str(file), _extra_files=extra)
    assert float(extra["cutoff"]) == float(model.representation.cutoff)
    return deployed


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "field_schnet"])
def test_deployed(name, tmp_path):
    """The scripted model gives the same forces, for other numbers of atoms and pairs too."""
    model = new_task(name).model.float().eval()
    systems = [crystal(1), crystal(2, n_atoms=3), crystal(3, n_atoms=6)]
    expected = [model(lammps_input(atoms))["forces"].float() for atoms in systems]
    deployed = deploy(model, tmp_path / "deployed")
    for atoms, forces in zip(systems, expected, strict=True):
        found = deployed(lammps_input(atoms))["forces"]
        assert forces.abs().max() > 1e-3
        torch.testing.assert_close(found, forces, rtol=1e-4, atol=1e-5)


def test_schnetpack_cannot_script_field_schnet(tmp_path):
    """A limit of SchNetPack 2.2: the layers of its fields are looked up by name. Scripted, LAMMPS could run it."""
    with pytest.raises(RuntimeError, match=r"ModuleDict indexing is only supported with string literals[\s\S]*f2out"):
        deploy(new_task("field_schnet").model.float().eval(), tmp_path / "deployed")


def numeric(task, batch, parameter, index, h=1e-6):
    """Slope of the training loss with one number of a parameter."""
    values = []
    for change in (h, -2 * h, h):
        with torch.no_grad():
            parameter[index] += change
        values.append(loss_and_gradient(task, batch)[0].item())
    return (values[0] - values[1]) / (2 * h)


@every_architecture
def test_full_gradient_of_a_rollout(name, batch):
    """Of the loss of three steps, in one number of the representation, against a finite difference."""
    task = new_task(name, "task.rollout_length=3", "task/gradient=full", "task.first_step_weight=0")
    batch = batch | {properties.time_step: 4.0 * batch[properties.time_step]}  # so that the past matters more
    gradients = {}
    for task.gradient in (Detached(), Full()):
        loss_and_gradient(task, batch)
        gradients[type(task.gradient)] = {k: v.grad for k, v in task.model.representation.named_parameters()}
    full, detached = gradients[Full], gradients[Detached]
    # the number in which the two differ most
    change = {k: (g - detached[k]).abs() for k, g in full.items() if g is not None}
    key = max(change, key=lambda k: change[k].max())
    index = np.unravel_index(int(change[key].argmax()), change[key].shape)
    expected = numeric(task, batch, dict(task.model.representation.named_parameters())[key], index)
    assert full[key][index].item() == pytest.approx(expected, rel=1e-5)
    assert detached[key][index].item() != pytest.approx(expected, rel=1e-3)


def test_fields_of_the_data_reach_the_model(batch):
    """FieldSchNet takes a field from the batch where there is one; without one it is zero."""
    task = new_task("field_schnet").eval()
    systems = len(batch[p.n_atoms])

    def forces(**fields):
        return next(iter(task._visit(batch | fields, 1, Detached())))[0].state.forces

    without = forces()
    zero, field = torch.zeros(systems, 3).double(), torch.tensor([[0.0, 0.0, 0.1]]).double().expand(systems, 3)
    torch.testing.assert_close(forces(electric_field=zero), without)
    assert (forces(electric_field=field) - without).abs().max() > 1e-4


def test_neighbour_list_of_molecular_dynamics_asks_field_schnet(tmp_path):
    torch.save(new_task("field_schnet").model, tmp_path / "best_model")
    assert VerletNeighborList(model_file=str(tmp_path / "best_model")).cutoff == 4.0
