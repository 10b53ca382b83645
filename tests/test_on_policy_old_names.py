"""Old names of on-policy labels go on working for one version, and say what the new ones are."""

import inspect
import logging
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from helpers.models import CUTOFF, potential
from helpers.programs import composed
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from schnetpack.data import ASEAtomsData
from schnetpack.task import ModelOutput
from schnetpack.transform import CastTo64, MatScipyNeighborList

from spk_dt.data import TrajectoryDataModule
from spk_dt.training import (
    DynamicTrainingTask,
    Labelling,
    ModelSimulations,
    OnPolicyLabels,
    RoundSchedule,
    VisitedStates,
)

EMT_NAME = "ase.calculators.emt:EMT"
#: other than the defaults, and each with its new place
FLAT = {
    "reference": (EMT_NAME, "labels.reference"),
    "n_rounds": (3, "schedule.n_rounds"),
    "first_epoch": (1, "schedule.first_epoch"),
    "every_n_epochs": (4, "schedule.every_n_epochs"),
    "extra_rounds": (5, "schedule.extra_rounds"),
    "n_systems": (2, "simulations.n_systems"),
    "steps": (7, "simulations.steps"),
    "n_labels": (6, "labels.n_labels"),
    "max_steps": (70, "simulations.max_steps"),
    "time_step": (2.0, "simulations.time_step"),
    "kinetic_energy": (4.0, "simulations.kinetic_energy"),
    "share": (0.5, "share"),
    "max_force": (20.0, "labels.max_force"),
    "n_processes": (2, "labels.n_processes"),
}


def settings(callback):
    """All arguments of a callback and its groups."""
    groups = {name: vars(getattr(callback, name)) for name in ("labels", "simulations", "schedule")}
    return groups | {"share": callback.share}


def test_arguments_go_where_they_belong(caplog):
    values = {name: value for name, (value, _) in FLAT.items()}
    with caplog.at_level(logging.WARNING, "spk_dt"):
        old = VisitedStates(**values)
    for name, (value, place) in FLAT.items():
        found = old
        for part in place.split("."):
            found = getattr(found, part)
        assert found == value, name
        assert f"callbacks.visits.{name} -> callbacks.on_policy.{place}" in caplog.text
    assert settings(VisitedStates(*values.values())) == settings(old)  # in the order of old
    assert old.folder == Path("visited")


def test_defaults_are_those_of_the_groups():
    assert settings(VisitedStates(EMT_NAME)) == settings(OnPolicyLabels(Labelling(EMT_NAME)))


def test_wrong_names_are_refused():
    for arguments in ({"reference": EMT_NAME, "n_round": 1}, {"n_rounds": 1}):
        with pytest.raises(TypeError, match="VisitedStates takes reference"):
            VisitedStates(**arguments)


def test_the_old_experiment_is_the_new_one(caplog):
    """The same config but for the callback, and the same callback from it."""
    name = "callbacks.{}.{}reference=" + EMT_NAME
    configs = (
        composed("experiment=dt_visits", "model_file=null", name.format("visits", "")),
        composed("experiment=dt_on_policy", "model_file=null", name.format("on_policy", "labels.")),
    )
    old, new = ({**OmegaConf.to_container(config), "hydra": None} for config in configs)
    assert (old["run"].pop("experiment"), new["run"].pop("experiment")) == ("dt_visits", "dt_on_policy")
    visits, on_policy = old["callbacks"].pop("visits"), new["callbacks"].pop("on_policy")
    assert old == new
    with caplog.at_level(logging.WARNING, "spk_dt"):
        one = instantiate(visits)
    assert "use callbacks.on_policy, experiment=dt_on_policy" in caplog.text
    assert "callbacks.visits.kinetic_energy -> callbacks.on_policy.simulations.kinetic_energy" in caplog.text
    assert "callbacks.visits.n_systems" not in caplog.text  # as ever
    assert settings(one) == settings(instantiate(on_policy))
    assert one.simulations.kinetic_energy == 2
    assert one.schedule.extra_rounds == 5


@pytest.mark.parametrize("cls", [OnPolicyLabels, Labelling, ModelSimulations, RoundSchedule])
def test_the_config_has_each_argument_with_its_default(cls):
    config = composed("experiment=dt_finetune", "model_file=null", "callbacks=[on_policy]").callbacks.on_policy
    target = f"spk_dt.training.{cls.__name__}"
    node = next(one for one in (config, config.labels, config.simulations, config.schedule) if one._target_ == target)
    arguments = inspect.signature(cls).parameters
    assert {key for key in node if key != "_target_"} == arguments.keys()
    plain = {name: one.default for name, one in arguments.items() if name not in ("labels", "simulations", "schedule")}
    assert {name: node[name] for name in plain if name != "reference"} == {
        name: value for name, value in plain.items() if name != "reference"
    }


def fit(database, callback, max_epochs, ckpt_path=None):
    pl.seed_everything(0)
    losses = [ModelOutput(name, torch.nn.L1Loss(), metrics={}) for name in ("energy", "forces")]
    task = DynamicTrainingTask(potential().double(), losses, optimizer_args={"lr": 1e-4})
    data = TrajectoryDataModule(
        str(database), 4, transforms=[MatScipyNeighborList(CUTOFF), CastTo64()], split_file=None, num_workers=0
    )
    run = pl.Trainer(
        max_epochs=max_epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        inference_mode=False, precision="64", num_sanity_val_steps=0, limit_train_batches=2, limit_val_batches=0,
        callbacks=[callback, ModelCheckpoint(".", save_last=True)],
    )  # fmt: skip
    run.fit(task, data, ckpt_path=ckpt_path)


def callback(**kwargs):
    return OnPolicyLabels(
        Labelling(EMT_NAME, n_labels=3), ModelSimulations(n_systems=2, steps=4),
        RoundSchedule(n_rounds=2, every_n_epochs=1), **kwargs,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("key", ["VisitedStates", "OnPolicyLabels"])
def test_a_run_begun_with_old_names_goes_on_with_new_ones(database, tmp_path, monkeypatch, key):
    """State (under the key of older versions, or of this one) and files; nothing is computed again."""
    monkeypatch.chdir(tmp_path)
    old = VisitedStates(EMT_NAME, n_rounds=1, n_labels=3, n_systems=2, steps=4, every_n_epochs=1)
    fit(database, old, 1)
    checkpoint = torch.load("last.ckpt", weights_only=False)
    checkpoint["callbacks"] = {key: checkpoint["callbacks"]["OnPolicyLabels"]}
    assert checkpoint["callbacks"][key]["done"] == 1
    torch.save(checkpoint, "older.ckpt")
    written = Path("visited/round_000.db").stat().st_mtime_ns
    new = callback()
    fit(database, new, 3, "older.ckpt")
    assert (new.schedule.done, new.simulations.age) == (2, [8, 8])
    assert Path("visited/round_000.db").stat().st_mtime_ns == written
    assert len(ASEAtomsData("visited/round_001.db")) == 3
    assert not Path("on_policy").exists()


def test_a_new_run_has_the_new_folder(database, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(database, callback(), 1)
    assert len(ASEAtomsData("on_policy/round_000.db")) == 3
    assert not Path("visited").exists()
