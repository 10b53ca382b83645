"""Files that may be damaged, or made up to do harm: whatever their libraries raise, users read which file it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["reading"]


@contextmanager
def reading(file: str | Path, what: str, remedy: str) -> Iterator[None]:
    """Turn what libraries raise for content that makes no sense into a `ValueError` with the name of the file.

    What cannot be imported, be it missing or a name that is damaged, is an `ImportError` with the name of the file. Errors
    that name the file already, files that are not there or may not be read, are left as they are.

    Args:
        file: the file.
        what: that it should be, as "trajectory database".
        remedy: what to do, a sentence.
    """
    try:
        yield
    except (FileNotFoundError, PermissionError, FileExistsError):
        raise
    except Exception as error:
        if isinstance(error, ValueError | ImportError) and str(file) in str(error):
            raise
        if isinstance(error, ImportError):
            raise ImportError(
                f"'{file}' needs what cannot be imported ({error}). Install it; if there is no such package, the file is "
                f"damaged. {remedy}"
            ) from error
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"'{file}' is damaged, or is no {what} ({type(error).__name__}: {reason}). {remedy}"
        ) from error
