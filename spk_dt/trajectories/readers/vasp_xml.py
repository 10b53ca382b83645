"""The ``vasprun.xml`` of a molecular dynamics run of VASP.

Positions and forces have 8 decimals there, against 5 and 6 in the OUTCAR. There are no velocities. The energy is the free
energy, which the forces are the gradient of (``e_fr_energy``, without the term P V of a target pressure), the masses are
those of the simulation (``POMASS``).
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from xml.parsers.expat import errors

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from spk_dt.trajectories.readers.base import RawTrajectory
from spk_dt.trajectories.readers.incomplete import IncompleteFrameError
from spk_dt.trajectories.readers.text import beginning, floats
from spk_dt.trajectories.readers.vasp_selective import of_structure

__all__ = ["read", "recognises"]

#: what the parser says where the file ends too early
_ENDS = {
    errors.codes[name]
    for name in (errors.XML_ERROR_NO_ELEMENTS, errors.XML_ERROR_UNCLOSED_TOKEN, errors.XML_ERROR_PARTIAL_CHAR)
}

#: elements whose names VASP cuts
_CUT_NAMES = {"r": "Zr", "X": "Xe"}


@dataclass
class _Header:
    """What is said once, before the frames."""

    values: dict[str, str] = field(default_factory=dict)  # settings of the run
    symbols: list[str] = field(default_factory=list)
    masses: list[float] = field(default_factory=list)
    structure: ET.Element | None = None  # the first, with the flags of selective dynamics

    def number(self, name: str) -> float | None:
        """A setting, None if it is not a number."""
        try:
            return float(self.values[name])
        except (KeyError, ValueError):
            return None


def recognises(path: Path) -> bool:
    """Whether it is a vasprun.xml."""
    lines = beginning(path)
    return len(lines) == 2 and lines[0].startswith("<?xml") and "<modeling" in lines[1]


def read(path: Path) -> list[RawTrajectory]:
    """The trajectory in a file.

    Raises:
        ValueError: if the run is not molecular dynamics, or has no frame.
    """
    try:
        header, _ = next(_calculations(path))
    except IncompleteFrameError as error:
        raise ValueError(f"'{path}' has no complete frame: {error.detail}.") from None
    except StopIteration:
        raise ValueError(f"'{path}' has no frame.") from None
    if header.number("IBRION") != 0.0:
        raise ValueError(
            f"'{path}' is not of a molecular dynamics run: IBRION is {header.values.get('IBRION', 'not there')}, not "
            "0. Frames of a relaxation have no time step."
        )
    steps = header.number("NSW")
    return [
        RawTrajectory(
            name=path.stem,
            files=(path,),
            frames=partial(_frames, path),
            timestep_fs=header.number("POTIM"),
            n_frames=int(steps) if steps is not None and 0 < steps < 1e9 else None,
            inner_steps=1,
            mobile=None if header.structure is None else partial(of_structure, header.structure, path),
        )
    ]


def _frames(path: Path) -> Iterator[Atoms]:
    """Frames of a file."""
    for index, (header, element) in enumerate(_calculations(path)):
        yield _frame(header, element, path, index)


def _calculations(path: Path) -> Iterator[tuple[_Header, ET.Element]]:
    """Elements ``calculation`` of a file, one in memory at a time, with what precedes the first."""
    header, root, index = _Header(), None, 0
    try:
        with path.open("rb") as file:
            for event, element in ET.iterparse(file, events=("start", "end")):
                if root is None:
                    root = element
                if event == "start":
                    continue
                if element.tag in ("incar", "parameters"):
                    header.values |= {
                        item.get("name", ""): (item.text or "").strip()
                        for item in element.iter("i")
                        if item.get("name")
                    }
                elif element.tag == "atominfo":
                    header.symbols, header.masses = _atoms(element, path)
                elif element.tag == "structure" and element.get("name") == "initialpos":
                    header.structure = element
                elif element.tag == "calculation":
                    yield header, element
                    index += 1
                    root.clear()
    except ET.ParseError as error:
        if error.code in _ENDS:
            raise IncompleteFrameError(path, index, f"the XML breaks off ({error})") from None
        raise ValueError(f"'{path}', frame {index}: the XML is damaged ({error}); copy it again.") from None
    except (LookupError, UnicodeError) as error:  # an encoding that does not exist
        raise ValueError(f"'{path}', frame {index}: the XML is damaged ({error}); copy it again.") from None


def _atoms(element: ET.Element, path: Path) -> tuple[list[str], list[float]]:
    """Element and mass of each atom."""
    try:
        types = {}
        for number, row in enumerate(element.findall("array[@name='atomtypes']/set/rc"), start=1):
            types[number] = float(row[2].text or "")
        atoms = [
            ((row[0].text or "").strip(), int(row[1].text or ""))
            for row in element.findall("array[@name='atoms']/set/rc")
        ]
        return [_CUT_NAMES.get(symbol, symbol) for symbol, _ in atoms], [types[number] for _, number in atoms]
    except (IndexError, KeyError, ValueError) as error:
        raise ValueError(f"'{path}': its list of atoms cannot be understood ({error!r}).") from None


def _frame(header: _Header, element: ET.Element, path: Path, index: int) -> Atoms:
    """A frame from its element ``calculation``."""
    n_atoms = len(header.symbols)

    def table(where: str, n: int) -> np.ndarray:
        rows = [(row.text or "").split() for row in element.findall(f"{where}/v")]
        if len(rows) != n or any(len(row) != 3 for row in rows):
            raise ValueError(
                f"'{path}', frame {index}: there should be {n} times 3 numbers of "
                f"{where.split('=')[1].strip(chr(39) + ']')}, "
                f"there are {len(rows)} lines."
            )
        return floats(rows, path, index)

    cell = table("structure/crystal/varray[@name='basis']", 3)
    positions = table("structure/varray[@name='positions']", n_atoms) @ cell
    try:
        atoms = Atoms(header.symbols, positions=positions, cell=cell, pbc=True, masses=header.masses)
    except (KeyError, ValueError) as error:
        raise ValueError(f"'{path}': its list of atoms cannot be understood ({error}).") from None
    text = element.findtext("energy/i[@name='e_fr_energy']")
    if text is None:
        raise ValueError(f"'{path}', frame {index}: it has no energy e_fr_energy.")
    pressure = (header.number("PSTRESS") or 0.0) * 0.1 * ase.units.GPa  # from kbar
    energy = floats([[text.strip()]], path, index)[0, 0] - pressure * abs(np.linalg.det(cell))
    forces = table("varray[@name='forces']", n_atoms)
    atoms.calc = SinglePointCalculator(atoms, free_energy=energy, forces=forces)
    return atoms
