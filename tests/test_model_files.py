"""Models in files without code: the same numbers to the last bit, and nothing else than a model is ever made from one."""

import json
import logging
import struct

import pytest
import torch
import yaml
from helpers.models import batch_of, crystal, molecule, potential, tiny_egnn
from safetensors import safe_open
from safetensors.torch import save_file
from schnetpack.atomistic import Aggregation, Atomwise, DipoleMoment, Forces, PairwiseDistances, Response, Strain
from schnetpack.md import System
from schnetpack.model import NeuralNetworkPotential
from schnetpack.nn import BesselRBF, CosineCutoff, ElectronicEmbedding, GaussianRBF, MollifierCutoff, NuclearEmbedding
from schnetpack.nn.radial import GaussianRBFCentered
from schnetpack.representation import FieldSchNet, PaiNN, SchNet, SO3net
from schnetpack.transform import AddOffsets, CastTo64, ScaleProperty
from typer.testing import CliRunner

from spk_dt.cli import app
from spk_dt.export.plain import export_plain
from spk_dt.md import InputsCalculator, ModelCalculator, VerletNeighborList
from spk_dt.models import Facts, load, load_model, read_facts, save_model
from spk_dt.models.file import KEY
from spk_dt.representation import EGNN, RandomFourierFeatures
from spk_dt.training.energy_zero import data_offsets, set_data_offsets, use_energy_zero
from spk_dt.training.pretrained import describe, read_attribute

pytestmark = pytest.mark.filterwarnings("ignore:Model was saved without version")


def radial(cutoff=3.3):
    return GaussianRBF(6, cutoff), CosineCutoff(cutoff)


REPRESENTATIONS = {
    "egnn": tiny_egnn,
    "egnn_of_the_paper": lambda: EGNN(8, 2, RandomFourierFeatures(64), CosineCutoff(3.3)),
    "egnn_with_coordinates": lambda: tiny_egnn(coordinate_channel=True),
    "painn": lambda: PaiNN(8, 2, *radial()),
    "painn_shared": lambda: PaiNN(
        8, 2, *radial(), activation=torch.tanh, shared_interactions=True, shared_filters=True, epsilon=1e-7
    ),
    "painn_with_charge": lambda: PaiNN(
        8, 2, *radial(), electronic_embeddings=[ElectronicEmbedding("total_charge", 8, True, 2)]
    ),
    "painn_with_configurations": lambda: PaiNN(8, 1, *radial(), nuclear_embedding=NuclearEmbedding(101, 8)),
    "trained_basis": lambda: PaiNN(8, 1, GaussianRBF(6, 3.3, trainable=True), CosineCutoff(3.3), torch.nn.SiLU()),
    "centered_basis": lambda: PaiNN(8, 1, GaussianRBFCentered(6, 3.3), CosineCutoff(3.3)),
    "bessel": lambda: SchNet(8, 1, BesselRBF(6, 3.3), MollifierCutoff(3.3)),
    "schnet": lambda: SchNet(8, 2, *radial(), n_filters=5),
    "so3net": lambda: SO3net(8, 2, 2, *radial()),
    "field_schnet": lambda: FieldSchNet(8, 2, radial()[0], external_fields=[], cutoff_fn=radial()[1]),
}


def facts_of(model, **kwargs):
    cutoff = float(model.representation.cutoff_fn.cutoff)
    return Facts("a model", "eV", "Ang", cutoff, sorted(model.model_outputs), **kwargs)


def disturbed(model):
    """With weights that no constructor gives, in evaluation mode."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    return model.eval()


def same_predictions(one, other, dtype):
    results = []
    for model in (one, other):
        batch = batch_of(molecule(), crystal(), dtype=dtype)
        batch["total_charge"] = torch.tensor([1.0, -1.0], dtype=dtype)
        results.append(model(batch))
    assert results[0].keys() == results[1].keys()
    return all(torch.equal(results[0][key], results[1][key]) for key in results[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_predictions_are_those_of_the_model_to_the_last_bit(name, dtype, tmp_path):
    offsets = AddOffsets("energy", True, True, atomrefs=torch.linspace(-9, 9, 100), property_mean=torch.tensor(1.5))
    model = disturbed(potential(REPRESENTATIONS[name](), [CastTo64(), offsets]).to(dtype))
    out = tmp_path / "model.safetensors"
    save_model(model, facts_of(model, elements=["H", "C", "Pd"], time_step_fs=[0.5]), out)
    read = load_model(out)
    assert same_predictions(model, read, dtype)
    with torch.no_grad():  # a control: a change in the sixth digit of some weights is seen
        next(p for p in read.output_modules.parameters() if p.numel() > 1).mul_(1.0 + 1e-5)
    assert not same_predictions(model, read, dtype)


def test_outputs_beside_energy_and_forces_and_the_zero_of_the_data(tmp_path):
    modules = [
        Atomwise(8, n_hidden=[7, 3], n_layers=3, output_key="a", per_atom_output_key="each"),
        Atomwise(8, n_layers=1, output_key="b"),
        Aggregation(["a", "b"], "U"),
        DipoleMoment(8, return_charges=True),
        Forces(calc_stress=True, energy_key="U", force_key="dU"),
    ]
    model = NeuralNetworkPotential(PaiNN(8, 1, *radial()), [Strain(), PairwiseDistances()], modules)
    model.postprocessors.append(ScaleProperty("a", scale=torch.tensor([2.0])))
    set_data_offsets(model, "U", {1: -13.5, 6: 2.0})
    out = tmp_path / "model.safetensors"
    save_model(disturbed(model), facts_of(model), out)
    read = load_model(out)
    assert same_predictions(model, read, torch.float32)
    assert not data_offsets(read).add_atomrefs
    before = read(batch_of(molecule(), dtype=torch.float32))["U"]
    after = use_energy_zero(read, "data")(batch_of(molecule(), dtype=torch.float32))["U"]
    n_h, n_c = (int((molecule().numbers == z).sum()) for z in (1, 6))
    torch.testing.assert_close(after - before, torch.tensor([n_h * -13.5 + n_c * 2.0], dtype=torch.float64))


def test_responses(tmp_path):
    modules = [Atomwise(8, output_key="E"), Response("E", ["forces"], {"forces": "forces"})]
    model = NeuralNetworkPotential(PaiNN(8, 1, *radial()), [PairwiseDistances()], modules).eval()
    save_model(model, facts_of(model), tmp_path / "model.safetensors")
    assert same_predictions(model, load_model(tmp_path / "model.safetensors"), torch.float32)


# ---------------------------------------------------------------------------------------- wherever a model is taken


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run folder with its model, and the same as a file without code, by the command."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    folder.mkdir()
    model = disturbed(potential(PaiNN(8, 2, *radial())))
    torch.save(model, folder / "best_model")
    (folder / "config.yaml").write_text(
        "{data: {property_units: {energy: kcal/mol}, distance_unit: Ang}, task: {outputs: []}, globals: {cutoff: 3.3}}"
    )
    made_with = {"time step of the data in fs": [0.5], "elements": ["H", "C", "Pd"], "loss": ["forces, weight 1"]}
    (folder / "made_with.json").write_text(json.dumps(made_with))
    out = folder.parent / "mine.safetensors"
    done = CliRunner().invoke(app, ["export", str(folder), str(out), "--author", "A. Author", "--name", "the best"])
    assert done.exit_code == 0, done.output
    return folder / "best_model", out


def test_what_the_file_says(exported):
    facts = read_facts(exported[1])
    assert (facts.name, facts.energy_unit, facts.distance_unit, facts.cutoff) == ("the best", "kcal/mol", "Ang", 3.3)
    assert (facts.elements, facts.time_step_fs, facts.authors) == (["H", "C", "Pd"], [0.5], ["A. Author"])
    assert facts.loss == ["forces, weight 1"]
    assert set(facts.made_by) == {"spk_dt", "schnetpack", "torch"}
    assert facts.made_from["name"] == "best_model"
    done = CliRunner().invoke(app, ["about", str(exported[1])])
    assert done.exit_code == 0, done.output
    told = yaml.safe_load(done.output)
    assert told["kind"] == "model that runs no code when it is loaded"
    assert told["model"]["representation"]["class"] == "PaiNN"
    assert told["numbers"] == sum(tensor.numel() for tensor in load_model(exported[1]).state_dict().values())
    done = CliRunner().invoke(app, ["about", str(exported[0].parent)])
    assert "runs code when it is loaded" in done.output
    assert "0.5" in done.output


def test_it_can_be_exported_again_with_more_to_say(exported, tmp_path):
    facts = export_plain(exported[1], tmp_path / "again.safetensors")
    assert (facts.authors, facts.energy_unit, facts.time_step_fs) == (["A. Author"], "kcal/mol", [0.5])
    with pytest.raises(ValueError, match=r"--energy-unit eV, but .* says that its unit is kcal/mol"):
        export_plain(exported[1], tmp_path / "other.safetensors", energy_unit="eV")
    with pytest.raises(FileExistsError, match="is there already"):
        export_plain(exported[0], tmp_path / "again.safetensors")


def test_fine_tuning_is_told_what_the_pickle_tells(exported):
    known, same = describe(exported[1]), describe(exported[0])
    for what in ("cutoff", "energy_key", "forces_key", "energy_unit", "distance_unit", "dtype"):
        assert getattr(known, what) == getattr(same, what), what
        if what != "dtype":
            assert read_attribute(exported[1], what) == getattr(known, what), what


def test_simulations_take_it(exported):
    system = System()
    system.load_molecules([molecule(1), molecule(2)])
    system = system.to(torch.float64)
    forces = []
    for file in exported:
        ModelCalculator(file, "kcal/mol", "Ang").calculate(system)
        forces.append(system.forces.clone())
    assert torch.equal(*forces)
    settings = {"force_key": "forces", "position_unit": "Ang", "neighbor_list": VerletNeighborList(3.3)}
    InputsCalculator(str(exported[1]), energy_unit="kcal / mol", **settings)
    with pytest.raises(ValueError, match=r"calculator.energy_unit=eV, but .* says kcal/mol"):
        InputsCalculator(str(exported[1]), energy_unit="eV", **settings)


def test_others_may_read_what_is_exported(exported):
    """As every other file that the user writes."""
    assert exported[1].stat().st_mode == exported[0].stat().st_mode


def test_the_first_pickle_is_said_to_run_code(exported, monkeypatch, caplog):
    monkeypatch.setattr(load._Said, "told", False)
    monkeypatch.setattr(load._Said, "own", set())
    load_model(exported[1])
    own = exported[0].with_name("own")
    own.write_bytes(exported[0].read_bytes())
    load.own_file(own)
    load_model(own)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        load_model(exported[0])
        load_model(exported[0])
    assert [record.message.count("runs whatever code it holds") for record in caplog.records] == [1]
    assert "spkdt export" in caplog.text


# --------------------------------------------------------------------------------------------------- what is refused


class Mine(PaiNN):
    """A class of a user's own."""


def test_classes_of_ones_own_cannot_be_written(tmp_path):
    model = potential(Mine(8, 1, *radial())).eval()
    with pytest.raises(
        ValueError, match=r"the model.representation is a .*Mine, which a file without code cannot hold"
    ):
        save_model(model, facts_of(model), tmp_path / "model.safetensors")
    model = potential(PaiNN(8, 1, *radial(), activation=torch.sin)).eval()
    with pytest.raises(ValueError, match=r"representation.activation is .*functions may be"):
        save_model(model, facts_of(model), tmp_path / "model.safetensors")
    model = potential(PaiNN(8, 1, *radial())).eval()
    model.representation.extra = 3.0
    with pytest.raises(ValueError, match=r"would not be the same when it is read: representation.extra: 3.0 and None"):
        save_model(model, facts_of(model), tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def changed(source, out, change=None, tensors=None):
    """A file with another description or other tensors."""
    with safe_open(str(source), framework="pt") as content:
        document = yaml.safe_load(content.metadata()[KEY])
        own = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    text = change(document) if change else None
    text = text if isinstance(text, str) else yaml.safe_dump(document)
    save_file(own | (tensors or {}), str(out), {KEY: text})
    return out


def setting(value, *path):
    def change(document):
        inside = document
        for key in path[:-1]:
            inside = inside[key]
        inside[path[-1]] = value

    return change


REFUSED = {
    "another class": (
        setting("os.system", "model", "representation", "class"),
        "class 'os.system', which is not on the",
    ),
    "a class by its path": (setting("torch.nn.Linear", "model", "input_modules", 0, "class"), "not on the list"),
    "a class in a list": (setting({"class": ["PaiNN"]}, "model", "representation"), "not on the list"),
    "another function": (
        setting({"function": "builtins.eval"}, "model", "representation", "activation"),
        "is the function 'builtins.eval', which is none of",
    ),
    "a target of Hydra": (
        setting({"_target_": "os.system", "command": "touch trace"}, "model", "representation"),
        "description",
    ),
    "another argument": (setting(1, "model", "representation", "__class__"), "'__class__', which PaiNN does not take"),
    "many interactions": (
        setting(10**9, "model", "representation", "n_interactions"),
        "no tensor in it has such a size",
    ),
    "one interaction more": (setting(3, "model", "representation", "n_interactions"), "has no tensor"),
    "a wide network": (setting(64, "model", "representation", "n_atom_basis"), "its description says"),
    "a negative size": (setting(-1, "model", "representation", "n_atom_basis"), "is -1"),
    "no number": (setting(float("nan"), "model", "representation", "epsilon"), "not a finite number"),
    "an infinite cutoff": (setting(float("inf"), "cutoff"), "no positive numbers"),
    "another cutoff": (setting(5.0, "cutoff"), "says that its cutoff is 5, but that of its model is 3.3"),
    "other outputs": (setting(["energy"], "outputs"), "says that its outputs are"),
    "no unit": (setting("parrot", "energy_unit"), "unknown unit 'parrot'"),
    "no element": (setting(["H", "Xx"], "elements"), "'Xx' is no element"),
    "a newer version": (setting(2, "version"), "version 2 of the format, and this program reads 1"),
    "no model": (setting(None, "model"), "holds a NoneType"),
    "text for facts": (setting("many", "cutoff"), "its cutoff is 'many'"),
    "a tag": (
        lambda d: yaml.safe_dump(d) + "x: !!python/object/apply:os.system ['touch trace']\n",
        "asks for an object",
    ),
    "an alias": (lambda d: yaml.safe_dump(d) + "x: &a [1]\ny: *a\n", "anchor or alias"),
    "a deep list": (lambda d: yaml.safe_dump(d) + f"x: {'[' * 200}{']' * 200}\n", "nested deeper"),
    "a long number": (lambda d: yaml.safe_dump(d) + f"x: {'9' * 6000}\n", "is not plain YAML"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_description_that_was_made_up_is_refused(name, exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    change, message = REFUSED[name]
    file = changed(exported[1], tmp_path / "model.safetensors", change)
    with pytest.raises(ValueError, match=r"model.safetensors") as error:
        load_model(file)
    assert message in str(error.value)
    assert not (tmp_path / "trace").exists()


def test_tensors_that_were_made_up_are_refused(exported, tmp_path):
    name = "representation.embedding.weight"
    for tensor, message in (
        (torch.full((100, 8), torch.nan), "not finite"),
        (torch.zeros((100, 9)), r"is \[100, 9\], but its description says \[100, 8\]"),
        (torch.zeros((100, 8), dtype=torch.int64), "is of torch.int64"),
        (torch.zeros((100, 8), dtype=torch.complex64), "is of torch.complex64"),
    ):
        with pytest.raises(ValueError, match=message):
            load_model(changed(exported[1], tmp_path / "model.safetensors", tensors={name: tensor}))
    with pytest.raises(ValueError, match="has a tensor that its model does not have, 'more'"):
        load_model(changed(exported[1], tmp_path / "model.safetensors", tensors={"more": torch.zeros(1)}))


def test_a_wide_network_takes_no_memory_before_it_is_refused(exported, tmp_path):
    """A long tensor lets a large size pass the first look; a network of it would have 10^12 numbers."""
    change = setting(10**6, "model", "representation", "n_atom_basis")
    file = changed(exported[1], tmp_path / "model.safetensors", change, {"long": torch.zeros(10**6)})
    with pytest.raises(ValueError, match="larger than its tensors"):
        load_model(file)


def test_files_that_are_none(exported, tmp_path):
    whole, file = exported[1].read_bytes(), tmp_path / "model.safetensors"
    for content in (
        b"",
        whole[:7],
        whole[:100],
        whole[:-1],
        whole + b"\0",
        struct.pack("<Q", 2**62) + whole[8:],
        struct.pack("<Q", 10**7) + b"{" + b" " * 100,
        exported[0].read_bytes(),
        b"\x80\x02cos\nsystem\n(S'touch trace'\ntR.",
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"model.safetensors"):
            load_model(file)
    header = {
        "a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]},
        "__metadata__": {KEY: "version: 1"},
    }
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    with pytest.raises(ValueError, match=r"model.safetensors"):
        load_model(file)
    save_file({"a": torch.zeros(1)}, str(file))
    with pytest.raises(ValueError, match="it holds tensors, but not what model they are of"):
        load_model(file)
