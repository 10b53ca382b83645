"""One process at a time in a folder or on a file.

The lock is the system's (``fcntl``), which takes it back when a process ends, also by ``kill -9``: a lock file that is left
is no lock. It holds over NFS where the server keeps locks (NFS 4 always does). A file system without locks is used all the
same, with a warning.
"""

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fasteners

__all__ = ["LOCK", "hold"]

log = logging.getLogger(__name__)

#: lock file of a folder as a whole, in it
LOCK = ".lock"

# Locks of fcntl do not keep threads of one process apart, and go when any handle of their file is closed.
_threads = threading.Condition()
_held: set[Path] = set()


@contextmanager
def hold(file: str | Path, busy: str = "", wait: bool = False) -> Iterator[None]:
    """Keep other processes, and threads, that ask for the same lock file out.

    The file is there while the lock is held, and removed afterwards; so is its folder if that was made for it and is empty.

    Args:
        file: lock file.
        busy: rest of the error message, which begins with who has the lock, as in "another process (4711 on node7) ".
        wait: wait for the lock instead of refusing.

    Raises:
        ValueError: if somebody else has the lock, and `wait` is not set.
    """
    path = Path(os.path.realpath(file))
    with _threads:
        if not wait and path in _held:
            raise ValueError(f"another thread of this process {busy}")
        _threads.wait_for(lambda: path not in _held)
        _held.add(path)
    try:
        made = not path.parent.exists()
        lock = _acquired(path, busy, wait)
        try:
            yield
        finally:
            if _is_still(lock, path):  # the folder may have been moved
                with suppress(OSError):
                    path.unlink()
            lock.release() if lock.acquired else lock.lockfile.close()
            if made:
                with suppress(OSError):
                    path.parent.rmdir()
    finally:
        with _threads:
            _held.discard(path)
            _threads.notify_all()


def _acquired(path: Path, busy: str, wait: bool) -> fasteners.InterProcessLock:
    """The lock, with a note in its file of who has it."""
    while True:
        lock = fasteners.InterProcessLock(path)
        try:
            if not lock.acquire(blocking=wait):
                lock.lockfile.close()
                raise ValueError(f"another process{_note(path)} {busy}")
        except threading.ThreadError as error:
            log.warning("%s. See to it that no other process writes there.", error)
            return lock
        if _is_still(lock, path):
            lock.lockfile.truncate(0)
            lock.lockfile.write(f"{os.getpid()} on {socket.gethostname()}")
            lock.lockfile.flush()
            return lock
        lock.release()  # who had it has removed the file meanwhile


def _is_still(lock: fasteners.InterProcessLock, path: Path) -> bool:
    """Whether the file of a lock is the one of this name."""
    try:
        return os.path.samestat(os.fstat(lock.lockfile.fileno()), path.stat())
    except OSError:
        return False


def _note(path: Path) -> str:
    with suppress(OSError):
        if note := path.read_text(errors="replace").strip():
            return f" ({note})"
    return ""
