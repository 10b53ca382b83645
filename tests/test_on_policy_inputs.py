"""Inputs of a model beside the structure (total charge, a field) go with the simulations, their labels and the training."""

import json

import numpy as np
import pytest
import pytorch_lightning as pl
import schnetpack.properties as p
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.models import CUTOFF, potential, tiny_egnn
from helpers.training import Batches, data_module, trainer
from schnetpack.atomistic import DipoleMoment
from schnetpack.data import ASEAtomsData
from schnetpack.nn import ElectronicEmbedding
from schnetpack.task import ModelOutput
from schnetpack.transform import CastTo64, MatScipyNeighborList

from spk_dt import properties
from spk_dt.data import TrajectoryWriter
from spk_dt.training import DynamicTrainingTask, Labelling, ModelSimulations, OnPolicyLabels, RoundSchedule

FIELD = "field_at_atoms"


@pytest.fixture
def charged(tmp_path, cluster, make_trajectory):
    """Trajectories of total charge +1 (for training) and -2 (for validation), with a dipole and another input."""
    path = tmp_path / "charged.db"
    splits = {"train": ["train"], "val": ["val"], "test": []}
    with TrajectoryWriter(path, splits, inputs={FIELD: "eV/Ang"}) as writer:
        for i, (name, charge) in enumerate((("train", 1.0), ("val", -2.0))):
            frames = make_trajectory(cluster, 9, 0.5, i)
            for atoms in frames:
                atoms.info["charge"] = charge
                atoms.set_array(FIELD, np.arange(3.0 * len(atoms)).reshape(-1, 3) + charge)
                atoms.calc = SinglePointCalculator(atoms, **atoms.calc.results, dipole=np.ones(3))
            writer.add(name, frames, timestep_fs=0.5)
    return path


def fit(database, folder, outputs=("energy", "forces")):
    pl.seed_everything(0)
    embedding = ElectronicEmbedding(p.total_charge, 8, is_charged=True)
    model = potential(tiny_egnn(electronic_embeddings=[embedding])).double()
    if "dipole_moment" in outputs:
        model.output_modules.append(DipoleMoment(8))
        model.collect_outputs()
    losses = [ModelOutput(name, torch.nn.L1Loss(), metrics={}) for name in outputs]
    task = DynamicTrainingTask(model, losses, rollout_length=2, optimizer_args={"lr": 1e-4})
    transforms = [MatScipyNeighborList(CUTOFF), CastTo64()]
    data = data_module(database, folder, transforms, batch_size=2, train_window=3, val_window=3)
    batches = Batches()
    on_policy = OnPolicyLabels(
        Labelling("helpers.reference_programs:ChargedEMT", n_labels=3),
        ModelSimulations(n_systems=2, steps=4),
        RoundSchedule(n_rounds=2, every_n_epochs=1),
        share=0.5,
        folder=str(folder / "on_policy"),
    )
    trainer(folder, max_epochs=3, callbacks=[on_policy, batches], gradient_clip_val=1.0).fit(task, data)
    return batches.seen


def test_a_model_with_total_charge_runs_rounds(charged, tmp_path, monkeypatch):
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    batches = fit(charged, tmp_path)
    joined = [batch for batch in batches if batch[properties.window("forces")].shape[1] == 1]
    assert 0 < len(joined) < len(batches)
    for batch in joined:
        assert batch[p.total_charge].tolist() == [1.0] * len(batch[p.n_atoms])
    databases = sorted((tmp_path / "on_policy").glob("*.db"))
    assert len(databases) == 2
    field = np.arange(18.0).reshape(-1, 3) + 1.0
    for path in databases:
        dataset = ASEAtomsData(str(path))
        assert len(dataset) == 3
        assert p.dipole_moment not in dataset.available_properties  # of another geometry
        assert dataset.units[FIELD] == "eV/Ang"
        for i in range(len(dataset)):
            assert dataset[i][p.total_charge].tolist() == [1.0]
            np.testing.assert_allclose(dataset[i][FIELD], field)
    seen = [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]
    assert len(seen) >= 6
    assert all(one == [1.0, 0.0, 1.0, None] for one in seen)  # the reference method has it, too: by atoms and in `info`


def test_targets_without_labels_are_refused(charged, tmp_path):
    with pytest.raises(ValueError, match=r"energy, forces and stress only.*\['dipole_moment'\]"):
        fit(charged, tmp_path, outputs=("energy", "forces", "dipole_moment"))


def test_the_keys_are_those_of_schnetpack():
    names = (p.idx, p.n_atoms, p.Z, p.R, p.cell, p.pbc, p.masses)
    assert set(names) < set(properties.STRUCTURE)
    assert all(properties.is_input(key) for key in (*properties.STRUCTURE, p.total_charge, p.spin_multiplicity, "own"))
    pairs = (p.idx_i, p.idx_j, p.offsets, p.lidx_i, p.lidx_j, p.Rij, p.n_nbh, p.idx_i_lr, p.idx_j_lr, p.offsets_lr)
    triples = (p.idx_i_triples, p.idx_j_triples, p.idx_k_triples)
    results = (p.energy, p.forces, p.stress, p.dipole_moment, p.partial_charges, p.polarizability, p.hessian)
    window = (properties.window("own"), properties.window_motion, properties.pair_skin, properties.position_kicks)
    assert not any(properties.is_input(key) for key in (*pairs, *triples, *results, *window))
