"""Hardening: labels where simulations go wrong, until they pass; or the labels, or the training, are at an end."""

import json
import logging
from dataclasses import fields

import ase.io
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from helpers.broken_potentials import Torn
from helpers.pair_potential import CUTOFF, Reference, Sum, pair_trajectory, tetrahedron
from helpers.programs import spktrain
from helpers.training import data_module, paper_outputs, trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from schnetpack.atomistic import Forces, PairwiseDistances
from schnetpack.data import ASEAtomsData
from schnetpack.model import NeuralNetworkPotential
from schnetpack.transform import CastTo64, MatScipyNeighborList

from spk_dt.certificate.criteria import Criteria
from spk_dt.data import TrajectoryWriter
from spk_dt.training import (
    ComputeBudget,
    DynamicTrainingTask,
    ExponentialMovingAverage,
    Hardening,
    HardeningGoal,
    Labelling,
    RoundSchedule,
    TrialSimulations,
)

REFERENCE = "helpers.pair_potential:Reference"

#: Å; no pair of the data is further apart
BEYOND = 2.85

SHORT = {
    "until_ps": 0.4, "begin_ps": 0.1, "n_passing": 4, "max_labels": 60, "n_systems": 2, "interval_ps": 0.025,
    "compile": False, "precision": 64, "time_step": 2.0, "n_labels": 2, "n_checks": 0, "share": 0.8,
    "every_n_epochs": 1, "n_rounds": 100, "kinetic_energy": [2.0, 3.0],
}  # fmt: skip


@pytest.fixture(scope="module")
def clusters(tmp_path_factory):
    """Trajectories of a cluster of four atoms, none of which comes where the models below are wrong."""
    path = tmp_path_factory.mktemp("clusters") / "clusters.db"
    with TrajectoryWriter(path, splits={"train": ["c0", "c1"], "val": ["c2"], "test": ["c3"]}) as writer:
        for name, seed in {"c0": 0, "c1": 1, "c2": 2, "c3": 4}.items():
            frames = pair_trajectory(tetrahedron(), 40, 1.0, seed, kelvin=300.0)
            assert max(atoms.get_all_distances().max() for atoms in frames) < BEYOND
            writer.add(name, frames, 1.0)
    return path


def torn(kick=20.0):
    return NeuralNetworkPotential(Torn(BEYOND, kick), [PairwiseDistances()], [Sum("energy"), Forces()])


def hardening(folder, **kwargs):
    """The callback, with arguments of its groups side by side."""
    values = SHORT | {"reference": REFERENCE, "folder": str(folder / "hardening")} | kwargs

    def group(cls):
        return cls(**{one.name: values.pop(one.name) for one in fields(cls) if one.init and one.name in values})

    groups = [group(cls) for cls in (Labelling, HardeningGoal, TrialSimulations, Criteria, RoundSchedule)]
    return Hardening(*groups, **values)


def fit(database, folder, *callbacks, model=None, max_epochs=8, ckpt_path=None, **kwargs):
    pl.seed_everything(0)
    torch.manual_seed(0)
    task = DynamicTrainingTask(
        torn() if model is None else model, paper_outputs(), optimizer_cls=torch.optim.Adam, optimizer_args={"lr": 0.3},
    )  # fmt: skip
    data = data_module(
        database, folder, [MatScipyNeighborList(CUTOFF), CastTo64()], train_window=1, val_window=4, max_val_windows=2,
        max_test_windows=2, check_data=False,
    )  # fmt: skip
    run = trainer(folder, callbacks=list(callbacks), max_epochs=max_epochs, **kwargs)
    run.fit(task, data, ckpt_path=ckpt_path)
    return run, task


def tear(task):
    return float(task.model.representation.tear)


def outcomes(folder):
    """Reference energies and forces against those that are in the databases of labels."""
    found = []
    for file in sorted(folder.glob("round_*.db")):
        for row in ASEAtomsData(str(file)).conn.select():
            atoms = row.toatoms()
            atoms.calc = Reference()
            np.testing.assert_allclose(row.data["forces"], atoms.get_forces(), atol=1e-9)
            np.testing.assert_allclose(row.data["energy"], atoms.get_potential_energy(), atol=1e-9)
            found.append(atoms)
    return found


def test_a_broken_model_gets_labels_where_it_is_wrong_and_then_passes(clusters, tmp_path, caplog):
    callback = hardening(tmp_path)
    with caplog.at_level(logging.INFO, "spk_dt"):
        _, task = fit(clusters, tmp_path, callback, ExponentialMovingAverage(0.9))
    print(caplog.text, tear(task))
    labelled = outcomes(tmp_path / "hardening")
    print(len(labelled), [atoms.get_all_distances().max() for atoms in labelled])
    assert 0
