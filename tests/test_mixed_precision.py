"""In mixed precision all parts of the loss are scaled alike, and precisions that cannot be right are refused."""

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from helpers.models import CUTOFF, batch_of, crystal, molecule, positions_to_forces, potential
from helpers.short_training import short_data, short_task, short_trainer
from helpers.training import paper_outputs
from pytorch_lightning.plugins.precision import MixedPrecision
from schnetpack import properties as p

from spk_dt import properties
from spk_dt.dynamics import Detached, Full, Truncated
from spk_dt.training.accumulate import PartwiseLoss

S = 4
SCALE = 65536.0
MODES = [Detached(), Truncated(2), Full(), Full(recompute=False)]
#: brings gradients of activations to where float16 has no numbers any more
SMALL = 1e-5


@pytest.fixture
def batch():
    """Windows of three systems, with random forces."""
    batch = batch_of(molecule(0), molecule(1), crystal(2), dtype=torch.float32)
    random = torch.Generator().manual_seed(0)
    batch[properties.inner_steps] = torch.ones(3, dtype=torch.long)
    batch["forces_window"] = 0.01 * torch.randn(len(batch[p.Z]), S, 3, generator=random)
    batch["energy_window"] = torch.randn(3, S, generator=random)
    return batch


def one_task(gradient, model=None, scaler=None, loss_weight=SMALL, **kwargs):
    """A task that can make training steps without a trainer."""
    if model is None:
        torch.manual_seed(0)
        model = potential()
    defaults = {"rollout_length": S, "first_step_weight": 1.0}
    task = short_task(paper_outputs(loss_weight), model, gradient=gradient, **(defaults | kwargs))
    task.log = task.log_dict = lambda *args, **kwargs: None
    task._batch_radius, task._scaler, task._trainer = CUTOFF, scaler, SimpleNamespace(world_size=1, current_epoch=0)
    return task.train()


def scaled_gradient(task, batch, scaler, dtype=torch.float16):
    """The gradient as Lightning finds it, divided by the scale."""
    with torch.autocast("cpu", dtype=dtype, cache_enabled=False):
        loss = task.training_step({key: value.clone() for key, value in batch.items()}, 0)
    task.backward(scaler.scale(loss))
    return torch.cat([q.grad.flatten() for q in task.parameters() if q.grad is not None]) / scaler.get_scale()


def exact_gradient(gradient, batch, **kwargs):
    torch.manual_seed(0)
    task = one_task(gradient, potential().double(), **kwargs)
    double = {key: value.double() if value.is_floating_point() else value.clone() for key, value in batch.items()}
    task.backward(task.training_step(double, 0))
    return torch.cat([q.grad.flatten() for q in task.parameters() if q.grad is not None])


def distance(found, expected):
    return float((found - expected).norm() / expected.norm())


def scaler(scale=SCALE, **kwargs):
    return torch.amp.GradScaler("cpu", init_scale=scale, **kwargs)


@pytest.mark.parametrize("gradient", MODES, ids=str)
def test_gradient_in_half_precision(gradient, batch):
    """As near to that in double precision as numbers of ten bits are; if the early parts are not scaled, it is not."""
    expected = exact_gradient(gradient, batch)
    scale = scaler()
    assert distance(scaled_gradient(one_task(gradient, scaler=scale), batch, scale), expected) < 4e-3
    unscaled = distance(scaled_gradient(one_task(gradient), batch, scale), expected)
    assert (
        unscaled < 4e-3 if isinstance(gradient, Full) else unscaled > 0.1
    )  # `Full` has one part, which Lightning scales


@pytest.mark.parametrize("gradient", MODES, ids=str)
def test_gradient_in_bfloat16_needs_no_scale(gradient, batch):
    found = scaled_gradient(one_task(gradient), batch, scaler(enabled=False), torch.bfloat16)
    assert 1e-4 < distance(found, exact_gradient(gradient, batch)) < 0.05


def test_parts_are_as_one_graph(batch, monkeypatch):
    """Backpropagated within autocast or after it, recomputed or not, the gradient of each part is the same."""
    scale = scaler()
    found = [scaled_gradient(one_task(mode, scaler=scale), batch, scale) for mode in (Detached(), Truncated(2))]
    kept = scaled_gradient(one_task(Truncated(2, recompute=False), scaler=scale), batch, scale)
    torch.testing.assert_close(found[1], kept, rtol=0, atol=0)
    assert distance(*found) > 1e-5

    class OneGraph:
        def __init__(self, *args):
            self.parts = []
            self.add = self.parts.append

        def total(self, last):
            return sum(self.parts) + last

    monkeypatch.setattr("spk_dt.training.task.PartwiseLoss", OneGraph)
    for mode, gradient in zip((Detached(), Truncated(2)), found, strict=True):
        whole = scaled_gradient(one_task(mode, scaler=scale), batch, scale)
        assert distance(gradient, whole) < 1e-6


def test_an_update_whose_early_part_overflows_is_left_out(batch):
    """The last part alone would not overflow."""
    scale = scaler()
    task = one_task(Detached(), scaler=scale, loss_weight=1e-3, first_step_weight=1e6)
    before = [q.detach().clone() for q in task.parameters()]
    optimizer = torch.optim.SGD(task.parameters(), lr=1.0)
    assert not torch.isfinite(scaled_gradient(task, batch, scale)).all()
    scale.step(optimizer)
    scale.update()
    for parameter, value in zip(task.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=0, atol=0)
    assert scale.get_scale() == SCALE / 2

    task = one_task(Detached(), scaler=scale, loss_weight=1e-3)
    assert torch.isfinite(scaled_gradient(task, batch, scale)).all()


def test_pairs_do_not_depend_on_autocast(batch):
    """Offsets of periodic images are a product with the cell, which autocast would round to ten bits."""
    forces = positions_to_forces(potential(), batch)
    exact = forces.neighbors.pairs({**forces.inputs, p.R: batch[p.R]})
    assert exact[p.offsets].abs().max() > 4.0
    anew = positions_to_forces(potential(), batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = anew.neighbors.pairs({**anew.inputs, p.R: batch[p.R]})
    torch.testing.assert_close(found[p.offsets], exact[p.offsets], rtol=0, atol=0)


# parts


def test_partwise_loss_with_a_scale():
    """The early parts are backpropagated scaled; in the end all gradients have the scale of the caller, once."""
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    seen = []
    scale = scaler(1024.0)
    total = PartwiseLoss([x], scaler=scale)
    for power in (1, 2):
        part = x**power
        part.register_hook(seen.append)
        total.add(part.sum())
    loss = total.total((x**3).sum())
    scale.scale(loss / 2).backward()  # as with two accumulated batches
    assert loss.item() == 3.0 + 5.0 + 9.0
    torch.testing.assert_close(torch.stack(seen), torch.full((2, 2), 1024.0))
    torch.testing.assert_close(x.grad, (512.0 * (1 + 2 * x + 3 * x**2)).detach())


def test_partwise_gradients_are_found_without_autocast():
    """As Lightning finds those of the last part: a product that was made with 32 bits is differentiated with 32 bits."""
    a, b = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(0))
    exact = torch.autograd.grad((a.requires_grad_() @ b).pow(2).sum(), a)[0]
    total = PartwiseLoss([a])
    product = (a @ b).pow(2).sum()
    with torch.autocast("cpu", dtype=torch.float16):
        total.add(product)
        loss = total.total(torch.zeros(()))
    loss.backward()
    torch.testing.assert_close(a.grad, exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sign", [1.0, 0.0])
def test_partwise_gradients_that_overflow_stay_so(sign):
    """Infinite, or NaN where infinities cancel or meet zero, but never a number."""
    x = torch.ones(3, requires_grad=True)
    total = PartwiseLoss([x], scaler=scaler())
    for factor in (1.0, -sign):
        total.add((factor * (x * 3e4).half()).sum(dtype=torch.float32))  # 65536 is more than a half can hold
    scaler().scale(total.total(x.sum())).backward()
    assert not torch.isfinite(x.grad).any()


# through Lightning


class Gradients(pl.Callback):
    """Unscaled gradients before they are clipped."""

    def __init__(self):
        self.found = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.found.append(torch.cat([q.grad.flatten() for q in pl_module.parameters() if q.grad is not None]))


def trained(database, folder, gradient, loss_weight=SMALL, **kwargs):
    """Gradients and changes of the weights in one epoch of plain gradient descent, in steps of two batches, clipped."""
    torch.manual_seed(0)
    task = short_task(
        paper_outputs(loss_weight), potential(), lr=1e3, optimizer_cls=torch.optim.SGD, rollout_length=S,
        gradient=gradient, first_step_weight=1.0,
    )  # fmt: skip
    before = torch.cat([q.detach().clone().flatten() for q in task.parameters()])
    gradients = Gradients()
    run = short_trainer(
        folder, callbacks=[gradients], limit_train_batches=4, limit_val_batches=1, accumulate_grad_batches=2,
        gradient_clip_val=1e-6, **kwargs,
    )  # fmt: skip
    pl.seed_everything(0, verbose=False)
    run.fit(task, short_data(database, single_precision=True))
    after = torch.cat([q.detach().flatten() for q in task.parameters()])
    return torch.stack(gradients.found), after - before


@pytest.mark.parametrize("gradient", MODES[:3], ids=str)
def test_training_with_a_scaler(gradient, database, tmp_path):
    """Accumulated over batches and clipped, gradients and updates are those of a training in single precision."""
    exact, moved = trained(database, tmp_path, gradient, precision="32")
    plugin = MixedPrecision("16-mixed", "cpu", scaler())
    found, moved_mixed = trained(database, tmp_path, gradient, plugins=[plugin])
    assert exact.shape[0] == found.shape[0] == 2
    assert exact.norm(dim=1).min() > 2e-6  # will be clipped
    assert distance(found, exact) < 0.01
    assert moved.norm() == pytest.approx(2e-3, rel=0.1)
    assert distance(moved_mixed, moved) < 0.01
    assert plugin.scaler.get_scale() == SCALE


def test_training_goes_on_after_an_overflow(database, tmp_path):
    """With a scale that is too large the first update is left out, and those that follow at a smaller one are not."""
    plugin = MixedPrecision("16-mixed", "cpu", scaler(2.0**40, backoff_factor=2.0**-28))
    found, moved = trained(database, tmp_path, Detached(), loss_weight=1e-3, plugins=[plugin])
    assert torch.isfinite(found).all(dim=1).tolist() == [False, True]
    assert moved.norm() == pytest.approx(1e-3, rel=0.1)


def test_training_in_bfloat16(database, tmp_path):
    exact, _ = trained(database, tmp_path, Detached(), precision="32")
    found, _ = trained(database, tmp_path, Detached(), precision="bf16-mixed")
    assert 1e-4 < distance(found, exact) < 0.1


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
def test_positions_of_16_bits_are_refused(precision, database, tmp_path):
    run = short_trainer(tmp_path, precision=precision)
    with pytest.raises(ValueError, match=f"trainer.precision={precision}: with 16 bits, positions are rounded"):
        run.fit(short_task(model=potential()), short_data(database, single_precision=True))
    with pytest.raises(ValueError, match="16-mixed or bf16-mixed"):
        run.validate(short_task(model=potential()), short_data(database, single_precision=True))


def test_a_plugin_that_scales_in_a_way_of_its_own_is_refused(database, tmp_path):
    class Own(pl.plugins.precision.Precision):
        precision = "16-mixed"

    with pytest.raises(ValueError, match=r"16-mixed with Own: .* \+trainer.strategy=ddp, or trainer.precision=32"):
        short_trainer(tmp_path, plugins=[Own()]).fit(short_task(), short_data(database))
