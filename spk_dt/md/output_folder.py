"""Keeps a run of `spkmd` from writing over another one."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
from hydra.core.hydra_config import HydraConfig
from hydra.utils import to_absolute_path
from omegaconf import DictConfig, OmegaConf

from spk_dt.folders.hold import LOCK, hold
from spk_dt.folders.run_folder import RunFolder, resolving
from spk_dt.md.going_on import AUTO, CHECKPOINT, loaded_settings, setting, with_checkpoint

__all__ = ["OutputFolder"]

log = logging.getLogger(__name__)


class OutputFolder(RunFolder):
    """Hydra callback that refuses a simulation folder with a run in it, unless it is continued or to be replaced.

    What a start has left that failed, or was killed, before there was anything to keep is no run, and makes room.
    With ``restart=...`` from a checkpoint in the folder it is left as it is, and with ``restart=auto`` if there is one; with
    ``overwrite=true`` it is moved aside to ``<folder>.old.<n>``. All count in the file of ``load_config`` as well, as
    for SchNetPack; otherwise that is a new run like any other. SchNetPack itself would replace settings and checkpoints
    before it notices.

    Hydra would write its record of the settings, ``.hydra``, before a callback can hold the folder. So it is told not to,
    and they are written here.

    Raises:
        SystemExit: if a folder holds a run, finished or going on, if two jobs share a folder, if the file of ``load_config``
            is about to be written over, or if none of this can be found out.
    """

    program = "spkmd"

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Find out where the run goes on, and look at the folder before anything is written."""
        self._held.close()
        with self._errors_to_user():
            with resolving(config):
                folder = self.folder(config)
            with_checkpoint(config, folder)
        super().on_run_start(config, **kwargs)

    def is_ours(self, config: DictConfig) -> bool:
        """Always."""
        return True

    concerns = is_ours

    def folder(self, config: DictConfig) -> Path:
        """Where a job is going to run."""
        return Path(config.simulation_dir)

    def busy(self, folder: Path) -> str:
        """What another process does in a folder, and what to do about it."""
        return f"has a run still going on in simulation_dir='{folder}'. Wait for it, end it, or choose another folder."

    def shared(self, folder: Path) -> str:
        """What is wrong if two jobs have one folder, and what to do about it."""
        return (
            f"two jobs would write to simulation_dir='{folder}'. Name it after what they differ in, as in "
            "'simulation_dir=out_${seed}'."
        )

    def look(self, configs: Sequence[DictConfig]) -> None:
        """Look at the folders of all jobs, then move old runs out of the way of new ones, all or none."""
        super().look(configs)
        in_the_way = []
        for config in configs:
            folder, restart, overwrite = self._settings(config)
            if _in_the_way(folder, restart):
                if not overwrite:
                    raise ValueError(_holds_a_run(folder))
                in_the_way.append(folder)
        for folder in in_the_way:
            n = next(n for n in range(1, 10**6) if not folder.with_name(f"{folder.name}.old.{n}").exists())
            aside = folder.with_name(f"{folder.name}.old.{n}")
            with hold(folder / LOCK, self.busy(folder)):
                shutil.move(folder, aside)
                (aside / LOCK).unlink()

    def enter(self, config: DictConfig, folder: Path) -> None:
        """Hold the folder, see whether another run was made in it since the first look, and record the settings."""
        super().enter(config, folder)
        if _in_the_way(folder, self._settings(config)[1]):
            raise ValueError(_holds_a_run(folder))
        record = folder / ".hydra"
        if (record / "config.yaml").exists() and (left := _left_by_failed_start(folder)) is not None:
            log.info("a run that ended before anything of it was kept had begun in '%s'; it begins anew", folder)
            for file in left:
                file.unlink(missing_ok=True)
        record.mkdir(exist_ok=True)
        settings = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        parts = {"config": settings, "hydra": HydraConfig.instance().cfg, "overrides": config.hydra.overrides.task}
        for name, part in parts.items():
            (record / f"{name}.yaml").write_text(OmegaConf.to_yaml(part), encoding="utf-8")

    def _settings(self, config: DictConfig) -> tuple[Path, str | None, bool]:
        """Folder, checkpoint to continue from, and whether to overwrite.

        Raises:
            ValueError: if the file of ``load_config`` is the one that is about to be written.
        """
        with resolving(config):
            folder, file = self.folder(config), config.load_config
            record = Path(to_absolute_path(str(folder / ".hydra")))
        loaded = loaded_settings(config)
        if file is not None and Path(to_absolute_path(file)).resolve().parent == record.resolve():
            raise ValueError(
                f"load_config='{file}' would be written over by this run before it is read. Load a copy from another "
                "folder."
            )
        restart = setting(config, loaded, "restart")
        if restart == AUTO:  # of a single run it is the checkpoint by now
            raise ValueError(f"restart={AUTO} is for one run, not for several with -m: name the checkpoint of each.")
        return folder, restart, setting(config, loaded, "overwrite")


def _in_the_way(folder: Path, restart: str | None) -> bool:
    """Whether a folder holds a run, and is not continued from a checkpoint in it."""
    if restart is not None and Path(to_absolute_path(restart)).resolve().parent == folder.resolve():
        return False
    there = any((folder / name).exists() for name in (".hydra", "simulation.hdf5"))
    return there and _left_by_failed_start(folder) is None


def _left_by_failed_start(folder: Path) -> list[Path] | None:
    """Empty files of trajectories that a start has left, if nothing of its run was kept; None if there is something.

    A run that was to write checkpoints or trajectories and has not, has ended before; of any other one it is not known.
    """
    try:
        settings: Any = OmegaConf.load(folder / ".hydra" / "config.yaml")
        callbacks = settings.callbacks or {}
        kept = [folder / one.checkpoint_file for one in callbacks.values() if "checkpoint_file" in one]
        trajectories = [folder / one.filename for one in callbacks.values() if "data_streams" in one]
    except Exception:  # whatever a file that was cut off leads to
        return None
    if (not kept and not trajectories) or any(file.exists() for file in kept):
        return None
    return None if any(map(_has_entries, trajectories)) else trajectories


def _has_entries(trajectory: Path) -> bool:
    """Whether a file of a trajectory, also of a run that was killed, has an entry; or cannot be read."""
    if not trajectory.exists():
        return False
    try:
        with h5py.File(trajectory, "r", libver="latest", swmr=True) as file:
            return any(int(stream.attrs.get("entries", 1)) > 0 for stream in file.values())
    except (OSError, RuntimeError, KeyError):
        return trajectory.stat().st_size > 0


def _holds_a_run(folder: Path) -> str:
    checkpoint = folder / CHECKPOINT
    remedy = f"continue with restart={checkpoint}, " if checkpoint.exists() else ""
    return (
        f"simulation_dir='{folder}' holds a run already. Choose another folder, {remedy}or move the old run aside with "
        "overwrite=true."
    )
