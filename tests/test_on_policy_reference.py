"""On-policy labels: the reference method must be that of the data, also in its energies where these are trained on."""

import logging

import pytest
from helpers.models import potential
from helpers.training import data_module, paper_outputs, task, trainer

from spk_dt.training import Labelling, OnPolicyLabels, RoundSchedule


@pytest.fixture
def begin(database, tmp_path):
    """Begin a training with on-policy labels that are due later."""

    def run(method, energy_weight=1.0, **kwargs):
        labels = Labelling(f"helpers.reference_programs:{method}", **kwargs)
        callback = OnPolicyLabels(labels, schedule=RoundSchedule(first_epoch=9), folder=str(tmp_path / "on_policy"))
        forces, energy = paper_outputs()
        energy.loss_weight = energy_weight
        model = task(potential().double(), [forces, energy])
        options = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 0}
        trainer(tmp_path, callbacks=[callback], **options).fit(model, data_module(database, tmp_path))

    return run


@pytest.mark.slow
def test_a_neighbouring_method(begin, caplog):
    with pytest.raises(ValueError, match=r"is not the method of the data.*callbacks\.on_policy\.labels\.another_refer"):
        begin("Neighbour")
    with caplog.at_level(logging.WARNING, "spk_dt"):
        begin("Neighbour", another_reference=True)
    assert "It is used on purpose" in caplog.text


@pytest.mark.slow
def test_energies_of_another_zero(begin, caplog):
    """Refused with energies in the loss; without, or on purpose, it is said."""
    with pytest.raises(
        ValueError, match=r"its energies have another zero.* train on forces only \(task\.outputs\.1\.loss_weight=0\)"
    ):
        begin("OtherZero")
    with caplog.at_level(logging.WARNING, "spk_dt"):
        begin("OtherZero", energy_weight=0.0)
    assert "Its energies have another zero" in caplog.text
    begin("OtherZero", another_reference=True)
    assert "It is used on purpose" in caplog.text
