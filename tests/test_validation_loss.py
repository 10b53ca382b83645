"""The validation loss is that of all systems together, however they are put into batches, and who acts on it sees it."""

import csv
import math

import pytest
import pytorch_lightning as pl
import torch
from helpers.pair_potential import pair_trajectory, tetrahedron
from helpers.short_training import short_data, short_task, short_trainer
from helpers.training import paper_outputs
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from schnetpack import properties as p
from schnetpack.task import ModelOutput
from schnetpack.train import ReduceLROnPlateau
from torch.nn import HuberLoss, L1Loss, MSELoss, SmoothL1Loss

from spk_dt.data import TrajectoryWriter
from spk_dt.training import Curriculum, Elapsed, ElementwiseOutput, PerAtomOutput
from spk_dt.training.losses import loss_by_class
from spk_dt.training.metrics import RolloutLoss, StepwiseElementMAE

WINDOW = 6
#: composition of the trajectories that are validated on; each has 2 windows
COMPOSITIONS = ("Pd2H2", "Pd4", "PdH3", "Pd8", "Cu2HPd")


def frames(symbols, seed):
    atoms = tetrahedron("Pd4" if symbols == "Pd8" else symbols)
    if symbols == "Pd8":
        other = atoms.copy()
        other.positions += 3.2
        atoms += other
    return pair_trajectory(atoms, WINDOW, 0.5, seed)


def write(path, compositions=COMPOSITIONS):
    """A database whose validation and test are the same."""
    splits = {"train": ["train"], **{name: [f"{name}_{c}" for c in compositions] for name in ("val", "test")}}
    with TrajectoryWriter(path, splits=splits) as writer:
        writer.add("train", frames("Pd2H2", 9), 0.5)
        for name in ("val", "test"):
            for symbols in compositions:
                writer.add(f"{name}_{symbols}", frames(symbols, COMPOSITIONS.index(symbols)), 0.5)
    return path


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    return write(tmp_path_factory.mktemp("mixed") / "mixed.db")


def plain_outputs(loss_fn, energy_loss_fn):
    return [ModelOutput("energy", energy_loss_fn, 0.3, metrics={}), ModelOutput("forces", loss_fn, 0.7, metrics={})]


OUTPUTS = {
    "paper": paper_outputs,
    "elementwise": lambda: [
        ElementwiseOutput("forces", HuberLoss(delta=0.1), 2.0, metrics={}),
        PerAtomOutput("energy", MSELoss(), 0.5, metrics={}),
    ],
    "plain": lambda: plain_outputs(MSELoss(), L1Loss()),
    "other": lambda: plain_outputs(SmoothL1Loss(beta=0.1), HuberLoss(delta=0.1)),
}


def validated(database, folder, outputs="paper", scale=1.0, batch_size=4, **kwargs):
    """What is logged of a validation."""
    task = short_task(OUTPUTS[outputs](), rollout_outputs=["forces", "energy"], **kwargs)
    for parameter in task.model.output_modules[0].parameters():
        parameter.data *= scale
    run = short_trainer(folder)
    run.validate(task, short_data(database, val_batch_size=batch_size, train_window=1), verbose=False)
    return {key: float(value) for key, value in run.callback_metrics.items()}


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_does_not_depend_on_batches(mixed, tmp_path, outputs):
    found = [validated(mixed, tmp_path, outputs, batch_size=size)["val_loss"] for size in (1, 2, 4, 10)]
    assert found[0] > 0.01
    assert found == pytest.approx([found[0]] * 4, rel=1e-6)


def test_does_not_depend_on_order(mixed, tmp_path):
    turned = write(tmp_path / "turned.db", COMPOSITIONS[::-1])
    found, other = (validated(database, tmp_path, batch_size=3) for database in (mixed, turned))
    assert found == pytest.approx(other, rel=1e-6)


def test_of_exploded_systems(mixed, tmp_path):
    """Some of the systems, so that batches hold both kinds."""
    found = [validated(mixed, tmp_path, scale=10.0, batch_size=size, max_displacement=0.02) for size in (1, 2, 4, 10)]
    assert 0.0 < found[0]["val_exploded"] < 1.0
    assert all(one == pytest.approx(found[0], rel=1e-5) for one in found)


def test_by_hand(mixed, tmp_path):
    """Each system run alone: means per element and step, summed over elements, averaged over steps."""
    task, module = short_task(), short_data(mixed, val_batch_size=1, train_window=1)
    module.setup()
    errors = [{} for _ in range(WINDOW)]
    with torch.no_grad():
        for batch in module.val_dataloader():
            for visited in task.eval().rollout(batch, WINDOW):
                wrong = (visited.state.forces - batch["forces_window"][:, visited.step]).abs().mean(dim=1)
                for z, error in zip(batch[p.Z].tolist(), wrong.tolist(), strict=True):
                    errors[visited.step].setdefault(z, []).append(error)
    assert {z: len(of_z) for z, of_z in errors[0].items()} == {46: 32, 1: 12, 29: 4}
    by_step = [sum(sum(of_z) / len(of_z) for of_z in step.values()) for step in errors]
    run = short_trainer(tmp_path)
    run.validate(task, short_data(mixed, val_batch_size=4, train_window=1), verbose=False)
    assert float(run.callback_metrics["val_loss"]) == pytest.approx(sum(by_step) / WINDOW, rel=1e-6)
    assert float(run.callback_metrics["val_forces_mae_step_0"]) == pytest.approx(by_step[0], rel=1e-6)
    run.test(task, short_data(mixed, test_batch_size=3, train_window=1), verbose=False)
    assert float(run.callback_metrics["test_loss"]) == pytest.approx(sum(by_step) / WINDOW, rel=1e-6)


def test_of_one_composition_is_the_mean_over_batches(database, tmp_path):
    """As it was when batches were averaged; the number was found then, by these lines."""
    task, module = short_task(), short_data(database, val_batch_size=7)
    run = short_trainer(tmp_path)
    run.validate(task, module, verbose=False)
    found = float(run.callback_metrics["val_loss"])
    total, n_systems = 0.0, 0
    for batch in module.val_dataloader():
        task.log = lambda *args, **kwargs: None
        total += len(batch[p.idx]) * float(task.eval().validation_step(batch, 0)["val_loss"])
        n_systems += len(batch[p.idx])
    assert n_systems == 20
    assert found == pytest.approx(total / n_systems, rel=1e-6)
    assert found == pytest.approx(1.7388915653759802, rel=1e-6)


# parts


def by_hand(steps):
    """Loss of batches of two steps at most, which are given as pairs of forces and atomic numbers."""
    loss, output = RolloutLoss(1), ElementwiseOutput("forces", L1Loss(), 2.0, metrics={})
    for step, errors, numbers in steps:
        expected = torch.tensor(errors)[:, None].expand(-1, 3)
        target = {"forces": expected, p.Z: torch.tensor(numbers)}
        loss.update([loss_by_class(output, {"forces": torch.zeros_like(expected)}, target)], step)
    return float(loss.compute())


def test_sums_by_hand():
    one = by_hand([(0, [3.0, 1.0, 1.0], [1, 46, 46]), (0, [2.0, 4.0], [46, 29])])
    assert one == pytest.approx(2.0 * (3.0 + (1.0 + 1.0 + 2.0) / 3 + 4.0))
    # windows of two steps and of one: each step is a mean over those that reach it
    two = by_hand([(0, [3.0, 1.0], [1, 46]), (1, [5.0, 7.0], [1, 46]), (0, [2.0], [1])])
    assert two == pytest.approx(2.0 * ((2.5 + 1.0) + (5.0 + 7.0)) / 2)
    assert two == pytest.approx(by_hand([(0, [2.0], [1]), (1, [7.0, 5.0], [46, 1]), (0, [1.0, 3.0], [46, 1])]))


def test_atoms_that_are_not_considered_do_not_count():
    output = ElementwiseOutput("forces", L1Loss(), metrics={})
    considered = torch.tensor([True, False, True])
    target = {"forces": torch.ones(2, 3), p.Z: torch.tensor([1, 1, 46]), "considered_atoms": considered}
    classes, losses, counts = loss_by_class(output, {"forces": torch.zeros(2, 3)}, target)
    assert (classes.tolist(), losses.tolist(), counts.tolist()) == ([1, 46], [1.0, 1.0], [3, 3])


@pytest.mark.parametrize("output", [ElementwiseOutput, PerAtomOutput, ModelOutput])
@pytest.mark.parametrize("loss", [{"loss_weight": 0.0, "loss_fn": L1Loss()}, {"loss_fn": None}], ids=["weight", "loss"])
def test_outputs_without_a_loss_add_none(output, loss):
    target = {"x": torch.ones(2), p.Z: torch.tensor([1, 46]), p.n_atoms: torch.tensor([1, 1])}
    metric = RolloutLoss(1)
    metric.update([loss_by_class(output("x", metrics={}, **loss), {"x": torch.zeros(2)}, target)], 0)
    assert metric.compute() == 0.0


def test_errors_that_are_not_finite_are_not_left_out(mixed, tmp_path):
    found = validated(mixed, tmp_path, scale=math.nan)
    assert math.isnan(found["val_loss"])
    assert found["val_forces_mae_step_0"] == found["val_forces_mae_H"] == math.inf
    metric = StepwiseElementMAE()
    metric.update(torch.tensor([[1.0, 1.0, 1.0], [math.nan] * 3]), torch.zeros(2, 3), torch.tensor([1, 46]), 1)
    assert metric.summary()["step_1"] == math.inf
    assert math.isnan(metric.compute()[0, 1])


# epochs


def test_nothing_is_left_of_other_epochs(mixed, tmp_path):
    """Of the sanity check, of the epoch before, of a validation that was interrupted."""
    expected = validated(mixed, tmp_path, batch_size=3)["val_loss"]
    values = []

    class Values(pl.Callback):
        def on_validation_end(self, trainer, pl_module):
            values.append((trainer.sanity_checking, float(trainer.callback_metrics.get("val_loss", math.nan))))

    task = short_task(rollout_outputs=["forces", "energy"], lr=0.0)
    module = short_data(mixed, val_batch_size=3, train_window=1)
    for sanity_steps in (1, 0):
        run = short_trainer(tmp_path, callbacks=[Values()], num_sanity_val_steps=sanity_steps, max_epochs=2)
        run.fit(task, module)
        task.log = lambda *args, **kwargs: None  # a step that no epoch follows
        task.validation_step(next(iter(module.val_dataloader())), 0)
        del task.log
    assert [sanity for sanity, _ in values] == [True] + [False] * 4
    assert values[0][1] != pytest.approx(expected, rel=1e-3)  # of one batch
    assert [value for _, value in values[1:]] == pytest.approx([expected] * 4, rel=1e-6)


def test_all_who_act_on_it_see_the_same(mixed, tmp_path):
    seen = {"end": [], "epoch_end": [], "curriculum": [], "plateau": []}

    class Seen(pl.Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            seen["epoch_end"].append(float(trainer.callback_metrics["val_loss"]))

        def on_validation_end(self, trainer, pl_module):
            seen["end"].append(float(trainer.callback_metrics["val_loss"]))
            seen["curriculum"].append(curriculum._validation["val_loss"])

        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch > 0:
                seen["plateau"].append(trainer.lr_scheduler_configs[0].scheduler.best)

    curriculum = Curriculum(1, Elapsed(9))
    early, checkpoint = (
        EarlyStopping("val_loss", patience=9),
        ModelCheckpoint(tmp_path / "best", monitor="val_loss", save_top_k=-1),
    )
    task = short_task(
        scheduler_cls=ReduceLROnPlateau, scheduler_args={"patience": 9}, scheduler_monitor="val_loss", lr=1e-2
    )
    run = short_trainer(
        tmp_path, max_epochs=4, callbacks=[curriculum, early, checkpoint, Seen()], enable_checkpointing=True,
        logger=CSVLogger(tmp_path, "csv", ""),
    )  # fmt: skip
    run.fit(task, short_data(mixed, val_batch_size=3, train_window=1))
    values = seen["end"]
    assert len(set(values)) == len(values) == 4
    assert values == seen["epoch_end"] == seen["curriculum"]
    assert seen["plateau"] == [min(values[: n + 1]) for n in range(3)]
    assert float(early.best_score) == float(checkpoint.best_model_score) == min(values)
    assert sorted(map(float, checkpoint.best_k_models.values())) == sorted(values)
    with (tmp_path / "csv" / "metrics.csv").open() as file:
        logged = [float(row["val_loss"]) for row in csv.DictReader(file) if row["val_loss"]]
    assert logged == pytest.approx(values, rel=1e-6)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_two_processes(mixed, tmp_path):
    """Each has windows of its own; both together have the loss of one that has all."""
    expected = validated(mixed, tmp_path, batch_size=10)
    task = short_task(rollout_outputs=["forces", "energy"])
    run = short_trainer(tmp_path, strategy="ddp_fork", devices=2)
    run.validate(task, short_data(mixed, val_batch_size=2, train_window=1), verbose=False)
    found = {key: float(value) for key, value in run.callback_metrics.items()}
    assert found["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-6)
    assert found == pytest.approx(expected, rel=1e-6)
