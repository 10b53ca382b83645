"""The programs ``spktrain``, ``spkmd`` and ``spkdt``, run in this process."""

import csv
import os
import sys
import warnings
from pathlib import Path

import torch
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict
from typer.testing import CliRunner

from spk_dt.cli import app

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Hydra's about its version 1.4
    import schnetpack.cli

    for resolver in ("uuid", "tmpdir"):  # both programs register them, and each expects to be the only one
        OmegaConf.clear_resolver(resolver)
    import schnetpack.md.cli

#: overrides of `spktrain`: a few windows of the data, a small model, and a curriculum that goes on after each epoch
SHORT_TRAINING = [
    "data.max_train_windows=8", "data.max_val_windows=2", "data.max_test_windows=2", "data.val_window=5",
    "data.batch_size=4", "trainer.accelerator=cpu", "trainer.max_epochs=2", "+trainer.enable_progress_bar=false",
    "print_config=false",
]  # fmt: skip
TINY = ["model.representation.n_atom_basis=8", "globals.cutoff=3.0"]
GROWS = ["callbacks.curriculum.rule._target_=spk_dt.training.Elapsed", "+callbacks.curriculum.rule.epochs=1"]

HYDRA = "1.1"  # the compatibility that schnetpack/md/cli.py gets by not asking for any


def composed(*overrides):
    """The config of `spktrain`, found as the program finds it."""
    with initialize_config_module("schnetpack.configs", version_base="1.2"):
        config = compose("train", overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    return config


def spktrain(folder, monkeypatch, *overrides):
    """Run the program in this process, in the folder of the run."""
    monkeypatch.setenv("PWD", str(folder))
    where = [f"hydra.runtime.{name}={folder}" for name in ("cwd", "output_dir")]
    config = composed(*overrides, *where, f"run.work_dir={folder}")
    with open_dict(config):
        del config.hydra
    monkeypatch.chdir(folder)
    schnetpack.cli.train.__wrapped__(config)


def metrics(folder):
    """Rows of the table that a training writes, without empty columns."""
    rows = list(csv.DictReader((folder / "csv" / "version_0" / "metrics.csv").open(newline="")))
    return [{key: float(value) for key, value in row.items() if value} for row in rows]


def spkmd(*overrides: str, steps: int = 2, callbacks: str = "[checkpoint]") -> dict:
    """Run the program in this process from the current folder; the state of the system at the end.

    Tests that call it need the fixture ``quiet_hydra``.
    """
    here = Path.cwd()
    arguments = ["system.molecule_file=start.traj", f"dynamics.n_steps={steps}", "dynamics.progress=false"]
    arguments += ["simulation_dir=out", f"callbacks={callbacks}", "seed=7", *overrides]
    given = {argument.split("=")[0]: argument for argument in arguments}  # the last one counts
    argv, sys.argv = sys.argv, ["spkmd", *given.values()]
    try:
        schnetpack.md.cli.simulate()
    finally:
        sys.argv = argv
        os.chdir(here)
    state = torch.load(here / given["simulation_dir"].split("=")[1] / "checkpoint.chk", weights_only=False)
    return state["system"]


def spkdt(*arguments):
    """Exit code, stdout and stderr of a command, run in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr
