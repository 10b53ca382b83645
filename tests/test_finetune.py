"""Fine-tuning: what is read from a trained model and its run, what stays as it was, and what is refused."""

import copy
import functools
import shutil
from pathlib import Path

import ase.units
import numpy as np
import pytest
import torch
from helpers.models import batch_of, molecule, painn, potential, tiny_egnn
from helpers.pair_potential import pair_model, pair_trajectory, tetrahedron
from helpers.programs import composed, metrics, spktrain
from omegaconf import OmegaConf
from schnetpack import properties as p
from schnetpack.atomistic import Atomwise, Forces, PairwiseDistances
from schnetpack.model import NeuralNetworkPotential
from schnetpack.transform import AddOffsets, CastTo64, ScaleProperty

from spk_dt import properties
from spk_dt.data import TrajectoryDataModule, TrajectoryWriter
from spk_dt.training.finetune import RemoveModelOffsets, pretrained_model
from spk_dt.training.fits_data import check_elements, check_forces
from spk_dt.training.freeze import freeze
from spk_dt.training.pretrained import describe, read_model
from spk_dt.units import conversion

QUICK = ["trainer.accelerator=cpu", "+trainer.enable_progress_bar=false", "print_config=false", "+seed=1"]
SHORT = [
    *QUICK, "data.max_train_windows=8", "data.max_val_windows=2", "data.max_test_windows=2", "data.val_window=5",
    "data.batch_size=4", "trainer.max_epochs=2", "callbacks.curriculum.rule._target_=spk_dt.training.Elapsed",
    "+callbacks.curriculum.rule.epochs=1",
]  # fmt: skip
KCAL = ase.units.kcal / ase.units.mol


def finetune(folder, monkeypatch, model_file, database, *overrides):
    folder.mkdir(exist_ok=True)
    data = ["data=trajectory", f"data.datapath={database}"]
    spktrain(folder, monkeypatch, "experiment=dt_finetune", f"model_file={model_file}", *data, *SHORT, *overrides)
    return torch.load(folder / "best_model", weights_only=False)


def outputs(model, atoms, length=1.0):
    """What a user of a stored model gets, for a unit of length in Å."""
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell / length)
    atoms.positions /= length
    assert model.do_postprocessing
    batch = batch_of(atoms, radius=float(model.representation.cutoff), dtype=torch.float32)
    return {key: value.detach() for key, value in model.eval()(batch).items()}


@pytest.fixture(scope="module")
def static(database, tmp_path_factory):
    """A run of SchNetPack's own, kcal/mol, for each architecture: PaiNN and SchNet."""

    def train(representation):
        folder = tmp_path_factory.mktemp(representation)
        with pytest.MonkeyPatch.context() as monkeypatch:
            spktrain(
                folder, monkeypatch, "experiment=md17", "data=custom", f"model/representation={representation}", *QUICK,
                f"data.datapath={database}", "run.experiment=static", "data.num_train=60", "data.num_val=20",
                "data.num_test=10", "data.num_workers=0", "trainer.max_epochs=1", "model.representation.n_atom_basis=8",
                "globals.cutoff=3.3",
            )  # fmt: skip
        return folder

    return functools.cache(train)


@pytest.fixture(scope="module")
def atomic_units(database, tmp_path_factory):
    """A run of our static EGNN in Hartree and Bohr."""
    folder = tmp_path_factory.mktemp("egnn")
    with pytest.MonkeyPatch.context() as monkeypatch:
        spktrain(
            folder, monkeypatch, "experiment=static_egnn", "data=trajectory", f"data.datapath={database}", *SHORT,
            "data.distance_unit=Bohr", "data.property_units.energy=Hartree", "data.property_units.forces=Hartree/Bohr",
            "globals.cutoff=6.0", "model.representation.n_atom_basis=8", "trainer.max_epochs=1",
        )  # fmt: skip
    return folder


# ------------------------------------------------------------------------------------------------------- what is taken up


@pytest.mark.parametrize("representation", ["painn", "schnet"])
def test_without_updates_the_model_stays_what_it_was(representation, static, database, cluster, tmp_path, monkeypatch):
    """Of a run of SchNetPack's own task: units, offsets, and a cutoff that single precision does not hold exactly."""
    folder = static(representation)
    tuned = finetune(tmp_path / "run", monkeypatch, folder / "best_model", database, "globals.lr=0.0")
    before = outputs(read_model(folder), cluster)
    for key, value in outputs(tuned, cluster).items():
        torch.testing.assert_close(value, before[key], rtol=0.0, atol=0.0)
    config = OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert (config.globals.cutoff, config.globals.energy_key, config.globals.forces_key) == (3.3, "energy", "forces")
    assert config.data.property_units == {"energy": "kcal/mol", "forces": "kcal/mol/Ang"}
    assert config.model_file == str(folder / "best_model")
    assert "spk_dt.pretrained" not in (tmp_path / "run" / "config.yaml").read_text()
    assert [row["S"] for row in metrics(tmp_path / "run") if "S" in row] == [2.0, 3.0]


def test_a_chain_in_atomic_units(atomic_units, database, cluster, tmp_path, monkeypatch):
    """By the folder of the run, relative to where the program is started; then of what came out, as its own files tell."""
    monkeypatch.chdir(atomic_units.parent)
    first = finetune(tmp_path / "first", monkeypatch, atomic_units.name, database, "globals.lr=1e-3")
    old = outputs(read_model(atomic_units), cluster, ase.units.Bohr)
    new = outputs(first, cluster, ase.units.Bohr)
    assert not torch.equal(old["forces"], new["forces"])
    torch.testing.assert_close(old["energy"], new["energy"], rtol=0.0, atol=0.2)  # of many Hartree with another mean
    assert first.postprocessors[1].mean == read_model(atomic_units).postprocessors[1].mean
    assert all(row["val_loss"] < 1.0 for row in metrics(tmp_path / "first") if "val_loss" in row)  # Hartree/Bohr

    (atomic_units / "config.yaml").rename(atomic_units / "moved.yaml")
    try:
        second = finetune(tmp_path / "second", monkeypatch, tmp_path / "first", database, "globals.lr=0.0")
    finally:
        (atomic_units / "moved.yaml").rename(atomic_units / "config.yaml")
    config = OmegaConf.load(tmp_path / "second" / "config.yaml")
    assert (config.data.distance_unit, config.data.property_units.forces) == ("Bohr", "Hartree/Bohr")
    assert config.globals.cutoff == 6.0
    assert torch.equal(outputs(second, cluster, ase.units.Bohr)["energy"], new["energy"])


def test_names_and_atomic_references_without_a_config(database, cluster, tmp_path, monkeypatch):
    """A model of one's own, alone in its folder: other names of energy and forces, references of atoms, no mean."""
    representation = painn()
    modules = [Atomwise(8, output_key="U"), Forces(energy_key="U", force_key="F")]
    atomrefs = torch.zeros(100)
    atomrefs[[1, 46]] = torch.tensor([-3.0, -70.0])
    offsets = AddOffsets("U", add_atomrefs=True, atomrefs=atomrefs)
    model = NeuralNetworkPotential(representation, [PairwiseDistances()], modules, [CastTo64(), offsets])
    torch.save(model, tmp_path / "mine.pt")
    tuned = finetune(
        tmp_path / "run", monkeypatch, tmp_path / "mine.pt", database, "globals.lr=0.0", "trainer.max_epochs=1"
    )
    before = outputs(model, cluster)
    assert torch.equal(outputs(tuned, cluster)["U"], before["U"])
    assert before["U"] < -200.0
    config = OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert (config.globals.energy_key, config.globals.forces_key, config.data.distance_unit) == ("U", "F", "Ang")


def test_control_at_one_step(static, database, tmp_path, monkeypatch):
    one = ["task.rollout_length=1", "globals.max_rollout_length=1", "task/gradient=detached"]
    finetune(tmp_path / "run", monkeypatch, static("painn"), database, *one)
    assert [row["S"] for row in metrics(tmp_path / "run") if "S" in row] == [1.0]


@pytest.mark.parametrize(
    "postprocessors",
    [
        [],
        [CastTo64()],
        [CastTo64(), AddOffsets("energy", add_mean=True, property_mean=torch.tensor([-2.5]))],
        [AddOffsets("energy", add_mean=True, is_extensive=False, property_mean=torch.tensor([-2.5]))],
        [AddOffsets("energy", add_atomrefs=True, atomrefs=torch.arange(100.0))],
        [
            AddOffsets("energy", add_mean=True, property_mean=torch.tensor([3.0])),
            AddOffsets("energy", add_atomrefs=True, is_extensive=False, atomrefs=torch.arange(100.0)),
        ],
    ],
)
def test_targets_lose_what_the_model_adds(postprocessors, tmp_path):
    model = potential(tiny_egnn(), postprocessors).eval()
    torch.save(model, tmp_path / "model")
    batch = batch_of(molecule(), dtype=torch.float32)
    full = model(dict(batch))["energy"].detach()
    model.do_postprocessing = False
    raw = model(dict(batch))["energy"].detach()
    target = RemoveModelOffsets(str(tmp_path / "model"))({**batch, "energy": full[:, None].double() * torch.ones(1, 4)})
    torch.testing.assert_close(target["energy"], raw[:, None].double() * torch.ones(1, 4), rtol=0.0, atol=1e-4)


def test_models_of_older_versions(tmp_path):
    """They lack what newer classes set."""
    model = potential(painn(), [CastTo64(), AddOffsets("energy", add_mean=True, property_mean=torch.tensor([-2.5]))])
    batch = batch_of(molecule(), dtype=torch.float32)
    expected = model.eval()(dict(batch))["energy"]
    old = copy.deepcopy(model)
    for name in ("spk_version", "do_postprocessing", "input_dtype_str", "required_derivatives", "model_outputs"):
        delattr(old, name)
    del old.representation.electronic_embeddings
    for name in ("_mean_initialized", "_atomrefs_initialized", "estimate_atomref"):
        delattr(old.postprocessors[1], name)
    torch.save(old, tmp_path / "old")
    with pytest.warns(UserWarning, match="without version"):
        loaded = pretrained_model(str(tmp_path / "old"), 4.0, "eV", "Ang")
    assert loaded.training
    torch.testing.assert_close(loaded.eval()(dict(batch))["energy"], expected)
    loaded.initialize_transforms(None)  # asks no data module


@pytest.mark.parametrize(("energy_unit", "distance_unit"), [("kcal/mol", "Ang"), ("Hartree", "Bohr"), ("eV", "nm")])
def test_rollouts_are_the_same_in_any_unit(energy_unit, distance_unit, database):
    """A step of velocity Verlet with time step, masses and velocities of a batch leads to the next frame."""
    units = {"energy": energy_unit, "forces": f"{energy_unit}/{distance_unit}"}
    data = TrajectoryDataModule(
        str(database), 4, split_file=None, property_units=units, distance_unit=distance_unit, train_window=3
    )
    data.setup()
    windows, to_angstrom = data.train_dataset, conversion(distance_unit, "Ang", "distance")
    start, following = windows[0], windows[1]
    dt = float(start[properties.time_step])
    acceleration = start["forces"] / start[p.masses][:, None]
    positions = start[p.R] + start[properties.velocities] * dt + 0.5 * acceleration * dt**2
    assert to_angstrom * float((positions - following[p.R]).abs().max()) < 1e-9
    velocities = start[properties.velocities] + 0.5 * dt * (
        acceleration + following["forces"] / start[p.masses][:, None]
    )
    torch.testing.assert_close(velocities, following[properties.velocities], rtol=1e-7, atol=1e-9)


# -------------------------------------------------------------------------------------------------------- frozen parts


def test_frozen_parts_stay_bit_equal_also_when_the_run_is_resumed(static, database, tmp_path, monkeypatch):
    folder, run = static("painn"), tmp_path / "run"
    parts = "freeze=[representation.embedding,'*.interactions.0']"
    finetune(run, monkeypatch, folder, database, parts, "trainer.max_epochs=1", "globals.lr=1e-3")
    tuned = finetune(run, monkeypatch, folder, database, parts, "trainer.max_epochs=2", "globals.lr=1e-3")
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)["epoch"] == 2  # written between two epochs
    before = dict(read_model(folder).named_parameters())
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
    for name, value in tuned.named_parameters():
        frozen = name.startswith(("representation.embedding", "representation.interactions.0."))
        assert value.requires_grad != frozen
        if frozen:
            assert torch.equal(value, before[name])
            assert torch.equal(state[f"model.{name}"], before[name])
    assert not torch.equal(tuned.representation.interactions[1].interatomic_context_net[0].weight,
                           before["representation.interactions.1.interatomic_context_net.0.weight"])  # fmt: skip
    other = shutil.copytree(folder, tmp_path / "other")
    model = torch.load(other / "best_model", weights_only=False)
    next(model.parameters()).data += 1.0
    torch.save(model, other / "best_model")
    with pytest.raises(
        ValueError, match=r"other.best_model', but this run began with another model, .*Choose another run\.id"
    ):
        finetune(run, monkeypatch, other, database, parts, "trainer.max_epochs=3", "globals.lr=1e-3")
    monkeypatch.chdir(tmp_path)
    again = pretrained_model(str(run), 3.3, "kcal/mol", "Ang")
    assert all(parameter.requires_grad for parameter in again.parameters())


@pytest.mark.parametrize("gradient", ["full", "detached"])
def test_frozen_parts_of_egnn(gradient, atomic_units, database, tmp_path, monkeypatch):
    parts = "freeze=[representation.interactions.1,output_modules]"
    overrides = [f"task/gradient={gradient}", "trainer.max_epochs=1", "globals.lr=1e-3"]
    tuned = finetune(tmp_path / "run", monkeypatch, atomic_units, database, parts, *overrides)
    before = dict(read_model(atomic_units).named_parameters())
    frozen = {name for name, value in tuned.named_parameters() if torch.equal(value, before[name])}
    expected = {name for name in before if name.startswith(("representation.interactions.1.", "output_modules."))}
    assert expected == {name for name, value in tuned.named_parameters() if not value.requires_grad}
    assert expected <= frozen < set(before)


def test_names_of_frozen_parts():
    model = potential(tiny_egnn())
    assert freeze(model, []) == []
    assert freeze(model, "representation.embedding") == ["representation.embedding.weight"]
    assert len(freeze(model, ["representation.interactions.*", "output_modules.0.outnet.1.bias"])) > 5
    with pytest.raises(ValueError, match=r"called 'representation\.layers'.*representation\.interactions\.0, "):
        freeze(model, ["representation.layers"])
    with pytest.raises(ValueError, match="freezes all parameters"):
        freeze(model, ["*"])


# ------------------------------------------------------------------------------------------------------------- refusals


def test_what_is_no_model_is_refused(database, tmp_path):
    with pytest.raises(ValueError, match="set model_file=PATH"):
        describe(None)
    with pytest.raises(FileNotFoundError, match=r"model_file=nowhere.*relative path"):
        describe("nowhere")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match="best_model"):
        describe(tmp_path / "folder")
    with pytest.raises(ValueError, match="is not a SchNetPack model"):
        describe(database)
    torch.save({"state_dict": {}}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="not a checkpoint"):
        describe(tmp_path / "last.ckpt")
    config = composed("experiment=dt_finetune", f"model_file={tmp_path / 'missing'}")
    with pytest.raises(Exception, match="there is no file"):
        config.globals.cutoff  # noqa: B018
    with pytest.raises(Exception, match="set model_file=PATH"):
        composed("experiment=dt_finetune").globals.cutoff  # noqa: B018


def test_models_that_cannot_run_dynamics_are_refused(tmp_path):
    energy = NeuralNetworkPotential(painn(), [PairwiseDistances()], [Atomwise(8, output_key="energy")])
    torch.save(energy, tmp_path / "energy")
    with pytest.raises(ValueError, match=r"predicts \['energy'\], but no forces"):
        describe(tmp_path / "energy")
    torch.save(potential(painn(), [ScaleProperty("energy")]), tmp_path / "scaled")
    with pytest.raises(ValueError, match="scales 'energy' after training"):
        describe(tmp_path / "scaled")


def test_contradictions_are_refused(static, tmp_path, monkeypatch):
    file = str(static("painn") / "best_model")
    with pytest.raises(ValueError, match=r"globals\.cutoff=5, but the cutoff .* is 3\.3"):
        pretrained_model(file, 5.0, "kcal/mol", "Ang")
    with pytest.raises(ValueError, match=r"data\.property_units\.energy=eV, but .*'kcal/mol'"):
        pretrained_model(file, 3.3, "eV", "Ang")
    with pytest.raises(ValueError, match=r"data\.distance_unit=Bohr, but .*'Ang'"):
        pretrained_model(file, 3.3, "kcal/mol", "Bohr")
    monkeypatch.chdir(static("painn"))
    with pytest.raises(ValueError, match=r"Choose another run\.id"):
        pretrained_model(file, 3.3, "kcal/mol", "Ang")


def test_a_config_of_another_model_is_refused(static, tmp_path):
    torch.save(potential(tiny_egnn(cutoff=4.0)), tmp_path / "best_model")
    text = (static("painn") / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"is 4, but .*globals\.cutoff=3\.3"):
        describe(tmp_path)
    (tmp_path / "config.yaml").write_text(text.replace("cutoff: 3.3", "cutoff: 4.0"))
    assert (describe(tmp_path).energy_unit, describe(tmp_path).distance_unit) == ("kcal/mol", "Ang")
    filtered = text.replace("cutoff: 3.3", "cutoff: 4.0").replace("SubtractCenterOfMass", "FilterNeighbors")
    (tmp_path / "config.yaml").write_text(filtered)
    with pytest.raises(ValueError, match="trained with FilterNeighbors"):
        describe(tmp_path)
    (tmp_path / "config.yaml").write_text("data: [")
    with pytest.raises(ValueError, match="cannot be read"):
        describe(tmp_path)


def test_units_of_the_database_where_the_run_converted_nothing(static, database, tmp_path):
    config = OmegaConf.load(static("painn") / "config.yaml")
    config.data.distance_unit = config.data.property_units = None
    torch.save(read_model(static("painn")), tmp_path / "best_model")
    OmegaConf.save(config, tmp_path / "config.yaml")
    assert describe(tmp_path).run.energy_unit == "eV"
    config.data.datapath = "gone.db"
    OmegaConf.save(config, tmp_path / "config.yaml")
    assert describe(tmp_path).run.energy_unit is None
    pretrained_model(str(tmp_path), 3.3, "kcal/mol", "Bohr")  # nothing says otherwise


@pytest.fixture(scope="module")
def exact_data(tmp_path_factory):
    """Trajectories of a potential that the models of `pair_model` are, and their data modules in any units."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.db"
    with TrajectoryWriter(path, splits={"train": ["a"], "val": ["b"], "test": ["c"]}) as writer:
        for seed, name in enumerate("abc"):
            writer.add(name, pair_trajectory(tetrahedron(), 20, 0.5, seed), timestep_fs=0.5)
    return path


def frames_of(path, energy_unit="eV", distance_unit="Ang"):
    units = {"energy": energy_unit, "forces": f"{energy_unit}/{distance_unit}"}
    data = TrajectoryDataModule(str(path), 4, split_file=None, property_units=units, distance_unit=distance_unit)
    data.setup()
    return data.frames


def with_parameter(path, **kwargs):
    model = torch.load(pair_model(path, **kwargs), weights_only=False)
    model.representation.unused = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    torch.save(model, path)
    return model


def test_the_likely_unit_is_named(exact_data, tmp_path, monkeypatch, caplog):
    """Without a config.yaml beside the model, before any training."""
    model = with_parameter(tmp_path / "atomic", energy_unit=ase.units.Hartree, length_unit=ase.units.Bohr)
    named = r"Hartree and Bohr.*data\.property_units\.energy=Hartree data\.distance_unit=Bohr"
    with pytest.raises(ValueError, match=named):
        finetune(tmp_path / "run", monkeypatch, tmp_path / "atomic", exact_data)
    assert not (tmp_path / "run" / "best_model").exists()
    chosen = np.arange(4)
    check_forces(model, describe(tmp_path / "atomic"), frames_of(exact_data, "Hartree", "Bohr"), chosen)
    model = with_parameter(tmp_path / "kcal", energy_unit=KCAL)
    with pytest.raises(ValueError, match=r"energy=kcal/mol data\.distance_unit=Ang"):
        check_forces(model, describe(tmp_path / "kcal"), frames_of(exact_data), chosen)
    check_forces(model, describe(tmp_path / "kcal"), frames_of(exact_data, "kcal/mol"), chosen)
    assert "WARNING" not in caplog.text


def test_a_bad_model_only_deserves_a_warning(exact_data, tmp_path, caplog):
    torch.manual_seed(0)
    model = potential(painn())
    for parameter in model.output_modules[0].parameters():
        parameter.data *= 300.0
    torch.save(model, tmp_path / "random")
    check_forces(model, describe(tmp_path / "random"), frames_of(exact_data), np.arange(4))
    assert "no better than zero forces" in caplog.text


def test_elements_beyond_the_weights_are_refused(exact_data, tmp_path, caplog):
    model = potential(tiny_egnn(nuclear_embedding=torch.nn.Embedding(20, 8)))
    torch.save(model, tmp_path / "light")
    with pytest.raises(ValueError, match=r"has Pd, but .* up to K \(Z = 19\)"):
        check_elements(model, describe(tmp_path / "light"), frames_of(exact_data))
    atomrefs = torch.zeros(100)
    atomrefs[1] = -3.0
    model = potential(painn(), [AddOffsets("energy", add_atomrefs=True, atomrefs=atomrefs)])
    torch.save(model, tmp_path / "unseen")
    check_elements(model, describe(tmp_path / "unseen"), frames_of(exact_data))
    assert "no atomic reference energy of Pd" in caplog.text


def test_double_precision(exact_data, tmp_path, monkeypatch):
    model = potential(painn()).double()
    torch.save(model, tmp_path / "double")
    overrides = ["trainer.max_epochs=1", "data.datapath=" + str(exact_data)]
    tuned = finetune(tmp_path / "run", monkeypatch, Path(tmp_path / "double"), exact_data, *overrides)
    assert {parameter.dtype for parameter in tuned.parameters()} == {torch.float64}
