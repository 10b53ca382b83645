"""Files for engines: what ASE, and a domain decomposition, get from them is what SchNetPack gives for the model."""

import json
import shutil

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.db import connect
from ase.neighborlist import neighbor_list
from helpers.exported import ELEMENTS, REPRESENTATIONS, UNITS, stored
from helpers.models import CUTOFF, crystal, molecule, painn, tiny_egnn
from helpers.programs import spkdt
from omegaconf import OmegaConf
from schnetpack.interfaces import SpkCalculator
from schnetpack.transform import AddOffsets, CastTo64, MatScipyNeighborList, ScaleProperty

pytest.importorskip("metatomic.torch", reason="needs the extra export")
ase_engine = pytest.importorskip("metatomic_ase", reason="needs metatomic-ase")

from metatensor.torch import Labels, TensorBlock  # noqa: E402
from metatomic.torch import ModelEvaluationOptions, ModelOutput, System, load_atomistic_model  # noqa: E402

from spk_dt.export.stored import About  # noqa: E402
from spk_dt.export.write import export_model  # noqa: E402
from spk_dt.folders.file_hash import file_hash  # noqa: E402


def atom_references():
    table = torch.zeros(100)
    table[[1, 6, 46]] = torch.tensor([-13.5, -1000.25, -37.0])
    return AddOffsets("energy", add_mean=True, property_mean=torch.tensor([-65.0]), add_atomrefs=True, atomrefs=table)


def systems():
    mixed = crystal(3)
    mixed.pbc = (True, False, True)
    return {
        "molecule": molecule(1),
        "triclinic, smaller than the cutoff": crystal(2),
        "mixed boundaries": mixed,
        "one atom": Atoms("Pd"),
        "two atoms that do not see each other": Atoms("HC", positions=[[0, 0, 0], [0, 0, 9.0]]),
        "a cell of one atom": bulk("Pd"),
        "atoms outside of their cell": Atoms("PdC", positions=[[7.0, 0, 0], [-4.0, 1.0, 0]], cell=[5, 5, 5], pbc=True),
    }


def by_schnetpack(file, atoms, cutoff=CUTOFF, **units):
    """In eV and Å, whatever the units of the model are."""
    atoms = atoms.copy()
    units = {"energy_unit": "eV", "position_unit": "Ang"} | units
    pairs = MatScipyNeighborList(cutoff=cutoff)
    atoms.calc = SpkCalculator(str(file), pairs, energy_key="energy", force_key="forces", dtype=torch.float64, **units)
    return atoms


def by_file(file, atoms):
    atoms = atoms.copy()
    atoms.calc = ase_engine.MetatomicCalculator(str(file), device="cpu", uncertainty_threshold=None)
    return atoms


def stress_by_differences(atoms, width=1e-4):
    found = np.zeros((3, 3))
    for a in range(3):
        for b in range(a, 3):
            energies = []
            for sign in (-1, 1):
                strain = np.eye(3)
                strain[a, b] += sign * width / 2
                strain[b, a] += sign * width / 2
                strained = atoms.copy()
                strained.set_cell(atoms.cell.array @ strain, scale_atoms=False)
                strained.positions = atoms.positions @ strain
                strained.calc = atoms.calc
                energies.append(strained.get_potential_energy())
            found[a, b] = found[b, a] = (energies[1] - energies[0]) / (2 * width) / atoms.get_volume()
    return found


@pytest.mark.parametrize(
    "name", [name if name == "EGNN" else pytest.param(name, marks=pytest.mark.slow) for name in REPRESENTATIONS]
)
def test_ase_gets_what_schnetpack_gives(name, tmp_path):
    file = stored(tmp_path / "run", REPRESENTATIONS[name], [CastTo64(), atom_references()])
    export_model([file], tmp_path / "out.pt", 64, **UNITS)
    for what, atoms in systems().items():
        one, other = by_schnetpack(file, atoms), by_file(tmp_path / "out.pt", atoms)
        assert other.get_potential_energy() == pytest.approx(one.get_potential_energy(), abs=1e-6), what
        np.testing.assert_allclose(other.get_forces(), one.get_forces(), atol=1e-6, err_msg=what)
        if atoms.pbc.all():
            stress = other.get_stress(voigt=False)
            np.testing.assert_allclose(stress, stress_by_differences(one), atol=1e-6, err_msg=what)
    assert np.abs(by_file(tmp_path / "out.pt", molecule(1)).get_forces()).max() > 1e-3


def test_units_and_postprocessors_are_those_of_the_model(tmp_path):
    scaled = [CastTo64(), ScaleProperty("energy", scale=torch.tensor([2.5])), atom_references()]
    file = stored(tmp_path / "run", lambda: tiny_egnn(cutoff=CUTOFF / 10.0), scaled)
    export_model([file], tmp_path / "out.pt", 64, energy_unit="kcal/mol", position_unit="nm", elements=ELEMENTS)
    atoms = molecule(1)
    other, in_nm = by_file(tmp_path / "out.pt", atoms), atoms.copy()
    in_nm.positions /= 10.0
    one = by_schnetpack(file, in_nm, CUTOFF / 10.0, energy_unit="kcal/mol")
    assert other.get_potential_energy() == pytest.approx(one.get_potential_energy(), abs=1e-6)
    # SchNetPack scales the energy after the derivative was taken
    np.testing.assert_allclose(other.get_forces(), 2.5 * one.get_forces() / 10.0, atol=1e-6)


def test_in_single_precision_offsets_cost_no_digits(tmp_path):
    """4,000 atoms at -65 eV: single precision resolves 16 meV."""
    file = stored(
        tmp_path / "run", None, [CastTo64(), AddOffsets("energy", add_mean=True, property_mean=torch.tensor([-65.0]))]
    )
    export_model([file], tmp_path / "single.pt", 32, **UNITS)
    export_model([file], tmp_path / "double.pt", 64, **UNITS)
    atoms = bulk("Pd", cubic=True) * (10, 10, 10)
    moved = atoms.copy()
    moved.positions[0] += [0.05, 0.0, 0.0]
    energies = [
        [by_file(tmp_path / name, one).get_potential_energy() for one in (atoms, moved)]
        for name in ("single.pt", "double.pt")
    ]
    single, double = (after - before for before, after in energies)
    assert energies[1][0] < -200_000.0
    assert 1e-5 < abs(double) < 16e-3
    assert single == pytest.approx(double, rel=0.02)


def system_of(atoms):
    """With zero vectors of the cell where it is not periodic."""
    numbers, pbc = torch.tensor(atoms.numbers, dtype=torch.int32), torch.tensor(atoms.pbc)
    return System(numbers, torch.tensor(atoms.positions), torch.tensor(atoms.cell.array * atoms.pbc[:, None]), pbc)


def neighbors_of(system, atoms, options):
    i, j, shift = neighbor_list("ijS", atoms, options.cutoff)
    values = system.positions[j] - system.positions[i] + torch.tensor(shift.astype(float)) @ system.cell
    names = ["first_atom", "second_atom", "cell_shift_a", "cell_shift_b", "cell_shift_c"]
    samples = Labels(names, torch.tensor(np.column_stack([i, j, shift]), dtype=torch.int32))
    values = values.detach().unsqueeze(-1).requires_grad_()
    return TensorBlock(values, samples, [Labels.range("xyz", 3)], Labels.range("distance", 1))


def part_of_forces(model, atoms, selected):
    """Gradients of the energies of some atoms: what a rank of a domain decomposition computes."""
    system = system_of(atoms)
    (options,) = model.requested_neighbor_lists()
    block = neighbors_of(system, atoms, options)
    system.add_neighbor_list(options, block)
    chosen = Labels(["system", "atom"], torch.tensor([[0, int(k)] for k in selected], dtype=torch.int32))
    asked = ModelEvaluationOptions("angstrom", {"energy": ModelOutput(unit="eV")}, chosen)
    energy = model([system], asked, check_consistency=True)["energy"].block().values.sum()
    (gradient,) = torch.autograd.grad(energy, block.values)
    gradient = gradient[..., 0].numpy()
    first, second = block.samples.values[:, :2].numpy().T
    forces = np.zeros((len(atoms), 3))
    np.add.at(forces, first, gradient)
    np.add.at(forces, second, -gradient)
    return float(energy.detach()), forces


def in_two_boxes(model, atoms, reach):
    """Energy and forces from two halves along z, each with the atoms up to `reach` around it."""
    height, energy, forces = atoms.cell.lengths()[2], 0.0, np.zeros((len(atoms), 3))
    z = atoms.positions[:, 2] % height
    for lower in (0.0, height / 2):
        inside = (z >= lower) & (z < lower + height / 2)
        images, owners = [], []
        for shift in (-1, 0, 1):
            at = z + shift * height
            near = np.flatnonzero((at > lower - reach) & (at < lower + height / 2 + reach))
            copy = atoms[near]
            copy.positions[:, 2] = at[near]
            images.append(copy)
            owners.append(np.column_stack([near, np.full(len(near), shift)]))
        together = images[1] + images[0] + images[2]
        together.pbc = (True, True, False)
        owners = np.concatenate([owners[1], owners[0], owners[2]])
        mine = np.flatnonzero(inside[owners[:, 0]] & (owners[:, 1] == 0))
        part, of_part = part_of_forces(model, together, mine)
        energy += part
        np.add.at(forces, owners[:, 0], of_part)
    return energy, forces


@pytest.mark.parametrize("name", ["EGNN", pytest.param("PaiNN", marks=pytest.mark.slow)])
def test_domains_add_up_to_the_whole(name, tmp_path):
    file = stored(tmp_path / "run", REPRESENTATIONS[name])
    export_model([file], tmp_path / "out.pt", 64, **UNITS)
    model = load_atomistic_model(str(tmp_path / "out.pt"))
    reach = model.capabilities().interaction_range
    assert reach == pytest.approx(2 * CUTOFF)
    atoms = bulk("Pd", cubic=True) * (5, 5, 20)
    atoms.numbers[::7] = 6
    atoms.rattle(0.2, seed=0)
    assert len(atoms) == 2000
    energy, forces = part_of_forces(model, atoms, range(len(atoms)))
    parts, of_parts = in_two_boxes(model, atoms, reach)
    assert parts == pytest.approx(energy, abs=1e-6)
    np.testing.assert_allclose(of_parts, forces, atol=1e-8)
    _, too_short = in_two_boxes(model, atoms, reach - 1.0)
    assert np.abs(too_short - forces).max() > 1e-6


def test_a_committee_has_mean_ensemble_and_uncertainty(tmp_path):
    files = [stored(tmp_path / f"run{i}", seed=i) for i in range(3)]
    export_model(files, tmp_path / "out.pt", 64, **UNITS)
    model, atoms = load_atomistic_model(str(tmp_path / "out.pt")), molecule(1)
    system = system_of(atoms)
    (options,) = model.requested_neighbor_lists()
    system.add_neighbor_list(options, neighbors_of(system, atoms, options))
    energies = [by_schnetpack(file, atoms).get_potential_energy() for file in files]

    def values(kind, *names):
        asked = ModelEvaluationOptions("angstrom", {name: ModelOutput(unit="eV", sample_kind=kind) for name in names})
        found = model([system], asked, check_consistency=True)
        return [found[name].block().values.detach().numpy() for name in names]

    mean, ensemble, uncertainty = values("system", "energy", "energy_ensemble", "energy_uncertainty")
    np.testing.assert_allclose(ensemble, [energies], atol=1e-6)
    np.testing.assert_allclose(mean, [[np.mean(energies)]], atol=1e-6)
    np.testing.assert_allclose(uncertainty, [[np.std(energies, ddof=1)]], atol=1e-6)
    of_atoms = values("atom", "energy", "energy_ensemble")
    assert of_atoms[0].shape == (len(atoms), 1)
    assert of_atoms[1].shape == (len(atoms), 3)
    np.testing.assert_allclose(of_atoms[1].sum(0), energies, atol=1e-6)
    with pytest.raises(Exception, match="can not compute 'energy_uncertainty' per atom"):  # it says nothing
        values("atom", "energy_uncertainty")


def test_other_elements_are_refused_by_the_engine(tmp_path):
    file = stored(tmp_path / "run")
    export_model([file], tmp_path / "out.pt", 64, **UNITS)
    with pytest.raises(Exception, match="does not support the atomic type '8'"):
        by_file(tmp_path / "out.pt", Atoms("OH", positions=[[0, 0, 0], [0, 0, 1.0]])).get_potential_energy()


def test_metadata_say_where_it_comes_from(tmp_path):
    file = stored(tmp_path / "run", painn)
    folder = tmp_path / "certificate"
    folder.mkdir()
    settings = {
        "model_sha256": {"first": file_hash(file)},
        "conditions": {"time_ps": 5.0},
        "reference": "tblite:GFN1-xTB",
    }
    content = {"settings": settings, "models": {"first": {"statement": "not safe to 5 ps"}}}
    (folder / "certificate.json").write_text(json.dumps(content))
    about = About("mine", ["A. Author"], "for tests", [folder])
    export_model([file], tmp_path / "out.pt", 32, about=about, **UNITS)
    found = load_atomistic_model(str(tmp_path / "out.pt")).metadata()
    assert (found.name, list(found.authors), found.description) == ("mine", ["A. Author"], "for tests")
    assert "2102.03150" in str(found.references["architecture"])
    assert found.extra["model_sha256"] == file_hash(file)
    assert json.loads(found.extra["certificate_0"])["statement"] == "not safe to 5 ps"
    other = stored(tmp_path / "other", seed=5)
    with pytest.raises(ValueError, match="is of other models than"):
        export_model([other], tmp_path / "other.pt", about=about, **UNITS)


def test_the_command_knows_a_run(database, tmp_path):
    """Units from the config, elements from the training data of the run."""
    file = stored(tmp_path / "runs" / "first")
    (tmp_path / "data").mkdir()
    shutil.copy(database, tmp_path / "data" / "d.db")
    numbers = set(connect(database).get(1).numbers.tolist())
    config = {
        "run": {"work_dir": "${hydra:runtime.cwd}", "data_dir": "${run.work_dir}/data"},
        "data": {"datapath": "${run.data_dir}/d.db", "property_units": {"energy": "kcal/mol"}, "distance_unit": "Ang"},
        "task": {"outputs": [{"name": "energy"}]},
    }
    OmegaConf.save(config, file.with_name("config.yaml"))
    code, output, errors = spkdt("export", str(file.parent), str(tmp_path / "out.pt"), "--precision", "64")
    assert code == 0, errors
    assert "This is the first model" in output
    model = load_atomistic_model(str(tmp_path / "out.pt"))
    assert set(model.capabilities().atomic_types) == numbers
    assert model.metadata().extra["training_data_sha256"] == file_hash(database)
    atoms = Atoms([min(numbers)] * 2, positions=[[0, 0, 0], [0, 0, 1.5]])
    one = by_schnetpack(file, atoms, energy_unit="kcal/mol").get_potential_energy()
    assert by_file(tmp_path / "out.pt", atoms).get_potential_energy() == pytest.approx(one, abs=1e-6)
