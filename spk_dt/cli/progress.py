"""Progress bars of the command line, on stderr; rich is imported when one is shown."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import TaskID

    from spk_dt.labels.pieces import Progress

__all__ = ["frame_bars", "progress_bar", "task_bars", "trajectory_bars"]


@contextmanager
def progress_bar(name: str, total: int) -> "Iterator[Callable[[int], None]]":
    """A progress bar, gone when it is full; only on a terminal."""
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bars:
        bar = bars.add_task(name, total=total)

        def show(done: int) -> None:
            if total < 100 or done % (total // 100) == 0:
                bars.update(bar, completed=done)

        yield show


@contextmanager
def frame_bars() -> "Iterator[Callable[[str, int, int | None], None]]":
    """A progress bar over the frames of one trajectory after the other."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}"), TimeRemainingColumn())
    bars = Progress(*columns, console=Console(stderr=True), transient=True)
    bar = bars.add_task("", total=None)
    shown = ""

    def show(name: str, done: int, total: int | None) -> None:
        nonlocal shown
        if name != shown:
            if bars.console.is_terminal:
                bars.start()  # once; not before there is something to show, so that an error stands alone
            bars.reset(bar, description=name, total=total)
            shown = name
        if done % 20 == 0 or done == total:
            bars.update(bar, completed=done, total=total)

    try:
        yield show
    finally:
        if bars.live.is_started:
            bars.stop()


@contextmanager
def trajectory_bars(total: int) -> "Iterator[Progress]":
    """Progress bars over trajectories, and over the steps of what is being made."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:>12}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeRemainingColumn(),
    )
    bars = Progress(*columns, console=Console(stderr=True))
    trajectories = bars.add_task("trajectories", total=total)
    piece = bars.add_task("", total=1)

    def show(name: str, done: int, steps: int) -> None:
        bars.start()  # once; not before there is something to show, so that an error stands alone
        bars.update(piece, description=name, completed=done, total=steps)
        if name.startswith("traj_"):
            bars.update(trajectories, completed=int(name.removeprefix("traj_")) - 1 + done / steps)

    try:
        yield show
    finally:
        if bars.live.is_started:
            bars.stop()


@contextmanager
def task_bars() -> "Iterator[Callable[[str, int, int], None]]":
    """A progress bar with the remaining time for each thing that is done, by name; called with what is done of how much."""
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)

        yield show
