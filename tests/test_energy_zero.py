"""Fine-tuning on energies of another zero: by the programs, and what comes out of the model afterwards."""

import logging
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.models import batch_of
from helpers.pair_potential import CUTOFF, of_another_zero, pair_trajectory, tetrahedron, trainable
from helpers.pair_reference import ZERO, Reference
from helpers.programs import metrics, spktrain
from schnetpack.interfaces import SpkCalculator
from schnetpack.transform import AddOffsets, CastTo64, MatScipyNeighborList

from spk_dt.data import TrajectoryWriter

SHORT = [
    "task.rollout_length=1", "globals.max_rollout_length=1", "task/gradient=detached", "data.batch_size=4",
    "data.val_window=5", "data.max_val_windows=2", "data.max_test_windows=2", "globals.lr=2e-3", "trainer.max_epochs=2",
    "trainer.accelerator=cpu", "+trainer.enable_progress_bar=false", "print_config=false", "+seed=1",
    "callbacks.ema.decay=0.5", "+trainer.log_every_n_steps=1",
]  # fmt: skip
STAYS = [*SHORT, "callbacks.curriculum.rule._target_=spk_dt.training.Elapsed", "+callbacks.curriculum.rule.epochs=9"]
PD_H2 = tetrahedron()
TWO = {"a": "Pd2H2", "b": "PdH3", "c": "Pd2H2", "d": "PdH3"}
ONE = dict.fromkeys("abc", "Pd2H2")


def database(path, systems, offsets=ZERO, factor=1.0, of=None):
    """Trajectories by name, the last one for validation; `of` have the offsets."""
    last = list(systems)[-1]
    splits = {"train": [name for name in systems if name != last], "val": [last], "test": []}
    with TrajectoryWriter(path, splits=splits) as writer:
        for seed, (name, symbols) in enumerate(systems.items()):
            frames = pair_trajectory(tetrahedron(symbols), 12, 0.5, seed)
            if of is None or name in of:
                frames = of_another_zero(frames, offsets, factor)
            writer.add(name, frames, timestep_fs=0.5)
    return path


@pytest.fixture(scope="module")
def shifted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shifted")
    return {"two": database(folder / "two.db", TWO), "one": database(folder / "one.db", ONE)}


@pytest.fixture(scope="module")
def same(tmp_path_factory):
    return database(tmp_path_factory.mktemp("same") / "same.db", TWO, dict.fromkeys(ZERO, 0.0))


def finetune(folder, monkeypatch, model_file, data, *overrides, experiment="dt_finetune"):
    folder.mkdir(exist_ok=True)
    options = [f"experiment={experiment}", f"model_file={model_file}", "data=trajectory", f"data.datapath={data}"]
    spktrain(folder, monkeypatch, *options, *(SHORT if experiment == "dt_on_policy" else STAYS), *overrides)
    return torch.load(folder / "best_model", weights_only=False).eval()


def depth(model):
    return model.representation.depth.item()


def energy(model, atoms):
    """As all of SchNetPack gets it that keeps the offsets: `spkpredict` calls the model like this."""
    return model(batch_of(atoms, radius=CUTOFF))["energy"].item()


def expected_energy(atoms, zero, depth=1.0):
    """What the potential has, in a zero."""
    atoms = atoms.copy()
    atoms.calc = Reference()
    return depth * atoms.get_potential_energy() + sum(zero[z] for z in atoms.numbers)


def expected(model, atoms, zero):
    """What the potential of this model has, in a zero."""
    bias = model.representation.bias
    return expected_energy(atoms, {z: zero[z] + bias[z].item() for z in zero}, depth(model))


NONE = dict.fromkeys(ZERO, 0.0)


@pytest.mark.parametrize("which", ["two", "one"])
def test_a_model_gets_better_as_without_energies(which, shifted, tmp_path, monkeypatch, caplog):
    model, epochs = trainable(tmp_path / "model"), "trainer.max_epochs=4"
    with caplog.at_level(logging.WARNING, "spk_dt"):
        tuned = finetune(tmp_path / "run", monkeypatch, model, shifted[which], epochs)
    forces = finetune(tmp_path / "forces", monkeypatch, model, shifted[which], epochs, "task.outputs.1.loss_weight=0")
    losses = [row["val_loss"] for row in metrics(tmp_path / "run") if "val_loss" in row]
    assert losses == sorted(losses, reverse=True)
    assert depth(tuned) - 0.9 > 0.65 * (depth(forces) - 0.9) > 0.02
    assert abs(energy(tuned, PD_H2) - expected(tuned, PD_H2, NONE)) < 1e-9  # its own zero
    (message,) = {r.getMessage() for r in caplog.records if "another zero" in r.getMessage()}
    assert ("do not tell the elements apart" in message) == (which == "one")
    assert max(row["val_energy_mae"] for row in metrics(tmp_path / "run") if "val_energy_mae" in row) < 0.5


def test_energies_in_the_zero_of_the_data(shifted, tmp_path, monkeypatch):
    """In whatever of SchNetPack has offsets; and a run that is resumed, or fine-tuned again, has the same ones."""
    from spk_dt.training.energy_zero import data_offsets, use_energy_zero

    zero = "energy_zero=data"
    tuned = finetune(
        tmp_path / "run", monkeypatch, trainable(tmp_path / "model"), shifted["two"], zero, "trainer.max_epochs=1"
    )
    offsets = data_offsets(tuned).atomref.clone()
    found = {z: offsets[z].item() for z in ZERO}
    assert all(abs(found[z] - ZERO[z]) < 0.1 for z in ZERO)
    assert abs(energy(tuned, PD_H2) - expected(tuned, PD_H2, found)) < 1e-9

    atoms = PD_H2.copy()
    atoms.calc = SpkCalculator(
        str(tmp_path / "run" / "best_model"), MatScipyNeighborList(CUTOFF), energy_unit="eV", dtype=torch.float64
    )
    assert abs(atoms.get_potential_energy() - expected(tuned, PD_H2, found)) < 1e-9

    resumed = finetune(tmp_path / "run", monkeypatch, tmp_path / "model", shifted["two"], zero, "trainer.max_epochs=3")
    assert depth(resumed) != depth(tuned)
    assert torch.equal(data_offsets(resumed).atomref, offsets)
    assert abs(energy(resumed, PD_H2) - expected(resumed, PD_H2, found)) < 1e-9
    last = [row["train_energy_mae"] for row in metrics(tmp_path / "run") if "train_energy_mae" in row]
    assert max(last) < 0.5

    again = finetune(tmp_path / "again", monkeypatch, tmp_path / "run", shifted["two"])  # with the model's zero
    assert len([m for m in again.postprocessors if isinstance(m, AddOffsets)]) == 1
    assert abs(energy(again, PD_H2) - expected(again, PD_H2, found)) < 1e-9
    use_energy_zero(again, "model")
    assert abs(energy(again, PD_H2) - expected(again, PD_H2, NONE)) < 1e-9
    with pytest.raises(ValueError, match="energy_zero=dft"):
        use_energy_zero(again, "dft")


def test_fine_tuned_again(shifted, same, tmp_path, monkeypatch, caplog):
    """The offsets of the first time are used where they fit; other data may have the first zero again."""
    from spk_dt.training.energy_zero import data_offsets

    first = finetune(tmp_path / "first", monkeypatch, trainable(tmp_path / "model"), shifted["one"])
    caplog.clear()
    with caplog.at_level(logging.WARNING, "spk_dt"):
        second = finetune(tmp_path / "second", monkeypatch, tmp_path / "first", shifted["one"], "energy_zero=data")
    assert "another zero" not in caplog.text
    assert torch.equal(data_offsets(second).atomref, data_offsets(first).atomref)
    in_data = {z: data_offsets(first).atomref[z].item() for z in ZERO}
    assert abs(energy(second, PD_H2) - expected(second, PD_H2, in_data)) < 1e-9
    back = finetune(tmp_path / "back", monkeypatch, tmp_path / "second", same, "energy_zero=data")
    assert abs(energy(back, PD_H2) - expected(back, PD_H2, NONE)) < 0.2  # two offsets, up to errors of the model
    other = finetune(tmp_path / "other", monkeypatch, tmp_path / "first", same)
    assert not data_offsets(other).atomref.any()
    for run in ("second", "back", "other"):
        assert max(row["train_energy_mae"] for row in metrics(tmp_path / run) if "train_energy_mae" in row) < 0.5


def test_the_same_zero_is_left_alone(same, tmp_path, monkeypatch, caplog):
    """Also that which a mean and atomic references of the user's make, in double precision."""
    model = torch.load(trainable(tmp_path / "mine"), weights_only=False)
    references = torch.zeros(100, dtype=torch.float64)
    references[[1, 46]] = torch.tensor([0.123456789012, -0.23], dtype=torch.float64)
    mean = torch.tensor(0.01234567890123, dtype=torch.float64)
    offsets = AddOffsets("energy", add_mean=True, add_atomrefs=True, property_mean=mean, atomrefs=references)
    model.postprocessors = torch.nn.ModuleList([CastTo64(), offsets])
    torch.save(model, tmp_path / "mine")
    for zero in ("model", "data"):
        with caplog.at_level(logging.WARNING, "spk_dt"):
            tuned = finetune(tmp_path / zero, monkeypatch, tmp_path / "mine", same, f"energy_zero={zero}")
        kept = [m for m in tuned.postprocessors if isinstance(m, AddOffsets)]
        assert len(kept) == 1
        assert torch.equal(kept[0].atomref, references)
        assert kept[0].mean == mean
    assert not [
        one for one in caplog.records if one.name != "spk_dt.training.last_stage" and "zero" in one.getMessage()
    ]


def test_a_wrong_unit_is_refused_with_what_helps(tmp_path, monkeypatch):
    wrong = database(tmp_path / "kcal.db", TWO, NONE, factor=23.06)
    model = trainable(tmp_path / "model")
    unchecked = "data.check_data=false"  # which would refuse trajectories at constant energy
    with pytest.raises(ValueError, match=r"kcal / mol do that are taken for eV.*task\.outputs\.1\.loss_weight=0"):
        finetune(tmp_path / "refused", monkeypatch, model, wrong, unchecked)
    assert not (tmp_path / "refused" / "best_model").exists()
    without = finetune(tmp_path / "a", monkeypatch, model, wrong, unchecked, "task.outputs.1.loss_weight=0")
    right = finetune(tmp_path / "b", monkeypatch, model, database(tmp_path / "eV.db", TWO, NONE))
    assert depth(without) > 0.9
    assert abs(depth(without) - depth(right)) < 0.01
    rollouts = ["task.rollout_length=2", "globals.max_rollout_length=2"]  # forces only
    unused = finetune(tmp_path / "c", monkeypatch, model, wrong, unchecked, *rollouts)
    assert len(unused.postprocessors) == 0
    with pytest.raises(ValueError, match="do not fit"):
        finetune(
            tmp_path / "d", monkeypatch, model, wrong, unchecked, *rollouts, "task.rollout_outputs=[energy,forces]"
        )


def test_energies_of_two_codes_are_refused(tmp_path, monkeypatch):
    mixed = database(tmp_path / "mixed.db", {name: "Pd2H2" for name in "abcd"}, of=["b"])
    with pytest.raises(ValueError, match=r"more than one zero.*\(trajectories b\)"):
        finetune(tmp_path / "run", monkeypatch, trainable(tmp_path / "model"), mixed)


def test_new_models_on_large_energies_of_atoms(tmp_path, monkeypatch):
    """By the options in docs/training.md; with the mean alone thousands of eV are left."""
    data = database(tmp_path / "large.db", TWO, {1: -13.0, 46: -10000.0})
    options = [
        "experiment=static_egnn", "data=trajectory", f"data.datapath={data}", "data.transforms.0.remove_mean=false",
        "+data.transforms.0.remove_atomrefs=true", "+data.transforms.0.estimate_atomref=true",
        "model.postprocessors.1.add_mean=false", "+model.postprocessors.1.add_atomrefs=true",
        "+model.postprocessors.1.estimate_atomref=true", "model.representation.n_atom_basis=8",
    ]  # fmt: skip
    spktrain(tmp_path, monkeypatch, *options, *STAYS[3:])
    assert max(row["train_energy_mae"] for row in metrics(tmp_path) if "train_energy_mae" in row) < 2.0
    model = torch.load(tmp_path / "best_model", weights_only=False)
    assert abs(energy(model.double().eval(), PD_H2) - expected_energy(PD_H2, {1: -13.0, 46: -10000.0})) < 2.0


def test_on_policy_labels_have_the_zero_of_the_data(shifted, tmp_path, monkeypatch):
    reference = "helpers.pair_reference:OfAnotherZero"
    tuned = finetune(
        tmp_path / "run", monkeypatch, trainable(tmp_path / "model"), shifted["two"],
        f"callbacks.on_policy.labels.reference={reference}", "callbacks.on_policy.schedule.n_rounds=1",
        "callbacks.on_policy.simulations.steps=4", "callbacks.on_policy.labels.n_labels=8",
        "callbacks.on_policy.share=0.5", "data.max_train_windows=24", experiment="dt_on_policy",
    )  # fmt: skip
    assert (tmp_path / "run" / "on_policy" / "round_000.db").exists()
    assert max(row["train_energy_mae"] for row in metrics(tmp_path / "run") if "train_energy_mae" in row) < 0.5
    assert depth(tuned) > 0.9


def test_deployed_and_in_single_precision(tmp_path):
    """`spkdeploy` for LAMMPS; a model in single precision without a cast gets one, so that its energies are not rounded."""
    from helpers.models import lammps_input, potential

    from spk_dt.training.energy_zero import set_data_offsets, use_energy_zero

    torch.manual_seed(0)
    model = potential().eval()
    batch = batch_of(PD_H2, dtype=torch.float32)
    before = model(dict(batch))["energy"].item()
    set_data_offsets(model, "energy", ZERO)
    assert model(dict(batch))["energy"].item() == before
    use_energy_zero(model, "data")
    shift = sum(ZERO[z] for z in PD_H2.numbers)
    assert abs(model(dict(batch))["energy"].item() - before - shift) < 1e-9
    program = runpy.run_path(str(Path(sys.executable).with_name("spkdeploy")))
    program["save_jit_model"](model, str(tmp_path / "deployed"))
    deployed = torch.jit.load(str(tmp_path / "deployed"))
    np.testing.assert_allclose(deployed(lammps_input(PD_H2))["energy"].item(), before + shift, rtol=1e-6)
