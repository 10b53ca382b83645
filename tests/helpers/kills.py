"""Programs that are killed at a given moment, each in a process of its own: a fork, which has all imports already."""

import io
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

#: audit events of Python's files that change something, in which a process can be killed
_CHANGES = ("os.rename", "os.link", "os.remove", "os.truncate", "os.mkdir", "shutil.move", "sqlite3.connect")


class Moments:
    """Counts the moments of a program, and kills it at one: each change of a file in a folder, and what `mark` marks.

    Args:
        folder: in which changes count.
        kill_at: number of the moment, from 0 on; None kills never.
    """

    def __init__(self, folder: Path, kill_at: int | None) -> None:
        self.folder, self.kill_at, self.told = str(folder), kill_at, []
        sys.addaudithook(self._look)

    def mark(self, name: str) -> None:
        """A moment that is none of files."""
        self.told.append(name)
        if len(self.told) - 1 == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not (flags & (os.O_WRONLY | os.O_RDWR)):
                return
        elif event in _CHANGES:
            path = arguments[0]
        else:
            return
        if isinstance(path, (str, os.PathLike)) and os.path.abspath(path).startswith(self.folder):
            self.mark(f"{event} {os.path.relpath(path, self.folder)}")


def in_fork(function: Callable[..., Any], *arguments: Any) -> tuple[int, Any]:
    """Exit code of a process that calls a function, and what this returns (None if the process was killed)."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def call() -> None:
        try:
            sender.send(function(*arguments))
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
            sys.__stderr__.flush()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)

    process = context.Process(target=call)
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except (EOFError, ConnectionResetError):  # killed
        result = None
    process.join()
    return process.exitcode, result


def halves(moments: Moments, monkeypatch: Any) -> None:
    """Let `torch.save` and `numpy.savez` write a half of a file to a path first, with a moment after it."""
    for module, name, place in ((torch, "save", 1), (np, "savez", 0)):
        original = getattr(module, name)

        def half(*args: Any, original: Any = original, place: int = place, **kwargs: Any) -> None:
            file = args[place]
            path = Path(file if isinstance(file, (str, os.PathLike)) else getattr(file, "name", ""))
            if not path.name:
                return original(*args, **kwargs)
            buffer = io.BytesIO()
            original(*args[:place], buffer, *args[place + 1 :], **kwargs)
            content = buffer.getvalue()
            path.write_bytes(content[: len(content) // 2])
            moments.mark(f"half of {path.name}")
            path.write_bytes(content)

        monkeypatch.setattr(module, name, half)
