"""Validation by free simulation: for how long a simulation of the model stays where the data are."""

import logging

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from helpers.pair_potential import CUTOFF, Trainable, pair_model, pair_trajectory, tetrahedron
from helpers.training import paper_outputs
from schnetpack.transform import CastTo64, MatScipyNeighborList

from spk_dt.data import TrajectoryDataModule
from spk_dt.training import DynamicTrainingTask, FreeSimulations
from spk_dt.training.free_simulations import DataLimits
from spk_dt.trajectories import TrajectoryWriter

STEPS = 200


@pytest.fixture(scope="module")
def tetrahedra(tmp_path_factory):
    path = tmp_path_factory.mktemp("tetrahedra") / "tetrahedra.db"
    with TrajectoryWriter(path, splits={"train": ["a", "b"], "val": ["c"]}) as writer:
        for seed, name in enumerate("abc"):
            writer.add(name, pair_trajectory(tetrahedron("Pd4"), 40, 0.5, seed), timestep_fs=0.5)
    return path


def moved(atoms, change):
    other = atoms.copy()
    change(other)
    return other


def test_limits_of_the_data():
    frames = pair_trajectory(tetrahedron("Pd4"), 100, 0.5, 1)
    limits = DataLimits.of(frames)
    assert all(limits.broken(atoms) is None for atoms in frames)
    atoms, others = frames[50], pair_trajectory(tetrahedron("Pd4"), 20, 0.5, 2)
    assert all(limits.broken(one) is None for one in others)
    closer = moved(atoms, lambda one: one.set_distance(0, 2, 1.2, fix=0))
    assert "covalent radii, in the data" in limits.broken(closer)
    gone = moved(atoms, lambda one: one.set_distance(0, 3, 12.0, fix=0))
    assert "from its neighbour" in limits.broken(gone)
    hot = moved(atoms, lambda one: one.set_momenta(5.0 * one.get_momenta()))
    assert "its temperature is" in limits.broken(hot)
    lost = moved(atoms, lambda one: one.positions.__setitem__((1, 0), np.nan))
    assert limits.broken(lost) == "positions are not finite"


def fit(database, folder, *callbacks, breaks_beyond=None, ckpt_path=None, max_epochs=2, **kwargs):
    torch.manual_seed(0)
    model = torch.load(pair_model(folder / "model", breaks_beyond=breaks_beyond), weights_only=False)
    if breaks_beyond is None:
        model.representation = Trainable(1.0)
    else:
        model.representation.scale = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    task = DynamicTrainingTask(
        model, paper_outputs(), rollout_length=2, optimizer_cls=torch.optim.SGD, optimizer_args={"lr": 1e-9}
    )
    data = TrajectoryDataModule(
        str(database), batch_size=4, train_window=2, val_window=4, split_file=None, num_workers=0,
        transforms=[MatScipyNeighborList(CUTOFF), CastTo64()],
    )  # fmt: skip
    trainer = pl.Trainer(
        default_root_dir=folder, accelerator="cpu", precision="64", logger=False, max_epochs=max_epochs,
        enable_progress_bar=False, enable_model_summary=False, inference_mode=False, callbacks=list(callbacks),
        **{"enable_checkpointing": False, **kwargs},
    )  # fmt: skip
    trainer.fit(task, data, ckpt_path=ckpt_path)
    return trainer, model


def simulations(**kwargs):
    return FreeSimulations(**{"n_systems": 2, "steps": STEPS, "share": 100.0, **kwargs})


def test_the_potential_of_the_data_is_stable(tetrahedra, tmp_path):
    trainer, _ = fit(tetrahedra, tmp_path, simulations())
    found = trainer.callback_metrics
    assert float(found["val_stable_time"]) == pytest.approx(1e-3 * 0.5 * STEPS)
    assert float(found["val_loss_stable"]) == pytest.approx(float(found["val_loss"]))


def test_one_that_tears_pairs_apart_is_not(tetrahedra, tmp_path, caplog):
    """Its forces are right along most of the data."""
    with caplog.at_level(logging.INFO, "spk_dt"):
        trainer, _ = fit(tetrahedra, tmp_path, simulations(), breaks_beyond=2.65)
    found = trainer.callback_metrics
    stable = float(found["val_stable_time"]) / (1e-3 * 0.5 * STEPS)
    assert 0.0 < stable < 0.9
    assert float(found["val_loss_stable"]) == pytest.approx(float(found["val_loss"]) / stable)
    assert "the first fails as" in caplog.text


def test_the_cost_is_a_share_of_that_of_the_training(tetrahedra, tmp_path, monkeypatch):
    """And until the first simulation one step counts as stable, so that each measured model is preferred."""
    made = []
    monkeypatch.setattr(FreeSimulations, "_simulate", lambda self, data, task: made.append(task.trainer.current_epoch))
    callback = FreeSimulations(n_systems=2, steps=20, share=0.5)
    trainer, _ = fit(tetrahedra, tmp_path, callback, limit_train_batches=6, max_epochs=6)
    assert made == [1, 3, 5]  # two epochs of 6 batches of 4 windows of 2 frames pay for 40 evaluations
    found = trainer.callback_metrics
    assert float(found["val_loss_stable"]) == pytest.approx(20 * float(found["val_loss"]))


def test_the_training_is_not_changed(tetrahedra, tmp_path):
    weights = [fit(tetrahedra, tmp_path, *callbacks)[1].state_dict() for callbacks in ((), (simulations(),))]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def test_a_run_that_goes_on_knows_the_last_simulation(tetrahedra, tmp_path):
    trainer, _ = fit(tetrahedra, tmp_path, simulations(), breaks_beyond=2.65)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    first = trainer.callback_metrics["val_stable_time"]
    again, _ = fit(
        tetrahedra,
        tmp_path,
        simulations(share=1e-6),
        breaks_beyond=2.65,
        ckpt_path=tmp_path / "last.ckpt",
        max_epochs=3,
    )
    assert again.callback_metrics["val_stable_time"] == first > 0.0


@pytest.mark.parametrize("name", ["n_systems", "steps", "time_step", "share"])
def test_senseless_arguments(name):
    with pytest.raises(ValueError, match=rf"callbacks\.free_simulations\.{name}=0 must be positive"):
        FreeSimulations(**{name: 0})
