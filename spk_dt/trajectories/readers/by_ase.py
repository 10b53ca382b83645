"""Formats that ASE reads, with what it leaves open: the time step, units, and files that end within a frame.

=================  ==========================================================================================
format             what is done here
=================  ==========================================================================================
CASTEP ``.md``     a last block without an empty line behind it, which ASE passes over, is incomplete
``pw.x`` output    time step and masses, which ASE leaves out
Gaussian output    time of each step
Qbox output        all, which ASE leaves in atomic units; velocities are recovered from the positions
=================  ==========================================================================================
"""

import re
from collections import deque
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import TextIO

import ase.io
import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.espresso import label_to_symbol

from spk_dt.trajectories.readers.incomplete import IncompleteFrameError
from spk_dt.trajectories.readers.text import open_text

__all__ = ["castep", "gaussian", "is_castep", "is_gaussian", "is_pwscf", "is_qbox", "pwscf", "qbox"]

_PW_STEP = re.compile(r"\s*Time step\s*=\s*(\S+) a\.u\.,\s*(\S+) femto-seconds")
_PW_MASS = re.compile(r"\s+(\S+)\s+\d+\.\d+\s+(\d+\.\d+)\s+\S+\(\s*[\d.]+\)")
_GAUSSIAN_TIME = re.compile(r"\s*Time \(fs\)\s+(\S+)")
_QBOX_STEP = re.compile(r".*\bset dt\s+([\d.eE+-]+)")
_RYDBERG_TIME_FS = 2.0 * ase.units.AUT / ase.units.fs


def is_castep(path: Path, lines: list[str]) -> bool:
    """Whether it is a .md file of CASTEP: positions, velocities and forces, marked at the ends of the lines."""
    return any(line.rstrip().endswith("<-- R") for line in lines) and path.suffix.lower() != ".geom"


def is_pwscf(path: Path, lines: list[str]) -> bool:
    """Whether it is an output of pw.x."""
    return any("Program PWSCF" in line for line in lines)


def is_gaussian(path: Path, lines: list[str]) -> bool:
    """Whether it is an output of Gaussian."""
    return any("Entering Gaussian System" in line or "Gaussian, Inc." in line for line in lines)


def is_qbox(path: Path, lines: list[str]) -> bool:
    """Whether it is an output of Qbox."""
    return any("<fpmd:simulation" in line for line in lines)


def castep(path: Path) -> Iterator[Atoms]:
    """Frames of a .md file of CASTEP."""
    for atoms in _read(path, "castep-md"):
        if "time" not in atoms.info:
            raise ValueError(
                f"'{path}' has no velocities: it is not of molecular dynamics, so its frames have no time step."
            )
        atoms.info = {"time_fs": atoms.info["time"] / ase.units.fs}
        yield atoms
    with open_text(path) as file:
        last = deque(file, maxlen=1)
    if last and last[0].strip():
        raise IncompleteFrameError(path, _count(path, "<-- E") - 1, "no empty line follows it")


def gaussian(path: Path) -> Iterator[Atoms]:
    """Frames of an output of Gaussian (BOMD, ADMP); the last geometry, whose forces are not computed, is left out."""
    with open_text(path) as file:
        times, ended = [], False
        for line in file:
            if match := _GAUSSIAN_TIME.match(line):
                times.append(float(match[1]))
            ended = ended or "Normal termination of Gaussian" in line
    if not times:
        raise ValueError(f"'{path}' is not of molecular dynamics (BOMD or ADMP): its frames have no time step.")
    for time, atoms in zip(times, _read(path, "gaussian-out"), strict=False):
        atoms.info = {"time_fs": time}
        yield atoms
    if not ended:
        raise IncompleteFrameError(path, len(times), "the run has not ended normally")


def pwscf(path: Path) -> Iterator[Atoms]:
    """Frames of an output of pw.x."""
    step = _first(path, _PW_STEP)
    if step is None:
        raise ValueError(f"'{path}' is not of molecular dynamics (calculation = 'md'): it has no time step.")
    masses: dict[str, float] = {}
    with open_text(path) as file:
        for line in file:
            if match := _PW_MASS.match(line):
                masses.setdefault(label_to_symbol(match[1]), float(match[2]))
            if line.startswith("!"):
                break
    for index, atoms in enumerate(_read(path, "espresso-out")):
        atoms.set_masses([masses.get(symbol) for symbol in atoms.symbols])
        atoms.info = {"time_fs": index * step * _RYDBERG_TIME_FS}
        yield atoms


def qbox(path: Path) -> Iterator[Atoms]:
    """Frames of an output of Qbox."""
    step, index = _first(path, _QBOX_STEP), -1
    for index, atoms in enumerate(_read(path, "qbox")):
        results = atoms.calc.results
        converted = Atoms(
            atoms.numbers, atoms.positions * ase.units.Bohr, cell=atoms.cell.array * ase.units.Bohr, pbc=True
        )
        converted.set_masses(atoms.get_masses())
        converted.calc = SinglePointCalculator(
            converted,
            energy=results["energy"] * ase.units.Hartree,
            forces=results["forces"] * ase.units.Hartree / ase.units.Bohr,
        )
        if step is not None:
            converted.info["time_fs"] = index * step * ase.units.AUT / ase.units.fs
        yield converted
    begun = _count(path, "<iteration")
    if begun > index + 1:
        raise IncompleteFrameError(path, index + 1, "there is no </iteration>")


def _read(path: Path, name: str) -> Iterator[Atoms]:
    """Frames as ASE reads them, all of which have energy and forces."""
    with open_text(path) as opened:
        file: TextIO = opened
        if name == "qbox":  # ASE knows no deuterium; its mass is in the file
            file = StringIO(opened.read().replace("<symbol>D</symbol>", "<symbol>H</symbol>"))
        found: Iterator[Atoms] = ase.io.iread(file, index=":", format=name)
        index = 0
        while True:
            try:
                atoms = next(found, None)
            except Exception as error:  # whatever a damaged file leads to
                detail = f"ASE ({name}) cannot read it: {type(error).__name__} {error}"
                if index == 0:
                    raise ValueError(f"'{path}', frame 0: {detail}") from None
                raise IncompleteFrameError(path, index, detail) from None
            if atoms is None:
                return
            results = {} if atoms.calc is None else atoms.calc.results
            if "free_energy" in results:  # all that CASTEP has
                results.setdefault("energy", results["free_energy"])
            for key in ("energy", "forces"):
                if results.get(key) is None or not np.isfinite(results[key]).all():
                    raise IncompleteFrameError(path, index, f"it has no {key}")
            yield atoms
            index += 1


def _first(path: Path, pattern: re.Pattern[str]) -> float | None:
    with open_text(path) as file:
        return next((float(match[1]) for line in file if (match := pattern.match(line))), None)


def _count(path: Path, mark: str) -> int:
    with open_text(path) as file:
        return sum(mark in line for line in file)
