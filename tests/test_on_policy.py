"""On-policy labels: states of the model's own simulations get labels of the reference method and join the training."""

import logging
from dataclasses import fields

import ase.io
import ase.units
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from ase.calculators.emt import EMT
from ase.db import connect
from helpers.models import CUTOFF, potential
from helpers.programs import SHORT_TRAINING, spktrain
from helpers.training import Batches, data_module, paper_outputs, trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from schnetpack import properties as p
from schnetpack.data import ASEAtomsData
from schnetpack.transform import MatScipyNeighborList

from spk_dt import properties
from spk_dt.data.mixed_batches import GrowingDataset, MixedBatches
from spk_dt.training import DynamicTrainingTask, Labelling, ModelSimulations, OnPolicyLabels, RoundSchedule

EMT_NAME = "ase.calculators.emt:EMT"
PROGRAMS = "helpers.reference_programs"


SHORT = {
    "n_rounds": 2, "every_n_epochs": 1, "first_epoch": 1, "n_systems": 2, "steps": 6, "n_labels": 5,
    "share": 0.5, "reference": EMT_NAME,
}  # fmt: skip


def on_policy(folder, **kwargs):
    """The callback, with arguments of its groups side by side."""
    values = SHORT | {"folder": str(folder / "on_policy")} | kwargs

    def group(cls):
        return cls(**{one.name: values.pop(one.name) for one in fields(cls) if one.name in values})

    return OnPolicyLabels(group(Labelling), group(ModelSimulations), group(RoundSchedule), **values)


def fit(database, folder, *callbacks, rollout_length=2, ckpt_path=None, units=None, **kwargs):
    pl.seed_everything(0)
    model = DynamicTrainingTask(
        potential().double(), paper_outputs(), rollout_length=rollout_length, optimizer_cls=torch.optim.Adam,
        optimizer_args={"lr": 1e-4},
    )  # fmt: skip
    batches = Batches()
    options = {"max_epochs": 4, "limit_train_batches": 6, "limit_val_batches": 1, **kwargs}
    run = trainer(folder, callbacks=[*callbacks, batches], gradient_clip_val=1.0, **options)
    run.fit(model, data_module(database, folder, **(units or {})), ckpt_path=ckpt_path)
    return run, batches.seen


def is_window(batch):
    return batch[properties.window("forces")].shape[1] > 1


KCAL = {"property_units": {"energy": "kcal/mol", "forces": "kcal/mol/Ang"}, "distance_unit": "Ang"}


@pytest.mark.parametrize("units", [{}, pytest.param(KCAL, marks=pytest.mark.slow)], ids=["eV", "kcal"])
def test_labels_are_those_of_the_reference_and_are_trained_on(database, tmp_path, units):
    callback = on_policy(tmp_path)
    _, batches = fit(database, tmp_path, callback, units=units)
    assert all(is_window(batch) for batch in batches[:6])  # before the first round
    joined = [batch for batch in batches if not is_window(batch)]
    assert 0 < len(joined) < len(batches)
    assert sorted(file.name for file in (tmp_path / "on_policy").glob("*.db")) == ["round_000.db", "round_001.db"]
    kcal = ase.units.kcal / ase.units.mol if units else 1.0
    known = {}
    for file in (tmp_path / "on_policy").glob("*.db"):
        made_by = connect(file).metadata["reference"]
        assert (made_by["reference"], made_by["calculator"]) == (EMT_NAME, "ase.calculators.emt.EMT")
        for row in ASEAtomsData(str(file)).conn.select():
            atoms = row.toatoms()
            atoms.calc = EMT()
            known[atoms.positions.round(6).tobytes()] = atoms
            np.testing.assert_allclose(row.data["forces"], atoms.get_forces(), atol=1e-9)
    assert len(known) == 10
    for batch in joined:
        for m in range(len(batch[p.n_atoms])):
            rows = batch[p.idx_m] == m
            atoms = known[batch[p.R][rows].numpy().round(6).tobytes()]
            np.testing.assert_allclose(batch["forces"][rows] * kcal, atoms.get_forces(), atol=1e-6)


@pytest.mark.parametrize("faster", [{}, {"time_step": 2.0, "kinetic_energy": 4.0}], ids=["as the data", "faster"])
def test_the_states_are_the_models_own(database, tmp_path, faster):
    """One step of velocity Verlet with the model's forces leads from a training frame to each state of the first step."""
    task = DynamicTrainingTask(potential().double(), paper_outputs(), optimizer_args={"lr": 1e-4})
    module = data_module(database, tmp_path)
    module.setup()
    callback = on_policy(tmp_path, steps=1, n_labels=2, **faster)
    callback.simulations.start(module.train_dataset)
    before = [dict(system) for system in callback.simulations.systems]
    states, exploded = callback.simulations.run(task, module.frames, callback.labels.n_labels)
    assert exploded == 0
    assert len(states) == 2
    for atoms in states:
        start = before[atoms.info["system"]]
        fresh = {key: start[key] for key in (p.Z, p.R, p.cell, p.pbc, p.n_atoms, p.idx)}
        inputs = MatScipyNeighborList(CUTOFF)(fresh) | {p.idx_m: torch.zeros_like(start[p.Z])}
        forces = task.predict_without_postprocessing(inputs)["forces"].detach()
        dt, masses = start[properties.time_step], start[p.masses][:, None]
        expected = start[p.R] + start[properties.velocities] * dt + forces / (2 * masses) * dt**2
        np.testing.assert_allclose(atoms.positions, expected.detach(), atol=1e-10)
        assert np.abs(atoms.positions - start[p.R].detach().numpy()).max() > 1e-4
        assert atoms.info["timestep_fs"] == pytest.approx(1.0 if faster else 0.5)
        frame = next(
            i for i in module.train_idx if np.allclose(module.frames.window(p.R, i, 1)[0], start[p.R].detach())
        )
        velocities = module.frames.window(properties.velocities, frame, 1)[0]
        np.testing.assert_allclose(start[properties.velocities], velocities * (2.0 if faster else 1.0))


def test_an_interrupted_run_goes_on(database, tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)
    fit(database, tmp_path, on_policy(tmp_path), checkpoint, max_epochs=2, enable_checkpointing=True)
    first = tmp_path / "on_policy" / "round_000.db"
    written = first.stat().st_mtime_ns
    again = on_policy(tmp_path)
    _, batches = fit(database, tmp_path, again, ckpt_path=tmp_path / "last.ckpt")
    assert first.stat().st_mtime_ns == written  # nothing is computed twice
    assert again.schedule.done == 2
    assert again.simulations.age == [12, 12]  # the simulations went on
    assert any(not is_window(batch) for batch in batches)


def test_the_last_model_is_stored(database, tmp_path):
    """It has learned from all labels; the validation frames, which show nothing of them, do not choose one from before."""

    class FirstIsBest(pl.Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            pl_module.log("grows", float(trainer.current_epoch))

    def best(*callbacks):
        folder = tmp_path / str(len(callbacks))
        checkpoint = ModelCheckpoint(folder, monitor="grows", save_last=True)
        run, _ = fit(database, tmp_path, *callbacks, FirstIsBest(), checkpoint, max_epochs=3, enable_checkpointing=True)
        run.test(datamodule=run.datamodule, ckpt_path="best")  # as `spktrain` does before it stores the model
        return torch.load(checkpoint.best_model_path, weights_only=False)["epoch"]

    assert best() == 0
    assert best(on_policy(tmp_path)) == 2
    with pytest.raises(ValueError, match=r"save_last=true"):
        fit(database, tmp_path, on_policy(tmp_path), ModelCheckpoint(tmp_path), enable_checkpointing=True)


def test_labels_of_an_interrupted_round_are_kept(database, tmp_path, monkeypatch):
    """The process ends among the reference calculations: the states are not drawn anew, the labels not computed again."""
    import spk_dt.labels.relabel as module

    original, calls = module._record, []

    def dies(name, *args):
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(name)
        return original(name, *args)

    monkeypatch.setattr(module, "_record", dies)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(database, tmp_path, on_policy(tmp_path, first_epoch=0))
    states = ase.io.read(tmp_path / "on_policy" / "round_000.traj", ":")
    monkeypatch.setattr(module, "_record", lambda name, *args: calls.append(name) or original(name, *args))
    fit(database, tmp_path, on_policy(tmp_path, first_epoch=0, n_rounds=1))
    assert sorted(calls) == ["0", "1", "2", "3", "4", *sorted(calls[:3])]  # the first are frames of the data
    rows = list(ASEAtomsData(str(tmp_path / "on_policy" / "round_000.db")).conn.select(sort="id"))
    np.testing.assert_allclose([row.positions for row in rows], [atoms.positions for atoms in states])


@pytest.mark.slow
@pytest.mark.parametrize("units", [{}, KCAL], ids=["eV", "kcal"])
def test_another_method_is_refused_before_the_training(database, tmp_path, caplog, units):
    def begin(method, folder):
        callback = OnPolicyLabels(Labelling(f"{PROGRAMS}:{method}"), folder=str(tmp_path / folder))
        return fit(database, tmp_path, callback, units=units, max_epochs=1, limit_train_batches=1)

    with pytest.raises(ValueError, match=r"OtherMethod' is not the method of the data: at frame \d+ of trajectory"):
        begin("OtherMethod", "a")
    with pytest.raises(ValueError, match=r"Broken' fails at the sound geometry .* no executable 'code'"):
        begin("Broken", "b")
    assert not list(tmp_path.glob("?/*.db"))
    late = RoundSchedule(first_epoch=9)
    for folder in "ab":  # it may be mended and begun again
        callback = OnPolicyLabels(Labelling(EMT_NAME), schedule=late, folder=str(tmp_path / folder))
        fit(database, tmp_path, callback, units=units, max_epochs=1, limit_train_batches=1)
    with pytest.raises(ValueError, match=r"made with the reference .*EMT', not with .*OtherZero'.* do not mix"):
        begin("OtherZero", "a")
    with caplog.at_level(logging.WARNING, "spk_dt"):
        labels = Labelling(f"{PROGRAMS}:OtherZero", another_reference=True)
        callback = OnPolicyLabels(labels, schedule=late, folder=str(tmp_path / "c"))
        fit(database, tmp_path, callback, units=units, max_epochs=1, limit_train_batches=1)
    assert "its energies have another zero" in caplog.text
    assert "has ended after 0 rounds, 0 of which count, of 6. For more of them train longer, or set " in caplog.text
    assert "callbacks.on_policy.schedule.every_n_epochs below 2." in caplog.text
    each = OnPolicyLabels(labels, schedule=RoundSchedule(first_epoch=9, every_n_epochs=1), folder=str(tmp_path / "d"))
    fit(database, tmp_path, each, units=units, max_epochs=1, limit_train_batches=1)
    assert "callbacks.on_policy.simulations.steps below 800." in caplog.text  # no setting that is refused


@pytest.mark.slow
def test_bad_states_are_left_out_and_begin_anew(database, tmp_path, caplog):
    callback = on_policy(tmp_path, max_force=1e-6)
    with caplog.at_level(logging.INFO, "spk_dt"):
        _, batches = fit(database, tmp_path, callback)
    assert "0 labelled, 5 left out (0 without a label" in caplog.text
    assert all(is_window(batch) for batch in batches)
    assert not list((tmp_path / "on_policy").glob("*.db"))
    assert max(callback.simulations.age) == callback.simulations.max_steps


def test_when_all_simulations_explode(database, tmp_path, caplog):
    callback = on_policy(tmp_path, n_labels=1)
    with caplog.at_level(logging.WARNING, "spk_dt"):
        pl.seed_everything(0)
        model = DynamicTrainingTask(
            potential().double(), paper_outputs(), optimizer_args={"lr": 1e-4}, max_displacement=1e-9
        )
        options = {"max_epochs": 3, "limit_train_batches": 2, "limit_val_batches": 0}
        trainer(tmp_path, callbacks=[callback], **options).fit(model, data_module(database, tmp_path))
    assert "all simulations exploded" in caplog.text
    assert callback.schedule.done == 2


def test_rounds_go_on_while_simulations_fail():
    """A failure is followed by a further round in the next epoch, which is one of those that count if it is sound."""

    def epochs(fails, **kwargs):
        schedule, made = RoundSchedule(n_rounds=2, first_epoch=1, every_n_epochs=3, **kwargs), []
        for epoch in range(20):
            if schedule.due(epoch):
                made.append(epoch)
                schedule.add(epoch, epoch in fails)
        return made

    assert epochs(fails={}) == epochs(fails={}, extra_rounds=3) == [1, 4]
    assert epochs(fails={1, 4}) == [1, 4]
    assert epochs(fails={1, 5}, extra_rounds=3) == [1, 2, 5, 6]
    assert epochs(fails=range(20), extra_rounds=3) == [1, 2, 3, 4, 7]


def test_fewer_rounds_than_are_done():
    """A run may be continued with a lower number."""
    schedule = RoundSchedule(n_rounds=1)
    schedule.load_state_dict({"done": 3, "extra": 1, "next_epoch": 5})
    assert not schedule.due(9)


def test_no_round_for_a_training_that_ends(tmp_path):
    callback, made = on_policy(tmp_path, n_rounds=2, first_epoch=0), []
    callback._round = lambda *_: made.append(1) or False
    run = type("Trainer", (), {"datamodule": None, "should_stop": True, "current_epoch": 5})
    callback.on_train_epoch_start(run, None)
    assert not made
    run.should_stop = False
    callback.on_train_epoch_start(run, None)
    assert made


def test_states_come_from_simulations_that_last(database, tmp_path):
    """One of two simulations explodes at once: as many states are taken as ever, all of them of the other one."""
    task = DynamicTrainingTask(potential().double(), paper_outputs(), optimizer_args={"lr": 1e-4}, max_displacement=0.1)
    module = data_module(database, tmp_path)
    module.setup()
    callback = on_policy(tmp_path, steps=8, n_labels=6)
    callback.simulations.start(module.train_dataset)
    callback.simulations.systems[0][properties.velocities] *= 1e6
    states, exploded = callback.simulations.run(task, module.frames, callback.labels.n_labels)
    assert exploded == 1
    assert [atoms.info["system"] for atoms in states] == [1] * 6
    assert len({atoms.positions.tobytes() for atoms in states}) == 6


def test_refusals(database, tmp_path):
    for name in (
        "n_rounds",
        "n_labels",
        "steps",
        "n_systems",
        "every_n_epochs",
        "n_processes",
        "max_steps",
        "time_limit",
    ):
        with pytest.raises(ValueError, match=rf"callbacks\.on_policy\.\w+\.{name}=0 must be"):
            on_policy(tmp_path, **{name: 0})
    with pytest.raises(ValueError, match="n_labels=13: 2 simulations of 6 steps have fewer"):
        on_policy(tmp_path, n_labels=13)
    with pytest.raises(ValueError, match="extra_rounds=-1"):
        on_policy(tmp_path, extra_rounds=-1)
    with pytest.raises(ValueError, match="max_force=-1 must be positive"):
        on_policy(tmp_path, max_force=-1)
    with pytest.raises(ValueError, match=r"share=1\.0"):
        fit(database, tmp_path, on_policy(tmp_path, share=1.0))
    with pytest.raises(ImportError, match="nowhere"):
        fit(database, tmp_path, on_policy(tmp_path, reference="nowhere:Calculator"))


def test_the_experiment(database, tmp_path, monkeypatch):
    """Through `spktrain`, from a stored model."""
    (tmp_path / "model").mkdir()
    torch.save(potential(), tmp_path / "model" / "best_model")
    run = tmp_path / "run"
    run.mkdir()
    spktrain(
        run, monkeypatch, "experiment=dt_on_policy", f"model_file={tmp_path / 'model'}",
        f"callbacks.on_policy.labels.reference={EMT_NAME}",
        "callbacks.on_policy.schedule.n_rounds=1", "callbacks.on_policy.simulations.steps=5",
        "callbacks.on_policy.labels.n_labels=6", "data=trajectory",
        f"data.datapath={database}", *SHORT_TRAINING, "data.max_train_windows=24",
        "callbacks.model_checkpoint.mode=max", "globals.lr=1e-5",
    )  # fmt: skip
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
    stored = torch.load(run / "best_model", weights_only=False).state_dict()
    assert all(torch.equal(last[f"model.{key}"], value) for key, value in stored.items() if f"model.{key}" in last)
    [other] = (run / "checkpoints").glob("epoch*.ckpt")
    assert torch.load(other, weights_only=False)["epoch"] == 0  # as what `mode` says is best
    assert len(ASEAtomsData(str(run / "on_policy" / "round_000.db"))) == 6
    assert torch.load(run / "best_model", weights_only=False).do_postprocessing


def test_batches_are_of_one_kind():
    growing = GrowingDataset(torch.utils.data.TensorDataset(torch.arange(100)))
    sampler = MixedBatches(growing, 8, 0.5)
    assert sorted(i for batch in sampler for i in batch) == list(range(100))
    growing.append(torch.utils.data.TensorDataset(torch.arange(100, 110)))
    growing.append(torch.utils.data.TensorDataset(torch.arange(110, 113)))
    assert (len(growing), growing.n_added, growing[109][0], growing[112][0], growing[5][0]) == (113, 13, 109, 112, 5)
    torch.manual_seed(0)
    counts = [0, 0]
    for _ in range(40):
        batches = list(sampler)
        assert len(batches) == len(sampler) == 13
        for batch in batches:
            assert len({i < 100 for i in batch}) == 1
            assert len(set(batch)) == len(batch)
            counts[batch[0] >= 100] += 1
    assert 0.4 < counts[1] / sum(counts) < 0.6
