"""Processes in which the reference method computes: each call in a folder of its own, with a time limit, at no risk to us.

Most programs talk to their calculator by files, in the folder that the calculator names or in the working folder of the
process. So that no two calculations meet, each has a new scratch folder, which is both. A process has one working folder for
all its threads; therefore the calculations are never done in the process of the user, also not with one process.

The processes are plain children that import nothing of the user's program but the module with the calculator, which is made
where it is used and never pickled. One that dies or hangs is ended with all that it has started, and replaced.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from ase import Atoms

from spk_dt.labels.calculator import importable_from
from spk_dt.labels.pools import check_pool
from spk_dt.labels.process_tree import end_processes

__all__ = ["Computed", "NoLabelError", "ReferenceProcess", "reference_processes", "reference_provenance"]

#: run by the interpreter; the first argument is `sys.path`, the second the descriptor of the connection
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from spk_dt.labels.reference_worker import serve; serve(int(sys.argv[2]))"
)

#: numbers of threads that numerical libraries read when they are loaded
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

#: errors that a calculator's name or arguments have, by their names
_WRONG_NAME = {"ImportError": ImportError, "ValueError": ValueError}


class NoLabelError(ValueError):
    """The reference method gives no energy and forces for a geometry; the message says why, and where its files are."""


class _NoAnswer(Exception):
    """A process has not answered."""


@dataclass(frozen=True)
class Computed:
    """What the reference method has computed.

    Args:
        energy: eV; of several the one of which the forces are the gradient.
        forces: [n_atoms, 3] eV/Å.
        program: version of the program, where its output says it.
        stress: [3, 3] eV/Å^3 with the sign of ASE, if it was asked for.
        others: stress, dipole, charges and magmoms, as ASE has them, that the calculator gives along.
        unusable: what is wrong with those of them that are left out, by name.
    """

    energy: float
    forces: np.ndarray
    program: str | None
    stress: np.ndarray | None = None
    others: dict[str, np.ndarray] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)


class ReferenceProcess:
    """A process that computes; started when it is first asked, and again after it had to be ended.

    Use as a context manager. Not for several threads at once; `stop` may come from another one.

    Args:
        reference: calculator, see `spk_dt.labels.calculator.reference_calculator`.
        scratch: where scratch folders are made; None takes the folder for temporary files (TMPDIR).
        time_limit: s, for each calculation; None waits.
        one_thread: whether numerical libraries have one thread, unless OMP_NUM_THREADS is set.

    Raises:
        ValueError: if the time limit is not positive, or no folder can be made in `scratch`.
    """

    def __init__(
        self,
        reference: str,
        scratch: str | Path | None = None,
        time_limit: float | None = None,
        one_thread: bool = False,
    ) -> None:
        if time_limit is not None and not time_limit > 0:
            raise ValueError(
                f"time_limit={time_limit} s of a reference calculation must be positive; leave it out for none."
            )
        self.reference, self.time_limit = reference, time_limit
        self.scratch = Path(tempfile.gettempdir() if scratch is None else scratch).absolute()
        self._one_thread = one_thread and "OMP_NUM_THREADS" not in os.environ
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._printed: IO[bytes] | None = None
        self._closed = False
        self._starting = Lock()

    def describe(self) -> dict[str, Any]:
        """Make the calculator, and see what it tells of itself, see `spk_dt.labels.provenance.provenance`.

        Raises:
            ImportError: if its package is not installed.
            ValueError: if it cannot be made.
        """
        self._start()
        folder = self._new_folder()
        try:
            answer = self._ask({"task": "describe", "folder": str(folder), "fresh": True})
        except _NoAnswer as error:
            raise ValueError(f"reference '{self.reference}' cannot be made: it {error}.") from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if answer["error"] is not None:
            kind = _WRONG_NAME.get(answer["type"])
            if kind is not None:
                raise kind(answer["error"])
            raise ValueError(
                f"reference '{self.reference}' cannot be made: {answer['type']}: {answer['error']}. It is made in a scratch "
                "folder; if it reads files, name them from '/' on, for example Path(__file__).parent / 'basis'."
            )
        provenance: dict[str, Any] = answer["provenance"]
        return provenance

    def compute(self, atoms: Atoms, fresh: bool = True, stress: bool = False) -> Computed:
        """Energy and forces of a geometry.

        Args:
            atoms: without a calculator.
            fresh: whether by a new calculator; False goes on with the one before, which may begin from its last density.
            stress: whether to compute the stress, too.

        Raises:
            NoLabelError: if there are none; the scratch folder is kept.
        """
        request = {"task": "compute", "fresh": fresh, "atoms": atoms, "stress": stress}
        for last_try in (False, True):
            self._start()  # first, since it removes the folder if we are killed
            folder = self._new_folder()
            keep, message = False, ""
            try:
                answer = self._ask(request | {"folder": str(folder)})
                if answer["error"] is None:
                    return Computed(**{name: answer[name] for name in Computed.__dataclass_fields__})
                keep, message = True, f"{answer['type']}: {answer['error']}"
            except _NoAnswer as error:
                keep = not self._closed and last_try
                message = f"the process of the reference {error}"
            finally:
                if not keep:
                    shutil.rmtree(folder, ignore_errors=True)
            if keep:
                raise NoLabelError(f"{message} (its files are in '{folder}')")
        raise NoLabelError(f"{message} twice")

    def rest(self) -> None:
        """Nothing is to be computed for now, and what was computed last does not matter any more."""

    def stop(self) -> None:
        """End the process and what it has started, for good; a thread that waits for it goes on."""
        with self._starting:
            self._closed = True
            if self._process is not None:
                end_processes(self._process.pid)

    def close(self) -> None:
        """Stop, and forget the process."""
        self.stop()
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _new_folder(self) -> Path:
        try:
            self.scratch.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix="spk_dt-", dir=self.scratch))
        except OSError as error:
            raise ValueError(
                f"no scratch folder can be made in '{self.scratch}' ({error}); name another place for the files of the "
                "reference with --scratch, callbacks.on_policy.labels.scratch or the environment variable TMPDIR."
            ) from error

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of the process; raises _NoAnswer, from TimeoutError if it took too long."""
        connection = self._connection
        try:
            if connection is None:
                raise EOFError
            connection.send({"reference": self.reference, **request})
            if not connection.poll(self.time_limit):
                self._end()
                raise _NoAnswer(f"did not finish within {self.time_limit:g} s, see --time-limit")
            answer: dict[str, Any] = connection.recv()
        except (EOFError, OSError):
            raise _NoAnswer(self._end()) from None
        return answer

    def _start(self) -> None:
        """Start the process if there is none, and wait until it is there."""
        if self._process is not None:
            return
        environment = dict(os.environ)
        if self._one_thread:
            environment = dict.fromkeys(_THREADS, "1") | environment
        ours, theirs = Pipe()
        self._connection, self._printed = ours, tempfile.TemporaryFile()  # noqa: SIM115  # closed by _end
        with theirs, self._starting:
            if self._closed:
                raise NoLabelError("the process of the reference was ended")
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, json.dumps(importable_from()), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._printed,
                stderr=self._printed,
                pass_fds=[theirs.fileno()],
                env=environment,
                start_new_session=True,
            )
        try:
            ours.recv()
        except (EOFError, OSError):
            how = self._end()
            if self._closed:
                raise NoLabelError(f"the process of the reference {how}") from None
            raise RuntimeError(f"a process for the reference method {how}.") from None

    def _end(self) -> str:
        """End the process with its programs; how it had ended by itself, or that it was."""
        process, self._process = self._process, None
        connection, self._connection = self._connection, None
        printed, self._printed = self._printed, None
        if process is None:
            return "was ended"
        with suppress(subprocess.TimeoutExpired):  # the connection closes a moment before the process has ended
            process.wait(0.0 if self._closed else 0.5)
        code = process.returncode
        end_processes(process.pid)
        process.wait()
        if connection is not None:
            connection.close()
        said = ""
        if printed is not None:
            with printed:
                printed.seek(0)
                said = printed.read().decode(errors="replace").strip()[-500:]
        if code is None:
            how = "was ended"
        elif code < 0:
            how = f"died of {signal.Signals(-code).name}" + (" (out of memory?)" if code == -signal.SIGKILL else "")
        else:
            how = f"ended with exit code {code}"
        return f"{how}: {said}" if said else how


@contextmanager
def reference_processes(
    reference: str,
    number: int = 1,
    scratch: str | Path | None = None,
    time_limit: float | None = None,
    pool: str = "processes",
    one_thread: bool = False,
) -> Iterator[list[ReferenceProcess]]:
    """Processes of a reference method, ended afterwards.

    Args:
        reference: see `ReferenceProcess`, as for `scratch` and `time_limit`.
        number: of processes. With more than one, each has one thread unless OMP_NUM_THREADS is set.
        scratch: where scratch folders are made.
        time_limit: s, for each calculation.
        pool: where they run, see `spk_dt.labels.pools`.
        one_thread: whether each has one thread also if there is one of them only, on this computer.

    Raises:
        ValueError: if there would be none of them, or there is no such pool.
    """
    if number < 1:
        raise ValueError(f"n_processes={number}: it takes one at least.")
    check_pool(pool)
    with ExitStack() as stack:
        if pool == "processes":
            one_thread = one_thread or number > 1
            yield [
                stack.enter_context(ReferenceProcess(reference, scratch, time_limit, one_thread)) for _ in range(number)
            ]
        else:
            from spk_dt.labels.remote_process import remote_processes  # which builds on this module

            yield stack.enter_context(remote_processes(reference, number, scratch, time_limit, pool))


def reference_provenance(
    reference: str, scratch: str | Path | None = None, time_limit: float | None = None
) -> dict[str, Any]:
    """What a reference calculator tells of itself; see `ReferenceProcess` for arguments and errors."""
    with ReferenceProcess(reference, scratch, time_limit) as process:
        return process.describe()
