"""Files that do not go on: they end within a frame, or their simulation broke down.

The first is so of a simulation that was killed, or still runs, or of a copy that broke off.
"""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

__all__ = ["BrokenDownError", "IncompleteFrameError", "first_two"]


class IncompleteFrameError(ValueError):
    """A file ends within its last frame; all frames before it are complete.

    Args:
        path: the file.
        index: index of the frame that is not complete, or of the one after the last if the file ends between two.
        detail: what is missing.
    """

    def __init__(self, path: Path, index: int, detail: str) -> None:
        super().__init__(
            f"'{path}' ends within frame {index}: {detail}. If the simulation was stopped or still runs, convert the "
            "frames before it with --drop-incomplete; otherwise the file is damaged, copy it again."
        )
        self.path, self.index, self.detail = path, index, detail


class BrokenDownError(ValueError):
    """A number of a frame is not finite, or too large to be printed: the simulation broke down there.

    Args:
        message: what to tell, with file and frame.
        index: index of the frame.
    """

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index


def first_two[T](frames: Iterable[T]) -> list[T]:
    """The first two frames, or how many of them there are; a second one that is not complete is left out.

    Raises:
        IncompleteFrameError: if the first one is not complete.
    """
    found: list[T] = []
    try:
        for frame in islice(frames, 2):
            found.append(frame)
    except IncompleteFrameError as error:
        if error.index == 0:
            raise
    return found
