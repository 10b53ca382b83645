"""Files that are there as a whole or not at all, however the program that writes them ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["whole_file"]


@contextmanager
def whole_file(path: str | Path, make_folder: bool = False) -> Iterator[Path]:
    """Name of a part file to write to, which takes the name of the file when it is complete and on the disk.

    If writing fails, as on a full disk, the part is removed, and what had the name before stays as it was.

    Args:
        path: the file.
        make_folder: whether its folder may have to be made.
    """
    path = Path(path)
    if make_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    with suppress(OSError):  # not every file system lets a folder be synchronised
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
