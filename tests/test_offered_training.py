"""What comments of the configs for ``spktrain``, and the documentation, offer: it composes, and trains for a few batches."""

import re
from pathlib import Path

import pytest
import torch
from helpers.documents import TEXT
from helpers.offers import offers
from helpers.programs import GROWS, SHORT_TRAINING, TINY, composed, metrics, spktrain
from hydra import compose, initialize_config_module, version
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
FILES = {
    str(file.relative_to(CONFIGS).with_suffix("")): file
    for file in sorted(CONFIGS.rglob("*.yaml"))
    if file.relative_to(CONFIGS).parts[0] != "md"
}
SHORT = [*SHORT_TRAINING, *TINY]
BUDGET = ["callbacks=[checkpoint,lrmonitor,dt_ema,curriculum,budget]", "callbacks.budget.seconds=600"]
SCHEDULED = ["callbacks.curriculum.rule._target_=spk_dt.training.Scheduled", "+callbacks.curriculum.rule.max_length=4"]

#: what is offered -> overrides of a short training of dt_egnn
TRAINED = {
    ("callbacks/budget", "final_lr", "task.scheduler_cls=null"): [
        *(*BUDGET, *SCHEDULED), "callbacks.budget.final_lr=1e-5", "task.scheduler_cls=null",
    ],
    ("data/trajectory", "check_data", "false"): ["data.check_data=false", *GROWS],
    ("data/trajectory", "fixed_forces", "false"): ["data.fixed_forces=false", *GROWS],
    ("data/trajectory", "replay_kicks", "true"): ["data.replay_kicks=true", *GROWS],
    ("model/representation/egnn", "coordinate_channel", "true"): ["model.representation.coordinate_channel=true", *GROWS],
    ("model/representation/egnn", "fast", "false"): ["model.representation.fast=false", *GROWS],
    ("task/gradient/full", "recompute", "false"): ["task/gradient=full", "task.gradient.recompute=false", *GROWS],
    ("task/gradient/truncated", "recompute", "false"): ["task/gradient=truncated", "task.gradient.recompute=false", *GROWS],
}  # fmt: skip
#: run by other tests, where words are found
ELSEWHERE = {
    ("data/md17_trajectory", "", "data.molecule=ethanol"): ("test_download.py", "ethanol"),
    ("data/md17_trajectory", "max_frames", "null"): ("test_download.py", "def test_"),
    ("data/md17_trajectory", "replay_kicks", "true"): ("test_experiments.py", "data.replay_kicks=true"),
    ("data/md17_trajectory", "replay_kicks", "false"): ("test_download.py", "replay_kicks"),
    ("callbacks/on_policy", "another_reference", "true"): ("test_on_policy_reference.py", "another_reference=True"),
    ("callbacks/hardening", "another_reference", "true"): ("test_on_policy_reference.py", "another_reference=True"),
    ("callbacks/hardening", "compile", "false"): ("test_hardening.py", "callbacks.on_policy.simulations.compile=false"),
    ("experiment/dt_last", "", "model_file=runs/x"): ("test_hardening.py", "experiment=dt_last"),
    ("experiment/dt_finetune", "energy_zero", "data"): ("test_energy_zero.py", "energy_zero=data"),
    ("experiment/dt_finetune", "", "model_file=runs/x"): ("test_finetune.py", "model_file={model_file}"),
    ("experiment/dt_finetune", "", "model_file=runs/x/best_model"): ("test_finetune.py", "model_file={model_file}"),
    ("experiment/dt_finetune", "rollout_length", "globals.max_rollout_length=1"): (
        "test_finetune.py",
        "max_rollout_length=1",
    ),
    ("experiment/dt_on_policy", "", "model_file=runs/x"): ("test_on_policy.py", "experiment=dt_on_policy"),
    **{
        ("experiment/dt_finetune", "may_differ", one): ("test_finetune_other.py", "may_differ")
        for one in ("time_step", "elements", "loss", "reference")
    },
    ("task/dynamic_training", "compile", "true"): ("test_compiled.py", "compile=True"),
    ("task/stress/trained", "", "task/stress=trained"): ("test_stress_training.py", "task/stress=trained"),
}
#: of a list in which there is no way to set it by a key, or not a value
NO_OFFERS = {
    ("data/trajectory", "check_data", "spkdt check"),
    ("data/trajectory", "remove_mean", "false"),
    ("experiment/dt_base", "add_mean", "false"),
    ("callbacks/hardening", "committee", "labelled"),
    ("callbacks/hardening", "committee", "too"),
}
#: null where the default is null: trained with in all experiments
DEFAULTS = {
    ("callbacks/budget", "final_lr"): (BUDGET, "callbacks.budget.final_lr"),
    ("callbacks/on_policy", "temperature"): (
        ["callbacks=[curriculum,on_policy]"],
        "callbacks.on_policy.simulations.temperature",
    ),
    ("callbacks/on_policy", "scratch"): (["callbacks=[curriculum,on_policy]"], "callbacks.on_policy.labels.scratch"),
    ("callbacks/on_policy", "time_limit"): (
        ["callbacks=[curriculum,on_policy]"],
        "callbacks.on_policy.labels.time_limit",
    ),
    **{
        ("callbacks/hardening", key): (["callbacks=[hardening]"], f"callbacks.on_policy.labels.{key}")
        for key in ("scratch", "time_limit")
    },
    ("data/trajectory", "max_train_windows"): ([], "data.max_train_windows"),
    ("data/trajectory", "num_train"): ([], "data.num_train"),
    ("data/trajectory", "test_window"): ([], "data.test_window"),
    ("task/dynamic_training", "max_displacement"): ([], "task.max_displacement"),
    ("task/dynamic_training", "rollout_outputs"): ([], "task.rollout_outputs"),
}


def test_all_offers_are_seen():
    """A comment that is written anew is run by a test, or is in one of the lists; what is no longer said is out of them."""
    every = {(path, key, value) for path, file in FILES.items() for key, value in offers(file)}
    molecules = {one for one in every if one[:2] == ("data/md17_trajectory", "molecule")}
    null = {(path, key, "null") for path, key in DEFAULTS}
    assert len(molecules) == 10
    assert every == {*TRAINED, *ELSEWHERE, *NO_OFFERS, *molecules, *null}
    for file, words in ELSEWHERE.values():
        assert words in (ROOT / "tests" / file).read_text(), (file, words)


@pytest.mark.parametrize("one", TRAINED, ids=" ".join)
def test_it_trains(one, database, tmp_path, monkeypatch):
    spktrain(tmp_path, monkeypatch, "experiment=dt_egnn", f"data.datapath={database}", *SHORT, *TRAINED[one])
    assert len([row for row in metrics(tmp_path) if "val_loss" in row]) == 2
    assert (tmp_path / "best_model").exists()


@pytest.mark.parametrize("key", DEFAULTS, ids=" ".join)
def test_null_is_the_default(key):
    overrides, name = DEFAULTS[key]
    config = composed("experiment=dt_egnn", *overrides)
    group, _, last = name.rpartition(".")
    assert last in OmegaConf.select(config, group)
    assert OmegaConf.select(config, name) is None


@pytest.mark.parametrize("molecule", sorted(v for k, v in offers(FILES["data/md17_trajectory"]) if k == "molecule"))
def test_molecules(molecule, tmp_path):
    config = composed(
        "experiment=dt_egnn", "data=md17_trajectory", f"data.molecule={molecule}", f"run.data_dir={tmp_path}"
    )
    assert molecule in instantiate(config.data, train_sampler_cls=None).datapath


DOCUMENTS = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL).replace("\n", " ")
#: arguments of Python, and of the inputs of other programs
NO_OVERRIDES = {'energy_unit="eV"', "nbeads='1'", "weights_only=True"}
#: overrides in backticks, alone or several; names with capitals stand for the user's
INLINE = sorted(
    {
        words
        for words in re.findall(r"`([^`]+)`", DOCUMENTS)
        if words.strip()
        and all(re.fullmatch(r"[+~]?[a-z_]+(?:[./][a-z_0-9]+)*=\S+", word) for word in words.split())
        and words not in NO_OVERRIDES
    }
)


@pytest.mark.parametrize("words", INLINE)
def test_overrides_of_the_documents_compose(words):
    """With one of the two programs: the experiments, and simulations with a model."""
    overrides, errors = words.split(), []
    bases = [["experiment=dt_egnn"], ["experiment=dt_egnn", BUDGET[0]], ["experiment=dt_on_policy"]]
    for base in bases:
        try:
            composed(*base, *overrides)
            return
        except HydraException as error:
            errors.append(error)
    version.setbase("1.1")
    GlobalHydra.instance().clear()
    with initialize_config_module("schnetpack.md.md_configs", version_base="1.1"):
        for base in ([], ["callbacks=[checkpoint,compare]"]):
            try:
                compose("config", overrides=[*base, *overrides])
                return
            except HydraException as error:
                errors.append(error)
    pytest.fail(f"{words}: {errors}")


def test_overrides_of_the_documents_are_found():
    assert len(INLINE) > 15
    assert {"data.check_data=false", "device=cuda", "data=md17_trajectory data.molecule=ethanol"} <= set(INLINE)


def test_rules_of_the_documents(database, tmp_path, monkeypatch):
    """Each rule by what the documentation gives for it."""
    rules = [words for words in INLINE if "curriculum.rule._target_" in words]
    names = re.findall(r"`callbacks.curriculum.rule._target_` \(`(\w+)`, `(\w+)`, `(\w+)`\)", DOCUMENTS)[0]
    assert set(names) == {"Converged", "Elapsed", "Scheduled"}
    assert {name for name in names if any(f"training.{name}" in words for words in rules)} == {"Elapsed", "Scheduled"}
    for i, words in enumerate(rules):
        folder = tmp_path / str(i)
        folder.mkdir()
        overrides = [*SHORT, *(BUDGET if "Scheduled" in words else []), *words.split()]
        spktrain(folder, monkeypatch, "experiment=dt_egnn", f"data.datapath={database}", *overrides)
        assert isinstance(torch.load(folder / "best_model", weights_only=False), torch.nn.Module)
