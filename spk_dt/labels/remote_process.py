"""Processes of the reference method on other computers: the workers of a pool, and who hands labels to them.

A worker that dies, or does not answer although its time limit is over, is replaced, and its label is tried once more.
"""

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, Listener, answer_challenge, deliver_challenge
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, NamedTuple

from ase import Atoms

from spk_dt.labels.calculator import importable_from
from spk_dt.labels.pools import Job, Jobs, jobs_of
from spk_dt.labels.reference_process import Computed, NoLabelError, ReferenceProcess
from spk_dt.labels.remote_worker import work

__all__ = ["remote_processes"]

log = logging.getLogger(__name__)

#: s after both tries of a worker are over, in which it must have answered
_GRACE = 60.0
#: workers that end before they have connected, one after the other, before we give up
_PATIENCE = 3
#: s in which workers end when they are no longer needed
_FAREWELL = 10.0
#: s between two looks at the jobs
_LOOK = 1.0


class _Worker(NamedTuple):
    """One that has connected, and where it runs."""

    number: int
    connection: Connection
    host: str


class _LostError(Exception):
    """A worker is no longer there."""


class _Workers:
    """Workers that have connected, and as many jobs as are wanted to have more of them."""

    def __init__(self, jobs: Jobs, number: int, settings: tuple[Any, ...]) -> None:
        self._jobs, self._number, self._settings = jobs, number, settings
        self._key = secrets.token_bytes(32)
        self._listener = Listener(("127.0.0.1" if jobs.host == "127.0.0.1" else "", 0), backlog=64)
        self._free: SimpleQueue[_Worker] = SimpleQueue()
        self._starting: dict[int, Job] = {}
        self._working: dict[int, Job] = {}
        self._n_submitted = self._n_failed = 0
        self._lock = Lock()
        self.closed = False
        Thread(target=self._accept, daemon=True).start()

    def take(self) -> _Worker:
        """One that has nothing to do; waits for it.

        Raises:
            NoLabelError: if the pool is closed.
            RuntimeError: if workers end before they have connected.
        """
        while not self.closed:
            self._start_missing()
            with suppress(Empty):
                return self._free.get(timeout=_LOOK)
        raise NoLabelError("the pool of the reference was ended")

    def give_back(self, worker: _Worker) -> None:
        """It has nothing to do any more."""
        self._free.put(worker)

    def lose(self, worker: _Worker) -> None:
        """It is dead, or shall be."""
        with self._lock:
            _cancel(self._working.pop(worker.number))
        worker.connection.close()

    def stop(self) -> None:
        """Let nobody wait for them any more."""
        self.closed = True
        with suppress(OSError):
            self._listener.close()

    def close(self) -> None:
        """End all of them; they do so themselves when their connections are closed, if they are given the time."""
        self.stop()
        with suppress(Empty):
            while True:
                self._free.get_nowait().connection.close()
        with self._lock:
            for job in self._starting.values():
                _cancel(job)
            until = time.monotonic() + _FAREWELL
            while self._working and time.monotonic() < until:
                self._working = {number: job for number, job in self._working.items() if job.ended() is None}
                time.sleep(0.05)
            for job in self._working.values():
                _cancel(job)

    def _start_missing(self) -> None:
        with self._lock:
            for number, job in list(self._starting.items()):
                if (how := job.ended()) is not None:
                    del self._starting[number]
                    self._n_failed += 1
                    log.warning("a worker of the reference method %s", how)
                    if self._n_failed >= _PATIENCE:
                        raise RuntimeError(f"no worker of the reference method can be started: the last one {how}")
            while len(self._working) + len(self._starting) < self._number and not self.closed:
                address = (self._jobs.host, self._listener.address[1])
                number = self._n_submitted = self._n_submitted + 1
                self._starting[number] = self._jobs.submit(work, address, self._key, number, *self._settings)

    def _accept(self) -> None:
        while not self.closed:
            try:
                connection = self._listener.accept()
            except OSError:
                continue
            Thread(target=self._greet, args=(connection,), daemon=True).start()

    def _greet(self, connection: Connection) -> None:
        """Make sure that it is a worker of ours."""
        try:
            deliver_challenge(connection, self._key)
            answer_challenge(connection, self._key)
            number, host = connection.recv()
        except Exception:  # anybody may connect
            connection.close()
            return
        with self._lock:
            job = self._starting.pop(number, None)
            if job is not None:
                self._n_failed, self._working[number] = 0, job
        if job is None or self.closed:  # dask starts again what was lost
            connection.close()
        else:
            self._free.put(_Worker(number, connection, host))


def _cancel(job: Job) -> None:
    with suppress(Exception):  # its scheduler may be gone
        job.cancel()


class _RemoteProcess(ReferenceProcess):
    """What `ReferenceProcess` does, by a worker of a pool."""

    def __init__(self, workers: _Workers, reference: str, scratch: str | Path | None, time_limit: float | None) -> None:
        super().__init__(reference, scratch, time_limit)
        self._workers = workers
        self._worker: _Worker | None = None

    def describe(self) -> dict[str, Any]:
        """As on this computer."""
        try:
            provenance: dict[str, Any] = self._answer("describe")
        finally:
            self.rest()
        return provenance

    def compute(self, atoms: Atoms, fresh: bool = True, stress: bool = False) -> Computed:
        """As on this computer; a worker that is lost costs a second try."""
        computed: Computed = self._answer("compute", atoms, fresh, stress)
        return computed

    def rest(self) -> None:
        """Let others have the worker."""
        if self._worker is not None:
            self._workers.give_back(self._worker)
            self._worker = None

    def stop(self) -> None:
        """End all workers of the pool, for good; a thread that waits for one goes on."""
        self._workers.stop()

    def close(self) -> None:
        """Let the worker go; the pool ends it."""
        self.rest()

    def _answer(self, method: str, *arguments: Any) -> Any:
        lost = ""
        for _ in range(2):
            if self._worker is None:
                self._worker = self._workers.take()
            worker = self._worker
            try:
                succeeded, found = self._exchange(worker, (method, arguments))
            except _LostError as error:
                lost = f"its worker on {worker.host} {error}"
                log.warning("a label is tried once more, since %s", lost)
                self._workers.lose(worker)
                self._worker = None
                continue
            if succeeded:
                return found
            if isinstance(found, NoLabelError):
                raise NoLabelError(f"{found}, on {worker.host}")
            raise found
        raise NoLabelError(f"{lost}, and so has another one before")

    def _exchange(self, worker: _Worker, request: tuple[str, tuple[Any, ...]]) -> Any:
        until = None if self.time_limit is None else time.monotonic() + 2.0 * self.time_limit + _GRACE
        try:
            worker.connection.send(request)
            while not worker.connection.poll(_LOOK):
                if self._workers.closed:
                    raise NoLabelError("the pool of the reference was ended")
                if until is not None and time.monotonic() > until:
                    raise _LostError(f"has not answered within twice {self.time_limit:g} s, see --time-limit")
            return worker.connection.recv()
        except (EOFError, OSError):
            raise _LostError("has died") from None


@contextmanager
def remote_processes(
    reference: str, number: int, scratch: str | Path | None, time_limit: float | None, pool: str
) -> Iterator[list[ReferenceProcess]]:
    """As `spk_dt.labels.reference_process.reference_processes`, for a pool that is not of processes of this program."""
    with jobs_of(pool, number, scratch) as jobs:
        folder = None if scratch is None else str(Path(scratch).absolute())
        settings = (reference, folder, time_limit, jobs.local and number > 1, importable_from())
        workers = _Workers(jobs, number, settings)
        processes: list[ReferenceProcess] = []
        try:
            processes += [_RemoteProcess(workers, reference, scratch, time_limit) for _ in range(number)]
            yield processes
        finally:
            for process in processes:
                process.close()
            workers.close()
