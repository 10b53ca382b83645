"""Selective dynamics of VASP: which coordinates of which atoms a run keeps.

The flags are of scaled coordinates: F F T lets an atom move along the third vector of the cell. A vasprun.xml has them with
its first structure, an OUTCAR has not: they are in the POSCAR, or the CONTCAR, in the same folder.
"""

import logging
import xml.etree.ElementTree as ET
from pathlib import Path

import ase.io
import numpy as np

from spk_dt.trajectories.fixed_atoms import mobile_of, movable_components
from spk_dt.trajectories.readers.compressed import plain_or_packed
from spk_dt.trajectories.readers.text import open_text

__all__ = ["of_poscar", "of_structure", "structures_beside"]

log = logging.getLogger(__name__)


def of_structure(element: ET.Element, path: Path) -> np.ndarray | None:
    """[n_atoms, 3] false for what is fixed, from an element ``structure`` of a vasprun.xml; None without flags.

    Raises:
        ValueError: if flags cannot be understood, or a coordinate that is kept is not one of x, y, z.
    """
    flags = [(row.text or "").upper().split() for row in element.findall("varray[@name='selective']/v")]
    if not flags:
        return None
    if any(len(row) != 3 or not set(row) <= {"T", "F"} for row in flags):
        raise ValueError(f"'{path}': its flags of selective dynamics cannot be understood; the file is damaged.")
    rows = [(row.text or "").split() for row in element.findall("crystal/varray[@name='basis']/v")]
    cell = np.array(rows, dtype=float)
    if cell.shape != (3, 3):
        raise ValueError(f"'{path}': its first structure has no cell; the file is damaged.")
    try:
        return np.array([movable_components(cell[np.array(row) == "T"]) for row in flags])
    except ValueError as error:
        raise ValueError(f"'{path}', selective dynamics: {error}") from None


def structures_beside(outcar: Path) -> list[Path]:
    """The POSCAR and CONTCAR in the folder of an OUTCAR, as far as they are there."""
    candidates = (plain_or_packed(outcar.with_name(name)) for name in ("POSCAR", "CONTCAR"))
    return [path for path in candidates if path.is_file()]


def of_poscar(outcar: Path, numbers: np.ndarray) -> np.ndarray | None:
    """What is fixed in the run of an OUTCAR, from the POSCAR or CONTCAR beside it.

    Args:
        outcar: the OUTCAR.
        numbers: [n_atoms] its atomic numbers.

    Returns:
        [n_atoms, 3] false for what is fixed; None where no file of these atoms fixes any.

    Raises:
        ValueError: if a coordinate that is kept is not one of x, y, z.
    """
    for path in structures_beside(outcar):
        try:
            with open_text(path) as file:
                (atoms,) = ase.io.iread(file, format="vasp")
        except Exception as error:  # whatever a damaged file leads to
            log.warning("'%s' cannot be read (%s); whether it fixes atoms is not known", path, error)
            continue
        if not np.array_equal(atoms.numbers, numbers):
            log.warning("'%s' has other atoms than '%s'; whether that run fixes atoms is not known", path, outcar)
            continue
        try:
            mobile = mobile_of(atoms)
        except ValueError as error:
            raise ValueError(f"'{path}', selective dynamics: {error}") from None
        return None if mobile.all() else mobile
    return None
