"""What a ``log.lammps`` says of a run: potential energy at each step, style of units, time step.

The energies are those of the thermodynamic output in its usual form of one line a step: PotEng (``thermo_style custom step
pe``), or else E_pair + E_mol (``thermo_style one``). These add up to PotEng but for the energies of fixes, which it has
where ``fix_modify energy yes`` says so.
https://docs.lammps.org/thermo_style.html
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spk_dt.trajectories.readers.text import open_text

__all__ = ["LammpsLog", "read_lammps_log"]

_UNITS = re.compile(r"^\s*(?:Unit style\s*:|units)\s+(\w+)\s*$")
_STEP = re.compile(r"^\s*(?:Time step\s*:|timestep)\s+([-+.\deE]+)\s*$")
_ATOMS = re.compile(r"^Loop time of .* with (\d+) atoms")
_NORMALISED = re.compile(r"^\s*thermo_modify\b.*\bnorm\s+(?:yes|on|true)\b")


@dataclass(frozen=True)
class LammpsLog:
    """The content of a log.

    Args:
        path: the file.
        steps: [n] steps with thermodynamic output, ascending.
        energies: [n] potential energy at them, in the unit of the style.
        units: style of units, None if it is not said.
        timestep: time step in the unit of the style, None if it is not said, or changes.
        n_atoms: number of atoms, None if no run was completed.
    """

    path: Path
    steps: np.ndarray
    energies: np.ndarray
    units: str | None
    timestep: float | None
    n_atoms: int | None

    def energy(self, step: int, where: str) -> float:
        """Potential energy at a step.

        Raises:
            ValueError: if there is none, or there are several that differ; `where` names the frame.
        """
        first, last = np.searchsorted(self.steps, step, "left"), np.searchsorted(self.steps, step, "right")
        if first == last:
            raise ValueError(
                f"{where}: '{self.path}' has no energy of step {step}. Its thermodynamic output must contain every "
                "step of the dump: in LAMMPS, set thermo to the same interval as dump, or give the log that belongs "
                "to the dump."
            )
        if np.ptp(self.energies[first:last]) > 1e-6 * abs(self.energies[first]):
            found = ", ".join(f"{energy:g}" for energy in self.energies[first:last])
            raise ValueError(
                f"{where}: '{self.path}' has several energies of step {step} ({found}), of several runs. Cut the log, "
                "so that it has only the run of the dump."
            )
        return float(self.energies[last - 1])


def read_lammps_log(path: Path) -> LammpsLog:
    """Read a log.

    Raises:
        ValueError: if it has no potential energies, or those per atom.
        FileNotFoundError: if it does not exist.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no LAMMPS log '{path}'.")
    steps: list[int] = []
    energies: list[float] = []
    units, timesteps, n_atoms = set(), set(), set()
    columns: list[str] = []
    terms: list[int] = []
    with open_text(path) as file:
        for line in file:
            words = line.split()
            if "Step" in words and not any(word.isdecimal() for word in words):  # "Step 5" is of a fix print
                columns, terms = words, _energy_terms(words)
            elif match := _ATOMS.match(line):
                terms = []
                n_atoms.add(int(match[1]))
            elif terms and len(words) == len(columns) and line.endswith("\n"):
                try:
                    step, energy = int(words[columns.index("Step")]), sum(float(words[term]) for term in terms)
                except ValueError:
                    continue  # a warning between the lines
                steps.append(step)
                energies.append(energy)
            elif match := _UNITS.match(line):
                units.add(match[1])
            elif match := _STEP.match(line):
                timesteps.add(_number(match[1]))
            elif _NORMALISED.match(line):
                raise ValueError(f"'{path}' has energies per atom (thermo_modify norm yes); write it without.")
    if not steps:
        raise ValueError(
            f"'{path}' has no potential energies: it needs thermodynamic output with the columns Step and PotEng, in "
            "LAMMPS thermo_style custom step pe, or E_pair and E_mol in its place"
        )
    order = np.argsort(steps, kind="stable")
    return LammpsLog(
        path,
        np.array(steps)[order],
        np.array(energies)[order],
        units.pop() if len(units) == 1 else None,
        timesteps.pop() if len(timesteps) == 1 else None,
        n_atoms.pop() if len(n_atoms) == 1 else None,
    )


def _energy_terms(columns: list[str]) -> list[int]:
    """The columns that add up to the potential energy; none if they are not there."""
    for names in (["PotEng"], ["E_pair", "E_mol"]):
        if set(names) <= set(columns):
            return [columns.index(name) for name in names]
    return []


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
