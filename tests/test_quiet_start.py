"""Our programs do not begin with what other packages say about themselves; all other warnings are shown."""

import os
import re
import subprocess
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import dirsync.syncer
import pytest
import torch
from helpers.hardening import torn
from hydra import compose, initialize_config_module, version
from hydra.core.global_hydra import GlobalHydra
from lightning_fabric.utilities.warnings import PossibleUserWarning
from schnetpack import cli

from spk_dt.certificate import worker
from spk_dt.foreign_warnings import foreign_warnings, silence
from spk_dt.models import load_model

BIN = Path(sys.executable).parent
UNRELATED = "of somebody else"
#: warns in the middle of the imports of SchNetPack
SITECUSTOMIZE = f"""
import sys, warnings
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "dirsync":
            warnings.warn({UNRELATED!r}, FutureWarning)
sys.meta_path.insert(0, Finder())
"""
#: what SchNetPack's programs say while they are imported, which is before they load anything of ours
BEFORE_US = {
    "spktrain": {"`torch.jit.script` is deprecated", "invalid escape sequence"},
    "spkmd": {"`torch.jit.script` is deprecated", "invalid escape sequence", "The version_base parameter"},
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory, database):
    """The warnings on stderr of each program in a process of its own, and its standard output."""
    folder = tmp_path_factory.mktemp("start")
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "PWD": str(folder)}
    environment.pop("PYTHONWARNINGS", None)
    commands = {
        "spkdt --help": ["spkdt", "--help"],
        "spkdt": ["spkdt", "check", str(database)],
        "spktrain": ["spktrain", "experiment=dt_egnn", "--cfg", "job"],
        "spkmd": ["spkmd", "simulation_dir=out", "--cfg", "job"],
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = {
        name: subprocess.Popen([BIN / command[0], *command[1:]], cwd=folder, env=environment, **pipes)
        for name, command in commands.items()
    }
    results = {}
    for name, process in running.items():
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        results[name] = (re.findall(r"^\S+:\d+: \w*Warning: ?\n?(.*)", err, re.MULTILINE), out)
    return results


def test_help_says_nothing_else(shown):
    messages, out = shown["spkdt --help"]
    assert messages == []
    assert "Usage: spkdt" in out


def test_our_program_is_quiet(shown):
    messages, out = shown["spkdt"]
    assert messages == [UNRELATED]
    assert "5 trajectories" in out or "run_0" in out


@pytest.mark.parametrize("program", sorted(BEFORE_US))
def test_programs_of_schnetpack_are_quiet_once_they_have_loaded_us(program, shown):
    messages, out = shown[program]
    assert UNRELATED in messages
    assert [m for m in messages if m != UNRELATED and not m.startswith(tuple(BEFORE_US[program]))] == []
    assert "_target_: " in out


@pytest.mark.parametrize("initializer", [worker.begin, None])
def test_processes_of_a_certificate(initializer, tmp_path, capfd, monkeypatch):
    """They say nothing that the first one says as well; others that load a model do."""
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    torch.save(torn(), tmp_path / "best_model")
    with ProcessPoolExecutor(1, get_context("spawn"), initializer) as pool:
        pool.submit(load_model, tmp_path / "best_model").result()
    shown = capfd.readouterr().err
    if initializer:
        assert shown == ""
    else:
        assert "`torch.jit.script` is deprecated" in shown
        assert "is a pickle" in shown


# ------------------------------------------------------------------------------------------------------ exactly these


SEEN = [
    ("`torch.jit.script` is deprecated. Please switch to `torch.compile`", FutureWarning, "torch.jit._script"),
    ("invalid escape sequence '\\.'", SyntaxWarning, "/x/site-packages/dirsync/syncer"),
    ("\"\\.\" is an invalid escape sequence. Did you mean", SyntaxWarning, "dirsync.syncer"),
    ("invalid escape sequence '\\_'", SyntaxWarning, "/x/site-packages/schnetpack/md/cli"),
    ("\nThe version_base parameter is not specified.\nHydra", UserWarning, "schnetpack.md.cli"),
    ("provider=hydra.searchpath in main, path=/somewhere/configs is not available", UserWarning, "hydra._internal.a"),
    ("Attribute 'model' is an instance of `nn.Module` and is already", UserWarning, "pytorch_lightning.utilities.parsing"),
    ("Skipping 'outputs' parameter because it is not", UserWarning, "pytorch_lightning.core.saving"),
    ("`isinstance(treespec, LeafSpec)` is deprecated, use", FutureWarning, "pytorch_lightning.utilities._pytree"),
]  # fmt: skip


def is_shown(message, category, module):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        silence()
        warnings.warn_explicit(message, category, "file.py", 1, module=module, registry={})
    return bool(seen)


@pytest.mark.parametrize(("message", "category", "module"), SEEN)
def test_each_is_silenced_and_nothing_like_it(message, category, module, monkeypatch):
    monkeypatch.setenv("PWD", "/somewhere")
    assert not is_shown(message, category, module)
    assert is_shown(message, category, "somebody.else")
    assert is_shown(message, RuntimeWarning, module)
    assert is_shown(f"In short: {message}".replace("invalid", "odd"), category, module)
    monkeypatch.setenv("PWD", "/elsewhere")
    assert is_shown(message, category, module) == ("/somewhere" in message)


def test_each_is_seen_once_in_this_list():
    assert len(SEEN) == len(foreign_warnings()) + 2  # the SyntaxWarning has two texts, and comes of two packages


def test_the_file_that_is_compiled(tmp_path):
    """Where no compiled modules are kept, a SyntaxWarning comes at every start."""
    text = Path(dirsync.syncer.__file__).read_text()
    shown = {}
    for file in (dirsync.syncer.__file__, str(tmp_path / "mine.py")):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            silence()
            compile(text, file, "exec")
        shown[file] = [str(one.message) for one in seen]
    assert shown[dirsync.syncer.__file__] == []
    assert any("invalid escape" in message for message in shown[str(tmp_path / "mine.py")])


@pytest.mark.filterwarnings(r"ignore:\s*version_base")
@pytest.mark.parametrize("program", ["spktrain", "mine"])
def test_a_training(program, database, tmp_path, monkeypatch):
    """In spktrain only what users can act on is left; a program that uses the same configs keeps its filters."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    arguments = [
        "experiment=dt_egnn", f"data.datapath={database}", "data.max_train_windows=4", "data.max_val_windows=2",
        "data.max_test_windows=2", "data.val_window=5", "trainer.max_epochs=1", "trainer.accelerator=cpu",
        "model.representation.n_atom_basis=8", "globals.cutoff=3.0", "print_config=false", "run.id=run",
        "+trainer.enable_progress_bar=false",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [f"/bin/{program}", *arguments])
    base = version.getbase()
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            cli.train()
    finally:
        version.setbase(str(base) if base else "1.2")
        GlobalHydra.instance().clear()
    foreign = [one for one in seen for silenced in foreign_warnings() if re.match(silenced.message, str(one.message))]
    assert bool(foreign) == (program == "mine")
    assert any(issubclass(one.category, PossibleUserWarning) for one in seen)


def test_filters_of_others_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/bin/mine"])
    before = list(warnings.filters)
    with initialize_config_module("schnetpack.configs", version_base="1.2"):
        compose("train", overrides=["experiment=dt_egnn"])
    assert warnings.filters == before
