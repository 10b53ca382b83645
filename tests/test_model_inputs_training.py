"""What a model takes beside the structure, and predicts beside energy and forces, in rollouts and compiled."""

from functools import partial

import numpy as np
import pytest
import schnetpack as spk
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.models import CUTOFF, batch_of, crystal, molecule, needs_compilation, tiny_egnn
from helpers.short_training import short_data, short_trainer
from helpers.training import paper_outputs
from schnetpack import properties as p
from schnetpack.atomistic import Atomwise, DipoleMoment, Forces, PairwiseDistances
from schnetpack.model import NeuralNetworkPotential
from schnetpack.nn import CosineCutoff, ElectronicEmbedding, GaussianRBF
from schnetpack.task import ModelOutput

from spk_dt.data import TrajectoryWriter
from spk_dt.dynamics import CompiledPotential
from spk_dt.training import DynamicTrainingTask


def charged(representation=tiny_egnn, dipole=False):
    """A model that takes the total charge, and predicts the dipole if asked for."""
    torch.manual_seed(0)
    embedding = ElectronicEmbedding(p.total_charge, 8, num_residual=1, is_charged=True)
    part = representation(electronic_embeddings=[embedding])
    for parameter in embedding.parameters():
        torch.nn.init.normal_(parameter)  # SchNetPack begins with an embedding of no effect
    outputs = [Atomwise(8, output_key="energy"), *([DipoleMoment(8)] if dipole else []), Forces()]
    return NeuralNetworkPotential(part, [PairwiseDistances()], outputs).double()


def painn(**kwargs):
    return spk.representation.PaiNN(8, 2, GaussianRBF(8, CUTOFF), CosineCutoff(CUTOFF), **kwargs)


def with_charges(batch, *charges):
    return batch | {p.total_charge: torch.tensor(charges, dtype=torch.float64)}


@needs_compilation
@pytest.mark.slow
@pytest.mark.parametrize("representation", [tiny_egnn, painn])
def test_a_compiled_model_takes_the_total_charge(monkeypatch, representation):
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    model = charged(representation).train()
    compiled = CompiledPotential(model)
    batch = batch_of(molecule(0), crystal(1), molecule(2))
    found = []
    for charges in ((0.0, 0.0, 0.0), (1.0, -1.0, 0.0)):
        inputs = with_charges(batch, *charges)
        expected, outputs = model(dict(inputs)), compiled(inputs)
        for key in ("energy", "forces"):
            torch.testing.assert_close(outputs[key], expected[key], atol=1e-10, rtol=1e-10)
        found.append(outputs["energy"].detach())
    assert compiled.compiled
    changes = (found[1] - found[0]).abs()
    assert (changes[:2] > 1e-3).all()
    assert changes[2] < 1e-10


@pytest.fixture
def dipoles(tmp_path, cluster, make_trajectory):
    """Trajectories of charge +1 and -2, whose dipole tells the frame."""
    path = tmp_path / "charged.db"
    with TrajectoryWriter(path) as writer:
        for i, charge in enumerate((1.0, -2.0, 0.0)):
            frames = make_trajectory(cluster, 9, 0.5, i)
            for k, atoms in enumerate(frames):
                atoms.info["charge"] = charge
                atoms.calc = SinglePointCalculator(atoms, **atoms.calc.results, dipole=[charge, i, k])
            writer.add(f"run_{i}", frames, timestep_fs=0.5)
    return path


def test_the_dipole_of_each_step_counts(dipoles, tmp_path):
    """In the loss of a rollout, with the model's dipole at the states that it visits."""
    dipole = ModelOutput(p.dipole_moment, torch.nn.L1Loss(), loss_weight=1.0, metrics={})
    task = DynamicTrainingTask(
        charged(dipole=True),
        [*paper_outputs(), dipole],
        rollout_length=3,
        rollout_outputs=[p.dipole_moment],
        first_step_weight=1.0,
        optimizer_args={"lr": 1e-3},
    )
    data = short_data(dipoles, num_train=1, num_val=1, num_test=1, train_window=3, val_window=3)
    trainer = short_trainer(tmp_path, limit_train_batches=1)
    before = {name: value.clone() for name, value in task.model.named_parameters()}
    trainer.fit(task, datamodule=data)
    changed = [name for name, value in task.model.named_parameters() if not torch.equal(value, before[name])]
    assert any(name.startswith("output_modules.1.") for name in changed)  # of the dipole
    errors = []
    for batch in data.val_dataloader():
        target = batch["dipole_moment_window"]
        np.testing.assert_allclose(target[:, :, 2], target[:, :1, 2] + torch.arange(3.0), rtol=0)
        visited = [one.outputs[p.dipole_moment].detach().reshape(-1, 3) for one in task.rollout(batch, 3)]
        assert len({tuple(one[0].tolist()) for one in visited}) == 3
        errors += [(one - target[:, k]).abs().mean(dim=1) for k, one in enumerate(visited)]
    trainer.validate(task, datamodule=data, verbose=False)
    assert trainer.callback_metrics["val_loss"].item() == pytest.approx(torch.cat(errors).mean().item(), rel=1e-6)
