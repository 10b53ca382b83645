"""A model that SchNetPack has trained: its file, what it predicts and in which units, how far it reaches."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from hydra.utils import to_absolute_path
from schnetpack import properties
from schnetpack.atomistic import Forces, Response
from schnetpack.model import AtomisticModel
from schnetpack.transform import ScaleProperty
from schnetpack.utils import load_model

from spk_dt.labels.unit_check import Unit
from spk_dt.representation.cutoff import cutoff_of
from spk_dt.training.run_config import RunConfig, read_run_config

__all__ = ["Pretrained", "describe", "model_path", "read_model"]


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
        return "eV" if self.run is None or self.run.energy_unit is None else self.run.energy_unit

    @property
    def distance_unit(self) -> Unit:
        """Unit of length; Å if its run does not tell."""
        return "Ang" if self.run is None or self.run.distance_unit is None else self.run.distance_unit


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
            f"model_file={path}: there is no file '{file}'. Give a 'best_model' of SchNetPack, or the folder of the run "
            "that wrote it; a relative path counts from where spktrain is started."
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
        model = load_model(str(file))
        cutoff_of(model)
        model.output_modules  # noqa: B018 - a model of SchNetPack has them
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise ValueError(
            f"model_file={path}: '{file}' is not a SchNetPack model ({type(error).__name__}: {reason}). Give the file "
            "'best_model' of a run folder, not a checkpoint or a '.task' file; if the model has classes of your own, their "
            "module must be importable."
        ) from error
    for name, value in (("do_postprocessing", True), ("input_dtype_str", "float32"), ("postprocessors", None)):
        if not hasattr(model, name):  # of older versions
            setattr(model, name, torch.nn.ModuleList() if value is None else value)
    if getattr(model, "required_derivatives", None) is None:
        model.collect_derivatives()
    if getattr(model, "model_outputs", None) is None:
        model.collect_outputs()
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
    config = file.with_name("config.yaml")
    return _describe(file, *(f.stat().st_mtime_ns if f.exists() else None for f in (file, config)))


@lru_cache(maxsize=4)
def _describe(file: Path, *written: int | None) -> Pretrained:
    """The same for one state of the files."""
    model = read_model(file)
    cutoff = float(f"{cutoff_of(model):.7g}")  # 3.3, not what single precision makes of it
    energy_key, forces_key = _keys(model, file)
    return Pretrained(
        file=file,
        cutoff=cutoff,
        energy_key=energy_key,
        forces_key=forces_key,
        run=read_run_config(file, energy_key, cutoff),
        dtype=next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32),
    )


def _keys(model: AtomisticModel, file: Path) -> tuple[str, str]:
    """Names of energy and forces among the outputs."""
    for module in model.output_modules:
        if isinstance(module, Forces) and module.calc_forces:
            keys = module.energy_key, module.force_key
            break
        if isinstance(module, Response) and properties.forces in module.response_properties:
            keys = module.energy_key, module.map_properties[properties.forces]
            break
    else:
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
