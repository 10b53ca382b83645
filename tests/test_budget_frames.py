"""What the budget counts as frames are the forces that rollouts compute, inner steps included."""

import pytest
from helpers.pair_potential import pair_trajectory, tetrahedron
from helpers.short_training import short_data, short_task, short_trainer
from pytorch_lightning.callbacks import Callback
from schnetpack import AtomisticTask
from schnetpack import properties as p
from schnetpack.task import ModelOutput
from torch.nn import MSELoss

from spk_dt import properties
from spk_dt.data import TrajectoryWriter
from spk_dt.training import ComputeBudget

S = 4


def database(path, *every):
    """Trajectories of which every n-th frame was kept."""
    names = [f"run_{i}" for i in range(len(every))]
    with TrajectoryWriter(path, splits={"train": names, "val": ["val"], "test": []}) as writer:
        for name, n in zip([*names, "val"], [*every, 1], strict=True):
            frames = pair_trajectory(tetrahedron(), 9 * n, 0.5)[::n]
            writer.add(name, frames, 0.5 * n, n)
    return path


class Counted(Callback):
    """Counts the systems of all force evaluations of the training, and its budget."""

    def __init__(self, task):
        self.task, self.found, self.inner_steps = task, 0, []
        self.predict, task._predict = task._predict, self

    def __call__(self, inputs):
        self.found += self.task.training * len(inputs[p.n_atoms])
        return self.predict(inputs)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.inner_steps.append(batch[properties.inner_steps].tolist())


@pytest.mark.parametrize("every", [(1, 1), (3, 3), (5, 1, 2)], ids=str)
@pytest.mark.parametrize("n_steps", [1, S])
def test_frames_are_force_evaluations(tmp_path, every, n_steps):
    task, budget = short_task(rollout_length=n_steps), ComputeBudget(1e6)
    counted = Counted(task)
    run = short_trainer(tmp_path, callbacks=[budget, counted], limit_train_batches=3, limit_val_batches=1)
    run.fit(task, short_data(database(tmp_path / "a.db", *every), val_window=1))
    assert budget.updates == len(counted.inner_steps) == 3
    assert budget.frames == counted.found
    assert budget.frames == sum(len(n) * (1 + (n_steps - 1) * max(n)) for n in counted.inner_steps)
    assert float(run.callback_metrics["train_frames"]) == budget.frames
    assert len(every) == 2 or any(len(set(n)) > 1 for n in counted.inner_steps)  # systems that rest for others


def test_systems_with_a_task_of_schnetpack(tmp_path):
    task = short_task()
    output = ModelOutput("energy", MSELoss(), metrics={})
    plain = AtomisticTask(task.model, [output], optimizer_args={"lr": 1e-3})
    budget = ComputeBudget(1e6)
    run = short_trainer(tmp_path, callbacks=[budget], limit_train_batches=2, limit_val_batches=0)
    run.fit(plain, short_data(database(tmp_path / "a.db", 3, 3), val_window=1))
    assert (budget.updates, budget.frames) == (2, 8)
