"""Output of i-PI: positions, velocities and forces in files of their own, energies and time in a file of properties.

https://docs.ipi-code.org/output-files.html. The file that is given is that of the positions, ``PREFIX.pos_0.xyz`` or, in the
format of ASE, ``PREFIX.pos_0.extxyz``; the others, whatever their names are, are found beside it by their prefix, their
bead and what their first lines say. Units stand in the comment of each frame, as ``positions{angstrom}``; where they do
not, they are atomic units, which is how i-PI defines its format. Files are put together by the number of the step.

A path integral has a file for each bead, and each bead is a trajectory. Of its energies only those that i-PI was asked for
bead by bead, ``potential(bead=0)``, are of the forces and positions of a bead. What is periodic is not said by i-PI.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cell import Cell
from ase.data import atomic_numbers

from spk_dt.trajectories.readers.base import RawTrajectory
from spk_dt.trajectories.readers.compressed import largest_size, plain_name
from spk_dt.trajectories.readers.incomplete import IncompleteFrameError, first_two
from spk_dt.trajectories.readers.ipi_properties import IpiProperties, in_ase_units, read_properties
from spk_dt.trajectories.readers.text import beginning, count_lines, floats, following_lines, open_text
from spk_dt.trajectories.stated import ISOTOPES

__all__ = ["OPTIONS", "read", "recognises"]

#: keywords of `read`
OPTIONS = ("lenient",)

#: dimension of what a file can have
_QUANTITIES = {"positions": "length", "velocities": "velocity", "momenta": "momentum", "forces": "force"}

_QUANTITY = re.compile(r"\b(?!cell\b)([a-zA-Z_]\w*)\{([^}]*)\}")
_WITHOUT_UNIT = re.compile(rf"\b({'|'.join(_QUANTITIES)})\b")
_CELL_UNIT = re.compile(r"\bcell\{([^}]*)\}")
_CELL = re.compile(r"CELL[(\[{](abcABC|H|GENH)[)\]}]:([-+\d.eE\s]*)")
_LATTICE = re.compile(r'Lattice="([^"]*)"')
_STEP = re.compile(r"\bStep:\s*(\d+)")
_NAME = re.compile(r"(?P<prefix>.+)\.(?P<what>[^.]+)_(?P<bead>\d+)\.(?:xyz|extxyz)$", re.IGNORECASE)

_WRITE = (
    "Let i-PI write all of them with the same stride: <properties stride='10'> [step, time{picosecond}, "
    "potential{electronvolt}] </properties> and <trajectory filename='pos' stride='10'> positions{angstrom} </trajectory>, "
    "likewise forces and velocities."
)


@dataclass(frozen=True)
class _Frame:
    """A frame of one file."""

    step: int
    symbols: list[str]
    values: np.ndarray  # [n_atoms, 3] in the unit of ASE
    cell: np.ndarray  # [3, 3] Å


@dataclass(frozen=True)
class _Bead:
    """The files of a bead."""

    positions: Path
    others: Mapping[str, Path]  # by quantity
    index: int


def recognises(path: Path) -> bool:
    """Whether it is a file that i-PI writes for each bead, in the format xyz or ase."""
    lines = beginning(path)
    if len(lines) < 2 or not lines[0].strip().isdigit():
        return False
    return _CELL.search(lines[1]) is not None or "ipi_comment" in lines[1]


def read(path: Path, lenient: bool = False) -> list[RawTrajectory]:
    """The trajectory of each bead of a run, of one whose positions are in a file.

    Args:
        path: positions of a bead.
        lenient: whether forces and energies may be missing; frames are then without.

    Raises:
        ValueError: if the file is not of positions, or files beside it contradict each other or lack something.
    """
    said = _quantity(path)
    if said != "positions":
        raise ValueError(
            f"'{path}' is of i-PI and has {said or 'nothing that it names'}, not positions. Give the file of the positions, "
            "whose lines of comments say positions{...}; forces, velocities and properties are found beside it."
        )
    beads = _beads(path)
    prefix = _prefix(path)
    properties = _properties(path, prefix)
    found = []
    for bead in beads:
        notes: list[str] = []
        column = _energy(properties, bead, len(beads))
        missing = [name for name in ("forces",) if name not in bead.others] + ([] if column else ["energies"])
        if missing and not lenient:
            where = f"'{bead.positions}'" if len(beads) == 1 else f"'{bead.positions}', one of {len(beads)} beads,"
            bead_energies = (
                "" if len(beads) == 1 else " Energies of beads are potential(bead=0){electronvolt}, and so on."
            )
            raise ValueError(f"{where} has no {' and no '.join(missing)} beside it. {_WRITE}{bead_energies}")
        interval, stride = _timing(bead.positions, properties)
        if len(beads) > 1:
            notes.append(
                f"a bead of a ring polymer of {len(beads)}: springs act on it beside the forces, so its frames serve one by "
                "one, and are no reference of a rollout"
            )
        notes.append("i-PI does not say what is periodic; all directions are taken for it")
        files = [
            bead.positions,
            *bead.others.values(),
            *([properties.path] if properties is not None and column else []),
        ]
        found.append(
            RawTrajectory(
                name=prefix if len(beads) == 1 else f"{prefix}_bead{bead.index}",
                files=tuple(files),
                frames=partial(_frames, bead, properties if column else None, column, stride),
                timestep_fs=interval,
                n_frames=count_lines(bead.positions) // (int(beginning(bead.positions, 1)[0]) + 2),
                inner_steps=stride,
                notes=tuple(notes),
                momenta="momenta" in bead.others and "velocities" not in bead.others,
                beads=len(beads),
                periodic_said=False,
            )
        )
    return found


def _prefix(path: Path) -> str:
    """What the names of all files of a run begin with."""
    match = _NAME.match(plain_name(path).name)
    return plain_name(path).stem if match is None else match["prefix"]


def _beads(path: Path) -> list[_Bead]:
    """The files of all beads of a run."""
    match = _NAME.match(plain_name(path).name)
    if match is None:  # renamed: nothing says what belongs to it
        return [_Bead(path, {}, 0)]
    beside: dict[int, dict[str, list[Path]]] = {}
    for other in sorted(path.parent.iterdir()):
        own = _NAME.match(plain_name(other).name)
        if own is not None and own["prefix"] == match["prefix"] and recognises(other):
            said = _quantity(other)
            if said in _QUANTITIES and not (said == "positions" and own["what"] != match["what"]):
                beside.setdefault(int(own["bead"]), {}).setdefault(said, []).append(other)
    for index, quantities in beside.items():
        for said, files in quantities.items():
            if len(files) > 1:
                names = ", ".join(f"'{file}'" for file in files)
                raise ValueError(
                    f"there are several files with the {said} of bead {index}: {names}. Move all but one away."
                )
    return [
        _Bead(files["positions"][0], {said: own[0] for said, own in files.items() if said != "positions"}, index)
        for index, files in sorted(beside.items())
        if "positions" in files
    ]


def _properties(path: Path, prefix: str) -> IpiProperties | None:
    """The properties of a run, of the file beside it that has its prefix; None if there is none."""
    found = []
    for other in sorted(path.parent.glob("*")):
        if other.is_file() and other.name.startswith(f"{prefix}.") and other != path:
            properties = read_properties(other)
            if properties is not None:
                found.append(properties)
    with_energy = [one for one in found if any(name.partition("(")[0] == "potential" for name in one.names)] or found
    if len(with_energy) > 1:
        names = ", ".join(f"'{one.path}'" for one in with_energy)
        raise ValueError(f"there are several files of properties beside '{path}': {names}. Move all but one away.")
    return with_energy[0] if with_energy else None


def _energy(properties: IpiProperties | None, bead: _Bead, n_beads: int) -> str | None:
    """Name of the column with the potential energy of a bead; None if there is none."""
    if properties is None or "step" not in properties.names:
        return None
    of_bead = {f"potential({said}{bead.index})" for said in ("bead=", "")}
    wanted = of_bead | ({"potential"} if n_beads == 1 else set())
    return next((name for name in properties.names if name in wanted), None)


def _timing(path: Path, properties: IpiProperties | None) -> tuple[float | None, int | None]:
    """Time between two frames in fs, and steps between them, as far as the files say."""
    steps = [frame.step for frame in first_two(_of_file(path))]
    if len(steps) < 2:
        return None, None
    stride = steps[1] - steps[0]
    if stride < 1:
        raise ValueError(f"'{path}', frame 1: step {steps[1]} does not come after step {steps[0]} of frame 0.")
    step_fs = None if properties is None else properties.timestep_fs()
    return None if step_fs is None else step_fs * stride, stride


def _frames(bead: _Bead, properties: IpiProperties | None, column: str | None, stride: int | None) -> Iterator[Atoms]:
    """Frames of a bead, in the units of ASE."""
    others = {said: _of_file(file) for said, file in bead.others.items()}
    before = None
    for index, frame in enumerate(_of_file(bead.positions)):
        where = f"'{bead.positions}', frame {index}"
        if before is not None and frame.step - before != stride:
            raise ValueError(
                f"{where}: step {frame.step} follows step {before}, but the first frames are {stride} steps apart. Frames "
                "are missing, or the run was started again; cut the parts before and after into files of their own."
            )
        before = frame.step
        values = {said: _same_step(others[said], frame, bead.others[said], where) for said in others}
        numbers, masses = _elements(frame.symbols, where)
        atoms = Atoms(numbers, positions=frame.values, cell=frame.cell, pbc=True)
        if masses:
            atoms.set_masses([masses.get(i, mass) for i, mass in enumerate(atoms.get_masses())])
        if "velocities" in values:
            atoms.set_velocities(values["velocities"])
        elif "momenta" in values:
            atoms.set_momenta(values["momenta"])
        results: dict[str, object] = {}
        if "forces" in values:
            results["forces"] = values["forces"]
        if properties is not None and column is not None:
            results["energy"] = properties.energy(column, frame.step, where)
        atoms.calc = SinglePointCalculator(atoms, **results)
        yield atoms


def _same_step(frames: Iterator[_Frame], frame: _Frame, path: Path, where: str) -> np.ndarray:
    """[n_atoms, 3] the values of another file at the step of a frame."""
    for other in frames:
        if other.step < frame.step:
            continue
        if other.step == frame.step and other.symbols == frame.symbols:
            return other.values
        what = f"step {other.step}" if other.step != frame.step else "other atoms"
        raise ValueError(
            f"{where} is of step {frame.step}, but '{path}' has {what} there. Let i-PI write both with the same stride, or "
            "move the file that has fewer frames away."
        )
    raise IncompleteFrameError(path, 0, f"it has no frame of step {frame.step}")


def _of_file(path: Path) -> Iterator[_Frame]:
    """Frames of one file."""
    n_atoms: int | None = None
    with open_text(path) as file:
        index = 0
        while header := file.readline():
            if not header.strip().isdigit() or not 0 < int(header) <= largest_size(path):
                raise ValueError(
                    f"'{path}', frame {index}: it begins with '{header.strip()[:40]}', not with a number of atoms. The "
                    "frame before it has too many lines, or too few; the file is damaged there."
                )
            if n_atoms not in (None, int(header)):
                raise ValueError(f"'{path}', frame {index}: it has {int(header)} atoms, the first frame has {n_atoms}.")
            n_atoms = int(header)
            comment, *lines = following_lines(file, n_atoms + 1, path, index)
            yield _frame(comment, lines, path, index)
            index += 1
    if index == 0:
        raise ValueError(f"'{path}' is empty; it should hold frames of a trajectory.")


def _frame(comment: str, lines: list[str], path: Path, index: int) -> _Frame:
    """A frame from its comment and the lines of its atoms."""
    where = f"'{path}', frame {index}"
    said, unit = _said(comment)
    step = _STEP.search(comment)
    if said not in _QUANTITIES or step is None:
        raise ValueError(
            f"{where}: its comment does not say a step, and what it has, as positions{{angstrom}}; it is damaged."
        )
    rows = [line.split() for line in lines]
    width = (
        7 if "ipi_comment" in comment and said != "positions" else 4
    )  # ASE writes positions, which are zero, before them
    if any(len(row) != width for row in rows):
        raise ValueError(f"{where}: an atom does not have {width} columns; the file is damaged there.")
    values = floats([row[-3:] for row in rows], path, index, said) * in_ase_units(_QUANTITIES[said], unit, where)
    return _Frame(int(step[1]), [row[0] for row in rows], values, _cell(comment, path, index))


def _cell(comment: str, path: Path, index: int) -> np.ndarray:
    """[3, 3] cell, its vectors in rows, Å."""
    lattice = _LATTICE.search(comment)
    said = _CELL.search(comment)
    words = (lattice[1] if lattice is not None else said[2] if said is not None else "").split()
    in_rows = lattice is not None or (said is not None and said[1] != "abcABC")
    if len(words) < (9 if in_rows else 6):
        raise ValueError(f"'{path}', frame {index}: its comment has no cell; the file is damaged there.")
    unit = _CELL_UNIT.search(comment)
    length = in_ase_units("length", "" if unit is None else unit[1], f"'{path}', frame {index}")
    numbers = floats([words[: 9 if in_rows else 6]], path, index, "the cell")[0]
    if lattice is not None:
        return numbers.reshape(3, 3) * length
    if in_rows:  # i-PI has the vectors in columns
        return numbers.reshape(3, 3).T * length
    return np.array(Cell.fromcellpar([*(numbers[:3] * length), *numbers[3:]]).array)


def _said(comment: str) -> tuple[str | None, str]:
    """What the comment of a frame says that it has, and its unit."""
    said = _QUANTITY.search(comment)
    if said is not None:
        return said[1], said[2]
    plain = _WITHOUT_UNIT.search(comment)
    return (None if plain is None else plain[1]), ""


def _quantity(path: Path) -> str | None:
    """What a file has, as its first comment says."""
    lines = beginning(path)
    return _said(lines[1])[0] if len(lines) > 1 else None


def _elements(symbols: list[str], where: str) -> tuple[list[int], dict[int, float]]:
    """Atomic numbers, and masses of the atoms that are written as D or T."""
    masses = {i: ISOTOPES["H"][symbol] for i, symbol in enumerate(symbols) if symbol in ("D", "T")}
    names = ["H" if i in masses else symbol for i, symbol in enumerate(symbols)]
    unknown = [name for name in names if atomic_numbers.get(name, 0) == 0]
    if unknown:
        raise ValueError(f"{where}: '{unknown[0][:20]}' is not an element. Isotopes are written as the element.")
    return [atomic_numbers[name] for name in names], masses
