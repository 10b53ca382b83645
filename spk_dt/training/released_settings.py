"""The config of the code released with Dynamic Training, in our words.

https://github.com/IZugec/DTEGNN, ``dtegnn/config/example.yml``: a flat YAML file. Each of its keys either has an override of
``spktrain experiment=dt_egnn_paper``, is taken into account otherwise, or has no counterpart, which is said.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase.data import atomic_numbers
from omegaconf import DictConfig, OmegaConf

__all__ = ["OVERRIDES", "WITHOUT", "ReleasedSettings", "read_released_settings"]

#: key of theirs -> our key
OVERRIDES = {
    "N_train": "globals.max_rollout_length",
    "N_val": "data.val_window",
    "Num_train": "data.max_train_windows",
    "Num_val": "data.max_val_windows",
    "RFF_dim": "model.representation.radial_basis.n_rbf",
    "RFF_sigma": "model.representation.radial_basis.sigma",
    "batch_size": "data.batch_size",
    "batch_size_val": "data.val_batch_size",
    "check_val": "trainer.check_val_every_n_epoch",
    "cutoff": "globals.cutoff",
    "depth": "model.representation.n_interactions",
    "emb_dim": "model.representation.n_atom_basis",
    "first_term": "task.first_step_weight",
    "lr": "globals.lr",
    "lr_decay": "task.scheduler_args.factor",
    "lr_min": "task.scheduler_args.min_lr",
    "lr_reset": "callbacks.curriculum.reset_lr",
    "n_epochs": "trainer.max_epochs",
    "patience": "task.scheduler_args.patience",
    "seed": "+seed",
}
#: key of theirs that no override stands for -> what becomes of it
WITHOUT = {
    "N_eval": "steps of spkdt evaluate (--steps)",
    "N_train_max": "nothing: windows are as long as S",
    "N_traj": "the trajectories that are in the database (theirs reads numbers 1 to N_traj - 1)",
    "N_traj_eval": "number of trajectories of spkdt evaluate (--number)",
    "atom_types_map": "elements of the weights; models are told atomic numbers by the data",
    "checkpoint_interval": "nothing: a checkpoint is written after every epoch",
    "cuda": "trainer.accelerator=gpu or trainer.accelerator=cpu",
    "datapath": "the database that spkdt convert makes of this folder",
    "dyn_potim": "time step of spkdt evaluate, a whole fraction of that of the data",
    "keep_n_checkpoints": "nothing: the best model and the last checkpoint are kept",
    "modelpath": "the folder of the run, run.id",
    "n_out_features": "nothing: the output is the energy",
    "neigh_factor": "nothing: neighbours are renewed at every step of a rollout",
    "norm": "nothing: normalisation is by layer",
    "potim": "time step of the database (spkdt convert --timestep-fs); it is not set in the training",
    "wandb_logging": "nothing: TensorBoard and CSV are written",
    "wandb_mode": "nothing",
    "wandb_name": "nothing",
    "wandb_project": "nothing",
}
_WHOLE = ("N_train", "N_val", "Num_train", "Num_val", "RFF_dim", "batch_size", "batch_size_val", "check_val", "depth",
          "emb_dim", "n_epochs", "patience", "seed")  # fmt: skip


@dataclass(frozen=True)
class ReleasedSettings:
    """What a config says.

    Args:
        file: where it is.
        overrides: of ``spktrain``, in the order of the file.
        elements: chemical symbols in the order of the weights; empty if the file does not say it.
        values: all that is in the file.
        left_out: keys without an override, and what becomes of them.
    """

    file: Path
    overrides: tuple[str, ...]
    elements: tuple[str, ...]
    values: dict[str, Any]
    left_out: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        """A value that weights cannot be read without."""
        if self.values.get(key) is None:
            raise ValueError(f"'{self.file}' has no {key}, without which the weights cannot be read; add it.")
        return self.values[key]


def read_released_settings(file: str | Path) -> ReleasedSettings:
    """Read a config of the released code.

    Args:
        file: YAML as ``dtegnn/config/example.yml``.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is no such file, or has a key or a value that our training does not have.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file '{file}'; give the config.yml of a training with the released code.")
    try:
        loaded = OmegaConf.load(file)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"'{file}' is no YAML file ({reason}). Give the config.yml of the released code.") from error
    container: Any = OmegaConf.to_container(loaded) if isinstance(loaded, DictConfig) else None
    if not isinstance(container, dict) or not set(container) & {"RFF_dim", "emb_dim", "N_train", "first_term"}:
        raise ValueError(
            f"'{file}' is no config of the released code (https://github.com/IZugec/DTEGNN, dtegnn/config/example.yml): it "
            "has none of its keys. A config.yaml of spktrain needs no conversion."
        )
    unknown = sorted(str(key) for key in container if key not in OVERRIDES and key not in WITHOUT)
    if unknown:
        raise ValueError(
            f"'{file}' has {', '.join(unknown)}, which the released code does not know. Known are "
            f"{', '.join(sorted(OVERRIDES | WITHOUT))}. Correct or remove the others."
        )
    values = {str(key): value for key, value in container.items()}
    _refuse(values, file)
    elements = _elements(values.get("atom_types_map"), file)
    overrides = [f"{OVERRIDES[key]}={_text(value)}" for key, value in values.items() if key in OVERRIDES]
    if "cuda" in values:
        overrides.append(f"trainer.accelerator={'gpu' if values['cuda'] else 'cpu'}")
    left_out = {key: WITHOUT[key] for key in values if key in WITHOUT}
    return ReleasedSettings(file, tuple(overrides), elements, values, left_out)


def _text(value: Any) -> str:
    """As an override of Hydra."""
    return "null" if value is None else str(value)


def _refuse(values: dict[str, Any], file: Path) -> None:
    """Values that our model or our training does not have."""
    for key in OVERRIDES:
        value = values.get(key)
        if key not in values or (key == "seed" and value is None):
            continue
        try:
            number = float(str(value))
        except (TypeError, ValueError):
            number = math.nan
        whole = key not in _WHOLE or number == int(number) if math.isfinite(number) else False
        least = 0 if key in ("seed", "patience", "first_term") else 1e-300
        if isinstance(value, bool) or not whole or number < least:
            kind = "a whole number" if key in _WHOLE else "a number"
            hint = " (null are messages of the bare distance, which are not offered)" if key == "RFF_dim" else ""
            raise ValueError(f"'{file}': {key}: {value} is not {kind} that can be taken over{hint}. Correct it there.")
    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        "norm": (lambda value: value == "layer", "only 'norm: layer' can be taken over"),
        "n_out_features": (lambda value: value == 1, "a potential has one output, the energy"),
        "RFF_dim": (lambda value: value % 2 == 0, "Fourier features come in pairs of sine and cosine here"),
    }
    for key, (right, why) in checks.items():
        if key in values and not right(values[key]):
            raise ValueError(f"'{file}': {key}: {values[key]}: {why}. Train such a model with the released code.")


def _elements(types: Any, file: Path) -> tuple[str, ...]:
    """Chemical symbols in the order of the numbers that the file gives them."""
    if types is None:
        return ()
    remedy = "Write atom_types_map as {0: H, 1: C, 2: Pd}, ordered by atomic number."
    if not isinstance(types, dict) or sorted(types, key=str) != sorted(range(len(types)), key=str):
        raise ValueError(f"'{file}': atom_types_map: {types} does not number its elements from 0. {remedy}")
    symbols = tuple(str(types[i]) for i in range(len(types)))
    if wrong := [symbol for symbol in symbols if atomic_numbers.get(symbol, 0) < 1]:
        raise ValueError(f"'{file}': atom_types_map: there is no element {wrong[0]}. {remedy}")
    numbers = [atomic_numbers[symbol] for symbol in symbols]
    if numbers != sorted(set(numbers)):
        raise ValueError(
            f"'{file}': atom_types_map: {', '.join(symbols)} is not ordered by atomic number, and this is the order of the "
            f"released code, whatever the file says. {remedy}"
        )
    return symbols
