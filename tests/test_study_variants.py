"""Ways to train that only the study has."""

import numpy as np
import pytest
import torch
from helpers.training import S, data_module, first_batch, loss_and_gradient, new_model, paper_outputs, task
from schnetpack import properties as p

pytest.importorskip("benchmarks.study.arms")  # not part of the wheel

from benchmarks.study.variants import DrawnLength, MotionLoss, _reference_end
from spk_dt import properties
from spk_dt.dynamics import Full
from spk_dt.training import DynamicTrainingTask

WEIGHTS = {"rollout_length": S, "gradient": Full(), "first_step_weight": 1.0}


@pytest.fixture
def model():
    return new_model()


@pytest.fixture
def batch(database, tmp_path):
    return first_batch(database, tmp_path)


def loss(cls, model, batch):
    return loss_and_gradient(task(model, paper_outputs(), cls, **WEIGHTS), batch)


def test_the_reference_comes_to_its_own_end(database, tmp_path):
    """With the forces of the reference, the last frames of the windows are met; with others they are not."""
    module = data_module(database, tmp_path)
    module.setup()
    batch = next(iter(module.train_dataloader()))
    end = _reference_end(batch, S)
    for key, found in [(p.R, end.positions), (properties.velocities, end.velocities)]:
        expected = [module.frames.window(key, int(frame), S)[-1] for frame in batch[p.idx]]
        torch.testing.assert_close(found, torch.tensor(np.concatenate(expected)), rtol=0.0, atol=1e-6)
    window = properties.window(p.forces)
    wrong = _reference_end({**batch, window: 2.0 * batch[window]}, S)
    assert (wrong.positions - end.positions).abs().max() > 1e-5


def test_motion_is_compared_as_mean_forces(model, batch):
    """Forces that are off by a constant are found again in positions and velocities."""

    class Off(MotionLoss):
        """Forces of the reference and a constant, whatever the positions."""

        error = 0.25

        def _visit(self, batch, n_steps, *args):
            self._end = _reference_end({**batch, "forces_window": batch["forces_window"] + self.error}, n_steps)
            return DynamicTrainingTask._visit(self, batch, n_steps, *args)

    plain = loss(DynamicTrainingTask, model, batch)[0]
    n_elements = len(batch[p.Z].unique())
    added = loss(Off, model, batch)[0] - plain
    torch.testing.assert_close(added, torch.tensor(S * n_elements * 0.25, dtype=added.dtype))
    Off.error = 0.0
    torch.testing.assert_close(loss(Off, model, batch)[0], plain)


def test_motion_adds_to_loss_and_gradient(model, batch):
    plain, with_motion = loss(DynamicTrainingTask, model, batch), loss(MotionLoss, model, batch)
    assert with_motion[0] > 1.01 * plain[0]
    assert not torch.allclose(with_motion[1], plain[1], rtol=1e-3)


def test_drawn_lengths(model, batch):
    """Each loss is that of one of the lengths up to S, and all of them come."""
    torch.manual_seed(0)
    trained = task(model, paper_outputs(), DrawnLength, **WEIGHTS)
    losses = {}
    for _ in range(30):
        value = loss_and_gradient(trained, batch)[0]
        losses.setdefault(trained.steps_of(batch), value)
        assert value == pytest.approx(losses[trained.steps_of(batch)])
    assert sorted(losses) == list(range(1, S + 1))
    assert losses[S] == pytest.approx(loss(DynamicTrainingTask, model, batch)[0])
