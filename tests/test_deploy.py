"""`spkdt deploy`: what SchNetPack's pair style gets from the file is what SchNetPack gives for the model."""

import re

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from helpers.exported import REPRESENTATIONS, UNITS, stored, with_field
from helpers.models import CUTOFF, crystal, molecule, painn, potential, tiny_egnn
from helpers.pair_style import by_pair_style, pair_style_input
from helpers.programs import spkdt
from schnetpack.atomistic import Atomwise, Forces, PairwiseDistances
from schnetpack.interfaces import SpkCalculator
from schnetpack.model import NeuralNetworkPotential
from schnetpack.nn import CosineCutoff, ElectronicEmbedding
from schnetpack.transform import AddOffsets, CastTo64, MatScipyNeighborList, ScaleProperty

from spk_dt.export import deploy
from spk_dt.export.deploy import deploy_model
from spk_dt.representation import EGNN, RandomFourierFeatures

GIVEN = {"types": ["H", "C", "Pd"], "energy_unit": UNITS["energy_unit"], "position_unit": UNITS["position_unit"]}
MEAN = -65.0
OF_THE_PAPER = {"EGNN of the paper": lambda: EGNN(16, 2, RandomFourierFeatures(512), CosineCutoff(CUTOFF))}
ALL = REPRESENTATIONS | OF_THE_PAPER


def mean():
    return AddOffsets("energy", add_mean=True, property_mean=torch.tensor([MEAN]))


def systems():
    """LAMMPS has a box in any case."""
    in_box = molecule(1)
    in_box.set_cell([30.0, 30.0, 30.0])
    mixed = crystal(3)
    mixed.pbc = (True, False, True)
    return {
        "molecule in a box": in_box,
        "triclinic, smaller than the cutoff": crystal(2),
        "mixed boundaries": mixed,
        "one atom": Atoms("Pd", cell=[20.0, 20.0, 20.0], pbc=True),
        "two atoms that do not see each other": Atoms("HC", [[0, 0, 0], [0, 0, 9.0]], cell=[20.0, 20.0, 20.0]),
        "a cell of one atom": bulk("Pd"),
        "atoms outside of their cell": Atoms("PdC", [[7.0, 0, 0], [-4.0, 1.0, 0]], cell=[5, 5, 5], pbc=True),
    }


def by_schnetpack(file, atoms, cutoff=CUTOFF, **units):
    units = {"energy_unit": "eV", "position_unit": "Ang"} | units
    atoms = atoms.copy()
    pairs = MatScipyNeighborList(cutoff=cutoff)
    atoms.calc = SpkCalculator(str(file), pairs, energy_key="energy", force_key="forces", dtype=torch.float64, **units)
    return atoms.get_potential_energy(), atoms.get_forces()


FAST = ("EGNN of the paper", "PaiNN")


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        pytest.param(name, precision, marks=() if precision == 32 and name in FAST else pytest.mark.slow)
        for name in ALL
        for precision in (32, 64)
    ],
)
def test_the_pair_style_gets_what_schnetpack_gives(name, precision, tmp_path):
    file = stored(tmp_path / "run", ALL[name], [CastTo64(), mean()])
    deploy_model(file, tmp_path / "out", precision=precision, **GIVEN)
    for what, atoms in systems().items():
        energy, forces = by_pair_style(tmp_path / "out", atoms)
        expected, of_atoms = by_schnetpack(file, atoms)
        assert energy == pytest.approx(expected - MEAN * len(atoms), abs=1e-5), what  # offsets are left out
        np.testing.assert_allclose(forces, of_atoms, atol=1e-5, err_msg=what)
    assert np.abs(by_pair_style(tmp_path / "out", crystal(2))[1]).max() > 1e-3


def test_units_of_model_and_input_are_converted(tmp_path):
    """A model of kcal/mol and nm, and LAMMPS in either of its unit styles."""
    file = stored(tmp_path / "run", lambda: tiny_egnn(cutoff=CUTOFF / 10.0), [mean()])
    atoms = crystal(2)
    in_nm = atoms.copy()
    in_nm.set_cell(atoms.cell.array / 10.0, scale_atoms=True)
    expected, of_atoms = by_schnetpack(file, in_nm, CUTOFF / 10.0, energy_unit="kcal/mol")  # in eV
    kcal = 1.0 / 23.060548
    for units, unit in {"metal": 1.0, "real": kcal}.items():
        given = GIVEN | {"energy_unit": "kcal/mol", "position_unit": "nm"}
        found = deploy_model(file, tmp_path / units, units=units, **given)
        assert found.cutoff == pytest.approx(CUTOFF)
        energy, forces = by_pair_style(tmp_path / units, atoms)
        assert unit * energy == pytest.approx(expected - MEAN * kcal * len(atoms), abs=1e-5)
        np.testing.assert_allclose(unit * forces, of_atoms / 10.0, atol=1e-5)


def test_large_offsets_cost_no_digits(tmp_path):
    file = stored(tmp_path / "run", None, [CastTo64(), mean()])
    deploy_model(file, tmp_path / "out", **GIVEN)
    atoms = bulk("Pd", cubic=True) * (5, 5, 5)
    moved = atoms.copy()
    moved.rattle(0.1, seed=0)
    found = by_pair_style(tmp_path / "out", moved)[0] - by_pair_style(tmp_path / "out", atoms)[0]
    before, after = (by_schnetpack(file, one)[0] for one in (atoms, moved))
    assert abs(np.spacing(np.float32(before))) > 1e-3
    assert abs(after - before) > 1e-3
    assert found == pytest.approx(after - before, abs=1e-4)


def test_the_series_is_in_the_weights(tmp_path):
    """512 Fourier features are some fifty terms, and the numbers are those of the model."""
    torch.manual_seed(0)
    whole = EGNN(16, 2, RandomFourierFeatures(512), CosineCutoff(CUTOFF)).double()
    folded = whole.folded()
    n_terms = folded.radial_basis.n_rbf
    assert 20 < n_terms < 80
    assert folded.interactions[0].message_first.weight.shape == (16, 32 + n_terms)
    assert whole.interactions[0].message_first.weight.shape == (16, 32 + 512)  # the model itself is as it was
    atoms = crystal(2)
    distances = torch.linspace(0.5, CUTOFF, 50, dtype=torch.float64)
    filters = [
        one.interactions[1].message_first.weight[:, 32:] @ one.radial_basis(distances).T for one in (whole, folded)
    ]
    torch.testing.assert_close(filters[1], filters[0], atol=1e-7, rtol=0)
    assert tiny_egnn().folded().radial_basis.n_rbf == 8  # too few functions for a series
    torch.save(potential(whole.float()), tmp_path / "best_model")
    deploy_model(tmp_path / "best_model", tmp_path / "out", **GIVEN)
    state = torch.jit.load(str(tmp_path / "out")).state_dict()
    assert {len(value) for name, value in state.items() if "radial_basis" in name} == {n_terms}
    np.testing.assert_allclose(
        by_pair_style(tmp_path / "out", atoms)[1], by_schnetpack(tmp_path / "best_model", atoms)[1], atol=1e-5
    )


def test_the_file_ends_runs_that_cannot_be_right(tmp_path):
    file = stored(tmp_path / "run", painn)
    deploy_model(file, tmp_path / "out", **GIVEN)
    with pytest.raises(torch.jit.Error, match="not trained on the element with atomic number 8"):
        by_pair_style(tmp_path / "out", Atoms("OH", [[0, 0, 0], [0, 0, 1.0]], cell=[9, 9, 9]))
    meeting = Atoms("CH", [[0, 0, 0], [0, 0, 1.0]], cell=[9, 9, 9])
    asked = pair_style_input(meeting, CUTOFF)
    asked["_positions"] = torch.zeros(2, 3)
    with pytest.raises(torch.jit.Error, match="forces of the model are not finite"):
        torch.jit.load(str(tmp_path / "out"))(asked)


def with_two_energies(representation):
    energies = [Atomwise(8, output_key="energy"), Atomwise(8, output_key="energy")]
    return NeuralNetworkPotential(representation, [PairwiseDistances()], [*energies, Forces()])


def with_charge(_):
    return potential(tiny_egnn(electronic_embeddings=[ElectronicEmbedding("total_charge", 8, 1, True)]))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (with_field, "StaticExternalFields"),
        (with_two_energies, "several energies"),
        (with_charge, "total charge or spin"),
    ],
)
def test_what_the_pair_style_cannot_use_is_refused(make, reason, tmp_path):
    torch.save(make(tiny_egnn()), tmp_path / "best_model")
    with pytest.raises(ValueError, match=reason):
        deploy_model(tmp_path / "best_model", tmp_path / "out", **GIVEN)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"energy_unit": None}, "State it: --energy-unit eV"),
        ({"position_unit": None}, "State it: --position-unit Angstrom"),
        ({"types": []}, "State them: --types H,C,Pd"),
        ({"types": ["H", "Xx"]}, "--types H,Xx: name the element of each atom type"),
        ({"units": "si"}, "--units si"),
        ({"precision": 16}, "precision=16"),
    ],
)
def test_what_is_not_known_is_asked_for(options, reason, tmp_path):
    file = stored(tmp_path / "run")
    with pytest.raises(ValueError, match=re.escape(reason)):
        deploy_model(file, tmp_path / "out", **(GIVEN | options))
    assert not list(tmp_path.glob("out*"))


def test_a_file_that_differs_from_the_model_is_not_kept(tmp_path, monkeypatch):
    file = stored(tmp_path / "run", painn, [ScaleProperty("energy", scale=torch.tensor([2.0]))])
    whole = deploy.member_of

    def wrong(*arguments):
        member = whole(*arguments)
        member.scale *= 1.01
        return member

    monkeypatch.setattr(deploy, "member_of", wrong)
    with pytest.raises(ValueError, match="the file would differ from the model"):
        deploy_model(file, tmp_path / "out", **GIVEN)
    assert not list(tmp_path.glob("out*"))


def test_the_command_prints_the_lines_of_the_input(tmp_path):
    stored(tmp_path / "run", None, [mean()])
    given = ("--types", "C,H", "--energy-unit", "eV", "--position-unit", "Ang")
    code, output, errors = spkdt("deploy", tmp_path / "run", tmp_path / "my model", *given)
    assert code == 0, errors
    lines = [line.split("#")[0].split() for line in output.splitlines()]
    commands = [words[0] for words in lines if words]
    assert commands.index("newton") < commands.index("read_data") < commands.index("pair_coeff")
    assert ["newton", "off"] in lines
    assert ["units", "metal"] in lines
    assert f'"{tmp_path / "my model"}" 6 1 ' in output
    assert "atom types 1 C, 2 H" in output
    assert output.splitlines()[-1] == "# C -65.000000, H -65.000000"
    assert "cutoff 4 Å" in output
    before = (tmp_path / "my model").read_bytes()
    code, _, errors = spkdt("deploy", tmp_path / "run", tmp_path / "my model", *given)
    assert code == 1
    assert "is there already" in errors
    assert (tmp_path / "my model").read_bytes() == before
