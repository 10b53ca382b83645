"""Dynamic training of a model that is already trained: what `spktrain experiment=dt_finetune` is made of.

The config is composed with what the model file tells (`spk_dt.training.pretrained`, through the resolver
``spk_dt.pretrained`` of the Hydra plugin); here are the model itself, the transforms that fit it, and a callback that
compares it with the data before training.
"""

import copy
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Callback
from schnetpack import properties
from schnetpack.data import AtomsDataModule
from schnetpack.model import AtomisticModel
from schnetpack.transform import CastTo32, CastTo64, Transform

from spk_dt.folders.whole_file import whole_file
from spk_dt.labels.unit_check import Unit
from spk_dt.training.energy_zero import (
    EnergyZero,
    added_by,
    check_energy_zero,
    offsets_of,
    set_data_offsets,
    use_energy_zero,
)
from spk_dt.training.fits_data import check_elements, check_forces, compare_energies, frames_to_compare, report_energies
from spk_dt.training.freeze import freeze as freeze_parts
from spk_dt.training.on_policy import JoiningLabels
from spk_dt.training.pretrained import Pretrained, describe, read_model
from spk_dt.training.same_run import check_may_differ, made_with, made_with_of, refuse_other_training
from spk_dt.units import conversion

__all__ = ["FineTuning", "RemoveModelOffsets", "cast_for", "pretrained_model"]

log = logging.getLogger(__name__)


def pretrained_model(
    file: str,
    cutoff: float,
    energy_unit: Unit,
    distance_unit: Unit,
    freeze: str | Sequence[str] = (),
) -> AtomisticModel:
    """A trained model, ready to be trained further.

    Its offsets stay what they are (`FineTuning` may add one for the zero of the data). All its parameters are trained but
    those of the frozen parts, also if they were frozen before.

    Args:
        file: file of the model, or the folder of its run; a relative path counts from where `spktrain` was started.
        cutoff: cutoff for which the data prepare pairs, in `distance_unit`.
        energy_unit: unit of the energies of the data.
        distance_unit: unit of length of the data.
        freeze: parts that are not trained, see `spk_dt.training.freeze`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no model with forces, its cutoff or units are not those of the data, it lies in the folder that
            this run writes to, or a frozen part does not exist.
    """
    known = describe(file)
    _refuse_contradictions(known, cutoff, energy_unit, distance_unit)
    if known.file.parent == Path.cwd():
        raise ValueError(
            f"model_file={known.file} lies in the folder of this run, which would replace it. Choose another run.id."
        )
    model = read_model(known.file)
    for module in model.modules():
        if isinstance(module, Transform):  # tell them not to take their values from the new data
            module._mean_initialized = module._atomrefs_initialized = module._initialized = True
    model.train()  # it was stored in evaluation mode, which Lightning would keep
    model.requires_grad_(True)
    frozen = freeze_parts(model, freeze)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    log.info(
        "'%s': cutoff %g %s, energies in %s; %d of %d parameters are frozen",
        known.file,
        known.cutoff,
        distance_unit,
        energy_unit,
        sum(sizes.get(name, 0) for name in frozen),
        sum(sizes.values()),
    )
    return model


def _refuse_contradictions(known: Pretrained, cutoff: float, energy_unit: Unit, distance_unit: Unit) -> None:
    """Compare what the user says with what the model and its run say."""
    if abs(cutoff - known.cutoff) > 1e-5 * known.cutoff:
        raise ValueError(
            f"globals.cutoff={cutoff:g}, but the cutoff of the model '{known.file}' is {known.cutoff:g}, and cannot be "
            "changed. Leave globals.cutoff out."
        )
    if known.run is None:
        return
    for key, said, unit in (
        ("data.property_units.energy", energy_unit, known.run.energy_unit),
        ("data.distance_unit", distance_unit, known.run.distance_unit),
    ):
        if unit is not None and abs(conversion(said, unit, key) - 1.0) > 1e-6:
            raise ValueError(
                f"{key}={said}, but '{known.run.file}' says that the model was trained with '{unit}'. Leave {key} out; the "
                "data are converted."
            )


class RemoveModelOffsets(Transform):
    """Takes from reference energies what a model adds to its own after training: mean, atomic references, or nothing.

    And, when training has begun, the offsets from the zero of the model to that of the data.

    Args:
        model_file: file of the model.
        property: name of the energies of the data.
    """

    is_preprocessor = True

    def __init__(self, model_file: str, property: str = properties.energy) -> None:
        super().__init__()
        self._property = property
        self._key = describe(model_file).energy_key
        self.offsets = torch.nn.ModuleList(offsets_of(read_model(model_file), self._key))

    def take(self, model: AtomisticModel) -> None:
        """Take the offsets from a model, with those of the zero of the data, whether its energies have them or not."""
        model = use_energy_zero(copy.deepcopy(model).cpu(), "data")
        self.offsets = torch.nn.ModuleList(offsets_of(model, self._key))

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Shift the energies of a system, [1, ...]."""
        inputs[self._property] = inputs[self._property] - added_by(self.offsets, inputs)
        return inputs


def cast_for(model_file: str) -> Transform:
    """The transform that casts inputs to the precision of a model."""
    return CastTo64() if describe(model_file).dtype == torch.float64 else CastTo32()


class FineTuning(Callback):
    """Compares the model with the data before training, and completes the record of the run.

    Data with another time step, other elements or another reference method than the model was trained with, and another
    loss, are refused unless they are named in `may_differ`, as far as it is known (`spk_dt.training.same_run`). Elements
    that the model has no weights for are refused, and so are units in which its forces do not agree with the data while
    they do in others. Energies of the data that have another zero are trained on in the zero of the model; the offset per
    element is kept in the model (`spk_dt.training.energy_zero`). Energies that differ by more than offsets are refused if
    they are in the loss (`spk_dt.training.energy_offsets`). What was read from the model (cutoff, names, units) replaces
    references to it in the ``config.yaml`` of the run, which so is complete without the model.

    Args:
        model_file: file of the model that training starts from.
        frames: number of frames to compare forces at.
        energy_zero: zero in which the stored model gives its energies: ``"model"``, as before, or ``"data"``.
        may_differ: of ``"time_step"``, ``"elements"``, ``"loss"`` and ``"reference"``, what may be another.

    Raises:
        ValueError: if there is no such zero; at the start of the fit, if model and data do not fit, or a run is resumed that
            began with another model.
    """

    def __init__(
        self,
        model_file: str,
        frames: int = 8,
        energy_zero: EnergyZero = "model",
        may_differ: Sequence[str] = (),
    ) -> None:
        check_energy_zero(energy_zero)
        self.may_differ = [str(one) for one in may_differ]
        check_may_differ(self.may_differ)
        self.known = describe(model_file)
        self.frames = frames
        self.energy_zero = energy_zero
        self._digest = hashlib.sha256(self.known.file.read_bytes()).hexdigest()
        self._began_with: dict[str, str] = {}

    # pl_module is a DynamicTrainingTask; the signature of a hook is Lightning's
    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Compare and record; a run that is resumed was compared when it began."""
        if self._began_with.get("digest", self._digest) != self._digest:
            raise ValueError(
                f"model_file='{self.known.file}', but this run began with another model, '{self._began_with['file']}', and "
                "would go on from that. Choose another run.id."
            )
        datamodule = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it, but does not declare it
        frames = getattr(datamodule, "frames", None)
        if frames is not None and trainer.ckpt_path is None:
            model = pl_module.model
            before, now = made_with_of(self.known.file), made_with(trainer, pl_module)
            refuse_other_training(before, now, self.known.file, self.may_differ)
            check_elements(model, self.known, frames)
            members = np.asarray(datamodule.train_idx)
            chosen = members[np.linspace(0, len(members) - 1, self.frames).round().astype(int)]
            check_forces(model, self.known, frames, np.unique(chosen))
            energies = compare_energies(model, self.known, frames, frames_to_compare(frames, members))
            report_energies(energies, self.known, frames, pl_module.outputs, self._in_loss(trainer, pl_module))
            if energies.offsets is not None:
                set_data_offsets(model, self.known.energy_key, energies.offsets)
        if self.energy_zero == "data":
            use_energy_zero(pl_module.model, "data")
        for transform in (*datamodule.train_transforms, *datamodule.val_transforms, *datamodule.test_transforms):
            if isinstance(transform, RemoveModelOffsets):
                transform.take(pl_module.model)
        if trainer.is_global_zero and Path("config.yaml").exists():
            _record(self.known, datamodule)

    def _in_loss(self, trainer: pl.Trainer, task: Any) -> bool:
        """Whether energies are trained on: in rollouts, or at S = 1, or of states that are labelled meanwhile."""
        output = next((o for o in task.outputs if o.name == self.known.energy_key), None)
        if output is None or output.loss_fn is None or output.loss_weight == 0:
            return False
        callbacks = trainer.callbacks  # type: ignore[attr-defined]  # as above
        labels = any(isinstance(one, JoiningLabels) and one.possible for one in callbacks)
        return task.rollout_length == 1 or labels or output in task.rollout_outputs

    def state_dict(self) -> dict[str, str]:
        """The model that training began with."""
        return {"file": str(self.known.file), "digest": self._digest}

    def load_state_dict(self, state_dict: dict[str, str]) -> None:
        """Remember it."""
        self._began_with = state_dict


def _record(known: Pretrained, datamodule: AtomsDataModule) -> None:
    """Write what was read from the model into the ``config.yaml`` of this run."""
    config = OmegaConf.load("config.yaml")
    values: dict[str, Any] = {
        "model_file": str(known.file),
        "globals.cutoff": known.cutoff,
        "globals.energy_key": known.energy_key,
        "globals.forces_key": known.forces_key,
        "data.distance_unit": datamodule.distance_unit,
        "data.property_units": dict(datamodule.property_units),
    }
    for key, value in values.items():
        OmegaConf.update(config, key, value, force_add=True)
    with whole_file("config.yaml") as part:
        OmegaConf.save(config, part)
