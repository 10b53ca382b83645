"""Two processes of one training: gradients of the whole batch, means over all, accidents and errors that all share."""

import os

import pytest
import pytorch_lightning as pl
import torch
from helpers.exploding import exploding
from helpers.pair_potential import pair_trajectory, tetrahedron
from helpers.short_training import short_data, short_task, short_trainer
from helpers.two_processes import two_processes
from schnetpack import properties as p
from torch import distributed

from spk_dt import processes
from spk_dt.data import TrajectoryWriter
from spk_dt.dynamics import Detached, Full, Truncated
from spk_dt.training.accidents import Accidents

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

S = 3
MODES = {
    "single frames": (1, Detached()),
    "detached": (S, Detached()),
    "full": (S, Full()),
    "truncated": (S, Truncated(2)),
}


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """Different atoms; two windows of 6 frames in each trajectory."""
    path = tmp_path_factory.mktemp("ranks") / "several.db"
    train, val = ("Pd2H2", "Pd4", "PdH3", "Cu2HPd"), ("Pd2H2", "Pd4", "PdH3", "Cu2HPd", "Pd3H")
    with TrajectoryWriter(
        path, splits={"train": [f"t{i}" for i in range(4)], "val": [f"v{i}" for i in range(5)]}
    ) as writer:
        for prefix, symbols in (("t", train), ("v", val)):
            for i, one in enumerate(symbols):
                writer.add(f"{prefix}{i}", pair_trajectory(tetrahedron(one), 6, 0.5, ord(prefix) + i), 0.5)
    return path


class Gradients(pl.Callback):
    """Of all parameters, when they are about to be used."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.found = torch.cat([(0 * q if q.grad is None else q.grad).flatten() for q in pl_module.parameters()])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.after = torch.cat([q.detach().flatten() for q in pl_module.parameters()])
        self.trained_on = batch[p.idx].tolist()


def trained(folder, database, mode, batch_size, explode=(), **kwargs):
    length, gradient = MODES[mode]
    seen = Gradients()
    pl.seed_everything(3)
    run = short_trainer(folder, callbacks=[seen], limit_val_batches=0, max_steps=1, **kwargs)
    task = short_task(rollout_length=length, gradient=gradient, rollout_outputs=["forces", "energy"], max_left_out=1.0)
    before = torch.cat([q.detach().flatten() for q in task.parameters()])
    run.fit(exploding(task, explode), short_data(database, batch_size=batch_size, train_window=6, val_window=6))
    seen.moved = bool((seen.after != before).any())
    return seen


def gradients(*args, **kwargs):
    return trained(*args, **kwargs).found


def together(strategy="ddp"):
    return {"strategy": strategy, "devices": 2}


def means_of_means(monkeypatch):
    """What Lightning alone would do."""
    monkeypatch.setattr("spk_dt.training.step_losses.SharedMeans.loss", lambda self, predicted, targets: sum(
        output.calculate_loss(predicted, targets) for output in self.outputs))  # fmt: skip


def test_gradients_are_those_of_one_process_with_the_whole_batch(database, tmp_path, monkeypatch):
    def both(rank, names):
        return [gradients(tmp_path, database, mode, 4, **together()) for mode in names]

    first, second = two_processes(tmp_path, both, list(MODES))
    for mode, ours, others in zip(MODES, first, second, strict=True):
        expected = gradients(tmp_path, database, mode, 8)
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-10, msg=mode)
        assert torch.equal(ours, others)
    means_of_means(monkeypatch)
    (wrong, _) = two_processes(tmp_path, both, ["detached"])
    assert (wrong[0] - gradients(tmp_path, database, "detached", 8)).abs().max() > 1e-3


def validated(folder, database, batch_size, **kwargs):
    run = short_trainer(folder, **kwargs)
    run.validate(
        short_task(), short_data(database, val_batch_size=batch_size, train_window=1, max_val_windows=5), verbose=False
    )
    return {key: float(value) for key, value in run.callback_metrics.items()}


def test_each_window_counts_once_in_the_validation(database, tmp_path, monkeypatch):
    """Five windows: the second process has two, and one that the first has, too."""

    def both(rank, sizes):
        return [validated(tmp_path, database, batch_size, **together()) for batch_size in sizes]

    expected = validated(tmp_path, database, 5)
    first, second = two_processes(tmp_path, both, [1, 2, 3])
    for ours, others in zip(first, second, strict=True):
        assert ours == pytest.approx(expected, rel=1e-6)
        assert others == ours
    monkeypatch.setattr("spk_dt.training.task.without_repeated", lambda batch, *_: batch)
    ((wrong,), _) = two_processes(tmp_path, both, [2])
    assert wrong["val_loss"] != pytest.approx(expected["val_loss"], rel=1e-3)


def test_windows_are_left_out_by_all_processes_together(database, tmp_path, caplog):
    """In one process of the two, then in both."""

    def both(rank):
        one = trained(tmp_path, database, "detached", 4, range(1000) if rank == 1 else (), **together())
        none = trained(tmp_path, database, "detached", 4, range(1000), **together())
        return one.found, one.trained_on, none.moved

    first, second = two_processes(tmp_path, both)
    expected = trained(tmp_path, database, "detached", 8, second[1])
    assert expected.moved
    assert not set(first[1]) & set(second[1])
    torch.testing.assert_close(first[0], expected.found, rtol=1e-8, atol=1e-10)
    assert torch.equal(first[0], second[0])
    assert [first[2], second[2]] == [False, False]


def test_too_many_accidents_end_all_processes(tmp_path):
    """More than half of the windows of one process are no more than half of those of both."""

    def both(rank):
        distributed.init_process_group("gloo")
        accidents, told = Accidents(0.5), []
        for _ in range(2):
            exploded = torch.ones(60).bool() if rank == 0 else torch.zeros(60).bool()
            try:
                accidents.count_windows(exploded, {p.idx: torch.arange(60)}, None, "now")
                told.append("")
            except ValueError as error:
                told.append(str(error))
            accidents.max_share = 0.2
        return told

    first, second = two_processes(tmp_path, both)
    assert first[0] == second[0] == ""
    assert "120 of 240 windows were left out" in first[1]
    assert first[1] == second[1]


def test_the_first_computes_and_all_have_it_or_the_error(tmp_path):
    class OfThisTest(KeyError):
        """Cannot be sent."""

    def both(rank):
        distributed.init_process_group("gloo")

        def fail():
            raise OfThisTest("no label")

        (tmp_path / f"folder_{rank}").mkdir()
        found = [processes.by_first(lambda: f"from {rank}"), processes.gathered(rank), processes.largest(rank)]
        found += [processes.any_of(rank == 1), processes.total(torch.tensor([rank, 2])).tolist()]
        try:
            processes.by_first(fail)
        except KeyError as error:
            found.append(str(error))
        os.environ["PL_GLOBAL_SEED"] = str(rank + 5)
        processes.same_seed()
        found.append(os.environ["PL_GLOBAL_SEED"])
        os.chdir(tmp_path / f"folder_{rank}")
        try:
            processes.refuse_other_folders()
        except ValueError as error:
            found.append(str(error))
        return found

    first, second = two_processes(tmp_path, both)
    assert first == second
    *found, folders = first
    assert found == ["from 0", [0, 1], 1.0, True, [1, 4], "'no label'", "5"]
    assert "folder_0' and '" in folders
    assert "run.id=" in folders
