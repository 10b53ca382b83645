"""Output of SIESTA with ``WriteCoorStep`` and ``WriteForces``: coordinates in Å, forces in eV/Å, energies in eV.

https://siesta-project.org. It has no velocities, which are recovered from the positions.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import ase.units
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from spk_dt.trajectories.readers.incomplete import IncompleteFrameError
from spk_dt.trajectories.readers.text import floats, open_text

__all__ = ["frames", "recognises"]

_STEP = re.compile(r"\s*Begin MD step\s*=\s*(\d+)")
_VARIABLE_CELL = re.compile(r"redata: Dynamics option\s*=.*Parrinello")
_LENGTH = re.compile(r"redata: Length of MD time step\s*=\s*(\S+)\s+fs")
_SPECIES = re.compile(r"\s*Species number:\s*(\d+).*?Atomic number:\s*(\d+)")
_ENERGY = re.compile(r"siesta: E_KS\(eV\) =\s*(\S+)")
_COORDINATES = re.compile(r"outcoor: Atomic coordinates \((.*?)\)")
_NUMBER = re.compile(r"\s*-?[\d.]+\s")
_LENGTHS = {"Ang": 1.0, "Bohr": ase.units.Bohr}


def recognises(path: Path, lines: list[str]) -> bool:
    """Whether it is an output of SIESTA."""
    return any("WELCOME TO SIESTA" in line or line.startswith("Siesta Version") for line in lines)


def frames(path: Path) -> Iterator[Atoms]:
    """Frames of a file.

    Raises:
        ValueError: if a step lacks coordinates, energy or forces, or its cell while the run changes it; names the setting
            of SIESTA.
        IncompleteFrameError: if the file ends within a step.
    """
    numbers: dict[int, int] = {}
    seen: dict[str, Any] = {}
    timestep_fs: float | None = None
    index, variable_cell, new_cell = 0, False, False
    with open_text(path) as file:
        for line in file:
            if match := _SPECIES.match(line):
                numbers[int(match[1])] = int(match[2])
            elif _VARIABLE_CELL.match(line):
                variable_cell = True
            elif match := _LENGTH.match(line):
                timestep_fs = float(match[1])
            elif match := _STEP.match(line):
                if "step" in seen:
                    raise ValueError(f"{_lacks(path, seen)} print them in each step: WriteCoorStep T, WriteForces T")
                seen = {"step": int(match[1])} | {key: seen[key] for key in ("cell",) if key in seen}
            elif match := _COORDINATES.match(line):
                if match[1] not in _LENGTHS:
                    raise ValueError(f"'{path}': coordinates are in '{match[1]}'; write AtomCoorFormatOut Ang")
                rows = _table(file)
                seen["species"] = [int(row[3]) for row in rows]
                seen["positions"] = floats([row[:3] for row in rows], path, index) * _LENGTHS[match[1]]
            elif line.startswith("outcell: Unit cell vectors (Ang)"):
                seen["cell"], new_cell = floats([row[:3] for row in _table(file, 3)], path, index), True
            elif match := _ENERGY.match(line):
                seen["energy"] = floats([[match[1]]], path, index)[0, 0]
            elif line.startswith("siesta: Atomic forces (eV/Ang)") and "step" in seen:
                forces = floats([row[1:] for row in _table(file)], path, index)
                missing = [key for key in ("positions", "energy", "cell") if key not in seen]
                if missing or forces.shape != seen["positions"].shape:
                    raise ValueError(f"{_lacks(path, seen)} print them in each step: WriteCoorStep T, WriteForces T")
                if variable_cell and not new_cell:
                    raise ValueError(
                        f"'{path}', step {seen['step']}: the run changes the cell (Parrinello-Rahman), but it is not "
                        "printed for this step (outcell: Unit cell vectors); print it in each: WriteCoorStep T, LongOutput T"
                    )
                atoms = Atoms([numbers[one] for one in seen["species"]], seen["positions"], cell=seen["cell"], pbc=True)
                atoms.calc = SinglePointCalculator(atoms, energy=seen["energy"], forces=forces)
                atoms.info["step"] = seen.pop("step")
                if timestep_fs is not None:
                    atoms.info["time_fs"] = timestep_fs * atoms.info["step"]
                yield atoms
                index, new_cell = index + 1, False
    if "step" in seen:
        raise IncompleteFrameError(path, index, f"step {seen['step']} has no forces")


def _table(file: TextIO, n: int | None = None) -> list[list[str]]:
    """Words of the next n lines, or of those that begin with a number."""
    rows: list[list[str]] = []
    while len(rows) != n and (line := file.readline()).endswith("\n") and _NUMBER.match(line):
        rows.append(line.split())
    return rows


def _lacks(path: Path, seen: dict[str, Any]) -> str:
    missing = [key for key in ("positions", "cell", "energy") if key not in seen] or ["forces"]
    return f"'{path}', step {seen['step']}: there are no {' and '.join(missing)} of all atoms;"
