"""Text files that gzip, bzip2 or xz have packed, as workflow programs leave them: they are unpacked while they are read.

What a file is packed with is known from its first bytes, not from its name. Memory does not grow with its length.
"""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

__all__ = ["SUFFIXES", "DamagedArchiveError", "damage", "largest_size", "open_binary", "plain_name", "plain_or_packed"]

_OPENERS: dict[bytes, Callable[[Path], io.BufferedIOBase]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}

#: what names of packed files end with
SUFFIXES = (".gz", ".bz2", ".xz")

#: no packed text is more than this many times larger than its archive (deflate: 1,032; frames of numbers stay below 100)
_LARGEST_RATIO = 1_100


class DamagedArchiveError(ValueError):
    """A packed file that is cut off, or whose content does not have the checksum that it says."""


class _Unpacked(io.RawIOBase):
    """The content of a packed file; whatever is wrong with it is a `DamagedArchiveError` that names the file."""

    def __init__(self, path: Path, stream: io.BufferedIOBase) -> None:
        self._path, self._stream = path, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]  # any buffer, says typeshed
        try:
            data = self._stream.read(len(buffer))
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            raise DamagedArchiveError(
                f"'{self._path}' is a packed file that is cut off or damaged ({error}); copy it again."
            ) from None
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def open_binary(path: Path) -> BinaryIO:
    """A file to read, unpacked if it is packed.

    Raises:
        OSError: if it cannot be opened. Reading raises `DamagedArchiveError` where a packed file is cut off or damaged.
    """
    opener = _opener(path)
    if opener is None:
        return path.open("rb")
    return io.BufferedReader(_Unpacked(path, opener(path)), 1 << 16)


def _opener(path: Path) -> Callable[[Path], io.BufferedIOBase] | None:
    """What opens a packed file, None for one that is not packed."""
    with path.open("rb") as file:
        first = file.read(max(map(len, _OPENERS)))
    return next((opener for magic, opener in _OPENERS.items() if first.startswith(magic)), None)


def largest_size(path: Path) -> int:
    """A number of bytes that the content of a file does not exceed; a number of atoms beyond is damage."""
    return path.stat().st_size * (1 if _opener(path) is None else _LARGEST_RATIO)


def damage(path: Path) -> DamagedArchiveError | None:
    """What is wrong with the beginning of a file that is packed, going by its name; None if nothing is."""
    try:
        with open_binary(path) as file:
            file.read(1 << 16)
    except DamagedArchiveError as error:
        return error
    if path.suffix.lower() in SUFFIXES and _opener(path) is None:
        return DamagedArchiveError(
            f"'{path}' is a packed file that is cut off or damaged (it does not begin like one); copy it again."
        )
    return None


def plain_name(path: Path) -> Path:
    """The name of a file without that of the packing: ``run.extxyz`` for ``run.extxyz.gz``."""
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


def plain_or_packed(path: Path) -> Path:
    """A file, or it packed if only that is there; the name itself if neither is."""
    names = (path, *(path.with_name(path.name + suffix) for suffix in SUFFIXES))
    return next((name for name in names if name.is_file()), path)
