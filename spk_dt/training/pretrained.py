"""A model that SchNetPack has trained: its file, what it predicts and in which units, how far it reaches.

`describe` loads the model, which runs what is in its file. A config may also be resolved only to be looked at (``--cfg job
--resolve``, `hydra.compose`), so its values come from `read_attribute`, which runs nothing of the file.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from hydra.utils import to_absolute_path
from omegaconf import OmegaConf
from schnetpack import properties
from schnetpack.atomistic import Forces, Response
from schnetpack.model import AtomisticModel
from schnetpack.transform import ScaleProperty

from spk_dt.folders.damage import reading
from spk_dt.labels.unit_check import Unit
from spk_dt.models import is_plain, load_model
from spk_dt.representation.cutoff import cutoff_of
from spk_dt.training.run_config import RunConfig, read_run_config, units_of
from spk_dt.training.stored_model import StoredObject, read_stored

__all__ = ["Pretrained", "describe", "load_attribute", "model_path", "read_attribute", "read_model"]


@dataclass(frozen=True)
class Pretrained:
    """What fine-tuning must know of a model.

    Args:
        file: the file.
        cutoff: cutoff of its representation, in `distance_unit`.
        energy_key: name of the energy among its outputs.
        forces_key: name of the forces.
        run: what the ``config.yaml`` of its run tells, None if there is none.
        dtype: of its parameters.
    """

    file: Path
    cutoff: float
    energy_key: str
    forces_key: str
    run: RunConfig | None
    dtype: torch.dtype

    @property
    def energy_unit(self) -> Unit:
        """Unit of energy; eV if its run does not tell."""
        return units_of(self.run)[0]

    @property
    def distance_unit(self) -> Unit:
        """Unit of length; Å if its run does not tell."""
        return units_of(self.run)[1]


def model_path(path: str | Path | None) -> Path:
    """The file of a model, given by itself or by the folder of its run.

    Args:
        path: file or folder; a relative path counts from where `spktrain` was started, not from its run folder.

    Raises:
        ValueError: if none is given.
        FileNotFoundError: if there is no such file.
    """
    if path is None:
        raise ValueError("no model to start from: set model_file=PATH, a 'best_model' or the folder of its run.")
    file = Path(to_absolute_path(str(Path(path).expanduser()))).resolve()
    file = file / "best_model" if file.is_dir() else file
    if not file.is_file():
        raise FileNotFoundError(
            f"model_file={path}: there is no file '{file}'. Give a 'best_model' of SchNetPack, the folder of the run that "
            "wrote it, or a '.safetensors' of spkdt export; a relative path counts from where spktrain is started."
        )
    return file


def read_model(path: str | Path) -> AtomisticModel:
    """Load a model, also of an older SchNetPack, on the CPU.

    Args:
        path: see `model_path`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a SchNetPack model with a representation that has a cutoff.
    """
    file = model_path(path)
    try:
        model = load_model(file)
        cutoff_of(model)
        model.input_modules, model.output_modules  # noqa: B018 - a model of SchNetPack has them
        for name, value in (("do_postprocessing", True), ("input_dtype_str", "float32"), ("postprocessors", None)):
            if not hasattr(model, name):  # of older versions
                setattr(model, name, torch.nn.ModuleList() if value is None else value)
        if getattr(model, "required_derivatives", None) is None:
            model.collect_derivatives()
        if getattr(model, "model_outputs", None) is None:
            model.collect_outputs()
    except Exception as error:
        if is_plain(file):
            raise  # it says what is wrong
        reason = (str(error).splitlines() or [""])[0][:200]
        raise ValueError(
            f"model_file={path}: '{file}' is not a SchNetPack model ({type(error).__name__}: {reason}). Give the file "
            "'best_model' of a run folder, or a '.safetensors' of spkdt export, not a checkpoint or a '.task' file; if the "
            "model has classes of your own, their module must be importable."
        ) from error
    return model


def describe(path: str | Path) -> Pretrained:
    """Read what a model and the ``config.yaml`` beside it tell; a file is read once.

    Args:
        path: see `model_path`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no model, predicts no forces or no energy, scales them after training, or contradicts the
            ``config.yaml`` beside it.
    """
    file = model_path(path)
    return _describe(file, *_written(file))


def read_attribute(path: str | Path, what: str) -> Any:
    """An attribute of `Pretrained`, read from the files without running anything of the model; for configs.

    Args:
        path: see `model_path`.
        what: name of an attribute of `Pretrained`: cutoff, energy_key, forces_key, energy_unit or distance_unit.

    Returns:
        The value. If the file does not show it (a class of one's own may compute it), a config that Hydra replaces by the
        value when it instantiates what needs it, which loads the model anyway.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the ``config.yaml`` beside it cannot be used.
    """
    file = model_path(path)
    value = _read_without_loading(file, *_written(file))[what]
    if isinstance(value, str | float) and "${" not in str(value):  # a reference would be resolved as one of the config
        return value
    return OmegaConf.create({"_target_": f"{__name__}.{load_attribute.__name__}", "path": str(path), "what": what})


def load_attribute(path: str, what: str) -> Any:
    """An attribute of `Pretrained` of the loaded model; stands in configs for what `read_attribute` does not find.

    Args:
        path: see `model_path`.
        what: name of the attribute.
    """
    return getattr(describe(path), what)


def _written(file: Path) -> tuple[int | None, ...]:
    """When the files that tell of a model were written."""
    return tuple(f.stat().st_mtime_ns if f.exists() else None for f in (file, file.with_name("config.yaml")))


@lru_cache(maxsize=4)
def _describe(file: Path, *written: int | None) -> Pretrained:
    """What a loaded model tells, for one state of the files."""
    model = read_model(file)
    with reading(file, "SchNetPack model", "Give the file 'best_model' of another run."):
        cutoff = _cutoff(model)
        energy_key, forces_key = _checked_keys(model, file)
        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return Pretrained(
        file=file,
        cutoff=cutoff,
        energy_key=energy_key,
        forces_key=forces_key,
        run=read_run_config(file, energy_key, cutoff),
        dtype=dtype,
    )


@lru_cache(maxsize=4)
def _read_without_loading(file: Path, *written: int | None) -> dict[str, Any]:
    """What a file tells without being loaded, for one state of the files; None for what it does not."""
    energy_key = forces_key = cutoff = None
    try:
        model = read_model(file) if is_plain(file) else read_stored(file)
        energy_key, forces_key = _keys(model.output_modules) or (None, None)
        cutoff = _cutoff(model)
    except Exception:  # anything may be in a file; what is wrong with it is said when it is loaded
        pass
    run = read_run_config(file, str(energy_key or properties.energy), cutoff)
    units = dict(zip(("energy_unit", "distance_unit"), units_of(run), strict=True))
    return {"cutoff": cutoff, "energy_key": energy_key, "forces_key": forces_key, **units}


def _cutoff(model: Any) -> float:
    """Cutoff of a model: 3.3, not what single precision makes of it."""
    return float(f"{cutoff_of(model):.7g}")


def _keys(output_modules: Iterable[Any]) -> tuple[str, str] | None:
    """Names of energy and forces among the outputs, None if there are no forces."""
    for module in output_modules:
        if isinstance(module, Forces | StoredObject) and getattr(module, "calc_forces", False):
            return module.energy_key, module.force_key
        answers = getattr(module, "response_properties", ()) if isinstance(module, Response | StoredObject) else ()
        if properties.forces in answers:
            return module.energy_key, module.map_properties[properties.forces]
    return None


def _checked_keys(model: AtomisticModel, file: Path) -> tuple[str, str]:
    """Names of energy and forces of a model that can be trained further."""
    keys = _keys(model.output_modules)
    if keys is None:
        raise ValueError(
            f"'{file}' predicts {sorted(model.model_outputs)}, but no forces as the gradient of an energy (it has no output "
            "module schnetpack.atomistic.Forces), so it cannot run dynamics. Train a model with forces."
        )
    if keys[0] not in model.model_outputs:
        raise ValueError(
            f"'{file}' predicts {sorted(model.model_outputs)}, but not the energy '{keys[0]}' of its forces."
        )
    for module in model.postprocessors:
        if isinstance(module, ScaleProperty) and module.output_key in keys:
            raise ValueError(
                f"'{file}' scales '{module.output_key}' after training (its postprocessor ScaleProperty); rollouts would "
                "run with the unscaled forces. Move the scale into the model's output modules."
            )
    return keys
