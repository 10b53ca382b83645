"""What tells a file from another one of the same name."""

import hashlib
from pathlib import Path

__all__ = ["file_hash"]


def file_hash(file: str | Path) -> str:
    """SHA-256 of the content of a file, in hexadecimal."""
    with Path(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
