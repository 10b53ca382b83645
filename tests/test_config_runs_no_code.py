"""To look at a config runs nothing of the model that it names, whatever is in that file; and it is told the same."""

import contextlib
import logging
import os
import pickle
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from helpers.models import painn, potential, tiny_egnn
from helpers.pair_potential import pair_model
from hydra import compose, initialize_config_module, version
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import OmegaConf
from schnetpack import cli
from schnetpack.atomistic import Atomwise, Forces, PairwiseDistances, Response
from schnetpack.md import cli as md_cli
from schnetpack.model import NeuralNetworkPotential
from schnetpack.nn import CosineCutoff, GaussianRBF
from schnetpack.representation import FieldSchNet, PaiNN, SchNet, SO3net

from spk_dt.md.settings_check import refuse_foreign_targets
from spk_dt.training import pretrained
from spk_dt.training.stored_model import read_stored

pytestmark = pytest.mark.filterwarnings(r"ignore:\s*version_base", "ignore:Model was saved without version")

FINETUNE = ["experiment=dt_finetune", "print_config=false"]


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def bare(path, trace):
    torch.save(Harmful(trace), path)


def of_older_torch(path, trace):
    torch.save(Harmful(trace), path, _use_new_zipfile_serialization=False)


def plain_pickle(path, trace):
    path.write_bytes(pickle.dumps(Harmful(trace)))


def inside_a_model(path, trace):
    model = potential(painn())
    model.harmful = Harmful(trace)
    torch.save(model, path)


def by_an_import(path, trace):
    """The file names a module of which the import is enough."""
    module = path.with_name("trap.py")
    module.write_text("class Bait: pass")
    import trap

    torch.save(trap.Bait(), path)
    del sys.modules["trap"]
    module.write_text(f"from pathlib import Path\nPath({str(trace)!r}).touch()\nclass Bait: pass  # and more\n")


FILES = [bare, of_older_torch, plain_pickle, inside_a_model, by_an_import]


@pytest.fixture(params=FILES, ids=lambda f: f.__name__)
def harmful(request, tmp_path, monkeypatch):
    """A file to be given as model, and what is there as soon as something of it has run."""
    path, trace = tmp_path / "best_model", tmp_path / "trace"
    monkeypatch.syspath_prepend(tmp_path)
    request.param(path, trace)
    monkeypatch.chdir(tmp_path)
    yield path, trace
    assert not trace.exists()
    with contextlib.suppress(RuntimeError, pickle.UnpicklingError):  # after the harm was done: it is no file of torch
        torch.load(path, weights_only=False)
    assert trace.exists()
    sys.modules.pop("trap", None)


def composed(name, *overrides):
    module = {"train": "schnetpack.configs", "config": "schnetpack.md.md_configs"}[name]
    with initialize_config_module(module, version_base="1.2"):
        config = compose(name, overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    return config


def run(main, monkeypatch, *arguments):
    """A program of SchNetPack in this process."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["spktrain", *arguments])
    base, root = version.getbase(), logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        with contextlib.suppress(SystemExit):  # of --help
            main()
    finally:
        version.setbase(str(base) if base else "1.2")
        GlobalHydra.instance().clear()
        root.setLevel(level)  # --info lowers it
        root.handlers[:] = handlers


# --------------------------------------------------------------------------------------------------------- nothing is run


def test_a_config_that_is_resolved_in_python(harmful):
    config = composed("train", *FINETUNE, f"model_file={harmful[0]}", "data.datapath=data.db", "run.id=a")
    shown = {key: OmegaConf.to_container(config[key], resolve=True) for key in ("globals", "data", "model", "task")}
    assert shown["data"]["val_window"] == 60
    assert shown["model"]["file"] == str(harmful[0])
    assert shown["data"]["property_units"] == {"energy": "eV", "forces": "eV/Ang"}
    assert shown["model"]["cutoff"] == shown["globals"]["cutoff"]
    told = zipfile.is_zipfile(harmful[0]) and b"Forces" in harmful[0].read_bytes()
    asked = {"_target_": "spk_dt.training.pretrained.load_attribute", "path": str(harmful[0]), "what": "energy_key"}
    assert shown["globals"]["energy_key"] == ("energy" if told else asked)


@pytest.mark.parametrize("harmful", [bare, inside_a_model], indirect=True, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    "flags",
    [
        ["--cfg", "job", "--resolve"],
        ["--cfg", "all"],
        ["--cfg", "job", "--package", "globals", "--resolve"],
        ["--info", "all"],
        ["--help", "--resolve"],
        ["--shell-completion", "query=bash"],
    ],
    ids=" ".join,
)
def test_spktrain_that_only_shows(harmful, flags, monkeypatch, capsys):
    overrides = [*FINETUNE, f"model_file={harmful[0]}", "run.id=a"]
    if flags[0] == "--shell-completion":
        line = f"spktrain {' '.join(overrides)} globals."
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        overrides = []
    run(cli.train, monkeypatch, *overrides, *flags)
    printed = capsys.readouterr().out
    assert {"--info": "val_window: 60", "--shell-completion": "globals.cutoff="}.get(flags[0], "cutoff:") in printed


@pytest.mark.parametrize("harmful", [bare], indirect=True, ids=lambda f: f.__name__)
@pytest.mark.parametrize("flags", [["--cfg", "job", "--resolve"], ["--info", "all"]], ids=" ".join)
def test_spkmd_that_only_shows(harmful, flags, monkeypatch, capsys):
    file = harmful[0]
    files = [f"calculator.model_file={file}", f"restart={file}", "system.molecule_file=a.traj", "simulation_dir=out"]
    run(md_cli.simulate, monkeypatch, *files, f"system.load_system_state={file}", *flags)
    assert f"model_file: {file}" in capsys.readouterr().out
    OmegaConf.to_container(composed("config", *files).calculator, resolve=True)


def save_pickle(path, data):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", data)


def test_a_file_cannot_change_what_reads_it(tmp_path):
    """Attributes set on the stand-ins themselves, tensors of other files, and references for the config."""
    path = tmp_path / "best_model"
    tensor = b"torch._utils\n_rebuild_tensor_v2"
    for name in (tensor, b"torch._utils\n_rebuild_parameter", b"any\nthing", b"collections\nOrderedDict"):
        for state in (b"}X\x04\x00\x00\x00cubeK\x01s", b"(N}X\x04\x00\x00\x00cubeK\x01st"):
            save_pickle(path, b"\x80\x02c" + name + b"\n" + state + b"b.")
            with pytest.raises((TypeError, AttributeError), match=r"setstate|mappingproxy|immutable"):
                read_stored(path)
    torch.save(torch.ones(1), tmp_path / "other")
    forged = pickle.dumps((str(tmp_path / "other"), "FloatStorage", "0"), 2)[2:-1]
    save_pickle(path, b"\x80\x02c" + tensor + b"\n(" + forged + b"K\x00)tR.")
    with pytest.raises(TypeError, match="no value"):
        float(read_stored(path))
    torch.save(potential_of("${oc.env:HOME}", "forces"), path)
    assert pretrained.read_attribute(path, "energy_key")["_target_"] == "spk_dt.training.pretrained.load_attribute"
    assert pretrained.read_attribute(path, "forces_key") == "forces"


# -------------------------------------------------------------------------------------------------------- what it is told


def potential_of(energy_key, force_key, representation=None):
    modules = [Atomwise(8, output_key=energy_key), Forces(energy_key=energy_key, force_key=force_key)]
    return NeuralNetworkPotential(representation or painn(), [PairwiseDistances()], modules)


def of_responses():
    modules = [Atomwise(8, output_key="E"), Response("E", ["forces"], {"forces": "F"})]
    return NeuralNetworkPotential(painn(), [PairwiseDistances()], modules)


def radial(cutoff=3.3):
    return GaussianRBF(6, cutoff), CosineCutoff(cutoff)


MODELS = {
    "painn": lambda: potential(PaiNN(8, 2, *radial())),
    "schnet": lambda: potential(SchNet(8, 2, *radial())),
    "so3net": lambda: potential(SO3net(8, 2, 1, *radial())),
    "field_schnet": lambda: potential(FieldSchNet(8, 2, radial()[0], external_fields=[], cutoff_fn=radial()[1])),
    "egnn": lambda: potential(tiny_egnn(3.3)),
    "double": lambda: potential(tiny_egnn(3.3)).double(),
    "half": lambda: potential(painn(4.0)).half(),
    "names": lambda: potential_of("U", "dU"),
    "responses": of_responses,
}


@pytest.mark.parametrize("name", MODELS)
def test_it_is_told_what_loading_finds(name, tmp_path):
    torch.save(MODELS[name](), tmp_path / "best_model")
    (tmp_path / "config.yaml").write_text(
        "{data: {property_units: {energy: Hartree}, distance_unit: Bohr}, task: {outputs: []}, globals: {cutoff: null}}"
    )
    told_is_described(tmp_path)


def told_is_described(path):
    known = pretrained.describe(path)
    for what in ("cutoff", "energy_key", "forces_key", "energy_unit", "distance_unit"):
        assert pretrained.read_attribute(path, what) == getattr(known, what), what
        assert type(pretrained.read_attribute(path, what)) is type(getattr(known, what)), what


def test_it_is_told_of_a_cutoff_in_double_precision_and_of_another_file(tmp_path):
    told_is_described(pair_model(tmp_path / "pairs"))
    torch.save(potential(painn(3.0)), tmp_path / "pairs")
    os.utime(tmp_path / "pairs", ns=(1, 1))
    assert pretrained.read_attribute(tmp_path / "pairs", "cutoff") == 3.0


class ComputedCutoff(torch.nn.Module):
    """A representation of one's own, whose cutoff is not stored."""

    @property
    def cutoff(self):
        return torch.tensor(2.0 + 1.5)


def test_what_is_not_stored_is_asked_for_when_training_starts(tmp_path, database, monkeypatch):
    """The model, the data and the outputs are the same as if the config had been told."""
    torch.save(potential_of("U", "dU", ComputedCutoff()), tmp_path / "best_model")
    monkeypatch.chdir(tmp_path)
    data = ["data=trajectory", f"data.datapath={database}"]
    config = composed("train", *FINETUNE, f"model_file={tmp_path}", *data)
    assert config.globals.cutoff == {
        "_target_": "spk_dt.training.pretrained.load_attribute",
        "path": str(tmp_path),
        "what": "cutoff",
    }
    assert config.globals.energy_key == "U"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    module = instantiate(config.data, train_sampler_cls=None)
    assert [t._cutoff for t in module.train_transforms if hasattr(t, "_cutoff")] == [3.5]
    assert instantiate(config.model).representation.cutoff == 3.5
    assert [output.name for output in instantiate(config.task.outputs)] == ["dU", "U"]


def test_what_is_no_model_is_refused_when_training_starts(tmp_path, database):
    """Before anything else, with the remedy, as when the config was told by loading."""
    torch.save({"state_dict": {}}, tmp_path / "last.ckpt")
    data = ["data=trajectory", f"data.datapath={database}"]
    config = composed("train", *FINETUNE, f"model_file={tmp_path / 'last.ckpt'}", *data)
    with pytest.raises(Exception, match="not a checkpoint"):
        instantiate(config.data, train_sampler_cls=None)


def test_a_config_of_somebody_else_for_spkmd(tmp_path):
    """Hydra calls what a `_target_` names; one that the user names, too, is the user's own."""
    file = tmp_path / "md.yaml"
    own = OmegaConf.create({"dynamics": {"thermostat": {"_target_": "mine.Thermostat"}}})
    refuse_foreign_targets(OmegaConf.create({"dynamics": {"thermostat": {"_target_": "mine.Thermostat"}}}), own, file)
    for harmless in ("schnetpack.md.integrators.VelocityVerlet", "spk_dt.md.VerletNeighborList"):
        refuse_foreign_targets(OmegaConf.create({"a": [{"_target_": harmless}]}), own, file)
    for harmful in ("os.system", "torch.load", "schnetpack.md_evil.Thermostat"):
        with pytest.raises(ValueError, match=rf"md\.yaml' asks for '{harmful}' \(a\.0\._target_\)"):
            refuse_foreign_targets(OmegaConf.create({"a": [{"_target_": harmful}]}), own, file)
