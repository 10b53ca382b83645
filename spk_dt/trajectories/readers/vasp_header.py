"""What the OUTCAR of VASP says once, before the frames: settings, elements, numbers of atoms, masses.

Fields have fixed widths, so that numbers may touch: ``POMASS =  63.55195.08`` are two.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
from ase.data import atomic_numbers

from spk_dt.trajectories.readers.compressed import largest_size

__all__ = ["OutcarHeader", "interval_and_steps", "read_header", "split_fields"]

#: where the frames begin: with an electronic iteration, or with a block of the machine-learned force field
_FRAMES_BEGIN = ("Iteration", "VOLUME and BASIS", "ML FORCE on cell", "TOTAL-FORCE (eV/Angst)")

_SETTING = re.compile(r"^\s*(IBRION|POTIM|NSW|ISIF|NWRITE|NBLOCK|ML_OUTBLOCK)\s*=\s*([-+.\dEe]+|\*+)")
_LEARNED = re.compile(r"^\s*ML_LMLFF\s*=\s*\.?T", re.IGNORECASE)
_MASS = re.compile(r"^\s*POMASS\s*=(?P<masses>[^;]*)")
_N_IONS = re.compile(r"number of ions\s+NIONS\s*=\s*(\d+)")
_TOUCHING_MINUS = re.compile(r"(?<=[0-9])-(?=[0-9.])")


@dataclass
class OutcarHeader:
    """What is said once, before the frames.

    Args:
        values: settings of the run.
        learned: whether the run uses the machine-learned force field.
        elements: element of each type.
        counts: number of atoms of each type.
        masses: mass of each type, Dalton.
    """

    values: dict[str, float] = field(default_factory=dict)
    learned: bool = False
    elements: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    masses: list[float] = field(default_factory=list)

    @property
    def numbers(self) -> np.ndarray:
        """[n_atoms] atomic numbers."""
        return np.repeat([atomic_numbers[symbol] for symbol in self.elements], self.counts)

    @property
    def masses_of_atoms(self) -> np.ndarray:
        """[n_atoms] Dalton."""
        return np.repeat(self.masses, self.counts)


@dataclass
class _Lines:
    """The lines that matter, as they are found."""

    titles: list[str] = field(default_factory=list)
    valences: list[str] = field(default_factory=list)  # VRHFIN
    potentials: list[str] = field(default_factory=list)  # POTCAR:, which is there twice
    potential_masses: list[float] = field(default_factory=list)
    counts: str = ""
    n_ions: int | None = None


def split_fields(line: str, n: int, decimals: Sequence[int]) -> list[str]:
    """The numbers of a line with fields of fixed width, also where they touch.

    Args:
        line: the line.
        n: how many there should be.
        decimals: number of decimals of each, by which numbers that touch are told apart.

    Returns:
        the numbers; another number of words if the line cannot be split so.
    """
    words = _TOUCHING_MINUS.sub(" -", line).split()
    if len(words) == n or "*" in line:
        return words
    pattern = r"\s*".join(rf"([-+]?\d*\.\d{{{places}}})" for places in decimals)
    match = re.fullmatch(rf"\s*{pattern}\s*", line)
    return words if match is None else list(match.groups())


def read_header(file: TextIO, path: Path) -> tuple[OutcarHeader, str]:
    """Read up to the frames.

    Returns:
        what is said, and the line with which the frames begin.

    Raises:
        ValueError: if there are no frames, or elements, numbers of atoms or masses are not understood.
    """
    header, lines = OutcarHeader(), _Lines()
    for line in file:
        if any(mark in line for mark in _FRAMES_BEGIN):
            break
        try:
            _header_line(line, header, lines)
        except (ValueError, IndexError, KeyError) as error:
            raise ValueError(f"'{path}': '{line.strip()[:60]}' cannot be understood ({error}).") from None
    else:
        raise ValueError(f"'{path}' has no complete frame: it ends before the first iteration.")
    half, odd = divmod(len(lines.potentials), 2)
    twice = not odd and lines.potentials[:half] == lines.potentials[half:]
    potentials = lines.potentials[:half] if twice else lines.potentials
    header.elements = lines.titles or lines.valences or potentials
    header.counts = _counts(lines, len(header.elements))
    if not header.elements or len(header.elements) != len(header.counts) or sum(header.counts) > largest_size(path):
        raise ValueError(
            f"'{path}' has {len(header.elements)} elements (lines TITEL, VRHFIN or POTCAR) and {len(header.counts)} "
            f"numbers of ions per type ('{lines.counts.strip()[:60]}'); it is damaged, or has too many elements for "
            "these lines. Convert the vasprun.xml of the run."
        )
    header.masses = _masses(header, lines, path)
    return header, line


def _header_line(line: str, header: OutcarHeader, lines: _Lines) -> None:
    if "TITEL" in line:
        lines.titles.append(_element(line.split("=")[1].split()[1]))
    elif "VRHFIN" in line:
        lines.valences.append(_element(line.split("=")[1].split(":")[0].strip()))
    elif line.lstrip().startswith("POTCAR:"):
        lines.potentials.append(_element(line.split(":")[1].split()[1]))
    elif "ions per type" in line:
        lines.counts = line.split("=")[1].rstrip()
    elif match := _N_IONS.search(line):
        lines.n_ions = int(match[1])
    elif match := _MASS.match(line):
        words = [
            part
            for word in match["masses"].split()
            for part in (re.findall(r"\d+\.\d\d", word) if word.count(".") > 1 else [word])
        ]
        masses = [float(word) for word in words]
        if "ZVAL" in line:
            lines.potential_masses += masses
        else:
            header.masses += masses  # eight a line
    elif "Mass of Ions" in line:
        header.masses = []  # before may be those of the INCAR, which is copied at the top
    elif match := _SETTING.match(line):
        header.values[match[1]] = float(match[2])
    elif _LEARNED.match(line):
        header.learned = True


def _element(name: str) -> str:
    """The element that a potential is named after, as in ``Cu_pv`` or ``H.75``.

    Raises:
        KeyError: if there is none.
    """
    symbol = "".join(letter for letter in name.split("_")[0] if letter.isalpha())
    atomic_numbers[symbol]
    return symbol


def _counts(lines: _Lines, n_types: int) -> list[int]:
    """Numbers of atoms of the types, also where they fill their fields and touch."""
    counts = [int(word) for word in lines.counts.split() if word.isdecimal()]
    if len(counts) != n_types and lines.n_ions is not None:
        for width in range(3, 8):
            text = lines.counts.lstrip()
            text = text.rjust(-(-len(text) // width) * width)
            fields = [text[at : at + width].strip() for at in range(0, len(text), width)]
            if len(fields) == n_types and all(map(str.isdecimal, fields)) and sum(map(int, fields)) == lines.n_ions:
                return [int(word) for word in fields]
    return counts if all(counts) else []


def _masses(header: OutcarHeader, lines: _Lines, path: Path) -> list[float]:
    """The masses of the simulation, with the decimals of those of the potentials where they are the same numbers."""
    masses, potential = header.masses, lines.potential_masses
    n = len(header.elements)
    if len(potential) == n == len(masses) and np.allclose(masses, potential, rtol=0.0, atol=0.0051):
        return potential  # the same numbers, with one more decimal
    if len(masses) == n:
        return masses
    if not masses and len(potential) == n:
        return potential
    raise ValueError(
        f"'{path}' does not say the mass (POMASS) of each of {', '.join(header.elements)}: it has {len(masses)}; it is "
        "damaged."
    )


def interval_and_steps(path: Path, values: Mapping[str, float], learned: bool) -> tuple[float | None, int]:
    """The time between frames in fs, and the steps between them: of the machine-learned force field not all are written.

    Args:
        path: the file.
        values: settings of the run.
        learned: whether frames of the machine-learned force field are taken.

    Raises:
        ValueError: if the run is not molecular dynamics.
    """
    if (kind := values.get("IBRION")) != 0.0:
        raise ValueError(
            f"'{path}' is not of a molecular dynamics run: IBRION is {'not there' if kind is None else f'{kind:g}'}, not 0. "
            "Frames of a relaxation have no time step."
        )
    stride = int(values.get("ML_OUTBLOCK", values.get("NBLOCK", 1.0))) if learned else 1
    step = values.get("POTIM")
    return (None if step is None else step * stride), max(stride, 1)
