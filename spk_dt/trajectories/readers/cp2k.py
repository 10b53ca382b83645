"""Trajectories of CP2K: the XYZ files of positions, forces and velocities that ``&MOTION &PRINT`` writes.

=======================  ===================  ========================================================
file                     print key            unit, unless the input or restart file beside it says otherwise
=======================  ===================  ========================================================
``PROJECT-pos-1.xyz``    ``&TRAJECTORY``      Å; the comment has step, time (fs) and energy (Hartree)
``PROJECT-frc-1.xyz``    ``&FORCES``          Hartree/Bohr
``PROJECT-vel-1.xyz``    ``&VELOCITIES``      Bohr per atomic unit of time; need not be there
``PROJECT-1.cell``       ``&CELL``            Å; otherwise ``&CELL`` of ``PROJECT-1.restart`` or of the input
``PROJECT-1.stress``     ``&STRESS``          bar; pressure tensor with the part of the momenta; need not be there
=======================  ===================  ========================================================

Formats and units are those of CP2K's ``motion_utils.F`` and of https://manual.cp2k.org. A restarted run appends, and repeats
the steps since its restart file was written: of a repeated step the last frame counts. Steps at either end that one of
the files lacks are left out. Forces or velocities under another name are found if the input says it (``FILENAME``),
or if there is only one file of the kind. With FORMAT EXTXYZ the comments have the cell. Masses are those of ``&KIND``.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from spk_dt.trajectories.readers.base import RawTrajectory
from spk_dt.trajectories.readers.compressed import plain_name, plain_or_packed
from spk_dt.trajectories.readers.cp2k_cell import cell_of
from spk_dt.trajectories.readers.cp2k_files import NAME, find_forces_or_velocities, find_positions, printed_name
from spk_dt.trajectories.readers.cp2k_fixed import fixed_atoms
from spk_dt.trajectories.readers.cp2k_input import RunInput, find_input, unit_factor
from spk_dt.trajectories.readers.cp2k_kinds import elements_and_masses
from spk_dt.trajectories.readers.cp2k_stress import pressures
from spk_dt.trajectories.readers.cp2k_xyz import XyzIndex, blocks, in_common, index_of, is_title, time_step
from spk_dt.trajectories.readers.incomplete import IncompleteFrameError
from spk_dt.trajectories.readers.pressure import without_momenta
from spk_dt.trajectories.readers.text import beginning

__all__ = ["read", "recognises"]

_PRINT_FORCES = "print them with\n&MOTION\n  &PRINT\n    &FORCES\n      &EACH\n        MD 1\nand run again"

#: largest difference of the energies of a step in two files, Hartree
_SAME_ENERGY = 1e-8


@dataclass(frozen=True)
class _Run:
    """Everything that belongs to a run: its files, and what is known about cell, pressure and masses."""

    pos: XyzIndex
    frc: XyzIndex
    vel: XyzIndex | None
    cells: dict[int, np.ndarray] | np.ndarray | None
    pbc: tuple[bool, bool, bool]
    pressures: dict[int, np.ndarray] | None
    said: RunInput


def recognises(path: Path) -> bool:
    """Whether it is one of the files of a run, named as CP2K does, or a folder with a file of positions."""
    try:
        if path.is_dir():
            return any(recognises(file) for file in path.glob("*-pos-*.xyz*"))
        name = NAME.fullmatch(plain_name(path).name)
        if name is None or (name["suffix"] == "xyz") != (name["kind"] is not None) or not path.is_file():
            return False
    except OSError:
        return False
    first, second = [*beginning(path), "", ""][:2]
    if name["suffix"] == "ener":
        return first.startswith("#") and "Time[fs]" in first
    return first.strip().isdigit() and is_title(second)


def read(path: Path) -> list[RawTrajectory]:
    """The trajectory that a file belongs to, or all trajectories of a folder.

    Raises:
        ValueError: if positions, forces or the cell are missing, or the files do not belong together.
    """
    if not path.is_dir():
        return [_read(path)]
    files = sorted(filter(recognises, path.glob("*-pos-*.xyz*")))
    plain = {plain_name(file): file for file in reversed(files)}  # one that is there packed, too, is read once
    return [_read(file) for file in reversed(plain.values())]


def _read(file: Path) -> RawTrajectory:
    """The trajectory of a project."""
    name = NAME.fullmatch(plain_name(file).name)
    assert name is not None  # it was recognised
    folder, number, kind = file.parent, name["number"], (name["kind"] or "").rstrip("-")
    if kind == "pos":
        pos, project = file, name["project"]
    else:
        pos, project = find_positions(folder, name["project"], number, recognises)
    run_input = find_input(folder, project, number)
    said = run_input if run_input is not None else RunInput(pos, project)
    paths: dict[str, Path | None] = {"pos": pos}
    for other in ("frc", "vel"):
        paths[other] = (
            file
            if kind == other
            else find_forces_or_velocities(other, folder, project, number, said.filenames, recognises)
        )
    if paths["frc"] is None:
        usual = folder / f"{project}-frc-{number}.xyz"
        raise ValueError(f"there is no '{usual}': dynamic training needs forces of every frame; {_PRINT_FORCES}.")
    indices = in_common([index_of(path) for path in paths.values() if path is not None])
    step, time = indices[0].step[indices[0].keep], indices[0].time[indices[0].keep]
    interval_fs = time_step(indices[0].path, step, time)
    vel = indices[2] if len(indices) == 3 else None
    cells, pbc, sources = (
        (None, said.pbc, ()) if indices[0].has_cells else cell_of(folder, project, number, step, run_input)
    )
    for unit in said.units.values():
        unit_factor(unit, f"'{said.file}'")
    stress_file, pressure, notes = _pressures(folder, project, number, said, step, vel is not None)
    used = (*sources, *([run_input.file] if run_input is not None else []), *stress_file)
    return RawTrajectory(
        name=project,
        files=tuple(dict.fromkeys((*(index.path for index in indices), *used))),
        frames=partial(_frames, _Run(indices[0], indices[1], vel, cells, pbc, pressure, said)),
        timestep_fs=interval_fs,
        n_frames=len(step),
        inner_steps=int(step[1] - step[0]),
        mobile=None if run_input is None else partial(fixed_atoms, run_input.file, indices[0].n_atoms),
        notes=notes,
    )


def _pressures(
    folder: Path, project: str, number: str, said: RunInput, step: np.ndarray, has_velocities: bool
) -> tuple[tuple[Path, ...], dict[int, np.ndarray] | None, tuple[str, ...]]:
    """The file of the pressure tensor, if there is one, the tensor of each step, and what to know about it."""
    filename = said.filenames.get("STRESS")
    file = plain_or_packed(folder / printed_name(said.project if filename else project, filename, f"-{number}.stress"))
    if not file.is_file():
        return (), None, ()
    if not has_velocities:
        note = f"the stress in {file.name} was left out: it has the part of the momenta; print &VELOCITIES, too"
        return (), None, (note,)
    return (file,), pressures(file, step), ()


def _frames(run: _Run) -> Iterator[Atoms]:
    """The frames of a run."""
    indices = [index for index in (run.pos, run.frc, run.vel) if index is not None]
    units = {key: unit_factor(unit, f"'{run.said.file}'") for key, unit in run.said.units.items()}
    first: list[str] = []
    with ExitStack() as stack:
        streams = [blocks(index) for index in indices]
        for stream in streams:
            stack.callback(stream.close)
        for pos, *others in zip(*streams, strict=True):
            if not first:
                first = pos.symbols
                numbers, masses = elements_and_masses(first, run.said.kinds, run.said.coordinates, run.pos.path)
            for index, block in zip(indices, (pos, *others), strict=True):
                if block.symbols != first:
                    raise ValueError(
                        f"step {pos.step} of '{index.path}' has other atoms, or another order of atoms, than the first "
                        f"frame of '{run.pos.path}'; the files are not of the same run."
                    )
                if abs(block.energy - pos.energy) > _SAME_ENERGY:
                    raise ValueError(
                        f"step {pos.step} has the energy {block.energy} in '{index.path}', but {pos.energy} in "
                        f"'{run.pos.path}'; the files are not of the same run."
                    )
            cell = run.cells[pos.step] if isinstance(run.cells, dict) else run.cells
            pbc = run.pbc
            if pos.cell is not None and pos.pbc is not None:
                cell, pbc = (pos.cell if any(pos.pbc) else None), pos.pbc
            atoms = Atoms(numbers, units["TRAJECTORY"] * pos.values, cell=cell, pbc=pbc, masses=masses)
            if run.vel is not None:
                atoms.set_velocities(units["VELOCITIES"] * others[1].values)
            results = {"energy": pos.energy * ase.units.Hartree, "forces": units["FORCES"] * others[0].values}
            if run.pressures is not None and atoms.pbc.all():
                results["stress"] = without_momenta(atoms, run.pressures[pos.step])
            atoms.calc = SinglePointCalculator(atoms, **results)
            yield atoms
    for index in indices:
        if index.cut_off:
            raise IncompleteFrameError(index.path, len(index.step), "the lines of some atoms are missing")
