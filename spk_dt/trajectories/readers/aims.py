"""Output of FHI-aims: positions and velocities (Å/ps) of each step behind its energies and forces (eV/Å).

https://fhi-aims.org. The forces are the gradient of what it calls the electronic free energy. ASE's reader takes velocities
over in Å/ps, and refuses the output of a run that was killed.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase.units
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from spk_dt.trajectories.readers.incomplete import IncompleteFrameError
from spk_dt.trajectories.readers.text import floats, following_lines, open_text

__all__ = ["frames", "recognises"]

_ENERGY = re.compile(r"\s*\| (Total energy uncorrected|Electronic free energy)\s*:\s*(\S+) eV")
_KEYS = {"Total energy uncorrected": "energy", "Electronic free energy": "free_energy"}
_TIME = re.compile(r"\s*\| Simulation time\s*:\s*(\S+) ps")


def recognises(path: Path, lines: list[str]) -> bool:
    """Whether it is an output of FHI-aims."""
    return any("Invoking FHI-aims" in line for line in lines)


def frames(path: Path) -> Iterator[Atoms]:
    """Frames of a file.

    Raises:
        ValueError: if a step lacks energy or forces, or the file is not of molecular dynamics.
        IncompleteFrameError: if the file ends within a step.
    """
    cell: list[list[float]] = []
    seen: dict[str, Any] = {}
    index = 0
    dynamics = False
    with open_text(path) as file:
        for line in file:
            if match := _ENERGY.match(line):
                seen[_KEYS[match[1]]] = floats([[match[2]]], path, index)[0, 0]
            elif match := _TIME.match(line):
                seen["time"] = floats([[match[1]]], path, index)[0, 0]
            elif line.startswith("  | Unit cell:"):
                cell = floats([row.split()[1:4] for row in following_lines(file, 3, path, index)], path, index).tolist()
            elif line.startswith("  Total atomic forces (unitary forces cleaned) [eV/Ang]"):
                seen["forces"] = []
                while (line := file.readline()).startswith("  |") and len(row := line.split()) == 5:
                    seen["forces"].append(row[2:])
            elif "Molecular dynamics time step" in line:
                dynamics = True
            elif "Atomic structure (and velocities) as used in the preceding time step" in line:
                missing = [key for key in ("energy", "forces") if key not in seen]
                if missing:
                    raise ValueError(f"'{path}', frame {index}: there is no {missing[0]}; the file is damaged there.")
                yield _frame(_structure(file, path, index), cell, seen, path, index)
                index, seen = index + 1, {}
    if not dynamics:
        raise ValueError(f"'{path}' is not of molecular dynamics (MD_run): its frames have no time step.")
    if "energy" in seen or index == 0:
        raise IncompleteFrameError(path, index, "there is no structure behind its forces")


def _structure(file: Any, path: Path, index: int) -> list[list[str]]:
    """Words of the lines of a structure, until one of hyphens."""
    rows: list[list[str]] = []
    while not (line := file.readline()).startswith("------"):
        if not line.endswith("\n"):
            raise IncompleteFrameError(path, index, "there is no line of hyphens at its end")
        rows.append(line.split())
    return [row for row in rows if row and row[0] in ("atom", "velocity", "lattice_vector")]


def _frame(rows: list[list[str]], cell: list[list[float]], seen: dict[str, Any], path: Path, index: int) -> Atoms:
    """A frame from its structure, energies and forces."""

    def table(name: str) -> Any:
        return floats([row[1:4] for row in rows if row[0] == name], path, index)

    vectors = table("lattice_vector").tolist() or cell
    atoms = Atoms([row[4] for row in rows if row[0] == "atom"], table("atom"), cell=vectors or None, pbc=bool(vectors))
    velocities, forces = table("velocity"), floats(seen["forces"], path, index)
    for what, values in (("velocities", velocities), ("forces", forces)):
        if len(values) not in ((0, len(atoms)) if what == "velocities" else (len(atoms),)):
            raise ValueError(f"'{path}', frame {index}: there are {len(values)} {what} of {len(atoms)} atoms.")
    if len(velocities):
        atoms.set_velocities(velocities * 1e-3 / ase.units.fs)
    if "time" in seen:
        atoms.info["time_fs"] = 1000.0 * seen["time"]
    energies = {key: seen[key] for key in _KEYS.values() if key in seen}
    atoms.calc = SinglePointCalculator(atoms, forces=forces, **energies)
    return atoms
