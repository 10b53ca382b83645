"""The OUTCAR of a molecular dynamics run of VASP.

Positions have 5 decimals there, forces 6: convert the vasprun.xml of the run if there is one. There are no velocities. The
energy is the free energy, which the forces are the gradient of (``free energy TOTEN``), the masses are those of the
simulation (``POMASS``). ``in kB`` is minus the stress (``FORCE on cell =-STRESS``), without the momenta and without a target
pressure, in kbar, as xx, yy, zz, xy, yz, zx. Of a run with ``ISIF = 1`` only its trace is right, and it is left out.
Frames of the machine-learned force field are told apart by ``ML``, see `spk_dt.trajectories.readers.vasp_learned`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from spk_dt.trajectories.readers.base import RawTrajectory
from spk_dt.trajectories.readers.compressed import plain_name
from spk_dt.trajectories.readers.incomplete import IncompleteFrameError
from spk_dt.trajectories.readers.text import beginning, floats, following_lines, open_text
from spk_dt.trajectories.readers.vasp_header import OutcarHeader, interval_and_steps, read_header, split_fields
from spk_dt.trajectories.readers.vasp_learned import VaspFrame, of_one_kind
from spk_dt.trajectories.readers.vasp_selective import of_poscar, structures_beside

__all__ = ["KBAR", "OPTIONS", "VARIABLE_CELL", "read", "recognises"]

#: keywords of `read`
OPTIONS = ("vasp_mlff",)

#: kbar in eV/Å^3
KBAR = 0.1 * ase.units.GPa

#: values of ISIF with which the cell changes
VARIABLE_CELL = (3, 4, 5, 6, 7, 8)

_FORCES = "TOTAL-FORCE (eV/Angst)"
_CELL = "direct lattice vectors"
_STRESS = "in kB"
_ENERGY = "FREE ENERGIE OF THE ION-ELECTRON SYSTEM"
_END = "General timing and accounting"

_ITERATION = re.compile(r"-\s*Iteration\s*(\d+)\(")
_TOTEN = re.compile(r"TOTEN\s*=\s*(\S+)")


@dataclass
class _Block:
    """The lines of a frame, as far as they are read."""

    cell: list[str] | None = None
    table: list[str] | None = None
    stress: str | None = None
    learned: bool = False  # whether the table of forces is of the machine-learned force field


def recognises(path: Path) -> bool:
    """Whether it is an OUTCAR."""
    lines = beginning(path, 1)
    return bool(lines) and re.match(r"\s*vasp\.\d", lines[0]) is not None


def read(path: Path, vasp_mlff: bool | None = None) -> list[RawTrajectory]:
    """The trajectory in a file, or each row of ab initio steps without a gap if a machine-learned force field was used.

    Args:
        path: the file.
        vasp_mlff: whether the frames of the machine-learned force field are taken, not those ab initio.

    Raises:
        ValueError: if the run is not molecular dynamics, or has no frame of the kind asked for.
    """
    with open_text(path) as file:
        header, _ = read_header(file, path)
    interval_fs, inner_steps = interval_and_steps(path, header.values, bool(vasp_mlff))
    steps = header.values.get("NSW", 0.0)
    plain = plain_name(path)
    whole = RawTrajectory(
        name=plain.stem if plain.suffix.lower() in (".outcar", ".out", ".txt") else plain.name,
        files=(path, *structures_beside(path)),
        frames=partial(_ab_initio, path),
        timestep_fs=interval_fs,
        n_frames=int(steps) if 0 < steps < 1e9 else None,
        inner_steps=inner_steps,
        mobile=partial(of_poscar, path, header.numbers),
    )
    return of_one_kind(whole, partial(_frames, path), bool(vasp_mlff)) if header.learned or vasp_mlff else [whole]


def _ab_initio(path: Path) -> Iterator[Atoms]:
    """Frames of a file that does not say that it has others."""
    for index, frame in enumerate(_frames(path)):
        if frame.learned:
            raise ValueError(
                f"'{path}', frame {index}: it is of VASP's machine-learned force field, but the file does not say "
                "ML_LMLFF at its top. Convert the vasprun.xml of the run."
            )
        yield frame.atoms


def _frames(path: Path) -> Iterator[VaspFrame]:
    """All frames of a file, ab initio or of the machine-learned force field."""
    index, step, block = 0, 0, _Block()
    iteration: int | None = None
    cell: list[str] | None = None
    with open_text(path) as file:
        header, first = read_header(file, path)
        n_atoms = sum(header.counts)
        for line in chain([first], file):
            if _FORCES in line:
                block.table = following_lines(file, n_atoms + 1, path, index)[1:]
                block.learned = "(ML)" in line
            elif _CELL in line:
                block.cell = cell = following_lines(file, 3, path, index)
            elif line.lstrip().startswith(_STRESS):
                block.stress = line
            elif match := _ITERATION.search(line):
                iteration = int(match[1])
            elif _ENERGY in line:
                lines = following_lines(file, 4, path, index)
                learned = line.lstrip().startswith("ML ")
                step = step + 1 if learned or iteration is None else iteration  # the force field comes before it
                if block.cell is None and header.values.get("ISIF", 0.0) not in VARIABLE_CELL:
                    block.cell = cell
                yield VaspFrame(step, learned, _atoms(header, block, lines, learned, path, index))
                block, index = _Block(), index + 1
                iteration = None if not learned else iteration
            elif _END in line:
                for _ in file:  # so that the checksum of a packed file is looked at
                    pass
                return
    raise IncompleteFrameError(path, index, "the summary that VASP writes at the end of a run is missing")


def _atoms(
    header: OutcarHeader, block: _Block, energy_lines: list[str], learned: bool, path: Path, index: int
) -> Atoms:
    """A frame from its lines."""
    where = f"'{path}', frame {index}"
    if block.table is None or block.learned != learned:
        if header.values.get("NWRITE", 2.0) < 2.0:
            raise ValueError(
                f"{where}: it has an energy, but no positions and forces, since NWRITE = {header.values['NWRITE']:g} "
                "writes them for some steps only. Convert the vasprun.xml of the run, which has those of all steps; "
                "OUTCARs of later runs have them with NWRITE = 2."
            )
        raise ValueError(f"{where}: an energy comes before positions and forces; the file is damaged there.")
    if block.cell is None:
        isif = header.values.get("ISIF")
        remedy = (
            f"ISIF = {isif:g} changes the cell. Convert the vasprun.xml of the run."
            if isif in VARIABLE_CELL
            else "The file is damaged there."
        )
        raise ValueError(f"{where}: the cell (direct lattice vectors) is not written. {remedy}")
    table = _table(block.table, (5, 5, 5, 6, 6, 6), path, index, "POSITION, TOTAL-FORCE")
    cell = _table(block.cell, (9,) * 6, path, index, _CELL)[:, :3]
    atoms = Atoms(header.numbers, positions=table[:, :3], cell=cell, pbc=True, masses=header.masses_of_atoms)
    results = {"free_energy": _free_energy(energy_lines, path, index), "forces": table[:, 3:]}
    if block.stress is not None and header.values.get("ISIF") != 1.0:
        line = block.stress.replace("in kB", "     ", 1)
        xx, yy, zz, xy, yz, zx = _table([line], (5,) * 6, path, index, "in kB")[0]
        results["stress"] = -KBAR * np.array([xx, yy, zz, yz, zx, xy])
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def _table(lines: list[str], decimals: tuple[int, ...], path: Path, index: int, what: str) -> np.ndarray:
    """Numbers in lines, also where they touch."""
    n = len(decimals)
    rows = [split_fields(line, n, decimals) for line in lines]
    wrong = next((line for line, row in zip(lines, rows, strict=True) if len(row) != n and "*" not in line), None)
    if wrong is not None:
        raise ValueError(
            f"'{path}', frame {index}: the line '{wrong.strip()[:80]}' ({what}) does not have {n} numbers; the file is "
            "damaged there."
        )
    return floats(rows, path, index, what)


def _free_energy(lines: list[str], path: Path, index: int) -> float:
    for line in lines:
        if match := _TOTEN.search(line):
            return float(floats([[match[1]]], path, index, "TOTEN")[0, 0])
    raise ValueError(f"'{path}', frame {index}: it has no free energy TOTEN; the file is damaged there.")
