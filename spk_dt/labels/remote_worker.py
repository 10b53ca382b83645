"""What a worker of a pool does: it connects to the program that has asked for it, and computes in a process of its own.

A request is the name of a method of `spk_dt.labels.reference_process.ReferenceProcess` and its arguments; the answer is
whether it has succeeded, and what it has returned or raised. When the other end is gone, the process is ended, and the
worker is done.
"""

import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Client, Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any

from spk_dt.labels.reference_process import ReferenceProcess

__all__ = ["work"]


def work(
    address: tuple[str, int],
    key: bytes,
    number: int,
    reference: str,
    scratch: str | None,
    time_limit: float | None,
    one_thread: bool,
    path: Sequence[str],
) -> None:
    """Compute what is asked for, until the other end is gone.

    Args:
        address: host and port of the program.
        key: with which both make sure that the other one is right.
        number: of this worker, which it tells.
        reference: see `ReferenceProcess`, as for `scratch`, `time_limit` and `one_thread`.
        scratch: where scratch folders are made.
        time_limit: s.
        one_thread: whether numerical libraries have one thread.
        path: folders in which the program finds modules.
    """
    sys.path += [folder for folder in path if folder not in sys.path]
    requests: SimpleQueue[tuple[str, tuple[Any, ...]] | None] = SimpleQueue()
    with (
        suppress(EOFError, OSError),  # nobody is there any more
        Client(address, authkey=key) as connection,
        ReferenceProcess(reference, scratch, time_limit, one_thread) as process,
    ):
        connection.send((number, socket.gethostname()))
        Thread(target=_receive, args=(connection, requests, process), daemon=True).start()
        while (request := requests.get()) is not None:
            method, arguments = request
            try:
                found = process.describe() if method == "describe" else process.compute(*arguments)
                answer: tuple[bool, Any] = True, found
            except (ValueError, ImportError, RuntimeError) as error:
                answer = False, error
            connection.send(answer)


def _receive(connection: Connection, requests: SimpleQueue[Any], process: ReferenceProcess) -> None:
    """Hand requests over; without anybody who could send more, stop what is computed."""
    with suppress(EOFError, OSError):
        while True:
            requests.put(connection.recv())
    process.stop()
    requests.put(None)
