"""Measurements of memory, each in a process of its own.

On the CPU: the largest resident memory of the process (`ru_maxrss`), minus what it was after imports, so model,
optimiser, batch, graph and the allocator's losses count, and compiled code if any is made. On a GPU:
`torch.cuda.max_memory_allocated`. Processes are forked from a server that has imported all beforehand.
"""

import multiprocessing
import resource
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.settings import prepare

__all__ = ["Memory", "fits", "in_process", "mebibytes"]

_LIBRARIES = ["benchmarks.models", "benchmarks.points"]


class Memory:
    """Peak memory from now on.

    Args:
        device: cpu or cuda.
    """

    def __init__(self, device: str) -> None:
        self._cuda = device.startswith("cuda")
        self._base = self._peak()

    def _peak(self) -> int:
        if self._cuda:
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def __call__(self) -> int:
        """Increase of the peak, bytes."""
        return self._peak() - self._base


def in_process(function: Callable, *args, threads: int | None = None):
    """Result of a function of a module, called in a new process.

    Raises:
        MemoryError: if the process was killed.
        RuntimeError: if the function raised.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LIBRARIES)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, threads or torch.get_num_threads(), function, args))
    process.start()
    sender.close()
    try:
        kind, value = receiver.recv()
    except EOFError:
        process.join()
        raise MemoryError(f"a process ended with exit code {process.exitcode}; is memory short?") from None
    process.join()
    if kind == "error":
        raise value
    return value


def _answer(sender, threads: int, function: Callable, args: tuple) -> None:
    prepare(threads)
    try:
        sender.send(("result", function(*args)))
    except Exception as error:  # raised where the result was asked for
        sender.send(("error", RuntimeError(f"{type(error).__name__}: {error}")))


def fits(needed: float, device: str) -> bool:
    """Whether so many bytes leave a good part of the memory that is free now."""
    if device.startswith("cuda"):
        return needed < 0.9 * torch.cuda.mem_get_info()[0]
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return needed < 0.5 * available


def mebibytes(size: float) -> str:
    """Bytes as text."""
    return f"{size / 2**20:,.0f}"
