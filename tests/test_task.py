"""The task: S = 1 is SchNetPack's, S > 1 adds up what it should, validation does not depend on the stage."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from helpers.models import CUTOFF, painn, potential, tiny_egnn
from helpers.training import (
    Alone,
    S,
    data_module,
    first_batch,
    loss_and_gradient,
    new_model,
    paper_outputs,
    task,
    trainer,
)
from schnetpack import AtomisticTask
from schnetpack import properties as p
from schnetpack.task import ModelOutput
from schnetpack.transform import CastTo64, FilterNeighbors, MatScipyNeighborList, RemoveOffsets
from torchmetrics.regression import MeanAbsoluteError

from spk_dt import properties
from spk_dt.dynamics import Detached, Full, Truncated, VerletList, rollout
from spk_dt.dynamics.model_forces import ModelForces
from spk_dt.evaluation.training_curve import read_training_curve
from spk_dt.training import DynamicTrainingTask, ElementwiseOutput, PerAtomOutput
from spk_dt.training.accumulate import PartwiseLoss


def plain_outputs():
    return [
        ModelOutput("energy", torch.nn.MSELoss(), 0.01, metrics={"mae": MeanAbsoluteError()}),
        ModelOutput("forces", torch.nn.MSELoss(), 0.99, metrics={"mae": MeanAbsoluteError()}),
    ]


@pytest.fixture
def model():
    return new_model()


@pytest.fixture
def batch(database, tmp_path):
    return first_batch(database, tmp_path)


# S = 1


def test_one_step_is_the_plain_task(model, batch):
    expected = loss_and_gradient(task(copy.deepcopy(model), plain_outputs(), AtomisticTask), batch)
    for value, reference in zip(loss_and_gradient(task(model, plain_outputs()), batch), expected, strict=True):
        torch.testing.assert_close(value, reference)


def test_training_with_one_step_is_plain_training(database, tmp_path):
    """Two epochs through Lightning, with clipping: equal weights."""
    weights = []
    for cls in (AtomisticTask, DynamicTrainingTask):
        pl.seed_everything(1)
        module = data_module(database, tmp_path)
        trained = task(potential().double(), plain_outputs(), cls)
        trainer(tmp_path, gradient_clip_val=1.0, limit_val_batches=0).fit(trained, module)
        weights.append(torch.cat([q.detach().flatten() for q in trained.model.parameters()]))
    torch.testing.assert_close(weights[0], weights[1])
    pl.seed_everything(1)
    start = torch.cat([q.detach().flatten() for q in potential().double().parameters()])
    assert (weights[0] - start).abs().max() > 1e-3


def test_stock_data_module_serves_one_step(database, tmp_path):
    from schnetpack.data import AtomsDataModule

    module = AtomsDataModule(
        str(database), 4, num_train=40, num_val=20, num_test=5, split_file=None, num_workers=0,
        transforms=[RemoveOffsets("energy", remove_mean=True), MatScipyNeighborList(CUTOFF), CastTo64()],
    )  # fmt: skip
    trained = task(potential().double(), paper_outputs())
    run = trainer(tmp_path, max_epochs=1)
    run.fit(trained, module)
    assert torch.isfinite(run.callback_metrics["val_loss"])
    trained.rollout_length = 2
    with pytest.raises(ValueError, match="windows of as many frames"):
        trainer(tmp_path, max_epochs=1).fit(trained, module)


# the losses of the paper


def test_losses_by_hand():
    numbers = torch.tensor([1, 6, 6, 1, 46])
    predicted, expected = torch.zeros(5, 3), torch.zeros(5, 3)
    expected[0] = 3.0  # H: mean of 3 and 0
    expected[1, 0] = 6.0  # C: one component of six
    expected[4] = 0.5
    output = ElementwiseOutput("forces", torch.nn.L1Loss(), loss_weight=2.0, metrics={})
    loss = output.calculate_loss({"forces": predicted}, {"forces": expected, p.Z: numbers})
    assert loss.item() == pytest.approx(2.0 * (1.5 + 1.0 + 0.5))
    considered = torch.tensor([True, False, True, True, True])
    target = {"forces": expected[considered], p.Z: numbers, "considered_atoms": considered}
    assert output.calculate_loss({"forces": predicted[considered]}, target).item() == pytest.approx(2.0 * 2.0)

    output = PerAtomOutput("energy", torch.nn.L1Loss(), metrics={})
    loss = output.calculate_loss(
        {"energy": torch.tensor([2.0, 0.0])}, {"energy": torch.zeros(2), p.n_atoms: torch.tensor([4, 2])}
    )
    assert loss.item() == pytest.approx(0.25)
    with pytest.raises(ValueError, match="PerAtomOutput 'energy' needs '_n_atoms'"):
        output.calculate_loss({"energy": torch.zeros(1)}, {"energy": torch.zeros(1)})


# S > 1


def by_hand(model, batch, n_steps, gradient, first_weight=50.0):
    """The loss of the paper from the pieces, in one graph."""
    inputs = {key: batch[key] for key in (p.Z, p.cell, p.pbc, p.n_atoms, p.idx_m, p.R)}
    force_fn = ModelForces(model.train(), inputs, VerletList(CUTOFF, 1.0))
    time_step = batch[properties.time_step][batch[p.idx_m]]
    args = (batch[p.R], batch[properties.velocities], batch[p.masses], time_step, n_steps, gradient)
    total = 0.0
    for step, state, _ in rollout(force_fn, *args):
        error = (state.forces - batch["forces_window"][:, step]).abs()
        by_element = sum(error[batch[p.Z] == z].mean() for z in batch[p.Z].unique())
        total = total + (first_weight if step == 0 else 1.0) * by_element
    return total


@pytest.mark.parametrize("gradient", [Detached(), Truncated(2), Full(), Full(recompute=False)], ids=str)
def test_rollout_loss_and_gradient(model, batch, gradient):
    """Backpropagated part by part, the gradient is that of the whole sum."""
    trained = task(model, paper_outputs(), rollout_length=S, gradient=gradient)
    loss, found = loss_and_gradient(trained, batch)
    expected = by_hand(model, batch, S, type(gradient)(2, False) if isinstance(gradient, Truncated) else gradient)
    torch.testing.assert_close(loss, expected.detach())
    reference = torch.autograd.grad(expected, list(model.parameters()), allow_unused=True)
    torch.testing.assert_close(found, torch.cat([g.flatten() for g in reference if g is not None]))


def test_weights_of_steps_and_outputs(model, batch):
    def loss(**kwargs):
        return loss_and_gradient(task(model, paper_outputs(), rollout_length=S, **kwargs), batch)[0]

    only_first = loss(first_step_weight=1.0, step_weight=0.0)
    later = loss(first_step_weight=0.0, step_weight=1.0)
    torch.testing.assert_close(loss(), 50.0 * only_first + later)
    with_energy = loss(rollout_outputs=["forces", "energy"], first_step_weight=1.0, step_weight=0.0)
    energy = loss(rollout_outputs=["energy"], first_step_weight=1.0, step_weight=0.0)
    assert energy > 0.0
    torch.testing.assert_close(with_energy, only_first + energy)


def test_weights_that_rise_or_fall(model, batch):
    def later(n_steps, ratio):
        weights = {"first_step_weight": 0.0, "step_weight": 2.0, "step_weight_ratio": ratio}
        return loss_and_gradient(task(model, paper_outputs(), rollout_length=n_steps, **weights), batch)[0]

    up_to = [later(n, 1.0) for n in (2, 3, 4)]
    steps = [up_to[0], up_to[1] - up_to[0], up_to[2] - up_to[1]]
    for ratio in (0.5, 3.0):
        expected = sum(ratio**k * step for k, step in enumerate(steps))
        torch.testing.assert_close(later(4, ratio), expected)


def test_a_rollout_longer_than_the_windows_is_refused(model, database, tmp_path):
    with pytest.raises(ValueError, match=r"S = 5 steps needs windows of as many frames, but data\.train_window=4"):
        trainer(tmp_path).fit(task(model, paper_outputs(), rollout_length=5), data_module(database, tmp_path))


def test_other_representations(batch):
    torch.manual_seed(0)
    model = potential(painn()).double()
    loss, gradient = loss_and_gradient(task(model, paper_outputs(), rollout_length=S, gradient=Full()), batch)
    assert torch.isfinite(loss)
    assert gradient.abs().max() > 0.0


def test_batch_is_not_modified(model, batch):
    before = {key: value.clone() for key, value in batch.items()}
    trained = task(model, paper_outputs(), rollout_length=S)
    Alone(trained)
    trained.training_step(batch, 0)
    trained.eval()
    trained.validation_step(batch, 0)
    assert before.keys() == batch.keys()
    for key, value in before.items():
        torch.testing.assert_close(batch[key], value, rtol=0, atol=0)


def test_targets_are_not_shown_to_the_model(model, batch):
    trained = task(model, paper_outputs())
    more = {key: torch.zeros(1) for key in ("stress", "stress_window", "total_charge", "of_somebody")}
    seen = trained._model_inputs(batch | more)
    assert not {"energy", "forces", "energy_window", "forces_window", properties.velocities} & seen.keys()
    assert not {"stress", "stress_window"} & seen.keys()  # of the reference method, though not trained on
    assert {p.Z, p.cell, p.pbc, p.idx_m, p.n_atoms, "total_charge", "of_somebody"} <= seen.keys()


# validation


def test_validation_is_a_free_rollout_whatever_the_stage(database, tmp_path):
    pl.seed_everything(0)
    model, module = potential().double(), data_module(database, tmp_path, max_val_windows=3, val_window=12)
    values = []
    for rollout_length in (1, S):
        trained = task(model, paper_outputs(), rollout_length=rollout_length)
        run = trainer(tmp_path)
        run.validate(trained, module, verbose=False)
        values.append({key: float(value) for key, value in run.callback_metrics.items()})
    assert values[0] == values[1]
    batch = next(iter(module.val_dataloader()))
    expected = by_hand(model, batch, 12, Detached(), first_weight=1.0) / 12
    assert values[0]["val_loss"] == pytest.approx(expected.item(), rel=1e-5)  # logged with 32 bits
    assert values[0]["val_exploded"] == 0.0
    static = by_hand(model, batch, 1, Detached(), first_weight=1.0).item()
    assert values[0]["val_forces_mae_step_0"] == pytest.approx(static, rel=1e-5)
    by_element = sum(values[0][f"val_forces_mae_{symbol}"] for symbol in ("H", "Pd"))
    assert by_element == pytest.approx(values[0]["val_loss"], rel=1e-5)
    assert {f"val_forces_mae_step_{k}" for k in (0, 2, 4, 6, 7, 9, 11)} <= values[0].keys()


def test_explosion_gives_a_large_finite_error(database, tmp_path):
    pl.seed_everything(0)
    model = potential().double()
    for parameter in model.output_modules[0].parameters():
        parameter.data *= 1e4
    run = trainer(tmp_path)
    run.validate(task(model, paper_outputs()), data_module(database, tmp_path), verbose=False)
    assert run.callback_metrics["val_exploded"] == 1.0
    assert 10.0 < run.callback_metrics["val_loss"] < float("inf")


# refusals


def test_refusals(model, database, tmp_path):
    with pytest.raises(ValueError, match=r"rollout_outputs=\['stress'\]"):
        task(model, paper_outputs(), rollout_outputs=["stress"])
    with pytest.raises(ValueError, match="rollout_length=0"):
        task(model, paper_outputs(), rollout_length=0)
    with pytest.raises(ValueError, match=r"not \['F'\]"):
        task(model, paper_outputs(), force_key="F", rollout_outputs=["forces"])
    with pytest.raises(TypeError, match="rolout"):
        task(model, paper_outputs(), rolout=3)
    short = data_module(database, tmp_path, transforms=[MatScipyNeighborList(3.0), CastTo64()])
    with pytest.raises(ValueError, match="reaches 3, but the cutoff of the model is 4"):
        trainer(tmp_path).fit(task(model, paper_outputs()), short)
    filtered = [MatScipyNeighborList(4.0), FilterNeighbors("selected"), CastTo64()]
    with pytest.raises(ValueError, match="FilterNeighbors"):
        trainer(tmp_path).fit(task(model, paper_outputs()), data_module(database, tmp_path, transforms=filtered))


def test_loss_that_is_not_finite(model, batch):
    next(model.parameters()).data[:] = float("nan")
    with pytest.raises(ValueError, match="training loss is nan in epoch 0 with S = 1"):
        loss_and_gradient(task(model, paper_outputs()), batch)


def test_without_neighbours_in_the_batch(model, database, tmp_path):
    """The rollout finds its own pairs; the loss is the same."""
    losses = []
    for transforms in ([MatScipyNeighborList(CUTOFF + 1.0), CastTo64()], [CastTo64()]):
        run = trainer(tmp_path)
        run.validate(task(model, paper_outputs()), data_module(database, tmp_path, transforms), verbose=False)
        losses.append(run.callback_metrics["val_loss"])
    torch.testing.assert_close(*losses)


# parts


def test_partwise_loss():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    unused = torch.tensor(1.0, requires_grad=True)
    total = PartwiseLoss([x, unused])
    total.add((x**2).sum())
    total.add((3 * x).sum())
    loss = total.total((x**3).sum())
    (2.0 * loss).backward()  # as with a scaled or accumulated loss
    assert loss.item() == pytest.approx(5.0 + 9.0 + 9.0)
    torch.testing.assert_close(x.grad, 2.0 * (2 * x + 3 + 3 * x**2).detach())
    assert unused.grad is None
    torch.testing.assert_close(PartwiseLoss([x]).total(x.sum()), x.sum())


def test_all_parameters_take_part_in_distributed_training():
    x, unused = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor(1.0, requires_grad=True)
    for parts in (0, 1):
        total = PartwiseLoss([x, unused], all_take_part=True)
        for _ in range(parts):
            total.add(x.sum())
        x.grad = unused.grad = None
        loss = total.total((x**2).sum())
        loss.backward()
        assert loss.item() == 5.0 + 3.0 * parts
        torch.testing.assert_close(x.grad, (2 * x + parts).detach())
        assert unused.grad == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["detached", "full"])
def test_two_processes(gradient, embedded, tmp_path):
    """Distributed training on two CPU processes goes through the stages."""
    command = [
        str(Path(sys.executable).with_name("spktrain")), "experiment=dt_egnn", "trainer=ddp_trainer",
        f"task/gradient={gradient}", "trainer.accelerator=cpu", f"data.datapath={embedded}",
        "trainer.limit_train_batches=4", "data.max_val_windows=4", "~callbacks.on_policy",
        "data.val_window=6", "data.max_test_windows=2", "run.id=two", "trainer.max_epochs=3", "data.batch_size=4",
        "callbacks.curriculum.rule._target_=spk_dt.training.Elapsed", "+callbacks.curriculum.rule.epochs=1",
    ]  # fmt: skip
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
    assert read_training_curve(tmp_path / "runs" / "two").length.tolist() == [1, 2, 3]


def test_cutoff_of_the_representation_is_used():
    assert task(potential(tiny_egnn(cutoff=3.0)), paper_outputs()).cutoff == pytest.approx(3.0)
