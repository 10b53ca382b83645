"""What a ``log.lammps`` says of a run: potential energy and pressure at each step, style of units, time step, masses.

The energies are those of the thermodynamic output, with one line a step (``thermo_style one``, ``custom``), with several
(``multi``), or as YAML: PotEng, or else E_pair + E_mol. These add up to PotEng but for the energies of fixes, which it has
where ``fix_modify energy yes`` says so. The pressure is Pxx, Pyy, Pzz, Pxy, Pxz, Pyz (``thermo_style custom ... pxx
pyy pzz pxy pxz pyz``), the tensor with the part of the momenta.
https://docs.lammps.org/thermo_style.html
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TextIO

import numpy as np

from spk_dt.trajectories.readers.text import open_text

__all__ = ["LammpsLog", "read_lammps_log"]

_UNITS = re.compile(r"^\s*(?:Unit style\s*:|units)\s+(\w+)\s*$")
_STEP = re.compile(r"^\s*(?:Time step\s*:|timestep)\s+([-+.\deE]+)\s*$")
_ATOMS = re.compile(r"^Loop time of .* with (\d+) atoms")
_NORMALISED = re.compile(r"^\s*thermo_modify\b.*\bnorm\s+(?:yes|on|true)\b")
_FIX = re.compile(r"^\s*fix\s+(\S+)\s+\S+\s+(\S+)")
_UNFIX = re.compile(r"^\s*unfix\s+(\S+)")
_MASS = re.compile(r"^\s*mass\s+(\S+)\s+(\S+)")
_MULTI = re.compile(r"^-+\s+Step\s+(\d+)\s+-+\s")
_TERM = re.compile(r"(\S+)\s*=\s*(\S+)")
_YAML_NAMES = re.compile(r"^keywords:\s*\[(.*)\]\s*$")
_YAML_ROW = re.compile(r"^\s*- \[(.*)\]\s*$")

#: fixes that add friction and random forces to the forces of atoms, which a dump then holds together
_NOISY = ("langevin", "langevin/kk", "langevin/drude", "brownian", "brownian/sphere", "viscous", "gld", "gle", "ttm")

_PRESSURE = ("Pxx", "Pyy", "Pzz", "Pxy", "Pxz", "Pyz")


@dataclass(frozen=True)
class LammpsLog:
    """The content of a log.

    Args:
        path: the file.
        steps: [n] steps with thermodynamic output, ascending.
        energies: [n] potential energy at them, in the unit of the style.
        pressures: [n, 6] Pxx, Pyy, Pzz, Pxy, Pxz, Pyz at them, in the unit of the style, nan where they are not there.
        masses: mass by type, as the commands ``mass`` say.
        units: style of units, None if it is not said.
        timestep: time step in the unit of the style, None if it is not said, or changes.
        n_atoms: number of atoms, None if no run was completed.
        noisy: by step, the fix that has added friction and random forces to the forces of atoms.
    """

    path: Path
    steps: np.ndarray
    energies: np.ndarray
    pressures: np.ndarray
    masses: dict[str, float]
    units: str | None
    timestep: float | None
    n_atoms: int | None
    noisy: Mapping[int, str]

    def energy(self, step: int, where: str) -> float:
        """Potential energy at a step.

        Raises:
            ValueError: if there is none, or there are several that differ; `where` names the frame.
        """
        rows = self._rows(step)
        if len(rows) == 0:
            raise ValueError(
                f"{where}: '{self.path}' has no energy of step {step}. Its thermodynamic output must contain every "
                "step of the dump: in LAMMPS, set thermo to the same interval as dump, or give the log that belongs "
                "to the dump."
            )
        energies = self.energies[rows]
        if np.ptp(energies) > 1e-6 * abs(energies[0]):
            found = ", ".join(f"{energy:g}" for energy in energies)
            raise ValueError(
                f"{where}: '{self.path}' has several energies of step {step} ({found}), of several runs. Cut the log, "
                "so that it has only the run of the dump."
            )
        return float(energies[-1])

    def pressure(self, step: int) -> np.ndarray | None:
        """Pressure tensor at a step, [6] as in `pressures`; None if it is not there."""
        found = self.pressures[self._rows(step)]
        return found[-1] if len(found) and np.isfinite(found[-1]).all() else None

    def noise(self, step: int) -> str | None:
        """Why the forces at a step are not those of the potential; None if they are."""
        if (style := self.noisy.get(step)) is None:
            return None
        return (
            f"its forces hold the friction and the random forces of fix {style}, which are not of the potential. LAMMPS "
            "computes those of the potential again with the command rerun, in an input without this fix"
        )

    def _rows(self, step: int) -> range:
        return range(int(np.searchsorted(self.steps, step, "left")), int(np.searchsorted(self.steps, step, "right")))


def read_lammps_log(path: Path) -> LammpsLog:
    """Read a log.

    Raises:
        ValueError: if it has no potential energies, or those per atom.
        FileNotFoundError: if it does not exist.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no LAMMPS log '{path}'.")
    rows: list[tuple[int, float, list[float]]] = []
    units, timesteps, n_atoms = set(), set(), set()
    masses: dict[str, float] = {}
    fixes: dict[str, str] = {}
    noisy: dict[int, str] = {}
    n_before = 0
    with open_text(path) as file:
        for line in chain(_other_lines(file, rows), [""]):
            if not line or _ATOMS.match(line):  # the rows before it are of a run with these fixes
                style = next((one for one in fixes.values() if one in _NOISY), None)
                noisy |= {} if style is None else {row[0]: style for row in rows[n_before:]}
                n_before = len(rows)
            if match := _ATOMS.match(line):
                n_atoms.add(int(match[1]))
            elif match := _FIX.match(line):
                fixes[match[1]] = match[2]
            elif match := _UNFIX.match(line):
                fixes.pop(match[1], None)
            elif match := _UNITS.match(line):
                units.add(match[1])
            elif match := _STEP.match(line):
                timesteps.add(_number(match[1]))
            elif (match := _MASS.match(line)) and (mass := _number(match[2])):
                masses[match[1]] = mass
            elif _NORMALISED.match(line):
                raise ValueError(f"'{path}' has energies per atom (thermo_modify norm yes); write it without.")
    if not rows:
        raise ValueError(
            f"'{path}' has no potential energies: it needs thermodynamic output with the columns Step and PotEng, in "
            "LAMMPS thermo_style custom step pe, or E_pair and E_mol in its place"
        )
    rows.sort(key=lambda row: row[0])
    return LammpsLog(
        path,
        np.array([step for step, _, _ in rows]),
        np.array([energy for _, energy, _ in rows]),
        np.array([pressure for _, _, pressure in rows]),
        masses,
        units.pop() if len(units) == 1 else None,
        timesteps.pop() if len(timesteps) == 1 else None,
        n_atoms.pop() if len(n_atoms) == 1 else None,
        noisy,
    )


def _other_lines(file: TextIO, rows: list[tuple[int, float, list[float]]]) -> Iterator[str]:
    """The lines that are not thermodynamic output; that goes to `rows`: step, energy and pressure."""
    columns: list[str] = []  # of the table that is being read
    multi: dict[str, str] = {}  # of the step that is being read
    for line in file:
        words = line.split()
        if "Step" in words and not any(word.isdecimal() for word in words):  # "Step 5" is of a fix print
            columns = words
        elif match := _YAML_NAMES.match(line):
            columns = [word.strip(" '\"") for word in match[1].split(",") if word.strip()]
        elif match := _YAML_ROW.match(line):
            _add(rows, dict(zip(columns, [word.strip() for word in match[1].split(",") if word.strip()], strict=False)))
        elif match := _MULTI.match(line):
            _add(rows, multi)
            multi = {"Step": match[1]}
        elif multi and line.endswith("\n") and len(words) >= 3 and words[1] == "=":
            multi |= dict(_TERM.findall(line))
        elif columns and len(words) == len(columns) and line.endswith("\n") and _number(words[0]) is not None:
            _add(rows, dict(zip(columns, words, strict=True)))
        else:
            if _ATOMS.match(line):
                _add(rows, multi)
                columns, multi = [], {}
            yield line
    _add(rows, multi)


def _add(rows: list[tuple[int, float, list[float]]], found: Mapping[str, str]) -> None:
    """Add what a step has, if it has a potential energy; a warning between the lines has none."""
    terms = next((names for names in (["PotEng"], ["E_pair", "E_mol"]) if set(names) <= set(found)), None)
    if terms is None or not found.get("Step", "").isdecimal():
        return
    values = [_number(found[name]) for name in terms]
    pressure = [_number(found.get(name, "")) for name in _PRESSURE]
    energies = [value for value in values if value is not None]
    if len(energies) == len(terms):
        rows.append((int(found["Step"]), sum(energies), [np.nan if p is None else p for p in pressure]))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
