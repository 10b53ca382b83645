"""On-policy labels carry the stress of the reference where it is trained on; a reference that gives none is refused."""

import json

import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT
from ase.db import connect
from ase.stress import full_3x3_to_voigt_6_stress
from helpers.models import potential, tiny_egnn
from helpers.programs import SHORT_TRAINING, spktrain
from helpers.stressed_data import copper, emt_database
from helpers.training import data_module, paper_outputs, task, trainer
from schnetpack.task import ModelOutput

from spk_dt.labels.relabel import relabel
from spk_dt.training import Labelling, ModelSimulations, OnPolicyLabels, RoundSchedule

REFERENCE = "ase.calculators.emt:EMT"


@pytest.fixture(scope="module")
def stressed(tmp_path_factory):
    return emt_database(tmp_path_factory.mktemp("stressed") / "copper.db")


@pytest.fixture
def begin(stressed, tmp_path):
    """Train with one round of labels."""

    def run(reference, stress=True, **kwargs):
        callback = OnPolicyLabels(
            Labelling(reference, n_labels=3, **kwargs),
            ModelSimulations(n_systems=2, steps=4),
            RoundSchedule(n_rounds=1),
            share=0.5,
            folder=str(tmp_path / "on_policy"),
        )
        output = ModelOutput("stress", torch.nn.L1Loss(), 10.0, metrics={}) if stress else None
        one = task(potential().double(), paper_outputs(), stress=output)
        options = {"max_epochs": 1, "limit_train_batches": 4, "limit_val_batches": 0}
        trainer(tmp_path, callbacks=[callback], **options).fit(one, data_module(stressed, tmp_path))
        return tmp_path / "on_policy"

    return run


def test_labels_have_the_stress_of_the_reference(begin):
    folder = begin(REFERENCE)
    rows = list(connect(folder / "round_000.db").select())
    assert len(rows) == 3
    for row in rows:
        atoms = row.toatoms()
        atoms.calc = EMT()
        np.testing.assert_allclose(row.data["stress"][0], atoms.get_stress(voigt=False), atol=1e-9)
        np.testing.assert_allclose(row.data["forces"], atoms.get_forces(), atol=1e-9)
    assert np.abs([row.data["stress"] for row in rows]).max() > 1e-3


def test_without_it_labels_are_as_before(begin):
    folder = begin(REFERENCE, stress=False)
    records = [json.loads(line) for line in (folder / "round_000.jsonl").read_text().splitlines()[1:]]
    assert len(records) == 3
    assert not any("stress" in record for record in records)


def test_a_reference_without_a_stress_is_refused_at_the_start(begin, tmp_path):
    with pytest.raises(ValueError, match=r"(?s)gives no stress.*name one that does, or train without the stress"):
        begin("helpers.stress_references:WithoutStress")
    assert not list((tmp_path / "on_policy").glob("round_*"))
    begin("helpers.stress_references:WithoutStress", stress=False)


@pytest.mark.slow
def test_a_reference_with_another_stress_is_refused(begin, tmp_path):
    with pytest.raises(ValueError, match=r"is not the method of the data.*its stress is off by [\d.]+ of [\d.]+ GPa"):
        begin("helpers.stress_references:WrongSign")
    begin("helpers.stress_references:WrongSign", stress=False)


@pytest.mark.slow
def test_labels_of_before_are_completed(tmp_path):
    """A file without the stress: it is computed, and nothing else is lost."""
    path, frames = tmp_path / "labels.jsonl", [copper(3.6), copper(3.7)]
    first = relabel(frames[:1], REFERENCE, path)
    assert np.isnan(first.stress[0]).all()
    both = relabel(frames, REFERENCE, path, stress=True)
    assert both.n_computed == 2
    again = relabel(frames, REFERENCE, path, stress=True)
    assert again.n_computed == 0
    np.testing.assert_array_equal(again.energy[0], first.energy[0])
    for atoms, stress in zip(frames, again.stress, strict=True):
        atoms.calc = EMT()
        np.testing.assert_allclose(full_3x3_to_voigt_6_stress(stress), atoms.get_stress(), atol=1e-12)
    assert relabel(frames, REFERENCE, path).n_computed == 0


@pytest.mark.slow
def test_by_command(stressed, tmp_path, monkeypatch):
    """A trained model, further on labels with the stress."""
    short = ["data=trajectory", f"data.datapath={stressed}", *SHORT_TRAINING, "trainer.max_epochs=1", "+seed=1"]
    short += ["data.val_window=4"]
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    tiny = ["globals.cutoff=3.0", "model.representation.n_atom_basis=8", "task/stress=trained"]
    spktrain(tmp_path / "first", monkeypatch, "experiment=static_egnn", *short, *tiny)
    labels = [
        f"callbacks.on_policy.labels.reference={REFERENCE}", "callbacks.on_policy.labels.n_labels=2",
        "callbacks.on_policy.simulations.steps=3", "callbacks.on_policy.schedule.n_rounds=1",
    ]  # fmt: skip
    command = ["experiment=dt_on_policy", f"model_file={tmp_path / 'first'}", *short, *labels, "task/stress=trained"]
    spktrain(tmp_path / "second", monkeypatch, *command)
    rows = list(connect(tmp_path / "second" / "on_policy" / "round_000.db").select())
    assert len(rows) == 2
    assert all(row.data["stress"].shape == (1, 3, 3) for row in rows)


@pytest.mark.slow
def test_labels_of_hardening_have_it_too(stressed, tmp_path, monkeypatch):
    """A model that knows nothing fails at once, and is labelled."""
    for name in ("model", "run"):
        (tmp_path / name).mkdir()
    torch.save(potential(tiny_egnn(3.0)), tmp_path / "model" / "best_model")
    spktrain(
        tmp_path / "run", monkeypatch, "experiment=dt_last", f"model_file={tmp_path / 'model'}", "task/stress=trained",
        f"callbacks.on_policy.labels.reference={REFERENCE}", "callbacks.on_policy.goal.until_ps=0.02",
        "callbacks.on_policy.goal.begin_ps=0.02", "callbacks.on_policy.goal.max_labels=6",
        "callbacks.on_policy.simulations.interval_ps=0.01", "callbacks.on_policy.simulations.compile=false",
        "data=trajectory", f"data.datapath={stressed}", *SHORT_TRAINING, "data.val_window=4", "trainer.max_epochs=1",
    )  # fmt: skip
    rows = list(connect(tmp_path / "run" / "hardening" / "round_000.db").select())
    assert 0 < len(rows) <= 6
    for row in rows:
        atoms = row.toatoms()
        atoms.calc = EMT()
        np.testing.assert_allclose(row.data["stress"][0], atoms.get_stress(voigt=False), atol=1e-9)
