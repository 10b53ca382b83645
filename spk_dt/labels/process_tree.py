"""End a process together with the programs that it has started, and those that they have started."""

import os
import signal
from contextlib import suppress
from pathlib import Path

__all__ = ["end_processes"]


def end_processes(leader: int, spare: int | None = None) -> None:
    """Kill all processes of a session, of the process group of its leader, and their descendants.

    ``mpirun`` puts its processes into groups of their own, so that killing one group leaves them behind. Where there is no
    ``/proc`` (macOS) only the group of the leader is killed.

    Args:
        leader: number of a process that was started with ``start_new_session=True``.
        spare: a process that is left alone.
    """
    for _ in range(10):  # a process may be starting another one just now
        found = _family(leader) - {spare}
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            break
    if spare is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)


def _family(leader: int) -> set[int]:
    """Living processes of the session and group of `leader`, and all that descend from one of them."""
    rows = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, group, session = file.read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):  # it has ended meanwhile
            continue
        if state not in "ZX":
            rows.append((int(file.parent.name), int(parent), int(group), int(session)))
    found = {pid for pid, _, group, session in rows if leader in (pid, group, session)}
    size = -1
    while len(found) > size:
        size = len(found)
        found |= {pid for pid, parent, _, _ in rows if parent in found}
    return found
