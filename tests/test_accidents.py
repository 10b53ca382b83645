"""Accidents of a training: rollouts that explode and gradients that are not finite are left out, counted and told."""

import logging

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from ase.db import connect
from helpers.exploding import exploding
from helpers.models import potential
from helpers.short_training import short_data, short_task, short_trainer
from schnetpack import properties as p

from spk_dt.labels.relabel import Labels
from spk_dt.training.labelling import EnergyRanges, Labelling, write_states
from spk_dt.training.parts_of_batch import some_systems


class Gradients(pl.Callback):
    """Gradients before the optimiser sees them, and what has come of the parameters."""

    def __init__(self, spoil=()):
        self.spoil, self.seen, self.finite = spoil, [], []

    def on_after_backward(self, trainer, pl_module):
        parameter = next(one for one in pl_module.parameters() if one.grad is not None)
        if trainer.global_step in self.spoil:
            parameter.grad.view(-1)[0] = float("nan")
        self.seen.append(torch.cat([one.grad.flatten() for one in pl_module.parameters() if one.grad is not None]))

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.finite.append(all(bool(torch.isfinite(one).all()) for one in pl_module.parameters()))


def batch_of(data):
    torch.manual_seed(0)
    data.setup()
    return next(iter(data.train_dataloader()))


@pytest.mark.parametrize("factor", [1e6, float("nan")], ids=["far", "nan"])
def test_gradients_are_those_of_the_other_windows(database, tmp_path, caplog, factor):
    data = short_data(database)
    batch = batch_of(data)
    bad = [int(batch[p.idx][1])]
    gradients = {}
    for name, indices in {"all": [], "without": bad}.items():
        torch.manual_seed(0)
        task, seen = exploding(short_task(rollout_length=4), indices, factor), Gradients()
        kept = batch if name == "all" else {**batch}
        loader = [some_systems(kept, ~torch.isin(kept[p.idx], torch.tensor(bad)))] if name == "all" else [kept]
        data_of_run = short_data(database)
        data_of_run.setup()
        data_of_run.train_dataloader = lambda loader=loader: torch.utils.data.DataLoader(loader, batch_size=None)
        with caplog.at_level(logging.WARNING, "spk_dt"):
            short_trainer(tmp_path, callbacks=[seen], limit_val_batches=0).fit(task, data_of_run)
        gradients[name] = seen.seen[0]
    torch.testing.assert_close(gradients["all"], gradients["without"], rtol=0.0, atol=1e-10)
    frames = data.frames
    trajectory = frames.trajectories[frames.trajectory_of(bad[0])]
    assert f"S = 4: left out, since the rollout explodes, trajectory '{trajectory.name}', frame " in caplog.text
    assert f"frame {bad[0] - trajectory.start}" in caplog.text


def test_too_many_end_the_training(database, tmp_path):
    task = exploding(short_task(rollout_length=4), list(range(1000)))
    before = [one.detach().clone() for one in task.parameters()]
    with pytest.raises(
        ValueError, match=r"8 of 8 windows were left out, since their rollouts explode; .*max_left_out=0\.5"
    ):
        short_trainer(tmp_path, limit_train_batches=2).fit(task, short_data(database))
    assert all(torch.equal(a, b) for a, b in zip(before, task.parameters(), strict=True))


@pytest.mark.parametrize("precision", ["64", "32", "bf16-mixed"])
def test_gradients_that_are_not_finite_do_not_reach_the_optimiser(database, tmp_path, precision):
    single = precision != "64"
    model = None
    if single:
        torch.manual_seed(0)
        model = potential()
    for rollout_length in (1, 4):
        spoiled = Gradients(spoil=(1,))
        task = short_task(rollout_length=rollout_length, model=model)
        run = short_trainer(
            tmp_path, callbacks=[spoiled], limit_train_batches=4, precision=precision, gradient_clip_val=1.0
        )
        run.fit(task, short_data(database, single_precision=single))
        assert not torch.isfinite(spoiled.seen[1]).all()  # it was spoiled
        assert spoiled.finite == [True] * 4
        assert float(run.callback_metrics["train_updates_left_out"]) == 0.25


def test_the_share_of_updates_that_may_be_left_out(database, tmp_path):
    task = short_task(rollout_length=1, max_left_out=0.2)
    with pytest.raises(ValueError, match=r"1 of 4 updates were left out, since their gradients are not finite"):
        short_trainer(tmp_path, callbacks=[Gradients(spoil=(1,))], limit_train_batches=4).fit(
            task, short_data(database)
        )


def test_some_systems_are_those_of_a_smaller_batch(database):
    """Compared with the samples that are put together without the others."""
    data = short_data(database)
    batch = batch_of(data)
    keep = torch.tensor([True, False, True, True])
    found = some_systems(batch, keep)
    rows = keep[batch[p.idx_m]]
    assert found[p.idx_m].tolist() == [m for m in range(3) for _ in range(int(batch[p.n_atoms][keep][m]))]
    assert torch.equal(found[p.R], batch[p.R][rows])
    assert torch.equal(found[p.cell], batch[p.cell][keep])
    assert len(found[p.pbc]) == 9
    assert p.idx_i not in found


@pytest.mark.parametrize("in_kcal", [False, True])
def test_labels_with_impossible_energies_are_left_out(database, tmp_path, monkeypatch, in_kcal):
    units = {"property_units": {"energy": "kcal/mol", "forces": "kcal/mol/Ang"}} if in_kcal else {}
    data = short_data(database, **units)
    data.setup()
    with connect(database) as rows:
        states = [row.toatoms() for row in rows.select(limit=5)]
    energies = np.array([row.data["energy"].item() for row in rows.select(limit=5)])
    for atoms in states:
        atoms.info["timestep_fs"] = 0.5
    beyond = 10.0 * len(states[0])
    spoiled = np.add(energies, [0.0, np.nan, 2.0 * beyond, -2.0 * beyond, 0.5 * beyond])

    def relabel(frames, *args, **kwargs):
        forces = tuple(np.zeros((len(atoms), 3)) for atoms in frames)
        return Labels(tuple("01234"), spoiled, forces, tuple(np.zeros((3, 3)) for _ in frames), {}, 5, {})

    monkeypatch.setattr("spk_dt.training.labelling.relabel", relabel)
    write_states(tmp_path / "a.traj", states)
    found = Labelling("any").label(tmp_path / "a.traj", ranges=EnergyRanges(data.frames))
    assert [atoms.get_potential_energy() for atoms in found.kept] == [spoiled[0], spoiled[4]]
    assert (found.n_impossible, len(found.left_out), found.n_failures) == (3, 3, 0)
    with_another_zero = Labelling("any").label(tmp_path / "a.traj")
    assert (with_another_zero.n_impossible, len(with_another_zero.kept)) == (1, 4)
