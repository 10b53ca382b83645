"""What the ``config.yaml`` of a run tells of the model beside it: units, and whether it is the config of this model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.utils import to_absolute_path
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from schnetpack import properties

from spk_dt.folders.damage import reading
from spk_dt.folders.plain_yaml import refuse_what_is_not_plain
from spk_dt.labels.unit_check import Unit
from spk_dt.models import is_plain, read_facts
from spk_dt.trajectories.checked_database import read_metadata

__all__ = ["RunConfig", "read_run_config", "units_of"]

#: transforms without which a model sees other pairs, and which rollouts, whose pairs are found anew, do not have
_UNSUPPORTED = ("FilterNeighbors", "CollectAtomTriples")


@dataclass(frozen=True)
class RunConfig:
    """Units of a run.

    Args:
        file: its ``config.yaml``, or the file of the model, if that tells (`spk_dt.models`).
        energy_unit: unit of energy, None if it does not tell.
        distance_unit: unit of length, None if it does not tell.
    """

    file: Path
    energy_unit: Unit | None
    distance_unit: Unit | None


def units_of(run: RunConfig | None) -> tuple[Unit, Unit]:
    """Units of energy and length of a model; eV and Å if its run does not tell."""
    energy, distance = (None, None) if run is None else (run.energy_unit, run.distance_unit)
    return "eV" if energy is None else energy, "Ang" if distance is None else distance


def read_run_config(model_file: Path, energy_key: str, cutoff: float | None) -> RunConfig | None:
    """What a model file tells, or the ``config.yaml`` beside it; None if there is none of a training run.

    Units are those that the data were converted to, else those of the database, if that is still where it was.

    Args:
        model_file: file of the model.
        energy_key: name of the energy among the outputs of the model.
        cutoff: cutoff of the model, None if it is not known; it is not compared then.

    Raises:
        ValueError: if the file cannot be read, has another cutoff than the model, or names a transform that cannot be had
            in rollouts.
    """
    if is_plain(model_file):
        facts = read_facts(model_file)
        return RunConfig(model_file, facts.energy_unit, facts.distance_unit)
    file = model_file.with_name("config.yaml")
    if not file.exists():
        return None
    try:
        refuse_what_is_not_plain(file)
        config = OmegaConf.load(file)
    except Exception as error:
        raise ValueError(f"'{file}' beside the model cannot be read ({error}). Repair or remove it.") from error
    with reading(file, "config of the training of the model beside it", "Repair or remove it."):
        if not isinstance(config, DictConfig) or "data" not in config or "task" not in config:
            return None
        _refuse_contradictions(config, file, model_file, cutoff)
        target = _target_of(config, energy_key)
        units = dict(_value(config, "data.property_units") or {})
        energy, distance = units.get(target), _value(config, "data.distance_unit")
        if energy is None or distance is None:
            native = _native_units(config)
            energy = native.get("_property_unit_dict", {}).get(target) if energy is None else energy
            distance = native.get("_distance_unit") if distance is None else distance
        return RunConfig(file, energy, distance)


def _refuse_contradictions(config: DictConfig, file: Path, model_file: Path, cutoff: float | None) -> None:
    """Compare the cutoffs, and look for transforms that rollouts do not have."""
    stated = {"globals.cutoff": _value(config, "globals.cutoff")}
    for i in range(len(_value(config, "data.transforms") or ())):
        key = f"data.transforms[{i}]"
        name = str(_value(config, f"{key}._target_")).rsplit(".", 1)[-1]
        if name in _UNSUPPORTED:
            raise ValueError(
                f"the model '{model_file}' was trained with {name} ({key} in '{file}'); rollouts find pairs anew and would "
                "not have it. Such a model cannot be fine-tuned."
            )
        if name.endswith("NeighborList"):
            stated[f"{key}.cutoff"] = _value(config, f"{key}.cutoff")
    for key, value in stated.items():
        if cutoff is not None and isinstance(value, int | float) and abs(value - cutoff) > 1e-5 * cutoff:
            raise ValueError(
                f"the cutoff of the model '{model_file}' is {cutoff:g}, but '{file}' beside it says {key}={value:g}, so it "
                "is the config of another model. Copy the model to a folder of its own, with the right config.yaml or none."
            )


def _target_of(config: DictConfig, energy_key: str) -> str:
    """Under which name the energies of the data were."""
    for output in _value(config, "task.outputs") or ():
        try:
            if output.get("name") == energy_key:
                return output.get("target_property") or energy_key
        except OmegaConfBaseException:
            continue
    return energy_key or properties.energy


def _native_units(config: DictConfig) -> dict[str, Any]:
    """Metadata of the database, if it is there."""
    path = _value(config, "data.datapath")
    if path is None or not Path(to_absolute_path(str(path))).is_file():
        return {}
    try:
        return read_metadata(to_absolute_path(str(path)))
    except Exception:  # what is there now is no database
        return {}


def _value(config: DictConfig, key: str) -> Any:
    """A value, None if it is missing or depends on what is no longer known."""
    try:
        return OmegaConf.select(config, key)
    except OmegaConfBaseException:
        return None
