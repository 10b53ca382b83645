"""Which errors are for a user to mend: these are told by their message, all others with their traceback.

A message of ours names the value, the file and a remedy; where it was raised is of no use to who reads it. An error that
nobody has foreseen is told as it is.
"""

from pathlib import Path

import hydra
from hydra.errors import InstantiationException
from omegaconf.errors import OmegaConfBaseException

__all__ = ["message_for_user"]

_OURS, _HYDRA = Path(__file__).parents[1], Path(hydra.__file__).parent
#: what the system says of files and folders
_OF_FILES = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
#: packages whose own exceptions are about settings and data
_HOSTS = ("spk_dt.", "schnetpack.")
#: of Lightning, likewise
_SETTINGS = {"MisconfigurationException"}


def message_for_user(error: BaseException) -> str | None:
    """The message of an error that a user can mend; None for any other one.

    That is what we or SchNetPack refuse, files that are not there, and configs that name what does not exist.

    Args:
        error: as it came out of a program. What Hydra puts around an error in the making of an object is taken off.
    """
    if isinstance(error, InstantiationException):
        cause = error.__cause__
        if cause is None or _raised_in(cause, _HYDRA):  # an unknown class or argument, of which Hydra names the key
            return str(error)
        return message_for_user(cause)
    kind = type(error)
    if isinstance(error, OmegaConfBaseException):
        lines = [line.strip() for line in str(error).splitlines()]
        return " ".join(line for line in lines if not line.startswith(("object_type=", "reference_type=")))
    if isinstance(error, _OF_FILES) or kind.__module__.startswith(_HOSTS) or kind.__name__ in _SETTINGS:
        return str(error)
    return str(error) if isinstance(error, ValueError | ImportError) and _raised_in(error, _OURS) else None


def _raised_in(error: BaseException, package: Path) -> bool:
    """Whether the line that raised an error is in the folder of a package."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and package in Path(trace.tb_frame.f_code.co_filename).parents
