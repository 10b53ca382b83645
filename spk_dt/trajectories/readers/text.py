"""Blocks of lines of a text file, and the numbers in them, with errors that name the file and the frame."""

import codecs
import io
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np

from spk_dt.trajectories.readers.compressed import DamagedArchiveError, open_binary
from spk_dt.trajectories.readers.incomplete import BrokenDownError, IncompleteFrameError

__all__ = ["beginning", "count_lines", "floats", "following_lines", "open_text", "wide_encoding"]


def open_text(path: Path) -> TextIO:
    """A text file to read, packed or not, without byte order mark; bytes that are no text become a sign no number has."""
    return io.TextIOWrapper(open_binary(path), encoding="utf-8-sig", errors="replace")


def beginning(path: Path, n: int = 2) -> list[str]:
    """The first lines of a file, at most 10,000 characters of each; none if it cannot be read or is binary."""
    try:
        with open_binary(path) as file:
            lines = [file.readline(10_000) for _ in range(n)]
    except (OSError, DamagedArchiveError):
        return []
    if any(b"\0" in line for line in lines):
        return []
    lines[0] = lines[0].removeprefix(codecs.BOM_UTF8)
    return [line.decode(errors="replace") for line in lines]


def wide_encoding(path: Path) -> str | None:
    """Name of the encoding of a file in which letters are of two bytes or four, None for all others."""
    with open_binary(path) as file:
        start = file.read(4)
    for encoding, marks in (
        ("UTF-32", (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),
        ("UTF-16", (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
    ):
        if start.startswith(marks):
            return encoding
    return None


def count_lines(path: Path) -> int:
    """Number of line feeds in a file."""
    with open_binary(path) as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 16), b""))


def following_lines(file: TextIO, n: int, path: Path, index: int) -> list[str]:
    """The next lines of a file.

    Args:
        file: opened file.
        n: number of lines.
        path: name of the file, for the error message.
        index: frame that the lines belong to.

    Raises:
        IncompleteFrameError: if there are fewer, or the last one is cut off. A line that does not end with a line feed is
            taken for cut off, since a number in it may have lost its last digits.
    """
    lines = list(islice(file, n))
    if lines and not lines[-1].endswith("\n"):
        remedy = f"; if you know that it is whole, add one: echo >> '{path}'" if len(lines) == n else ""
        raise IncompleteFrameError(path, index, f"its last line has no line feed and may be cut off{remedy}")
    if len(lines) < n:
        raise IncompleteFrameError(path, index, f"{n} lines are expected where {len(lines)} are left")
    return lines


def floats(rows: Sequence[Sequence[str]], path: Path, index: int, what: str = "") -> np.ndarray:
    """Numbers of a table.

    Args:
        rows: words of each line.
        path: name of the file, for the error message.
        index: frame that the lines belong to.
        what: what they are, for the error message.

    Returns:
        [n_rows, n_columns]

    Raises:
        ValueError: if a word is no number, or the rows differ in length.
        BrokenDownError: if a number is not finite, or it is a row of asterisks, which Fortran prints where a number does not
            fit its field.
    """
    starred = next((row for row in rows if any("**" in word for word in row)), None)
    if starred is not None:
        raise BrokenDownError(
            f"'{path}', frame {index}: '{' '.join(starred)}'{f' of {what}' if what else ''} has asterisks, which are "
            "printed for a number that is too large for its field. The simulation broke down there; keep the frames "
            "before it, or convert another file of the run that has the number.",
            index,
        )
    try:
        table = np.array([[float(word) for word in row] for row in rows], dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"'{path}', frame {index}: {error}. The file is damaged there; copy it again.") from None
    if not np.isfinite(table).all():
        raise BrokenDownError(
            f"'{path}', frame {index}: a number is not finite. The simulation broke down there.", index
        )
    return table
