"""``restart=auto``: one command begins a run and, started again however that has ended, goes on with it.

That is what a job script of a queue needs: it is the same each time.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from hydra.utils import to_absolute_path
from omegaconf import DictConfig, OmegaConf, read_write

from spk_dt.folders.run_folder import given_overrides

__all__ = ["AUTO", "CHECKPOINT", "loaded_settings", "setting", "steps_made", "with_checkpoint"]

log = logging.getLogger(__name__)

#: value of ``restart``
AUTO = "auto"
#: in the folder of the simulation
CHECKPOINT = "checkpoint.chk"

_NOT_THERE = object()


def loaded_settings(config: DictConfig) -> Any:
    """Content of the file of ``load_config``; None without it."""
    return None if config.load_config is None else OmegaConf.load(to_absolute_path(config.load_config))


def setting(config: DictConfig, loaded: Any, key: str) -> Any:
    """Value of a key, as SchNetPack finds it: on the command line, else in the file of ``load_config``, else by default.

    Args:
        config: without what is loaded.
        loaded: content of that file.
        key: with dots.
    """
    given = {override.partition("=")[0].lstrip("+") for override in given_overrides(config)}
    if isinstance(loaded, DictConfig) and key not in given:
        found = OmegaConf.select(loaded, key, default=_NOT_THERE)
        if found is not _NOT_THERE:
            return found
    return OmegaConf.select(config, key)


def steps_made(folder: Path) -> int | None:
    """Steps of the run up to its checkpoint; None if it has none.

    Raises:
        ValueError: if the file is not a checkpoint of a simulation.
    """
    file = folder / CHECKPOINT
    if not file.exists():
        return None
    try:
        return int(torch.load(file, map_location="cpu", weights_only=False)["step"])
    except Exception as error:  # torch has one for each kind of damage
        raise ValueError(
            f"'{file}' is no checkpoint of spkmd ({error}); choose another simulation_dir, or restart=null overwrite=true."
        ) from error


def with_checkpoint(config: DictConfig, folder: Path) -> None:
    """Put the checkpoint of a folder, and the steps that are left, in place of ``restart=auto``; without one the run begins.

    ``dynamics.n_steps`` counts from the beginning of the run then. Nothing is done for another value of ``restart``.

    Args:
        config: of the job; it is changed.
        folder: of the simulation.

    Raises:
        ValueError: if no checkpoint would be written, or the run is to be replaced as well.
        SystemExit: with code 0, if all steps are made.
    """
    loaded = loaded_settings(config)
    if setting(config, loaded, "restart") != AUTO:
        return
    if setting(config, loaded, "overwrite"):
        raise ValueError(
            f"restart={AUTO} goes on with the run in simulation_dir='{folder}', overwrite=true replaces it."
        )
    written = OmegaConf.select(config, "callbacks.checkpoint.checkpoint_file")
    if written != CHECKPOINT:
        raise ValueError(
            f"restart={AUTO} looks for '{CHECKPOINT}' in simulation_dir, and callbacks.checkpoint.checkpoint_file is "
            f"{written}: name 'checkpoint' among the callbacks, as in callbacks=[checkpoint,hdf5]."
        )
    total, done = int(setting(config, loaded, "dynamics.n_steps")), steps_made(folder)
    if done is None:  # what is there, if anything, was killed before its first checkpoint: it is moved aside
        _set(config, "restart", None)
        _set(config, "overwrite", True)
        return
    if done >= total:
        print(f"spkmd: all {total} steps of simulation_dir='{folder}' are made.")
        raise SystemExit(0)
    log.info("going on after step %d of %d", done, total)
    _set(config, "restart", str(Path(to_absolute_path(str(folder / CHECKPOINT)))))
    _set(config, "dynamics.n_steps", total - done)


def _set(config: DictConfig, key: str, value: Any) -> None:
    """Change a setting, and what the command line says of it, since SchNetPack reads that again."""
    OmegaConf.update(config, key, value, force_add=False)
    overrides = [one for one in given_overrides(config) if one.partition("=")[0] != key]
    quoted = "null" if value is None else f"'{value}'" if isinstance(value, str) else value
    with read_write(config.hydra):
        config.hydra.overrides.task = [*overrides, f"{key}={quoted}"]
