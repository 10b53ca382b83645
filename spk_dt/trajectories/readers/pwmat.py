"""``MOVEMENT`` of PWmat: one block for each step, with the opposite of the forces.

http://www.pwmat.com/pwmat-resource/Manual.pdf. Whatever stands over it (``Force (eV/Angstrom)``, ``Force (-force,
eV/Angstrom)``), the table is the gradient of the energy, -F. Positions are fractions of the cell, velocities in Bohr/fs.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from spk_dt.trajectories.readers.incomplete import IncompleteFrameError
from spk_dt.trajectories.readers.text import floats, following_lines, open_text

__all__ = ["frames", "recognises"]

_HEADER = re.compile(
    r"\s*(\d+)\s+atoms\s*,\s*Iteration(?: \(fs\))?\s*=\s*([^\s,]+)\s*,\s*Etot,Ep,Ek \(eV\)\s*=\s*(\S+)\s+(\S+)\s+([^\s,]+)"
)
_TABLES = ("Lattice vector", "Position", "Force", "Velocity")


def recognises(path: Path, lines: list[str]) -> bool:
    """Whether it is a MOVEMENT."""
    return _HEADER.match(lines[0]) is not None


def frames(path: Path) -> Iterator[Atoms]:
    """Frames of a file.

    Raises:
        ValueError: if a block lacks a table, or the file is of a relaxation.
        IncompleteFrameError: if the file ends within a block.
    """
    index = 0
    with open_text(path) as file:
        while line := file.readline():
            if not line.strip():
                continue
            header = _HEADER.match(line)
            if header is None:
                raise ValueError(
                    f"'{path}', frame {index}: it begins with '{line.strip()[:40]}', not with a number of atoms; the "
                    "file is damaged there."
                )
            yield _frame(file, header, path, index)
            index += 1


def _frame(file: TextIO, header: re.Match[str], path: Path, index: int) -> Atoms:
    """A frame: the lines until a line of hyphens."""
    n_atoms = int(header[1])
    tables: dict[str, np.ndarray] = {}
    dynamics = False
    while not (line := file.readline()).strip().startswith("-----"):
        if not line.endswith("\n"):
            raise IncompleteFrameError(path, index, "there is no line of hyphens at its end")
        dynamics = dynamics or "MD_INFO" in line
        name = next((name for name in _TABLES if line.strip().startswith(name)), None)
        if name is not None:
            n_rows, width = (3, 3) if name == "Lattice vector" else (n_atoms, 4)
            rows = [row.split()[:width] for row in following_lines(file, n_rows, path, index)]
            tables[name] = floats(rows, path, index)
    missing = [name for name in _TABLES[:3] if name not in tables]
    if missing:
        raise ValueError(f"'{path}', frame {index}: there is no table '{missing[0]}'.")
    if not dynamics and "Velocity" not in tables:
        raise ValueError(
            f"'{path}' is not of molecular dynamics (JOB = MD): it has neither velocities nor MD_INFO, so its frames "
            "have no time step."
        )
    numbers = tables["Position"][:, 0].astype(int)
    for name in _TABLES[2:]:
        if name in tables and (tables[name].shape[1] != 4 or (tables[name][:, 0].astype(int) != numbers).any()):
            raise ValueError(f"'{path}', frame {index}: the elements of '{name}' are not those of the positions.")
    cell = tables["Lattice vector"]
    atoms = Atoms(numbers, scaled_positions=tables["Position"][:, 1:], cell=cell, pbc=True)
    if "Velocity" in tables:
        atoms.set_velocities(tables["Velocity"][:, 1:] * ase.units.Bohr / ase.units.fs)
    time, _, energy, _ = floats([[word.rstrip(",") for word in header.groups()[1:]]], path, index)[0]
    atoms.info["time_fs"] = time
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=-tables["Force"][:, 1:])
    return atoms
