"""The bar that a training shows on a terminal."""

import logging
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

__all__ = ["TrainingBar"]


class TrainingBar:
    """One line: epoch and S, batches of the epoch, force errors, time that is left. Log lines scroll above it.

    Args:
        console: where it is shown; default stderr.
    """

    def __init__(self, console: Console | None = None) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[errors]}"),
            TextColumn("{task.fields[left]}"),
        )
        self._progress = Progress(
            *columns, console=Console(stderr=True) if console is None else console, transient=True
        )
        self._task = self._progress.add_task("", total=None, errors="", left="")
        self._handlers: list[tuple[logging.StreamHandler[Any], Any]] = []

    @property
    def on_terminal(self) -> bool:
        """Whether there is something to show it on."""
        return self._progress.console.is_terminal

    def begin(self, title: str, batches: int) -> None:
        """A new epoch."""
        self._start()
        self._progress.reset(self._task, description=title, total=batches or None)

    def name(self, title: str) -> None:
        """Say what is done now."""
        self._progress.update(self._task, description=title)

    def show(self, done: int, left: str) -> None:
        """So many batches are done, and so much time is left."""
        self._progress.update(self._task, completed=done, left=left)

    def errors(self, errors: Mapping[str, float]) -> None:
        """Force errors of the elements at the last validation."""
        text = "  ".join(f"{element} {error:.3f}" for element, error in errors.items())
        self._progress.update(self._task, errors=text)

    def stop(self) -> None:
        """Take it away."""
        if self._progress.live.is_started:
            self._progress.stop()
        for handler, stream in self._handlers:
            handler.setStream(stream)
        self._handlers = []

    def _start(self) -> None:
        """Show it; what is logged to the terminal goes through it, since both write to one screen."""
        if self._progress.live.is_started:
            return
        plain = {id(sys.stdout): "stdout", id(sys.stderr): "stderr"}
        self._progress.start()
        for handler in logging.getLogger().handlers:
            name = plain.get(id(getattr(handler, "stream", None)))
            if isinstance(handler, logging.StreamHandler) and name:
                self._handlers.append((handler, handler.stream))
                handler.setStream(getattr(sys, name))
