"""Dynamic training of a model that is already trained: what `spktrain experiment=dt_finetune` is made of.

The config is composed with what the model file tells (`spk_dt.training.pretrained`, through the resolver
``spk_dt.pretrained`` of the Hydra plugin); here are the model itself, the transforms that fit it, and a callback that
compares it with the data before training.
"""

import hashlib
import logging
import os
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
from schnetpack.transform import AddOffsets, CastTo32, CastTo64, Transform

from spk_dt.labels.unit_check import Unit
from spk_dt.training.fits_data import check_elements, check_forces
from spk_dt.training.freeze import freeze as freeze_parts
from spk_dt.training.pretrained import Pretrained, describe, read_model
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

    Its offsets stay what they are, so that its energies keep their zero. All its parameters are trained but those of the
    frozen parts, also if they were frozen before.

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

    Args:
        model_file: file of the model.
        property: name of the energies of the data.
    """

    is_preprocessor = True

    def __init__(self, model_file: str, property: str = properties.energy) -> None:
        super().__init__()
        self._property = property
        self._key = describe(model_file).energy_key
        model = read_model(model_file)
        offsets = [m for m in model.postprocessors if isinstance(m, AddOffsets) and m._property == self._key]
        self.offsets = torch.nn.ModuleList(offsets)

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Shift the energies of a system, [1, ...]."""
        numbers = inputs[properties.Z]
        shift = {
            self._key: torch.zeros(1, dtype=torch.float64),
            properties.Z: numbers,
            properties.n_atoms: inputs[properties.n_atoms],
            properties.idx_m: torch.zeros_like(numbers),
        }
        for module in self.offsets:
            shift = module(shift)
        inputs[self._property] = inputs[self._property] - shift[self._key]
        return inputs


def cast_for(model_file: str) -> Transform:
    """The transform that casts inputs to the precision of a model."""
    return CastTo64() if describe(model_file).dtype == torch.float64 else CastTo32()


class FineTuning(Callback):
    """Compares the model with the data before training, and completes the record of the run.

    Elements that the model has no weights for are refused, and so are units in which its forces do not agree with the data
    while they do in others. What was read from the model (cutoff, names, units) replaces references to it in the
    ``config.yaml`` of the run, which so is complete without the model.

    Args:
        model_file: file of the model that training starts from.
        frames: number of frames to compare forces at.

    Raises:
        ValueError: at the start of the fit, if model and data do not fit, or a run is resumed that began with another model.
    """

    def __init__(self, model_file: str, frames: int = 8) -> None:
        self.known = describe(model_file)
        self.frames = frames
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
            check_elements(pl_module.model, self.known, frames)
            chosen = np.asarray(datamodule.train_idx)
            chosen = chosen[np.linspace(0, len(chosen) - 1, self.frames).round().astype(int)]
            check_forces(pl_module.model, self.known, frames, np.unique(chosen))
        if trainer.is_global_zero and Path("config.yaml").exists():
            _record(self.known, datamodule)

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
    OmegaConf.save(config, "config.yaml.part")
    os.replace("config.yaml.part", "config.yaml")
