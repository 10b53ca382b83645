"""Commands and names in the README and in the pages of the documentation exist."""

import re
import shlex

import pytest
from helpers.documents import ROOT, TEXT
from helpers.programs import composed
from hydra import compose, initialize_config_module, version
from hydra.core.global_hydra import GlobalHydra
from typer.main import get_command

from spk_dt.cli import app


def commands(program):
    blocks = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    inline = re.findall(rf"`({program} [^`]*=[^`]*)`", TEXT)
    found = [shlex.split(line, comments=True) for line in lines + inline]
    return [words[1:] for words in found if words and words[0] == program]


@pytest.mark.parametrize("overrides", commands("spktrain"), ids=" ".join)
def test_spktrain(overrides):
    if overrides[0] == "-m":  # the first job of a sweep; what it is named after is known when it runs
        overrides = [one.split(",")[0] for one in overrides[1:]]
    assert composed(*overrides).task._target_ == "spk_dt.training.DynamicTrainingTask"


@pytest.mark.parametrize("overrides", commands("spkmd"), ids=" ".join)
def test_spkmd(overrides):
    version.setbase("1.1")
    GlobalHydra.instance().clear()
    with initialize_config_module("schnetpack.md.md_configs", version_base="1.1"):
        assert compose("config", overrides=overrides).calculator.energy_unit == "eV"


@pytest.mark.parametrize("words", commands("spkdt"), ids=" ".join)
def test_spkdt(words):
    program = get_command(app)
    if words[0].startswith("-"):
        assert any(words[0] in one.opts for one in program.params)
        return
    command = program.commands[words[0]]
    command.make_context(words[0], words[1:])  # parses, does not run


def test_settings_table():
    """Each key in the table of settings exists, and its two columns of values are those of the experiments."""
    ours, paper = composed("experiment=dt_egnn"), composed("experiment=dt_egnn_paper")

    def value(config, key):
        from omegaconf import OmegaConf

        return OmegaConf.select(config, key, throw_on_missing=True)

    expected = {
        "globals.max_rollout_length": (4, 20),
        "globals.lr": (3e-3, 1e-3),
        "callbacks.curriculum.reset_lr": (1e-3, 1e-4),
        "task.scheduler_args.patience": (1, 15),
        "task.scheduler_args.min_lr": (1e-4, 2e-6),
        "data.val_window": (60, 120),
        "data.batch_size": (8, 32),
        "model.representation.n_atom_basis": (32, 128),
        "globals.cutoff": (4.0, 5.0),
    }
    for key, values in expected.items():
        assert (value(ours, key), value(paper, key)) == values, key
    table = TEXT.split("| setting | key |")[1].split("\n\n")[0]
    keys = [key for cell in re.findall(r"`([a-z_]+\.[A-Za-z_.{},]+)`", table) for key in expanded(cell)]
    assert len(keys) > 20
    for key in keys:
        if key != "task.gradient.k":
            assert key in ("data.max_train_windows", "task.rollout_outputs") or value(paper, key) is not None, key


def expanded(cell):
    match = re.fullmatch(r"(.*)\{(.*)\}", cell)
    return [match[1] + part for part in match[2].split(",")] if match else [cell]


def test_python_names():
    import spk_dt

    for line in re.findall(r"from spk_dt import (.*)", TEXT):
        for name in line.split(", "):
            assert name in spk_dt.__all__


def test_files_exist():
    for path in re.findall(r"`((?:tutorials|spk_dt|configs)/[^`]*)`", TEXT):
        assert (ROOT / path).exists(), path
