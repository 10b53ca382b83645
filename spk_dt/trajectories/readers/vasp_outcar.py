"""The OUTCAR of a molecular dynamics run of VASP.

Positions have 5 decimals there, forces 6: convert the vasprun.xml of the run if there is one. There are no velocities. The
energy is the free energy, which the forces are the gradient of (``free energy TOTEN``), the masses are those of the
simulation (``POMASS``).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers

from spk_dt.trajectories.readers.base import RawTrajectory
from spk_dt.trajectories.readers.incomplete import IncompleteFrameError
from spk_dt.trajectories.readers.text import beginning, floats, following_lines, open_text
from spk_dt.trajectories.readers.vasp_selective import of_poscar, structures_beside

__all__ = ["read", "recognises"]

_POSITIONS = "POSITION          "
_CELL = "direct lattice vectors"
_ENERGY = "FREE ENERGIE OF THE ION-ELECTRON SYSTEM"
_END = "General timing and accounting"

_SETTING = re.compile(r"^\s*(IBRION|POTIM|NSW)\s*=\s*([-+.\dEe]+)")
_MASS = re.compile(r"^\s*POMASS\s*=((?:\s*[.\d]+)+)")
_GLUED = re.compile(r"(?<=[0-9])-(?=[0-9])")


@dataclass
class _Header:
    """What is said once, before the frames."""

    values: dict[str, float] = field(default_factory=dict)
    elements: list[str] = field(default_factory=list)
    potential_masses: list[float] = field(default_factory=list)
    masses: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


def recognises(path: Path) -> bool:
    """Whether it is an OUTCAR."""
    lines = beginning(path, 1)
    return bool(lines) and re.match(r"\s*vasp\.\d", lines[0]) is not None


def read(path: Path) -> list[RawTrajectory]:
    """The trajectory in a file.

    Raises:
        ValueError: if the run is not molecular dynamics, or has no frame.
    """
    with open_text(path) as file:
        header = _header(file, path)
    if header.values.get("IBRION") != 0.0:
        raise ValueError(
            f"'{path}' is not of a molecular dynamics run: IBRION is {header.values.get('IBRION', 'not there')}, not "
            "0. Frames of a relaxation have no time step."
        )
    steps = header.values.get("NSW", 0.0)
    return [
        RawTrajectory(
            name=path.stem if path.suffix.lower() in (".outcar", ".out", ".txt") else path.name,
            files=(path, *structures_beside(path)),
            frames=partial(_frames, path),
            timestep_fs=header.values.get("POTIM"),
            n_frames=int(steps) if 0 < steps < 1e9 else None,
            inner_steps=1,
            mobile=partial(of_poscar, path, _numbers(header)),
        )
    ]


def _header(file: TextIO, path: Path) -> _Header:
    """Read up to the first iteration."""
    header = _Header()
    for line in file:
        if "Iteration" in line:
            break
        try:
            _header_line(line, header)
        except (ValueError, IndexError, KeyError) as error:
            raise ValueError(f"'{path}': '{line.strip()[:60]}' cannot be understood ({error}).") from None
    else:
        raise ValueError(f"'{path}' has no complete frame: it ends before the first iteration.")
    if not header.elements or len(header.elements) != len(header.counts) or sum(header.counts) > path.stat().st_size:
        raise ValueError(
            f"'{path}' has {len(header.elements)} elements (TITEL) and {len(header.counts)} numbers of ions per type; "
            "it is damaged."
        )
    if len(header.masses) != len(header.elements):
        header.masses = header.potential_masses
    if len(header.masses) != len(header.elements):
        raise ValueError(
            f"'{path}' does not say the mass (POMASS) of each of {', '.join(header.elements)}; it is damaged."
        )
    same = len(header.potential_masses) == len(header.masses)
    if same and np.allclose(header.masses, header.potential_masses, rtol=0.0, atol=0.0051):
        header.masses = header.potential_masses  # the same numbers, with one more decimal
    return header


def _header_line(line: str, header: _Header) -> None:
    if "TITEL" in line:
        name = line.split("=")[1].split()[1]
        symbol = "".join(letter for letter in name.split("_")[0] if letter.isalpha())
        atomic_numbers[symbol]  # KeyError if there is no such element
        header.elements.append(symbol)
    elif "ions per type" in line:
        header.counts = [int(word) for word in line.split("=")[1].split()]
        if any(n < 1 for n in header.counts):
            raise ValueError("a number of ions is not positive")
    elif match := _MASS.match(line):
        masses = [float(word) for word in match[1].split()]
        if "ZVAL" in line:
            header.potential_masses += masses
        else:
            header.masses = masses
    elif match := _SETTING.match(line):
        header.values[match[1]] = float(match[2])


def _numbers(header: _Header) -> np.ndarray:
    """[n_atoms] atomic numbers."""
    return np.repeat([atomic_numbers[symbol] for symbol in header.elements], header.counts)


def _frames(path: Path) -> Iterator[Atoms]:
    """Frames of a file."""
    index, cell, table = 0, None, None
    with open_text(path) as file:
        header = _header(file, path)
        numbers = _numbers(header)
        masses = np.repeat(header.masses, header.counts)
        for line in file:
            if _POSITIONS in line:
                lines = following_lines(file, len(numbers) + 1, path, index)[1:]
                table = _table(lines, 6, path, index)
            elif _CELL in line:
                cell = _table(following_lines(file, 3, path, index), 6, path, index)[:, :3]
            elif _ENERGY in line:
                lines = following_lines(file, 4, path, index)
                if cell is None or table is None:
                    raise ValueError(f"'{path}', frame {index}: an energy comes before cell, positions and forces.")
                atoms = Atoms(numbers, positions=table[:, :3], cell=cell, pbc=True, masses=masses)
                energy = _free_energy(lines, path, index)
                atoms.calc = SinglePointCalculator(atoms, free_energy=energy, forces=table[:, 3:])
                yield atoms
                table, index = None, index + 1
            elif _END in line:
                return
    raise IncompleteFrameError(path, index, "the summary that VASP writes at the end of a run is missing")


def _table(lines: list[str], n_columns: int, path: Path, index: int) -> np.ndarray:
    """Numbers in lines, also where VASP leaves no space before a minus."""
    rows = [_GLUED.sub(" -", line).split() for line in lines]
    if any(len(row) != n_columns for row in rows):
        raise ValueError(
            f"'{path}', frame {index}: a line does not have {n_columns} numbers; the file is damaged there."
        )
    return floats(rows, path, index)


def _free_energy(lines: list[str], path: Path, index: int) -> float:
    for line in lines:
        if match := re.search(r"TOTEN\s*=\s*(\S+)", line):
            return float(floats([[match[1]]], path, index)[0, 0])
    raise ValueError(f"'{path}', frame {index}: it has no free energy TOTEN; the file is damaged there.")
