"""Keeps a run of `spkmd` from writing over another one."""

import shutil
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

__all__ = ["OutputFolder"]


class OutputFolder(Callback):
    """Hydra callback that refuses a simulation folder with a run in it, unless it is continued or to be replaced.

    With ``restart=...`` or ``load_config=...`` the folder is left as it is; with ``overwrite=true`` it is moved aside to
    ``<folder>.old.<n>``. SchNetPack itself would replace settings and checkpoints before it notices.

    Raises:
        SystemExit: if the folder holds a run. Hydra turns any other exception of a callback into a warning.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at the folder before anything is written."""
        folder = Path(config.simulation_dir)
        if config.restart is not None or not any((folder / name).exists() for name in (".hydra", "simulation.hdf5")):
            return
        if not config.overwrite:
            raise SystemExit(
                f"spkmd: simulation_dir='{folder}' holds a run already. Choose another folder, continue with "
                f"restart={folder / 'checkpoint.chk'}, or move the old run aside with overwrite=true."
            )
        n = next(n for n in range(1, 10**6) if not folder.with_name(f"{folder.name}.old.{n}").exists())
        shutil.move(folder, folder.with_name(f"{folder.name}.old.{n}"))
