"""``.md`` files of OpenMX: XYZ with forces in Hartree/Bohr behind the positions, and the energy in Hartree.

https://www.openmx-square.org/openmx_man3.9. The velocities behind the forces are those of half a step before (seen in
OpenMX's own example of methane: they differ by half a step of the forces), so they are recovered from the positions.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import ase.units
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from spk_dt.trajectories.readers.text import floats, following_lines, open_text

__all__ = ["frames", "recognises"]

_COMMENT = re.compile(
    r"\s*time=\s*(\S+) \(fs\)\s+Energy=\s*(\S+) \(Hartree\).*?(?:Cell_Vectors=\s*((?:\S+\s*){9}))?(?:\s|$)"
)


def recognises(path: Path, lines: list[str]) -> bool:
    """Whether it is a .md file of OpenMX."""
    return len(lines) > 1 and lines[0].strip().isdecimal() and _COMMENT.match(lines[1]) is not None


def frames(path: Path) -> Iterator[Atoms]:
    """Frames of a file.

    Raises:
        ValueError: if a comment line has no time and energy, or an atom no forces.
        IncompleteFrameError: if the file ends within a frame.
    """
    index = 0
    with open_text(path) as file:
        while line := file.readline():
            if not line.strip().isdecimal():
                raise ValueError(
                    f"'{path}', frame {index}: it begins with '{line.strip()[:40]}'; the file is damaged there."
                )
            comment, *lines = following_lines(file, int(line) + 1, path, index)
            match, words = _COMMENT.match(comment), [line.split() for line in lines]
            if match is None or any(len(row) < 7 for row in words):
                raise ValueError(f"'{path}', frame {index}: there is no time and energy, or an atom without forces.")
            values = floats([row[1:7] for row in words], path, index)
            cell = None
            if "Cell_Vectors=" in comment:
                cell = floats([comment.partition("Cell_Vectors=")[2].split()[:9]], path, index).reshape(3, 3)
            (time, energy) = floats([[match[1], match[2]]], path, index)[0]
            atoms = Atoms([row[0] for row in words], positions=values[:, :3], cell=cell, pbc=cell is not None)
            forces = values[:, 3:] * ase.units.Hartree / ase.units.Bohr
            atoms.info["time_fs"] = time
            atoms.calc = SinglePointCalculator(atoms, energy=energy * ase.units.Hartree, forces=forces)
            yield atoms
            index += 1
