"""From arrays to extended XYZ, for programs whose files are not read: three lines with numpy bring their data here."""

from collections.abc import Sequence
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cell import Cell
from numpy.typing import ArrayLike

from spk_dt.trajectories.readers.extxyz import VELOCITY_UNITS
from spk_dt.units import conversion

__all__ = ["write_extxyz"]


def write_extxyz(
    out: str | Path,
    symbols: Sequence[str],
    positions: ArrayLike,
    forces: ArrayLike,
    energies: ArrayLike,
    velocities: ArrayLike | None = None,
    *,
    cell: ArrayLike | None = None,
    length: str = "Ang",
    energy: str = "eV",
    velocity: str = "Ang/fs",
) -> None:
    """Write the frames of a trajectory, which `spkdt convert` then reads.

    Args:
        out: file to create, ``.extxyz``.
        symbols: element of each atom.
        positions: [n_frames, n_atoms, 3] in `length`.
        forces: [n_frames, n_atoms, 3] in `energy` per `length`.
        energies: [n_frames] potential energy in `energy`.
        velocities: [n_frames, n_atoms, 3] in `velocity`; without them they are recovered from the positions later.
        cell: three vectors or lengths and angles, in `length` and degrees, [3, 3], [3] or [6], or with [n_frames] in front;
            None if it is not periodic.
        length: unit, as ``"Ang"``, ``"Bohr"``, ``"nm"``.
        energy: unit, as ``"eV"``, ``"Hartree"``, ``"Ry"``, ``"kcal/mol"``, ``"kJ/mol"``.
        velocity: one of `spk_dt.trajectories.readers.extxyz.VELOCITY_UNITS`.

    Raises:
        FileExistsError: if `out` exists.
        ValueError: if the arrays do not fit each other, a number is not finite, or a unit is not known.
    """
    if Path(out).exists():
        raise FileExistsError(f"'{out}' exists. Remove it or choose another name.")
    if velocity not in VELOCITY_UNITS:
        raise ValueError(f"velocity unit '{velocity}' is not one of {', '.join(VELOCITY_UNITS)}.")
    to_ang, to_ev = (conversion(unit, ours, "write_extxyz") for unit, ours in ((length, "Ang"), (energy, "eV")))
    energies = np.asarray(energies, dtype=float)
    tables = {"positions": positions, "forces": forces} | ({} if velocities is None else {"velocities": velocities})
    shape = (len(energies), len(symbols), 3)
    values = {name: np.asarray(table, dtype=float) for name, table in tables.items()}
    for name, table in (*values.items(), ("energies", energies)):
        if name != "energies" and table.shape != shape:
            raise ValueError(
                f"{name} are of shape {table.shape}; {shape[0]} energies and {shape[1]} symbols need {shape}. Frames "
                "of all files must be of the same steps."
            )
        if not np.isfinite(table).all():
            raise ValueError(f"{name} have a number that is not finite.")
    cells = None if cell is None else np.asarray(cell, dtype=float)
    if cells is not None and cells.shape in ((3,), (6,), (3, 3)):
        cells = np.broadcast_to(cells, (len(energies), *cells.shape))
    elif cells is not None and (len(cells) != len(energies) or cells.shape[1:] not in ((3,), (6,), (3, 3))):
        raise ValueError(f"the cell is of shape {cells.shape}; it is [3, 3], [3], [6], or one of them for each frame.")
    frames = []
    for index in range(len(energies)):
        atoms = Atoms(list(symbols), values["positions"][index] * to_ang)
        if cells is not None:
            vectors = Cell.new(cells[index]).array.copy()
            atoms.cell, atoms.pbc = vectors * to_ang, True
        if "velocities" in values:
            atoms.set_velocities(values["velocities"][index] * VELOCITY_UNITS[velocity])
        atoms.calc = SinglePointCalculator(
            atoms, energy=energies[index] * to_ev, forces=values["forces"][index] * (to_ev / to_ang)
        )
        frames.append(atoms)
    ase.io.write(out, frames, format="extxyz")
