"""The ``vasprun.xml`` of a molecular dynamics run of VASP.

Positions and forces have 8 decimals there, against 5 and 6 in the OUTCAR. There are no velocities. The energy is the free
energy, which the forces are the gradient of (``e_fr_energy``, without the term P V of a target pressure), the masses are
those of the simulation (``POMASS``). ``stress`` is minus the stress, in kbar, as in the OUTCAR.

Ab initio frames are elements ``calculation``; the parts of those of the machine-learned force field stand on their
own beside them, see `spk_dt.trajectories.readers.vasp_learned`.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from xml.parsers.expat import errors

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress

from spk_dt.trajectories.readers.base import RawTrajectory
from spk_dt.trajectories.readers.compressed import open_binary, plain_name
from spk_dt.trajectories.readers.incomplete import IncompleteFrameError
from spk_dt.trajectories.readers.text import beginning, floats
from spk_dt.trajectories.readers.vasp_header import interval_and_steps
from spk_dt.trajectories.readers.vasp_learned import VaspFrame, of_one_kind
from spk_dt.trajectories.readers.vasp_outcar import KBAR
from spk_dt.trajectories.readers.vasp_selective import of_structure

__all__ = ["OPTIONS", "read", "recognises"]

#: keywords of `read`
OPTIONS = ("vasp_mlff",)

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


def read(path: Path, vasp_mlff: bool | None = None) -> list[RawTrajectory]:
    """The trajectory in a file, or each row of ab initio steps without a gap if a machine-learned force field was used.

    Args:
        path: the file.
        vasp_mlff: whether the frames of the machine-learned force field are taken, not those ab initio.

    Raises:
        ValueError: if the run is not molecular dynamics, or has no frame of the kind asked for.
    """
    try:
        header, _, _ = next(_elements(path))
    except IncompleteFrameError as error:
        raise ValueError(f"'{path}' has no complete frame: {error.detail}.") from None
    except StopIteration:
        raise ValueError(f"'{path}' has no frame.") from None
    values = {name: number for name in header.values if (number := header.number(name)) is not None}
    interval_fs, inner_steps = interval_and_steps(path, values, bool(vasp_mlff))
    steps = values.get("NSW", 0.0)
    whole = RawTrajectory(
        name=plain_name(path).stem,
        files=(path,),
        frames=partial(_ab_initio, path),
        timestep_fs=interval_fs,
        n_frames=int(steps) if 0 < steps < 1e9 else None,
        inner_steps=inner_steps,
        mobile=None if header.structure is None else partial(of_structure, header.structure, path),
    )
    learned = header.values.get("ML_LMLFF", "F").upper().strip(".").startswith("T")
    return of_one_kind(whole, partial(_frames, path), bool(vasp_mlff)) if learned or vasp_mlff else [whole]


def _ab_initio(path: Path) -> Iterator[Atoms]:
    """Frames of a file that does not say that it has others."""
    return (frame.atoms for frame in _frames(path))


def _frames(path: Path) -> Iterator[VaspFrame]:
    """All frames of a file, ab initio or of the machine-learned force field."""
    step, before = 0, None
    for index, (header, element, learned) in enumerate(_elements(path)):
        if learned and not header.values.get("ML_LMLFF"):
            raise ValueError(
                f"'{path}', frame {index}: it stands outside of a calculation, as those of VASP's machine-learned "
                "force field, but the file does not say ML_LMLFF at its top; it is damaged."
            )
        atoms = _frame(header, element, path, index)
        if before is None or learned or not np.array_equal(before, atoms.positions):
            step += 1  # not where the force field was evaluated at the same step, too
        before = atoms.positions if learned else None
        yield VaspFrame(step, learned, atoms)


def _elements(path: Path) -> Iterator[tuple[_Header, ET.Element, bool]]:
    """The element of each frame, one in memory at a time, what precedes the first, and whether it is machine-learned."""
    header, root, index, depth = _Header(), None, 0, 0
    own: ET.Element | None = None  # the parts of a frame of the force field
    try:
        with open_binary(path) as file:
            for event, element in ET.iterparse(file, events=("start", "end")):
                if root is None:
                    root = element
                depth += 1 if event == "start" else -1
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
                if depth > 1:
                    continue
                if own is not None and element.tag in ("structure", "calculation", root.tag):
                    yield header, own, True
                    own, index = None, index + 1
                if element.tag == "calculation":
                    yield header, element, False
                    index += 1
                elif element.tag == "structure" and element.get("name") is None:
                    own = ET.Element("calculation")
                if own is not None:
                    own.append(element)
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
        return floats(rows, path, index, where)

    cell = table("structure/crystal/varray[@name='basis']", 3)
    positions = table("structure/varray[@name='positions']", n_atoms) @ cell
    try:
        atoms = Atoms(header.symbols, positions=positions, cell=cell, pbc=True, masses=header.masses)
    except (KeyError, ValueError) as error:
        raise ValueError(f"'{path}': its list of atoms cannot be understood ({error}).") from None
    text = element.findtext("energy/i[@name='e_fr_energy']")
    if text is None:
        raise ValueError(f"'{path}', frame {index}: it has no energy e_fr_energy.")
    pressure = (header.number("PSTRESS") or 0.0) * KBAR
    energy = floats([[text.strip()]], path, index)[0, 0] - pressure * abs(np.linalg.det(cell))
    forces = table("varray[@name='forces']", n_atoms)
    results = {"free_energy": energy, "forces": forces}
    if element.find("varray[@name='stress']") is not None and header.number("ISIF") != 1.0:
        results["stress"] = -KBAR * full_3x3_to_voigt_6_stress(table("varray[@name='stress']", 3))
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms
