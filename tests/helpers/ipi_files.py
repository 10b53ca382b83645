"""Output of i-PI, written from frames as i-PI writes it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from spk_dt.trajectories.readers.ipi_properties import in_ase_units


def write_ipi(
    folder: Path,
    frames: Sequence[Atoms],
    *,
    units: Sequence[str] = ("atomic_unit", "atomic_unit", "atomic_unit", "atomic_unit"),
    bead: int = 0,
    cell: str = "abcABC",
    energy: str = "electronvolt",
    timestep_fs: float = 0.5,
    every: int = 1,
    prefix: str = "run",
) -> Path:
    """The files of a bead, in units of length, force, velocity and cell; `energy` is the unit of the potential."""
    symbols = ["D" if 1.5 < m < 2.5 else s for s, m in zip(frames[0].symbols, frames[0].get_masses(), strict=True)]
    values = {
        ("pos", "positions", "length"): [atoms.positions for atoms in frames],
        ("frc", "forces", "force"): [atoms.get_forces() for atoms in frames],
        ("vel", "velocities", "velocity"): [atoms.get_velocities() for atoms in frames],
    }
    of_cell = in_ase_units("length", units[3], "")
    for unit, ((name, what, dimension), tables) in zip(units, values.items(), strict=False):
        lines = []
        said = "" if unit == "" else f"{{{unit}}}"
        for k, (atoms, table) in enumerate(zip(frames, tables, strict=True)):
            box = atoms.cell.array if atoms.cell.rank == 3 else np.diag([60.0] * 3)
            lengths = Atoms(cell=box).cell.cellpar()
            numbers = [*lengths[:3] / of_cell, *lengths[3:]] if cell == "abcABC" else (box.T / of_cell).reshape(-1)
            lines += [
                str(len(atoms)),
                f"# CELL({cell}): {' '.join(f'{n:.8f}' for n in numbers)}  Step: {every * k}  Bead: {bead} {what}{said}  "
                f"cell{{{units[3]}}}",
            ]
            rows = np.asarray(table) / in_ase_units(dimension, unit, "")
            lines += [f"{s:>8} {' '.join(f'{n:.10e}' for n in row)}" for s, row in zip(symbols, rows, strict=True)]
        (folder / f"{prefix}.{name}_{bead}.xyz").write_text("\n".join(lines) + "\n")
    head = [
        "# column   1     --> step : The current simulation time step.",
        "# column   2     --> time{picosecond} : The elapsed simulation time.",
        f"# column   3     --> potential{{{energy}}} : The physical system potential energy.",
    ]
    potential = [atoms.get_potential_energy() / in_ase_units("energy", energy, "") for atoms in frames]
    rows = [f"{every * k} {1e-3 * timestep_fs * every * k:.10f} {e:.12e}" for k, e in enumerate(potential)]
    (folder / f"{prefix}.out").write_text("\n".join([*head, *rows]) + "\n")
    return folder / f"{prefix}.pos_{bead}.xyz"
