"""Keeps a run of `spkmd` from writing over another one."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import fasteners
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf, open_dict

__all__ = ["OutputFolder"]

_LOCK = Path(".hydra", "lock")


class OutputFolder(Callback):
    """Hydra callback that refuses a simulation folder with a run in it, unless it is continued or to be replaced.

    With ``restart=...`` from a checkpoint in the folder it is left as it is; with ``overwrite=true`` it is moved aside to
    ``<folder>.old.<n>``. Both count in the file of ``load_config``, too, as they do for SchNetPack; otherwise that is a new
    run like any other. SchNetPack itself would replace settings and checkpoints before it notices. With ``-m`` all jobs are
    looked at before the first one starts (those of Hydra's own sweeper; others choose their jobs on the way).

    Raises:
        SystemExit: if a folder holds a run, if two jobs share a folder, if the file of ``load_config`` is about to be
            written over, or if none of this can be found out. Hydra turns other exceptions of a callback into warnings.
    """

    def __init__(self) -> None:
        self._lock: fasteners.InterProcessLock | None = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at the folder before anything is written."""
        try:
            _make_room([config])
        except Exception as error:
            raise SystemExit(f"spkmd: {error}") from error

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at the folders of all jobs before anything is written."""
        try:
            _make_room(_jobs(config))
        except Exception as error:
            raise SystemExit(f"spkmd: {error}") from error

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Keep others off the folder; it is there by now, and with ``-m`` this is the job's own."""
        folder = config.hydra.runtime.output_dir
        self._lock = fasteners.InterProcessLock(Path(folder, _LOCK))
        if not self._lock.acquire(blocking=False):
            raise SystemExit(f"spkmd: {_still_alive(folder)}")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Leave the folder to others."""
        assert self._lock is not None
        self._lock.release()


def _jobs(config: DictConfig) -> list[DictConfig]:
    """The configs of a sweep, one for each job, as Hydra is going to compose them; none if its sweeper is another one."""
    sweeper, loader = get_class(config.hydra.sweeper._target_), GlobalHydra.instance().config_loader()
    if not hasattr(sweeper, "split_arguments"):
        return []
    arguments = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    overrides = OverridesParser.create(loader).parse_overrides([*arguments, *_overrides(config)])
    (jobs,) = sweeper.split_arguments(overrides, max_batch_size=None)
    configs = [loader.load_sweep_config(config, job) for job in jobs]
    for number, job in enumerate(configs):
        with open_dict(job):
            job.hydra.job.id = job.hydra.job.num = number
    return configs


def _make_room(configs: Sequence[DictConfig]) -> None:
    """Move old runs out of the way of new ones, all or none.

    Raises:
        ValueError: if a folder may not be written to, or a run is going on in it.
    """
    taken, in_the_way = set(), []
    for config in configs:
        folder, restart, overwrite = _settings(config)
        if folder.resolve() in taken:
            raise ValueError(
                f"two jobs would write to simulation_dir='{folder}'. Name it after what they differ in, as in "
                "'simulation_dir=out_${seed}'."
            )
        taken.add(folder.resolve())
        if _is_alive(folder):
            raise ValueError(_still_alive(folder))
        continued = restart is not None and Path(restart).resolve().parent == folder.resolve()
        if continued or not any((folder / name).exists() for name in (".hydra", "simulation.hdf5")):
            continue
        if not overwrite:
            checkpoint = folder / "checkpoint.chk"
            remedy = f"continue with restart={checkpoint}, " if checkpoint.exists() else ""
            raise ValueError(
                f"simulation_dir='{folder}' holds a run already. Choose another folder, {remedy}or move the old run aside "
                "with overwrite=true."
            )
        in_the_way.append(folder)
    for folder in in_the_way:
        n = next(n for n in range(1, 10**6) if not folder.with_name(f"{folder.name}.old.{n}").exists())
        shutil.move(folder, folder.with_name(f"{folder.name}.old.{n}"))


def _is_alive(folder: Path) -> bool:
    """Whether a run in a folder is going on."""
    if not (folder / _LOCK).exists():
        return False
    lock = fasteners.InterProcessLock(folder / _LOCK)
    if free := lock.acquire(blocking=False):
        lock.release()
    return not free


def _still_alive(folder: str | Path) -> str:
    return f"a run is still going on in simulation_dir='{folder}'. Wait for it, end it, or choose another folder."


def _settings(config: DictConfig) -> tuple[Path, str | None, bool]:
    """Folder, checkpoint to continue from, and whether to overwrite.

    Raises:
        ValueError: if the file of ``load_config`` is the one that Hydra is about to write.
    """
    hydra, before = HydraConfig.instance(), HydraConfig.instance().cfg
    hydra.set_config(config)  # for ${hydra:...} in the name
    folder, file = Path(config.simulation_dir), config.load_config
    hydra.cfg = before
    loaded = None if file is None else OmegaConf.load(file)
    if file is not None and Path(file).resolve().parent == (folder / ".hydra").resolve():
        raise ValueError(
            f"load_config='{file}' would be written over by this run before it is read. Load a copy from another folder."
        )
    given = {override.partition("=")[0] for override in _overrides(config)}
    restart, overwrite = (
        loaded[key] if isinstance(loaded, DictConfig) and key in loaded and key not in given else config[key]
        for key in ("restart", "overwrite")
    )
    return folder, restart, overwrite


def _overrides(config: DictConfig) -> list[str]:
    """What the command line sets, with ``${...}`` as they are."""
    return cast(list[str], OmegaConf.to_container(config.hydra.overrides.task, resolve=False))
