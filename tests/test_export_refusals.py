"""What cannot be exported is refused, and what is not known is asked for, before a file is written."""

import sys

import pytest
import torch
from helpers.exported import UNITS, stored, with_field
from helpers.models import potential, tiny_egnn
from helpers.programs import spkdt
from schnetpack.atomistic import Atomwise, Forces, PairwiseDistances
from schnetpack.model import NeuralNetworkPotential
from schnetpack.transform import AddOffsets

pytest.importorskip("metatomic.torch", reason="needs the extra export")
from spk_dt.export.stored import About
from spk_dt.export.write import export_model


def of_average(representation):
    return NeuralNetworkPotential(
        representation, [PairwiseDistances()], [Atomwise(8, output_key="energy", aggregation_mode="avg"), Forces()]
    )


def with_intensive_mean(representation):
    offsets = AddOffsets("energy", add_mean=True, property_mean=torch.tensor([1.0]), is_extensive=False)
    return potential(representation, [offsets])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (with_field, "it has StaticExternalFields"),
        (of_average, "not the sum of energies of atoms"),
        (with_intensive_mean, "AddOffsets makes of its energy is no sum over atoms"),
    ],
)
def test_what_cannot_be_expressed_is_refused(make, reason, tmp_path):
    torch.save(make(tiny_egnn()), tmp_path / "best_model")
    with pytest.raises(ValueError, match=reason):
        export_model([tmp_path / "best_model"], tmp_path / "out.pt", **UNITS)
    assert not list(tmp_path.glob("out*"))


def test_what_is_not_known_is_asked_for(tmp_path):
    file = stored(tmp_path / "run")
    for unit, option in {"energy_unit": "--energy-unit eV", "position_unit": "--position-unit Angstrom"}.items():
        with pytest.raises(ValueError, match=f"State it: {option}"):
            export_model([file], tmp_path / "out.pt", **(UNITS | {unit: None}))
    with pytest.raises(ValueError, match="State them: --elements H,C,Pd"):
        export_model([file], tmp_path / "out.pt", **(UNITS | {"elements": []}))
    with pytest.raises(ValueError, match="'Xx' is not the symbol"):
        export_model([file], tmp_path / "out.pt", **(UNITS | {"elements": ["H", "Xx"]}))
    with pytest.raises(ValueError, match=r"call it 'out\.pt'"):
        export_model([file], tmp_path / "out.txt", **UNITS)
    (tmp_path / "there.pt").write_text("mine")
    with pytest.raises(FileExistsError):
        export_model([file], tmp_path / "there.pt", **UNITS)
    assert (tmp_path / "there.pt").read_text() == "mine"


def test_a_committee_has_no_certificate_of_a_member(tmp_path):
    files = [stored(tmp_path / f"run{i}", seed=i) for i in range(2)]
    with pytest.raises(ValueError, match="a certificate is of one model, not of a committee"):
        export_model(files, tmp_path / "out.pt", about=About(certificates=[tmp_path]), **UNITS)
    assert not (tmp_path / "out.pt").exists()


def test_without_metatomic_the_command_says_what_to_install(tmp_path, monkeypatch):
    file = stored(tmp_path / "run")
    monkeypatch.setitem(sys.modules, "metatomic.torch", None)
    monkeypatch.delitem(sys.modules, "spk_dt.export.write")
    monkeypatch.delitem(sys.modules, "spk_dt.export.potential")
    code, _, errors = spkdt("export", str(file), str(tmp_path / "out.pt"))
    assert code == 1
    assert "pip install 'spk_dt[export]'" in errors
