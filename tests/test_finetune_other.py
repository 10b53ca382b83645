"""Fine-tuning with another time step, elements, loss or reference than the model has is refused, unless it is wanted."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.models import painn, potential

from spk_dt.models import Facts, save_model
from spk_dt.training.finetune import FineTuning
from spk_dt.training.same_run import MADE_WITH, MAY_DIFFER, made_with_of, refuse_other_training

TBLITE = {"reference": "tblite:GFN1-xTB", "parameters": {"accuracy": 1.0}, "versions": {"tblite": "0.4"}}
KNOWN = {
    "time step of the data in fs": [0.5],
    "elements": ["C", "H", "Pd"],
    "loss": ["forces: L1Loss(), weight 1", "energy: L1Loss(), weight 1", "rollouts: forces"],
    "reference method of the data": TBLITE,
}

#: what may differ -> another value of it, and what both messages say
OTHERS = {
    "time_step": ([1.0], r"\[0.5\], and would be fine-tuned with \[1.0\]"),
    "elements": (["H", "Pd", "Au"], r"\['C', 'H', 'Pd'\], and would be fine-tuned with \['H', 'Pd', 'Au'\]"),
    "loss": (["forces: MSELoss(), weight 1", "energy: L1Loss(), weight 1"], r"forces: L1Loss.*forces: MSELoss"),
    "reference": (TBLITE | {"reference": "tblite:GFN2-xTB"}, "GFN1-xTB.*would be fine-tuned with.*GFN2-xTB"),
}

#: what is no other: fewer elements, an output beside those of before, a newer version of the same method
SAME = {
    "time_step": [0.5],
    "elements": ["H", "Pd"],
    "loss": [*KNOWN["loss"], "stress: L1Loss(), weight 1"],
    "reference": TBLITE | {"versions": {"tblite": "0.5"}},
}


def test_there_is_one_of_each():
    assert set(OTHERS) == set(SAME) == set(MAY_DIFFER)


@pytest.mark.parametrize("name", OTHERS)
def test_another_one_is_refused_unless_it_is_wanted(name):
    other, message = OTHERS[name]
    with pytest.raises(ValueError, match=message) as error:
        refuse_other_training(KNOWN, KNOWN | {MAY_DIFFER[name]: other}, "best_model")
    assert f"may_differ='[{name}]'" in str(error.value)
    refuse_other_training(KNOWN, KNOWN | {MAY_DIFFER[name]: other}, "best_model", [name])
    for one in set(OTHERS) - {name}:  # it is no licence for the others
        with pytest.raises(ValueError, match=rf"may_differ='\[{one},{name}\]'"):
            refuse_other_training(KNOWN, KNOWN | {MAY_DIFFER[name]: other}, "best_model", [one])


@pytest.mark.parametrize("name", SAME)
def test_what_is_no_other_one_passes(name):
    refuse_other_training(KNOWN, KNOWN | {MAY_DIFFER[name]: SAME[name]}, "best_model")
    unknown = {key: value for key, value in KNOWN.items() if key != MAY_DIFFER[name]}
    for before, now in ((unknown, KNOWN), (KNOWN, unknown), (KNOWN, KNOWN | {MAY_DIFFER[name]: None})):
        refuse_other_training(before, now, "best_model")


def test_what_a_model_was_made_with(tmp_path):
    """By the record beside it, by its own file, or not known."""
    model = potential(painn()).eval()
    pickled, plain = tmp_path / "best_model", tmp_path / "model.safetensors"
    pickled.touch()
    assert made_with_of(pickled) == {}
    (tmp_path / MADE_WITH).write_text(json.dumps(KNOWN))
    assert made_with_of(pickled) == KNOWN
    facts = {"elements": KNOWN["elements"], "time_step_fs": [0.5], "loss": KNOWN["loss"], "reference": TBLITE}
    save_model(model, Facts("a", "eV", "Ang", 4.0, sorted(model.model_outputs), **facts), plain)
    assert made_with_of(plain) == KNOWN | {"cutoff": 4.0}
    (tmp_path / MADE_WITH).write_text(json.dumps(KNOWN)[:-3])
    with pytest.raises(ValueError, match=f"{MADE_WITH}' is damaged"):
        made_with_of(pickled)


def test_of_an_earlier_run_the_checkpoint_tells(tmp_path):
    run = Path(__file__).parent / "fixtures" / "0.1.0" / "run"
    shutil.copytree(run / "checkpoints", tmp_path / "checkpoints")
    shutil.copy(run / "best_model", tmp_path)
    assert made_with_of(tmp_path / "best_model") == json.loads((run / MADE_WITH).read_text())
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"PK")
    assert made_with_of(tmp_path / "best_model") == {}


def test_names_are_checked(tmp_path):
    model = potential(painn()).eval()
    file = tmp_path / "model.safetensors"
    save_model(model, Facts("a", "eV", "Ang", 4.0, sorted(model.model_outputs)), file)
    with pytest.raises(ValueError, match="may_differ names 'cutoff'; it may name time_step, elements, loss, reference"):
        FineTuning(str(file), may_differ=["cutoff"])
