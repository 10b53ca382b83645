"""Atoms that are all farther apart than the cutoff: training and evaluation are refused, a simulation warns."""

import logging

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.models import potential, tiny_egnn
from helpers.training import data_module, paper_outputs, task, trainer
from schnetpack import properties
from typer.testing import CliRunner

from spk_dt.cli import app
from spk_dt.data import TrajectoryWriter
from spk_dt.data.isolated import refuse_isolated
from spk_dt.md import VerletNeighborList

DISTANCE = 6.5


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """Three trajectories of two atoms 6.5 Å apart, which attract each other."""
    path = tmp_path_factory.mktemp("isolated") / "far.db"
    with TrajectoryWriter(path) as writer:
        for number in range(3):
            frames = []
            for step in range(12):
                atoms = Atoms("PdH", positions=[[0.0, 0.0, 0.0], [0.0, 0.0, DISTANCE + 1e-6 * step**2]])
                atoms.set_velocities(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1e-5 * step]]))
                atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.array([[0, 0, -0.1], [0, 0, 0.1]]))
                frames.append(atoms)
            writer.add(f"run_{number}", frames, 0.5)
    return path


def test_training_is_refused(database, tmp_path):
    module = data_module(database, tmp_path, check_data=False, train_window=2, val_window=2, num_train=1, num_val=1)
    with pytest.raises(ValueError, match=r"no pair of atoms of '.*far\.db' is within the cutoff 4 .*distance is 6\.5"):
        trainer(tmp_path, max_epochs=1).fit(task(potential().double(), paper_outputs()), module)


def test_evaluation_is_refused(database, tmp_path):
    torch.save(potential(tiny_egnn(cutoff=3.0)), tmp_path / "best_model")
    result = CliRunner().invoke(
        app, ["evaluate", str(database), str(tmp_path / "best_model"), "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 1
    assert "no pair of atoms of the frames for" in result.stderr
    assert "the shortest distance is 6.5" in result.stderr


def test_a_simulation_warns_once(tmp_path, caplog):
    torch.save(potential(), tmp_path / "best_model")
    inputs = {
        properties.R: torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, DISTANCE]]),
        properties.Z: torch.tensor([46, 1]),
        properties.n_atoms: torch.tensor([2]),
        properties.idx_m: torch.tensor([0, 0]),
        properties.cell: torch.zeros(1, 3, 3),
        properties.pbc: torch.zeros(1, 3, dtype=torch.bool),
    }
    neighbors = VerletNeighborList(model_file=str(tmp_path / "best_model"))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            neighbors.get_neighbors(inputs)
    assert [record.getMessage()[:30] for record in caplog.records] == ["no pair of atoms is within the"]
    caplog.clear()
    near = inputs | {properties.R: inputs[properties.R] * 0.3}
    VerletNeighborList(model_file=str(tmp_path / "best_model")).get_neighbors(near)
    assert not caplog.records


def test_one_pair_is_enough_and_images_count():
    far, near = Atoms("H2", [[0, 0, 0], [0, 0, 9.0]]), Atoms("H2", [[0, 0, 0], [0, 0, 1.0]])
    refuse_isolated([far, near], 4.0, "data")
    refuse_isolated([Atoms("Cu", cell=[3.0, 9.0, 9.0], pbc=True)], 4.0, "data")
    with pytest.raises(ValueError, match=r"the shortest distance is 5"):
        refuse_isolated([Atoms("Cu", cell=[5.0, 9.0, 9.0], pbc=True), far], 4.0, "data")
    with pytest.raises(ValueError, match="the atoms are alone"):
        refuse_isolated([Atoms("Cu")], 4.0, "data")
