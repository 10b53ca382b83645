"""``MD_dump`` of ABACUS, and its energies from ``running_md.log`` beside it.

https://abacus.deepmodeling.com. Since 3.1.4 positions are in Å and velocities (Å/fs) follow the forces (eV/Å); before,
positions are in units of the lattice constant, which is in Bohr. The log has no time step: it is ``md_dt`` of INPUT.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers

from spk_dt.trajectories.readers.incomplete import IncompleteFrameError
from spk_dt.trajectories.readers.text import floats, following_lines, open_text

__all__ = ["frames", "recognises"]

_STEP = re.compile(r"\s*MDSTEP:\s*(\d+)")
_LOG_STEP = re.compile(r"\s*STEP OF MOLECULAR DYNAMICS\s*:\s*(\d+)")
_ENERGY = re.compile(r"\s*(?:final etot is|#TOTAL ENERGY#)\s+(\S+)\s+eV")
_SYMBOL = re.compile(r"[A-Z][a-z]?")


def recognises(path: Path, lines: list[str]) -> bool:
    """Whether it is an MD_dump."""
    return _STEP.match(lines[0]) is not None and any(line.startswith("LATTICE_CONSTANT") for line in lines[:3])


def frames(path: Path) -> Iterator[Atoms]:
    """Frames of a file.

    Raises:
        ValueError: if there are no forces, or no log beside it with the energy of each step.
        IncompleteFrameError: if the file ends within a frame.
    """
    log = path.with_name("running_md.log")
    if not log.is_file():
        raise ValueError(f"'{path}' has no energies: there is no '{log}', which ABACUS writes beside it.")
    energies = _energies(log)
    with open_text(path) as file:
        line, index = file.readline(), 0
        while line:
            step = _STEP.match(line)
            if step is None:
                raise ValueError(f"'{path}', frame {index}: it begins with '{line.strip()[:40]}', not with MDSTEP.")
            atoms, forces, line = _frame(file, path, index)
            if int(step[1]) not in energies:
                raise ValueError(
                    f"'{log}' has no converged energy of step {step[1]}, which '{path}' has. Give the log of the same "
                    "run; if the electrons have not converged there, convert the parts before and after as files of their "
                    "own."
                )
            atoms.info |= {"step": int(step[1]), "files": (log,)}
            atoms.calc = SinglePointCalculator(atoms, energy=energies[int(step[1])], forces=forces)
            yield atoms
            index += 1


def _energies(log: Path) -> dict[int, float]:
    """Energy in eV of each step that has converged; old versions print one before the first step, and then all in order."""
    by_step: dict[int, float] = {}
    in_order: list[float | None] = []
    step: int | None = None
    numbered = True
    with open_text(log) as file:
        for line in file:
            if match := _LOG_STEP.match(line):
                step = int(match[1])
            elif "convergence has not been achieved" in line:
                in_order.append(None)
            elif match := _ENERGY.match(line):
                in_order.append(floats([[match[1]]], log, len(in_order))[0, 0])
                if step is None:
                    numbered = False
                else:
                    by_step[step] = float(in_order[-1] or 0.0)
    return by_step if numbered else {n: energy for n, energy in enumerate(in_order) if energy is not None}


def _frame(file: TextIO, path: Path, index: int) -> tuple[Atoms, np.ndarray, str]:
    """Atoms and forces of a frame, and the line after it."""
    constant, _, *vectors = following_lines(file, 5, path, index)
    words = constant.split()
    modern = len(words) > 2 and words[2] == "Angstrom"
    length = float(words[1]) * (1.0 if modern else ase.units.Bohr)
    cell = floats([line.split()[:3] for line in vectors], path, index) * length
    title = following_lines(file, 1, path, index)[0]
    while not title.startswith("INDEX"):
        title = following_lines(file, 1, path, index)[0]
    if "FORCE" not in title:
        raise ValueError(f"'{path}', frame {index}: there are no forces; set dump_force 1 and cal_force 1 in INPUT.")
    rows: list[list[str]] = []
    line = file.readline()
    while line and not _STEP.match(line):
        if not line.endswith("\n"):
            raise IncompleteFrameError(path, index, "its last line has no line feed and may be cut off")
        if line.strip():
            rows.append(line.split())
        line = file.readline()
    values = floats([row[2:] for row in rows], path, index)
    symbols = [match[0] if (match := _SYMBOL.match(row[1])) and match[0] in atomic_numbers else "X" for row in rows]
    atoms = Atoms(symbols, positions=values[:, :3] * (1.0 if modern else length), cell=cell, pbc=True)
    if "VELOCITY (Angstrom/fs)" in title:
        atoms.set_velocities(values[:, 6:9] / ase.units.fs)
    return atoms, values[:, 3:6], line
