"""Simulations in training take no longer steps than conserve energy."""

import logging

import numpy as np
import pytest
import torch
from helpers.hardening import REFERENCE, compute_in_this_process, fit, hardening, torn, write_clusters

import spk_dt.training.hardening
from spk_dt.dynamics.fastest_vibration import fastest_vibrations
from spk_dt.training import Labelling, ModelSimulations, OnPolicyLabels, RoundSchedule

#: fs; with the first simulations may take twice as long steps, with the second they may not
SHORT, LONG = 1.0, 5.0


@pytest.fixture(scope="module", params=[SHORT, LONG])
def clusters(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("clusters") / "clusters.db"
    return request.param, write_clusters(path, timestep_fs=request.param)


def springs(constants, masses):
    """Forces, positions, masses and systems of springs between two atoms each."""
    n = len(constants)
    positions = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]).double().repeat(n, 1)

    def forces_at(x):
        vector = torch.diff(x.view(n, 2, 3), dim=1)
        length = vector.norm(dim=2, keepdim=True)
        pull = torch.tensor(constants).double()[:, None, None] * (length - 1.0) * vector / length
        return torch.cat([pull, -pull], 1).view(-1, 3)

    return forces_at, positions, torch.tensor(masses).double().repeat(n), torch.arange(n).repeat_interleave(2)


def test_the_frequency_of_a_spring_is_that_of_the_reduced_mass():
    forces_at, positions, masses, idx_m = springs([4.0, 9.0, 0.0], [1.0, 3.0])
    found = fastest_vibrations(forces_at, positions, masses, idx_m, 1e-3)
    np.testing.assert_allclose(found.numpy(), [np.sqrt(4.0 / 0.75), np.sqrt(9.0 / 0.75), 0.0], atol=1e-6)
    mobile = torch.tensor([True, False] * 3)[:, None]  # with the heavy atom held fast
    fixed = fastest_vibrations(forces_at, positions, masses, idx_m, 1e-3, mobile)
    np.testing.assert_allclose(fixed.numpy(), [2.0, 3.0, 0.0], atol=1e-6)


def hardened(folder, database, caplog, **kwargs):
    """What is told of the hardening of a right model."""
    callback = hardening(folder, interval_ps=0.1, until_ps=2.0, begin_ps=2.0, kinetic_energy=[1.0, 1.0], **kwargs)
    with caplog.at_level(logging.INFO, "spk_dt"):
        fit(database, folder, callback, model=torn(0.0), max_epochs=1, limit_train_batches=1, lr=1e-9)
    return callback.goal


def test_hardening_takes_steps_that_conserve_energy(clusters, tmp_path, caplog, monkeypatch):
    timestep_fs, database = clusters
    compute_in_this_process(monkeypatch)
    goal = hardened(tmp_path / "a", database, caplog)
    assert goal.reached == 0  # a right model passes
    assert ("take steps of 1 times that of the data, not 2" in caplog.text) == (timestep_fs == LONG)
    if timestep_fs == LONG:  # the control: with the steps that were asked for it does not
        monkeypatch.setattr(spk_dt.training.hardening, "conserving_time_step", lambda task, windows, frames, one: one)
        goal = hardened(tmp_path / "b", database, caplog)
        assert goal.reached == -1
        assert "(energy not conserved; " in goal.told or "(exploded; " in goal.told


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_on_policy_labels_too(clusters, tmp_path, monkeypatch, factor):
    timestep_fs, database = clusters
    compute_in_this_process(monkeypatch)
    simulations = ModelSimulations(n_systems=2, steps=5, time_step=factor)
    labels, schedule = Labelling(REFERENCE, n_labels=2), RoundSchedule(n_rounds=1)
    callback = OnPolicyLabels(labels, simulations, schedule, folder=str(tmp_path / "on_policy"))
    run, _ = fit(database, tmp_path, callback, model=torn(0.0), max_epochs=1, limit_train_batches=1, lr=1e-9)
    steps = [atoms.info["timestep_fs"] for atoms in simulations.states(run.datamodule.frames)]
    assert steps == pytest.approx([timestep_fs * (1.0 if timestep_fs == LONG and factor > 1.0 else factor)] * 2)
