"""Keeps a second run of a program with Hydra out of a folder in which one is going on."""

import atexit
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar, cast

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException, InstantiationException
from hydra.experimental.callback import Callback
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf, open_dict

from spk_dt.folders.hold import LOCK, hold
from spk_dt.folders.user_errors import message_for_user

__all__ = ["RunFolder", "given_overrides", "resolving"]

log = logging.getLogger(__name__)

#: by which the launchers that PyTorch Lightning knows tell a process its place among those of one training
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "OMPI_COMM_WORLD_RANK")


class RunFolder(Callback):
    """Hydra callback that refuses to train in a folder while another training runs in it, before anything there is changed.

    A training that has ended, or was killed, is no obstacle: the next one continues it. The processes of one training share
    its folder, and the first of them holds it. With ``-m`` all folders are looked at before the first job starts (those of
    Hydra's own sweeper; others choose their jobs on the way).

    Raises:
        SystemExit: if a training is going on in the folder, or two jobs share one. Hydra turns other exceptions of a
            callback into warnings.
    """

    program = "spktrain"
    #: of the job in this process; there is one at a time, and one that was interrupted has not let go
    _held: ClassVar[ExitStack] = ExitStack()

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at the folder before anything is written."""
        self._held.close()
        with self._errors_to_user():
            self.look([config])

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at the folders of all jobs before anything is written."""
        self._held.close()
        with self._errors_to_user():
            self.look(_jobs(config))

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Keep others off the folder. It is there by now, and nothing but an empty log has been added to it."""
        if self.is_ours(config) and _has_place_among_others():
            # SchNetPack makes it, and fails if another process does so at the same time
            Path(config.run.data_dir).mkdir(parents=True, exist_ok=True)
            if _is_another_of_one_training():
                _leave_the_log_to_the_first()
        if self.concerns(config):
            with self._errors_to_user():
                self.enter(config, Path(config.hydra.runtime.output_dir))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Leave the folder to others; an error that the user can mend is told without its traceback.

        Hydra hides the traceback of an error in the making of an object; if the user cannot mend it, it is shown.
        """
        self._held.close()
        error = job_return._return_value
        if not self.is_ours(config) or job_return.status is not JobStatus.FAILED or _everything_is_wanted():
            return
        if (message := message_for_user(error)) is None:
            job_return.return_value = error.__cause__ if isinstance(error, InstantiationException) else error
            return
        message = f"{self.program}: {message}"
        if OmegaConf.is_missing(config.hydra.job, "num"):
            raise SystemExit(
                f"{message}\n(HYDRA_FULL_ERROR=1 {self.program} ... shows where this was raised.)"
            ) from error
        job_return.return_value = CompactHydraException(message)  # told when all jobs of the sweep have run

    def is_ours(self, config: DictConfig) -> bool:
        """Whether this is a training; ``spkpredict`` shares the configs of ``spktrain``."""
        return "task" in config

    def concerns(self, config: DictConfig) -> bool:
        """Whether this is a training, and its first process."""
        return self.is_ours(config) and not _is_another_of_one_training()

    def folder(self, config: DictConfig) -> Path:
        """Where a job is going to run."""
        sweep = config.hydra.sweep
        return (
            Path(config.hydra.run.dir)
            if OmegaConf.is_missing(config.hydra.job, "num")
            else Path(sweep.dir, sweep.subdir)
        )

    def busy(self, folder: Path) -> str:
        """What another process does in a folder, and what to do about it."""
        return f"is still training in the run folder '{folder}'. Wait for it, end it, or choose another run.id."

    def shared(self, folder: Path) -> str:
        """What is wrong if two jobs have one folder, and what to do about it."""
        return (
            f"two jobs would train in the run folder '{folder}'. Name it after what they differ in, as in "
            "'hydra.sweep.subdir=${hydra:job.num}'."
        )

    def look(self, configs: Sequence[DictConfig]) -> None:
        """Look at the folders of all jobs.

        Raises:
            ValueError: if one may not be written to, or two jobs would share one.
        """
        taken = set()
        for config in filter(self.concerns, configs):
            with resolving(config):
                folder = self.folder(config)
            if folder.resolve() in taken:
                raise ValueError(self.shared(folder))
            taken.add(folder.resolve())
            if (folder / LOCK).exists():
                with hold(folder / LOCK, self.busy(folder)):
                    pass

    def enter(self, config: DictConfig, folder: Path) -> None:
        """Hold the folder of a job until it ends.

        Raises:
            ValueError: if somebody else does.
        """
        atexit.register(self._held.close)
        self._held.enter_context(hold(folder / LOCK, self.busy(folder)))
        _remove_cut_off(folder / "config.yaml", config)

    @contextmanager
    def _errors_to_user(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise SystemExit(f"{self.program}: {error}") from error


def _has_place_among_others() -> bool:
    """Whether a launcher has told this process its place among those of one training."""
    return any(name in os.environ for name in _RANKS)


def _is_another_of_one_training() -> bool:
    """Whether this process is of a training of several, and not the first one."""
    return any(os.environ.get(name, "0") != "0" for name in _RANKS)


def _leave_the_log_to_the_first() -> None:
    """Write no log file, and say nothing but errors, since all processes of a training say the same."""
    for handler in list(logging.root.handlers):
        if type(handler) is logging.StreamHandler:  # that of the terminal
            handler.setLevel(logging.ERROR)
        elif isinstance(handler, logging.FileHandler):
            logging.root.removeHandler(handler)
            handler.close()
            file = Path(handler.baseFilename)
            if file.name.startswith("train_ddp_process_") and file.exists() and not file.stat().st_size:
                file.unlink()


def _remove_cut_off(file: Path, config: DictConfig) -> None:
    """Remove the record of a config that was not written to its end, which SchNetPack could not read."""
    if not file.is_file():
        return
    there = file.read_text(errors="replace")
    whole = OmegaConf.to_yaml(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))
    if there != whole and whole.startswith(there):
        log.warning("'%s' was cut off when a run ended early; it is written anew", file)
        file.unlink()


def _everything_is_wanted() -> bool:
    """Whether Hydra was told to show errors as they are."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


@contextmanager
def resolving(config: DictConfig) -> Iterator[None]:
    """``${hydra:...}`` is what it says in this config."""
    hydra, before = HydraConfig.instance(), HydraConfig.instance().cfg
    hydra.set_config(config)
    try:
        yield
    finally:
        hydra.cfg = before


def _jobs(config: DictConfig) -> list[DictConfig]:
    """The configs of a sweep, one for each job, as Hydra is going to compose them; none if its sweeper is another one."""
    sweeper, loader = get_class(config.hydra.sweeper._target_), GlobalHydra.instance().config_loader()
    if not hasattr(sweeper, "split_arguments"):
        return []
    arguments = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    overrides = OverridesParser.create(loader).parse_overrides([*arguments, *given_overrides(config)])
    (jobs,) = sweeper.split_arguments(overrides, max_batch_size=None)
    configs = [loader.load_sweep_config(config, job) for job in jobs]
    for number, job in enumerate(configs):
        with open_dict(job):
            job.hydra.job.id = job.hydra.job.num = number
    return configs


def given_overrides(config: DictConfig) -> list[str]:
    """What the command line sets, with ``${...}`` as they are."""
    return cast(list[str], OmegaConf.to_container(config.hydra.overrides.task, resolve=False))
