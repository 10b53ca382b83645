"""Progress bars of the command line, on stderr; rich is imported when one is shown."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from spk_dt.duration import duration

if TYPE_CHECKING:
    from rich.progress import TaskID

    from spk_dt.labels.plan import Progress

__all__ = ["Pace", "progress_bar", "trajectory_bars"]


#: s between two changes of a bar
_REFRESH = 0.1


@contextmanager
def progress_bar(every_s: float = 60.0) -> "Iterator[Callable[[str, int, int | None], None]]":
    """Progress of one thing after the other, and the time that is left; called with its name, what is done, and of how much.

    On a terminal as a bar; elsewhere, as in the log of a batch job, a line from time to time.

    Args:
        every_s: time between two lines, s.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bars = Progress(*columns, console=Console(stderr=True), transient=True)
    bar: TaskID | None = None
    shown, begun, before, said = "", 0.0, 0, time.monotonic()

    def show(name: str, done: int, total: int | None) -> None:
        nonlocal bar, shown, begun, before, said
        now = time.monotonic()
        if new := name != shown or done <= before:  # another thing, or another round of it
            shown, begun, before = name, now, done  # what an earlier run has left says nothing about the pace
        if bars.console.is_terminal:
            if bar is None or new:
                if bar is not None:
                    bars.remove_task(bar)
                bar = bars.add_task(name, total=total, completed=done)
                bars.start()  # once; not before there is something to show, so that an error stands alone
            elif done == total or now - said >= _REFRESH:
                said = now
                bars.update(bar, completed=done)
        elif now - said >= every_s:
            said = now
            left = "" if total is None else f" of {total}"
            if total is not None and done > before:
                left += f", about {duration((now - begun) * (total - done) / (done - before))} left"
            print(f"{name}: {done}{left}", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        if bars.live.is_started:
            bars.stop()


class Pace:
    """How much of some trajectories is done, and how long the rest takes at the pace so far.

    What an earlier run has left is done at once, and says nothing about the pace.

    Args:
        total: number of trajectories, which are named ``traj_...``.
        clock: time in s.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self._clock = total, clock
        self._begun = clock()
        self._steps: dict[str, int] = {}
        self._parts: dict[str, float] = {}
        self._computed = 0.0

    def report(self, name: str, done: int, steps: int) -> None:
        """Steps of a trajectory, or of what has to be done before it, that are done; called after each of them."""
        if name.startswith("traj_"):
            self._computed += (done == self._steps.get(name, 0) + 1) / steps
            self._steps[name], self._parts[name] = done, done / steps

    @property
    def done(self) -> float:
        """Trajectories that are done, and parts of them."""
        return sum(self._parts.values())

    def left(self) -> str:
        """Time that is left, in words; empty if it is not known yet, or there is none."""
        rest = self.total - self.done
        if not self._computed > 0.0 or rest < 1e-9:
            return ""
        return f"about {duration((self._clock() - self._begun) * rest / self._computed)} left"


@contextmanager
def trajectory_bars(total: int, every_s: float = 60.0) -> "Iterator[Progress]":
    """Progress over trajectories, and over the steps of those that are being made, with the time that is left.

    On a terminal as bars; elsewhere, as in the log of a batch job, a line from time to time.

    Args:
        total: number of trajectories.
        every_s: time between two lines, s.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:>12}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TextColumn("{task.fields[left]}"),
    )
    bars = Bars(*columns, console=Console(stderr=True))
    trajectories = bars.add_task("trajectories", total=total, count=f"0/{total}", left="")
    rows: dict[str, TaskID] = {}
    pace, said = Pace(total), time.monotonic()

    def show(name: str, done: int, steps: int) -> None:
        nonlocal said
        pace.report(name, done, steps)
        if not bars.console.is_terminal:
            if time.monotonic() - said >= every_s:
                said = time.monotonic()
                left = f", {left}" if (left := pace.left()) else ""
                line = f"{name}: step {done} of {steps}; {pace.done:.2f} of {total} trajectories{left}"
                print(line, file=sys.stderr, flush=True)
            return
        bars.start()  # once; not before there is something to show, so that an error stands alone
        if done < steps:
            if name not in rows:
                rows[name] = bars.add_task(name, total=steps, count="", left="")
            bars.update(rows[name], completed=done, count=f"{done}/{steps}")
        elif name in rows:
            bars.remove_task(rows.pop(name))
        complete = f"{int(pace.done + 1e-9)}/{total}"
        bars.update(trajectories, completed=pace.done, count=complete, left=pace.left())

    try:
        yield show
    finally:
        if bars.live.is_started:
            bars.stop()
