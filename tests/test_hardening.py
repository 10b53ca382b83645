"""Hardening: labels where simulations go wrong, until they pass; or the labels, or the training, are at an end."""

import json
import logging
import re

import ase.io
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.hardening import BEYOND, InThisProcess, compute_in_this_process, fit, hardening, tear, torn, write_clusters
from helpers.models import potential
from helpers.pair_reference import Reference
from helpers.programs import SHORT_TRAINING, spktrain
from pytorch_lightning.callbacks import ModelCheckpoint
from schnetpack.data import ASEAtomsData

from spk_dt import training
from spk_dt.certificate.criteria import Scales
from spk_dt.models import load
from spk_dt.training import ComputeBudget, ExponentialMovingAverage, HardeningGoal

#: frames of the data that are compared with the reference method before the training
N_CHECKED = 3


@pytest.fixture(scope="module")
def clusters(tmp_path_factory):
    return write_clusters(tmp_path_factory.mktemp("clusters") / "clusters.db")


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch, request):
    if "monkeypatch" not in request.function.__code__.co_varnames:  # through `spktrain`, all as it is
        compute_in_this_process(monkeypatch)


def labelled_states(folder):
    """The states in the databases of labels; their energies and forces are those of the reference."""
    found = []
    for file in sorted(folder.glob("round_*.db")):
        for row in ASEAtomsData(str(file)).conn.select():
            atoms = row.toatoms()
            atoms.calc = Reference()
            np.testing.assert_allclose(row.data["forces"], atoms.get_forces(), atol=1e-9)
            np.testing.assert_allclose(row.data["energy"], atoms.get_potential_energy(), atol=1e-9)
            found.append(atoms)
    return found


def judged_again(trial):
    """Of each simulation of a trial the labelled states, and those of them that are wrong by the stated criteria."""
    labels = {}
    for line in (trial / "labels.jsonl").read_text().splitlines()[1:]:
        record = json.loads(line)
        i, k = map(int, record["id"].split(":"))
        labels.setdefault(i, {})[k] = (record["energy"], np.array(record["forces"]))
    found = {}
    for i, of_one in labels.items():
        files = sorted(trial.glob("batch_*/*.traj"))
        states = [atoms for file in files for atoms in ase.io.read(file, ":") if atoms.info["simulation"] == i]
        start = states[0].copy()
        start.calc = Reference()
        zero, n = start.get_potential_energy(), len(start)
        wrong = {k for k, (energy, _) in of_one.items() if "exploded_ps" in states[k].info}
        for k, (energy, _) in of_one.items():
            error = (states[k].get_potential_energy() - states[0].get_potential_energy()) - (energy - zero)
            if abs(error) > 3.0 * 8.617e-5 * 1000.0 * np.sqrt(1.5 * n):  # of a temperature above all that are simulated
                wrong.add(k)
        found[i] = (set(of_one), wrong)
    return found


def test_a_broken_model_gets_labels_where_it_is_wrong_and_then_passes(clusters, tmp_path, caplog):
    callback = hardening(tmp_path)
    with caplog.at_level(logging.INFO, "spk_dt"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(load._Said, "told", False)
        _, task = fit(clusters, tmp_path, callback, ExponentialMovingAverage(0.9))
    folder = tmp_path / "hardening"
    labelled = labelled_states(folder)
    n_last_trial = sum(len(file.read_text().splitlines()) - 1 for file in folder.glob("last_trial_*/*/labels.jsonl"))
    assert n_last_trial > 0
    assert len(labelled) == callback.goal.labels == InThisProcess.computed - N_CHECKED - n_last_trial
    assert sum(atoms.get_all_distances().max() > BEYOND for atoms in labelled) > 3  # where the data have no frame
    assert abs(tear(task)) < 1.0
    n_wrong = 0
    for trial in folder.glob("round_*/trial_*"):
        for known, wrong in judged_again(trial).values():
            if wrong:
                n_wrong += 1
                assert min(wrong) - 1 in known | {0}  # the last right state as well
    assert n_wrong > 2
    goal = callback.goal
    assert goal.reached == callback.schedule.done - 1 > 0
    assert f"the goal is reached, in round {goal.reached}" in caplog.text
    assert "4 simulations of 0.2 ps, all of which pass" in caplog.text
    assert "is a pickle" not in caplog.text  # its models are its own


def test_simulations_with_the_same_thermostat_and_time_step_run_side_by_side(tmp_path):
    """Whatever they start with; two systems a batch cost more a step and system than four."""
    atoms = Atoms("H2", [[0.0, 0.0, 0.0], [0.0, 0.0, 0.8]], momenta=[[0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]])
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((2, 3)))
    runs = training.TrialSimulations(n_systems=6, kinetic_energy=[1.0, 2.0], temperature=[300.0], time_step=2.0)
    trial = runs.trial(tmp_path, [(atoms, 0.5)] * 5 + [(atoms, 1.0)], Scales(300.0, {1: 1.0}), 0, 0)
    batches = {one.members: (one.timestep_fs, how.temperature) for one, how in trial.batches.items()}
    assert batches == {(0, 1, 3, 4): (1.0, None), (2,): (1.0, 300.0), (5,): (2.0, 300.0)}
    heats = [one.get_kinetic_energy() / atoms.get_kinetic_energy() for one in trial.starts]
    np.testing.assert_allclose(heats, [1.0, 2.0, 1.0, 1.0, 2.0, 1.0])


def test_without_labels_the_model_stays_broken(clusters, tmp_path):
    _, task = fit(clusters, tmp_path, max_epochs=3)
    assert tear(task) == 20.0


@pytest.mark.parametrize("ensembles", [{}, {"temperature": [300.0, 600.0], "kinetic_energy": []}])
def test_a_right_model_passes_at_once(clusters, tmp_path, caplog, ensembles):
    callback, checkpoint = hardening(tmp_path, **ensembles), ModelCheckpoint(tmp_path, save_last=True)
    with caplog.at_level(logging.INFO, "spk_dt"):
        fit(
            clusters, tmp_path, callback, checkpoint, model=torn(0.0), max_epochs=2, enable_checkpointing=True,
            limit_train_batches=1, lr=1e-9,
        )  # fmt: skip
    assert callback.goal.reached == 0
    assert callback.schedule.done == 1  # no further rounds
    assert "stored is the last model, which passes 4 simulations of 0.2 ps" in caplog.text
    assert checkpoint.best_model_path == str(tmp_path / "last.ckpt")


class Spoil(pl.Callback):
    """What training after the goal may do."""

    def on_train_batch_end(self, trainer, task, *args):
        task.model.representation.tear.data.fill_(20.0)


def test_if_the_last_model_fails_it_is_stored_and_this_is_said(clusters, tmp_path, caplog):
    """The one that had reached the goal has learned less, and may have passed by chance."""
    callback, checkpoint = hardening(tmp_path), ModelCheckpoint(tmp_path, save_last=True)
    with caplog.at_level(logging.INFO, "spk_dt"):
        fit(
            clusters, tmp_path, callback, checkpoint, Spoil(), model=torn(0.0), max_epochs=1, enable_checkpointing=True,
            limit_train_batches=1,
        )  # fmt: skip
    (told,) = [record for record in caplog.records if "stored is" in record.getMessage()]
    assert told.levelname == "WARNING"
    assert "stored is the last model, which was tried in 4 simulations of 0.2 ps, " in told.getMessage()
    assert re.search(r"of which do not pass, the first at \S+ ps \(\w.*; kinetic energy x [12]\)$", told.getMessage())
    assert callback.goal.reached == 0
    assert checkpoint.best_model_path == str(tmp_path / "last.ckpt")
    assert torch.load(checkpoint.best_model_path, weights_only=False)["state_dict"]["model.representation.tear"] == 20.0
    assert callback.schedule.done == len(list((tmp_path / "hardening").glob("round_*.db"))) == 1  # nothing is added


def test_labels_are_used_up(clusters, tmp_path, caplog):
    callback = hardening(tmp_path, max_labels=3)
    with caplog.at_level(logging.INFO, "spk_dt"):
        fit(clusters, tmp_path, callback, max_epochs=3, limit_train_batches=1)
    assert InThisProcess.computed - N_CHECKED == callback.goal.labels == 3
    assert callback.schedule.done == 1
    assert (
        "hardening: the 3 labels are used up after 1 round and 3 labels of helpers.pair_reference:Reference; last"
        in caplog.text
    )
    assert callback.goal.reached == -1


def test_seconds_are_used_up(clusters, tmp_path, caplog):
    """In the middle of a simulation, which is then not judged."""
    callback, checkpoint = hardening(tmp_path, begin_ps=0.2), training.ModelCheckpoint(dirpath=tmp_path, save_last=True)
    with caplog.at_level(logging.INFO, "spk_dt"):
        others = (ComputeBudget(1e-3), ExponentialMovingAverage(0.9), checkpoint)
        fit(clusters, tmp_path, callback, *others, model=torn(0.0), max_epochs=-1, enable_checkpointing=True)
    stored = torch.load(checkpoint.best_model_path, weights_only=False)
    assert stored["global_step"] == 0
    checkpoint.load_state_dict(stored["callbacks"][checkpoint.state_key])  # as the test after the training does
    assert checkpoint.best_model_path == str(tmp_path / "untried.ckpt")
    assert "has ended before its first validation, after 0 updates: the model is stored as it is" in caplog.text
    assert "hardening: the seconds of callbacks.budget are used up after 0 rounds and 0 labels" in caplog.text
    assert InThisProcess.computed == N_CHECKED
    assert 0 < len(list(tmp_path.glob("hardening/round_000/trial_0/batch_*/*.traj"))) < 18


@pytest.mark.parametrize("after", [3, 12])
def test_an_interrupted_training_is_the_uninterrupted_one(clusters, tmp_path, after):
    """Killed among the reference calculations, and continued with another seed: the same weights, nothing computed twice."""

    def run(folder, **kwargs):
        callbacks = [
            hardening(folder, kwargs.get("seed", 0)),
            ExponentialMovingAverage(0.9),
            ModelCheckpoint(folder, save_last=True),
        ]
        options = {"max_epochs": 4, "enable_checkpointing": True, "limit_train_batches": 6, **kwargs}
        _, task = fit(clusters, folder, *callbacks, **options)
        return tear(task), callbacks[0].state_dict()

    whole, state = run(tmp_path / "whole")
    computed, InThisProcess.until = InThisProcess.computed, InThisProcess.computed + N_CHECKED + after
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(tmp_path / "part")
    InThisProcess.until = None
    last = tmp_path / "part" / "last.ckpt"
    assert last.exists() == (after == 12)
    cut, again = run(tmp_path / "part", ckpt_path=last if last.exists() else None, seed=7 if last.exists() else 0)
    assert InThisProcess.computed == 2 * computed
    assert cut == whole != 20.0
    assert again == state
    for one in (tmp_path / "whole" / "hardening").rglob("*.traj"):
        other = tmp_path / "part" / "hardening" / one.relative_to(tmp_path / "whole" / "hardening")
        for before, after_ in zip(ase.io.read(one, ":"), ase.io.read(other, ":"), strict=True):
            assert (before.positions == after_.positions).all()


def test_the_horizon_follows_the_first_failure():
    goal = HardeningGoal(until_ps=10.0, begin_ps=1.0)
    for failed, expected in {0.3: 1.0, 1.0: 1.0, 1.1: 2.0, 3.9: 4.0, 8.5: 10.0, 50.0: 10.0}.items():
        goal.after_failure(failed)
        assert goal.horizon_ps == expected


def test_refusals(clusters, tmp_path):
    for name in ("until_ps", "begin_ps", "n_passing", "max_labels", "n_systems", "interval_ps", "time_step"):
        with pytest.raises(ValueError, match=rf"callbacks\.on_policy\.\w+\.{name}=0 must be"):
            hardening(tmp_path, **{name: 0})
    with pytest.raises(ValueError, match=r"begin_ps=2 must not be above until_ps=1"):
        hardening(tmp_path, begin_ps=2, until_ps=1)
    with pytest.raises(ValueError, match=r"begin_ps=0\.01 is shorter than .*interval_ps=0\.025"):
        hardening(tmp_path, begin_ps=0.01)
    with pytest.raises(ValueError, match="both empty: name at least one ensemble"):
        hardening(tmp_path, kinetic_energy=[])
    with pytest.raises(ValueError, match=r"kinetic_energy=\[-1\]"):
        hardening(tmp_path, kinetic_energy=[-1])
    with pytest.raises(ValueError, match=r"n_systems=2 is less than the number of ensembles"):
        hardening(tmp_path, temperature=[300.0])
    with pytest.raises(ValueError, match=r"precision=16 must be"):
        hardening(tmp_path, precision=16)


def test_the_experiment(database, tmp_path, monkeypatch):
    """Through `spktrain`, from a stored model, with the calculator in a process of its own."""
    (tmp_path / "model").mkdir()
    torch.save(potential(), tmp_path / "model" / "best_model")
    run = tmp_path / "run"
    run.mkdir()
    spktrain(
        run, monkeypatch, "experiment=dt_last", f"model_file={tmp_path / 'model'}",
        "callbacks.on_policy.labels.reference=ase.calculators.emt:EMT", "callbacks.on_policy.goal.until_ps=0.02",
        "callbacks.on_policy.goal.begin_ps=0.02", "callbacks.on_policy.goal.max_labels=6",
        "callbacks.on_policy.simulations.interval_ps=0.01", "callbacks.on_policy.simulations.compile=false",
        "data=trajectory", f"data.datapath={database}", *SHORT_TRAINING,
    )  # fmt: skip
    assert 0 < len(ASEAtomsData(str(run / "hardening" / "round_000.db"))) <= 6
    stored = torch.load(run / "best_model", weights_only=False)
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
    assert stored.do_postprocessing
    for name, value in stored.state_dict().items():
        assert torch.equal(value, last[f"model.{name}"])
