"""Where the processes of the reference method run: on this computer, or as jobs of dask or of a queue such as SLURM.

dask and submitit start workers (`spk_dt.labels.remote_worker`), which connect to this program and compute until it is done.
So a job may wait in the queue as long as it has to, and then computes many labels.
"""

import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

__all__ = ["POOL_HELP", "Job", "Jobs", "check_pool", "jobs_of"]

#: what can be asked for
POOL_HELP = (
    "processes (on this computer), dask (a cluster of its own on this computer), dask:ADDRESS or dask:FILE.json of a "
    "scheduler, submitit (SLURM, or this computer where there is none), submitit:NAME=VALUE,... with parameters of submitit."
)

#: minutes of a job if `timeout_min` does not say otherwise; submitit's own are 5
_MINUTES = 1440


class Job(Protocol):
    """A worker that was asked for."""

    def ended(self) -> str | None:
        """How it has ended, in words; None while it waits or runs."""

    def cancel(self) -> None:
        """End it, or do not begin it."""


class Jobs(Protocol):
    """Something that starts workers."""

    #: by which name or address the workers find this computer
    host: str
    #: whether the workers are on this computer
    local: bool

    def submit(self, function: Callable[..., None], *arguments: Any) -> Job:
        """Let a worker call a function."""


def check_pool(pool: str, option: str = "--pool") -> None:
    """Refuse a pool that there is not.

    Args:
        pool: see `POOL_HELP`.
        option: which names it, for the message.

    Raises:
        ValueError: if it is none of those.
    """
    kind, colon, rest = pool.partition(":")
    named = rest.split(",") if kind == "submitit" and colon else []
    if kind not in ("processes", "dask", "submitit") or (colon and not rest) or (kind == "processes" and colon):
        raise ValueError(f"{option} {pool}: there is no such pool. Take one of these: {POOL_HELP}")
    if wrong := [one for one in named if not one.partition("=")[0].isidentifier() or not one.partition("=")[2]]:
        raise ValueError(
            f"{option} {pool}: '{wrong[0]}' is not NAME=VALUE. Write, for example, "
            "submitit:slurm_partition=long,cpus_per_task=8,timeout_min=600."
        )


@contextmanager
def jobs_of(pool: str, number: int, scratch: str | Path | None) -> Iterator[Jobs]:
    """What starts the workers of a pool.

    Args:
        pool: not ``processes``; see `POOL_HELP`.
        number: of workers.
        scratch: where the files of submitit go; None takes the current folder, which a queue needs to see.

    Raises:
        ImportError: if dask or submitit is not installed.
        ValueError: if there is no such pool, no scheduler at the address, or a parameter is none of submitit.
    """
    check_pool(pool)
    kind, _, rest = pool.partition(":")
    try:
        if kind == "dask":
            with _dask(rest, number) as jobs:
                yield jobs
        else:
            with _submitit(rest, scratch) as jobs:
                yield jobs
    except ModuleNotFoundError as error:
        if error.name not in ("dask", "distributed", "submitit"):
            raise
        raise ImportError(
            f"the pool '{pool}' needs {error.name}; install it with: pip install 'spk_dt[cluster]'"
        ) from error


@dataclass
class _DaskJobs:
    client: Any
    host: str
    local: bool

    def submit(self, function: Callable[..., None], *arguments: Any) -> Job:
        return _DaskJob(self.client.submit(function, *arguments, pure=False))


@dataclass
class _DaskJob:
    future: Any

    def ended(self) -> str | None:
        if self.future.status == "error":
            return f"failed: {self.future.exception(timeout=10)}"
        return None if self.future.status == "pending" else f"is {self.future.status}"

    def cancel(self) -> None:
        self.future.cancel(force=True)


@contextmanager
def _dask(address: str, number: int) -> Iterator[_DaskJobs]:
    from distributed import Client, LocalCluster
    from distributed.utils import get_ip

    if not address:
        with (
            LocalCluster(
                number, threads_per_worker=1, memory_limit=0, dashboard_address=None, worker_dashboard_address=None
            ) as cluster,
            Client(cluster) as client,
        ):
            yield _DaskJobs(client, "127.0.0.1", True)
        return
    where = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
    try:
        client = Client(**where, timeout="30s")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--pool dask:{address}: there is no scheduler of dask ({error}). Start one with 'dask scheduler', and workers "
            "with 'dask worker ADDRESS', or take --pool dask for a cluster on this computer."
        ) from error
    with client:
        scheduler = str(client.scheduler_info()["address"]).rpartition("://")[2].rpartition(":")[0].strip("[]")
        yield _DaskJobs(client, get_ip(scheduler), scheduler in ("127.0.0.1", "localhost"))


@dataclass
class _SubmititJobs:
    executor: Any
    host: str
    local: bool

    def submit(self, function: Callable[..., None], *arguments: Any) -> Job:
        return _SubmititJob(self.executor.submit(function, *arguments))


@dataclass
class _SubmititJob:
    job: Any

    def ended(self) -> str | None:
        if not self.job.done():
            return None
        error = None
        try:
            error = self.job.exception()
        except Exception as unreadable:  # it has left no result
            error = unreadable
        return f"has ended{'' if error is None else f': {str(error).strip()[-500:]}'} (see '{self.job.paths.stderr}')"

    def cancel(self) -> None:
        self.job.cancel()


@contextmanager
def _submitit(rest: str, scratch: str | Path | None) -> Iterator[_SubmititJobs]:
    import submitit

    given = dict(one.split("=", 1) for one in rest.split(",") if one)
    parent = Path.cwd() if scratch is None else Path(scratch).absolute()
    parent.mkdir(parents=True, exist_ok=True)
    # only we may read it: it holds the key with which the workers connect
    with tempfile.TemporaryDirectory(prefix="spk_dt-jobs-", dir=parent, ignore_cleanup_errors=True) as folder:
        executor = submitit.AutoExecutor(folder, cluster=given.pop("cluster", None))
        try:
            executor.update_parameters(
                **{"timeout_min": _MINUTES, "name": "spk_dt"} | {k: _value(v) for k, v in given.items()}
            )
        except Exception as error:  # it has several kinds, by the parameter
            raise ValueError(f"--pool submitit:{rest}: {error}") from error
        local = executor.cluster in ("local", "debug")
        yield _SubmititJobs(executor, "127.0.0.1" if local else socket.gethostname(), local)


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
