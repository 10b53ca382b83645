"""HDF5 files with which the HDF5 library would never end, or crash: found out in a process that may do so."""

import subprocess
import sys
from pathlib import Path

__all__ = ["refuse_endless"]

_SECONDS = 5  # of the processor: some hundred times what the attributes of a sound file take
_WAIT = 120  # s, for a disk that is slow, and for HDF5, which waits for what a program that writes would mend

# Damaged text of variable length makes HDF5 search for ever; nothing in the process itself could end that.
_READ_ATTRIBUTES = """
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, 2 * (int(sys.argv[2]),))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except ImportError:
    pass  # there is no such limit on Windows
import h5py
try:
    file = h5py.File(sys.argv[1], "r")
except OSError as error:
    if "open for write" not in str(error):
        raise
    file = h5py.File(sys.argv[1], "r", swmr=True, libver="latest")
file.visititems(lambda name, one: dict(one.attrs) and None)
"""


def refuse_endless(path: Path) -> None:
    """Read the attributes of an HDF5 file elsewhere; what is wrong in another way is left to the reader.

    Raises:
        ValueError: if that does not come to an end, or ends the process.
    """
    command = [sys.executable, "-I", "-c", _READ_ATTRIBUTES, str(path), str(_SECONDS)]
    try:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, timeout=_WAIT)
        ended = f"signal {-done.returncode}" if done.returncode < 0 else ""
    except subprocess.TimeoutExpired:
        ended = f"{_WAIT} s"
    if ended:
        raise ValueError(
            f"'{path}' is damaged: the HDF5 library neither reads it nor says why not ({ended}). Copy it again, or simulate "
            "again."
        )
