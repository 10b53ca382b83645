"""Training on the stress: with every architecture, in rollouts, compiled, in other units, further, and what is refused."""

from dataclasses import replace
from functools import partial

import ase.units
import numpy as np
import pytest
import torch
from ase.calculators.lj import LennardJones
from ase.db import connect
from helpers.models import batch_of, potential
from helpers.pair_potential import trainable
from helpers.pair_reference import CUTOFF as PAIR_CUTOFF
from helpers.pair_reference import EPSILON, SIGMA
from helpers.programs import composed, metrics, spktrain
from helpers.stressed_data import copper, emt_database, trajectory, write
from helpers.training import data_module, paper_outputs, task, trainer
from hydra.utils import instantiate
from schnetpack import properties as p
from schnetpack.atomistic import Atomwise, Forces, PairwiseDistances, Strain
from schnetpack.model import NeuralNetworkPotential
from schnetpack.task import ModelOutput
from schnetpack.transform import CastTo64, MatScipyNeighborList, RemoveOffsets
from torchmetrics.regression import MeanAbsoluteError

from spk_dt.dynamics import Full, Truncated, stress_key_of
from spk_dt.training import DynamicTrainingTask
from spk_dt.training.stress_of_data import refuse_without_stress

ARCHITECTURES = ("egnn", "painn", "schnet", "so3net", "field_schnet")
SHORT = [
    "data=trajectory", "data.max_train_windows=8", "data.max_val_windows=2", "data.max_test_windows=2",
    "data.val_window=4", "data.batch_size=4", "trainer.accelerator=cpu", "trainer.max_epochs=2", "print_config=false",
    "+trainer.enable_progress_bar=false", "globals.cutoff=3.0", "model.representation.n_atom_basis=8", "+seed=1",
    "callbacks.curriculum.rule._target_=spk_dt.training.Elapsed", "+callbacks.curriculum.rule.epochs=1",
]  # fmt: skip
KCAL = ase.units.kcal / ase.units.mol


@pytest.fixture(scope="module")
def stressed(tmp_path_factory):
    return emt_database(tmp_path_factory.mktemp("stressed") / "copper.db")


def stress_output(weight=10.0):
    return ModelOutput("stress", torch.nn.L1Loss(), weight, metrics={"mae": MeanAbsoluteError()})


def energy_of(model, atoms):
    return model(batch_of(atoms, radius=3.0))["energy"].item()


def stress_by_differences(model, atoms, step=1e-4):
    found = np.empty((3, 3))
    for i, j in np.ndindex(3, 3):
        energies = []
        for sign in (1.0, -1.0):
            moved, matrix = atoms.copy(), np.eye(3)
            matrix[i, j] += sign * step
            moved.set_cell(atoms.cell.array @ matrix.T, scale_atoms=True)
            energies.append(energy_of(model, moved))
        found[i, j] = (energies[0] - energies[1]) / (2.0 * step * atoms.get_volume())
    return found


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[] if k in ("egnn", "field_schnet") else pytest.mark.slow) for k in ARCHITECTURES]
)
def test_by_command(kind, stressed, tmp_path, monkeypatch):
    """One option, for each architecture: what is stored predicts the derivative of its energy."""
    command = [f"experiment=dt_{kind}", f"data.datapath={stressed}", *SHORT, "task/stress=trained"]
    spktrain(tmp_path, monkeypatch, *command)
    rows = metrics(tmp_path)
    assert [row["S"] for row in rows if "S" in row] == [1.0, 2.0]
    errors = [row["val_stress_mae"] for row in rows if "val_stress_mae" in row]
    assert len(errors) == 2
    assert 0.0 < errors[-1] < 1.0
    model = torch.load(tmp_path / "best_model", weights_only=False).double()
    model.do_postprocessing = False
    found = model(batch_of(copper(), radius=3.0))["stress"][0].detach().numpy()
    assert np.abs(found).max() > 1e-4
    np.testing.assert_allclose(found, stress_by_differences(model, copper()), atol=1e-6)


def test_in_schnetpacks_own_way(stressed, tmp_path):
    """Modules and outputs by hand, as SchNetPack's documentation has them, without our option."""
    model = potential().double()
    model = NeuralNetworkPotential(
        model.representation,
        [Strain(), PairwiseDistances()],
        [Atomwise(8, output_key="energy"), Forces(calc_stress=True)],
    ).double()
    one = task(model, [*paper_outputs(), stress_output()], rollout_length=3, rollout_outputs=["forces", "stress"])
    trainer(tmp_path, max_epochs=1).fit(one, data_module(stressed, tmp_path))
    assert [output.name for output in one.rollout_outputs] == ["forces", "stress"]
    assert one.target_names() == ["forces", "energy", "stress"]


@pytest.mark.parametrize(("gradient", "steps"), [(None, 1), (None, 3), (Full(), 3), (Truncated(2), 3)])
def test_the_stress_alone_finds_the_potential(gradient, steps, tmp_path):
    """Of a pair potential that is 10 % too shallow, from its stress and nothing else; with the wrong sign it does not."""
    calculator = LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=PAIR_CUTOFF)
    atoms = copper(a=3.9)
    database = write(
        tmp_path / "pairs.db",
        [trajectory(atoms, 8, 1.0, i, 300.0, calculator) for i in range(3)],
        timestep_fs=1.0,
    )
    for sign in (1.0, -1.0):
        model = torch.load(trainable(tmp_path / f"model_{sign}", depth=0.9), weights_only=False)
        outputs = [type(output)(output.name, torch.nn.L1Loss(), 0.0, metrics={}) for output in paper_outputs()]
        one = DynamicTrainingTask(
            model, outputs, steps, gradient, stress=stress_output(sign), rollout_outputs=["stress"],
            optimizer_cls=torch.optim.Adam, optimizer_args={"lr": 5e-3},
        )  # fmt: skip
        transforms = [RemoveOffsets("energy", remove_mean=True), MatScipyNeighborList(PAIR_CUTOFF), CastTo64()]
        trainer(tmp_path, max_epochs=20, limit_val_batches=0).fit(
            one, data_module(database, tmp_path, transforms, val_window=4)
        )
        depth = float(model.representation.depth)
        assert depth == pytest.approx(1.0, abs=0.01) if sign > 0 else depth < 0.85


@pytest.mark.slow
def test_compiled_as_plain(stressed, tmp_path, monkeypatch):
    """The same parameters after a training with rollouts."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        one = task(potential().double(), paper_outputs(), rollout_length=3, compile=compiled, stress=stress_output())
        torch.manual_seed(0)
        trainer(tmp_path, max_epochs=1, limit_train_batches=3, limit_val_batches=1).fit(
            one, data_module(stressed, tmp_path)
        )
        assert not compiled or one._predict.compiled
        found.append([q.detach() for q in one.model.parameters()])
    for plain, other in zip(*found, strict=True):
        torch.testing.assert_close(plain, other, atol=1e-8, rtol=1e-8)


def test_it_counts_at_each_step_of_a_rollout(stressed, tmp_path):
    """The loss of a batch is the sum over the steps, of what is at each step."""
    module = data_module(stressed, tmp_path)
    module.setup()
    batch = next(iter(module.train_dataloader()))
    model = potential().double()
    one = task(model, paper_outputs(), rollout_length=3, stress=stress_output(7.0), first_step_weight=5.0)
    expected = torch.zeros(())
    for visited, weight in zip(one.rollout(batch, 3), (5.0, 1.0, 1.0), strict=True):
        target = batch["stress_window"][:, visited.step]
        assert target.shape == visited.outputs["stress"].shape == (4, 3, 3)
        expected = expected + weight * 7.0 * (visited.outputs["stress"] - target).abs().mean()
    found = torch.zeros(())
    for visited, predicted, targets in one._visit(batch, 3, one.gradient):
        found = found + one._weight(visited.step) * one.rollout_outputs[1].calculate_loss(predicted, targets)
    torch.testing.assert_close(found, expected)
    assert not torch.equal(batch["stress_window"][:, 0], batch["stress_window"][:, 2])


def test_in_the_units_of_the_data(stressed, tmp_path):
    """The stress follows the units of energy and length that are asked for; a stress of another name has to, too."""
    units = {"distance_unit": "Bohr", "property_units": {"energy": "kcal/mol", "forces": "kcal/mol/Bohr"}}
    plain, other = (data_module(stressed, tmp_path, **kwargs) for kwargs in ({}, units))
    for module in (plain, other):
        module.setup()
    factor = 1.0 / KCAL * ase.units.Bohr**3
    found = other.frames.values["stress"]
    np.testing.assert_allclose(found, plain.frames.values["stress"] * factor, rtol=1e-6)
    assert other.frames.units["stress"] == "kcal/mol/Bohr/Bohr/Bohr"
    asked = data_module(stressed, tmp_path, property_units={"energy": "eV", "forces": "eV/Ang", "stress": "GPa"})
    with pytest.raises(ValueError, match=r"is in 'GPa', but .*\+data.property_units.stress=eV/Ang/Ang/Ang"):
        trainer(tmp_path, max_epochs=1).fit(task(potential().double(), paper_outputs(), stress=stress_output()), asked)
    frames = replace(plain.frames, units=plain.frames.units | {"sigma": "GPa"}, values={"sigma": found})
    with pytest.raises(
        ValueError, match=r"'sigma' of .* is in 'GPa', but .*\+data.property_units.sigma=eV/Ang/Ang/Ang"
    ):
        refuse_without_stress(frames, "sigma")
    expected = frames.units | {"sigma": "eV/Ang/Ang/Ang"}
    refuse_without_stress(replace(frames, units=expected), "sigma")


@pytest.mark.slow
def test_a_model_that_is_trained_further(stressed, tmp_path, monkeypatch):
    """One without a stress gets one, one with a stress keeps it, also where it is not trained on."""
    for name in ("plain", "with", "kept"):
        (tmp_path / name).mkdir()
    spktrain(tmp_path / "plain", monkeypatch, "experiment=static_egnn", f"data.datapath={stressed}", *SHORT)
    finetune = ["experiment=dt_finetune", f"data.datapath={stressed}", "trainer.gradient_clip_val=null"]
    finetune += ["may_differ=[loss]"]
    finetune += [word for word in SHORT if not word.startswith(("globals.cutoff", "model."))]
    first, second = tmp_path / "plain" / "best_model", tmp_path / "with" / "best_model"
    spktrain(tmp_path / "with", monkeypatch, *finetune, f"model_file={first}", "task/stress=trained")
    spktrain(tmp_path / "kept", monkeypatch, *finetune, f"model_file={second}")
    models = [torch.load(tmp_path / name / "best_model", weights_only=False) for name in ("plain", "with", "kept")]
    assert [stress_key_of(model) for model in models] == [None, "stress", "stress"]
    assert [sum(isinstance(m, Strain) for m in model.input_modules) for model in models] == [0, 1, 1]
    errors = [row["val_stress_mae"] for row in metrics(tmp_path / "with") if "val_stress_mae" in row]
    assert len(errors) > 0
    assert not any("val_stress_mae" in row for row in metrics(tmp_path / "kept"))


def test_a_stress_of_another_name(stressed, tmp_path):
    """The names are the user's to set."""
    output = instantiate(composed("experiment=dt_egnn", "task/stress=trained", "task.stress.name=sigma").task.stress)
    one = task(potential().double(), paper_outputs(), stress=output)
    trainer(tmp_path, max_epochs=1, limit_train_batches=1).fit(one, data_module(stressed, tmp_path))
    assert "sigma" in one.model(batch_of(copper()))
    with pytest.raises(ValueError, match="the model calls its stress 'sigma', not 'stress'"):
        task(one.model, paper_outputs(), stress=stress_output())


# what cannot be trained on


def test_an_output_that_the_model_does_not_predict():
    with pytest.raises(ValueError, match=r"not \['stress'\], which the task needs; task/stress=trained lets it"):
        task(potential(), [*paper_outputs(), stress_output()])


def changed(path, stressed, change):
    """A copy of the database in which some rows are others."""
    path.write_bytes(stressed.read_bytes())
    with connect(path, use_lock_file=False) as database:
        for row in list(database.select()):
            data = dict(row.data)
            atoms = row.toatoms()
            if change(row.id - 1, atoms, data) is not False:
                database.update(row.id, atoms=atoms, data=data)
    return path


def set_nan(frame, atoms, data):
    if frame not in (3, 20):
        return False
    data["stress"] = np.full((1, 3, 3), np.nan)


def set_zero(frame, atoms, data):
    data["stress"] = np.zeros((1, 3, 3))


def left_handed(frame, atoms, data):
    if frame < 26:
        return False
    atoms.set_cell(atoms.cell.array[[1, 0, 2]])


def not_periodic(frame, atoms, data):
    if frame < 26:
        return False
    atoms.pbc = False


def without_volume(frame, atoms, data):
    if frame < 26:
        return False
    atoms.set_cell(None)
    atoms.pbc = False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_nan, r"2 of 52 frames of .* have a stress 'stress' that is no number; the first is frame 3 .* 'run_0'"),
        (set_zero, r"is zero in all frames of .*: the program did not compute it"),
        (left_handed, r"26 of 52 frames .* left-handed cell.*the first is frame 0 of trajectory 'run_2'"),
        (not_periodic, r"26 of 52 frames .* no periodic cell with a volume.*'run_2'"),
        (without_volume, r"26 of 52 frames .* no periodic cell with a volume.*'run_2'"),
    ],
)
def test_data_with_a_stress_that_makes_no_sense(change, message, stressed, tmp_path):
    module = data_module(changed(tmp_path / "bad.db", stressed, change), tmp_path, check_data=False)
    one = task(potential().double(), paper_outputs(), stress=stress_output())
    with pytest.raises(ValueError, match=f"(?s){message}.*train without the stress"):
        trainer(tmp_path, max_epochs=1).fit(one, module)
    plain = task(potential().double(), paper_outputs())  # the remedy
    trainer(tmp_path, max_epochs=1, limit_train_batches=1).fit(
        plain, data_module(tmp_path / "bad.db", tmp_path, check_data=False)
    )


def test_data_without_a_stress(database, tmp_path, monkeypatch):
    command = ["experiment=dt_egnn", f"data.datapath={database}", *SHORT, "task/stress=trained"]
    with pytest.raises(ValueError, match=r"'.*cluster.db' has no 'stress' \(it has .*spkdt convert says.*task/stress"):
        spktrain(tmp_path, monkeypatch, *command)
    assert p.stress not in connect(database).metadata["_property_unit_dict"]
