"""The formats that `spkdt convert` reads, most specific first, and the choice among them.

A reader is a module with ``recognises(path)`` and ``read(path)`` (see `spk_dt.trajectories.readers.base`). One whose format
leaves something open also has ``OPTIONS``, names of further keywords of its ``read``.
"""

from pathlib import Path
from types import ModuleType

from spk_dt.trajectories.readers import (
    ase_formats,
    cp2k,
    dtegnn_files,
    extxyz,
    ipi,
    lammps,
    md17_npz,
    program_output,
    schnetpack_hdf5,
    trajectory_database,
    vasp_outcar,
    vasp_xml,
)
from spk_dt.trajectories.readers.base import RawTrajectory, Reader
from spk_dt.trajectories.readers.compressed import SUFFIXES, open_binary
from spk_dt.trajectories.readers.incomplete import IncompleteFrameError
from spk_dt.trajectories.readers.ways_out import not_recognised

__all__ = ["READERS", "IncompleteFrameError", "RawTrajectory", "Reader", "find_reader", "options_of"]

#: modules, in the order in which they are asked
READERS: tuple[ModuleType, ...] = (
    dtegnn_files,
    cp2k,
    md17_npz,
    schnetpack_hdf5,
    trajectory_database,
    ase_formats,
    vasp_xml,
    vasp_outcar,
    lammps,
    program_output,
    ipi,
    extxyz,
)


def find_reader(path: Path) -> ModuleType:
    """The reader of a file, or folder.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it cannot be read or unpacked, or no reader recognises it; names the remedy.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no '{path}'.")
    if path.is_file():
        try:
            path.open("rb").close()
        except OSError as error:
            raise ValueError(f"'{path}' cannot be read: {error.strerror}.") from None
        if path.stat().st_size == 0:
            raise ValueError(f"'{path}' is empty.")
        if path.suffix.lower() in SUFFIXES:
            with open_binary(path) as file:
                file.read(1)  # what cannot be unpacked is told as that, not as of unknown format
    for reader in READERS:
        if reader.recognises(path):
            return reader
    raise not_recognised(path)


def options_of(reader: ModuleType) -> tuple[str, ...]:
    """Names of the keywords that a reader takes."""
    return getattr(reader, "OPTIONS", ())
