"""Structures to start from: read, checked before anything is computed, and compared with those of an earlier run."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from spk_dt import properties
from spk_dt.labels.relabel import bare_structure
from spk_dt.trajectories.checked_database import read_metadata
from spk_dt.trajectories.fixed_atoms import fixes_positions, mobile_of, set_mobile
from spk_dt.trajectories.stored_properties import charge_and_spin, with_charge_and_spin

__all__ = ["Start", "differences", "prepare", "read_starts", "record"]

log = logging.getLogger(__name__)

#: part of the sum of covalent radii below which two atoms overlap
_OVERLAP = 0.5


@dataclass(frozen=True)
class Start:
    """A structure to start from.

    Args:
        atoms: the structure.
        where: where it comes from, for messages.
    """

    atoms: Atoms
    where: str


def read_starts(files: Iterable[str | Path], charge: int | None = None, spin: int | None = None) -> list[Start]:
    """All structures of files that ASE reads, in their order; ``file@INDEX`` takes some, as in ASE.

    Args:
        files: the files.
        charge: total charge of all of them, e; None leaves what the files say.
        spin: spin multiplicity, likewise.

    Raises:
        ValueError: if a file cannot be read or has no structure, or says another charge or spin.
        FileNotFoundError: if there is no such file.
    """
    starts = []
    for name in map(str, files):
        path, _, index = (name, "", "") if Path(name).exists() else name.rpartition("@")
        path = path or name
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no file '{path}' with structures to start from; see its name.")
        if Path(path).suffix == ".db" and "_property_unit_dict" in read_metadata(path):
            raise ValueError(
                f"'{path}' is a data set of SchNetPack, of which ASE would read no charge and spin. Write its frames to a "
                f"file to start from: spkdt frames starts.traj --data {path}"
            )
        try:
            found = ase.io.read(path, index or ":", do_not_split_by_at_sign=True)
        except (IndexError, StopIteration) as error:
            if not index:
                raise ValueError(f"'{name}' has no structure to start from, or ends within it.") from error
            raise ValueError(f"'{path}' has no structure @{index}; the first is @0, and the last @-1.") from error
        except Exception as error:  # each format has its own
            if isinstance(error, KeyError) and error.args[0] in ("D", "T"):
                raise ValueError(
                    f"'{name}' has an element '{error.args[0]}', which ASE does not know: write H, with its mass in Dalton "
                    "in a column 'masses' of extended XYZ."
                ) from error
            raise ValueError(
                f"'{name}' cannot be read as structures ({type(error).__name__}: {' '.join(str(error).split())}). ASE reads "
                "extended XYZ, POSCAR, CIF and many more; see with ase.io.read what it makes of this file."
            ) from error
        frames = found if isinstance(found, list) else [found]
        if not frames:
            raise ValueError(f"'{name}' has no structure to start from.")
        where = [f"'{path}'" if len(frames) == 1 else f"'{name}', structure {i + 1}" for i in range(len(frames))]
        stated = with_charge_and_spin(frames, charge, spin, f"'{name}'")
        starts += [Start(atoms, one) for atoms, one in zip(stated, where, strict=True)]
    return starts


def prepare(starts: Sequence[Start], drawn: bool) -> list[Atoms]:
    """Structures as they are simulated: what is fixed in constraints, velocities, masses, charge and spin.

    If some say their charge or spin, those that do not get the usual one, with a warning.

    Args:
        starts: the structures.
        drawn: whether velocities are drawn, so that theirs do not count.

    Raises:
        ValueError: if one of them cannot be simulated.
    """
    prepared = [_checked(start.atoms, start.where, drawn) for start in starts]
    for key, option, usual in (
        (properties.total_charge, "--charge", _usual_charge),
        (properties.spin_multiplicity, "--spin", _usual_multiplicity),
    ):
        silent = [i for i, atoms in enumerate(prepared) if key not in charge_and_spin(atoms, "")]
        if len(silent) < len(prepared):  # a database keeps what all of its frames have
            for i in silent:
                prepared[i].info[key] = usual(prepared[i])
            values = [f"{prepared[i].info[key]:g} for {starts[i].where}" for i in silent[:3]]
            if silent:
                more = f" and {len(silent) - 3} more" if len(silent) > 3 else ""
                log.warning(
                    "some structures say their %s; the others are taken as usual: %s%s. Write %s=... into all of them, or "
                    "name one for all with %s.",
                    *(key, ", ".join(values), more, key, option),
                )
    return prepared


def _usual_charge(atoms: Atoms) -> float:
    """Total charge of a structure that says none: the sum of its initial charges, zero without any, as in ASE."""
    return float(round(atoms.get_initial_charges().sum()))


def _usual_multiplicity(atoms: Atoms) -> float:
    """Multiplicity of a structure that says none: that of its initial magnetic moments, or else the lowest."""
    if atoms.has("initial_magmoms"):
        return 1.0 + round(abs(atoms.get_initial_magnetic_moments().sum()))
    charge = charge_and_spin(atoms, "").get(properties.total_charge, _usual_charge(atoms))
    return 1.0 + (int(atoms.numbers.sum()) - round(charge)) % 2


def record(atoms: Atoms) -> dict[str, Any]:
    """All of a prepared structure that decides its trajectory, as JSON can hold it without losing a digit."""
    known = {
        "atomic numbers": atoms.numbers,
        "cell": atoms.cell.array,
        "pbc": atoms.pbc,
        "positions": atoms.positions,
        "masses": atoms.get_masses(),
        "fixed components": ~mobile_of(atoms),
        "momenta": atoms.get_momenta(),
        "initial charges": atoms.get_initial_charges(),
        "initial magnetic moments": atoms.get_initial_magnetic_moments(),
    }
    return {key: value.tolist() for key, value in known.items()} | charge_and_spin(atoms, "")


def differences(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[tuple[str, Any, Any]]:
    """What the records of structures differ in: its name, and both values, of the first atom for what atoms have.

    One list may be longer; only structures in both are compared.
    """
    found: list[tuple[str, Any, Any]] = []
    for number, (old, new) in enumerate(zip(before, now, strict=False), start=1):
        for key in dict.fromkeys((*old, *new)):
            one, other = old.get(key), new.get(key)
            if one == other:
                continue
            name = f"{key} of structure {number}"
            if key == "atomic numbers" and sorted(old[key]) != sorted(new[key]):
                found.append((f"formula of structure {number}", _formula(old[key]), _formula(new[key])))
                break  # nothing else can be compared
            if isinstance(one, list) and isinstance(other, list) and key not in ("cell", "pbc"):
                atom = next(i for i, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])
                name, one, other = f"{key} of atom {atom} (from 0) of structure {number}", one[atom], other[atom]
            found.append((name, one, other))
    return found


def _formula(numbers: Sequence[int]) -> str:
    return Atoms(numbers=numbers).get_chemical_formula()


def _checked(atoms: Atoms, where: str, drawn: bool) -> Atoms:
    """A copy with constraints that hold atoms fixed only; refuses what cannot be simulated."""
    other = [type(one).__name__ for one in atoms.constraints if not fixes_positions(one)]
    if other:
        raise ValueError(
            f"{where} has the constraint {other[0]}; a database keeps which atoms, or components of them, are fixed, and "
            "nothing else. Remove it (Atoms.set_constraint), or hold atoms fixed."
        )
    if len(atoms) == 0 or not np.isfinite(atoms.positions).all():
        raise ValueError(f"{where} has no atoms, or positions that are not finite; repair the file.")
    if (atoms.numbers < 1).any():
        raise ValueError(f"{where} has atoms without an element (X); name their elements, or remove them.")
    if not (np.isfinite(masses := atoms.get_masses()).all() and (masses > 0).all()):
        raise ValueError(f"{where} has masses that are not positive, as {masses.min():g}; correct or remove them.")
    along = atoms.cell.array[atoms.pbc]
    if not np.isfinite(atoms.cell.array).all() or np.linalg.matrix_rank(along, tol=1e-6) < len(along):
        raise ValueError(f"{where} is periodic along a direction in which it has no cell; set the cell, or pbc.")
    first, second, distance = neighbor_list("ijd", atoms, (_OVERLAP * covalent_radii[atoms.numbers]).tolist())
    if len(distance):
        k = int(distance.argmin())
        raise ValueError(
            f"{where}: atoms {first[k]} and {second[k]} (from 0) are {distance[k]:.3g} Å apart, they overlap. Move them "
            "apart, and see whether the file is in Å."
        )
    mine = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, masses=masses)
    seen = bare_structure(
        atoms, where.replace("'", "")
    )  # what the reference method is told, and nothing else of info and arrays
    for key in {"initial_charges", "initial_magmoms"} & set(seen.arrays):
        mine.set_array(key, seen.arrays[key])
    mine.info |= charge_and_spin(atoms, where)
    try:
        set_mobile(mine, mobile_of(atoms))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if not mobile_of(mine).any():
        raise ValueError(f"{where}: all of its atoms are held fixed, so nothing would move.")
    if drawn:
        return mine
    mine.set_momenta(atoms.get_momenta())  # fixed atoms are at rest
    if not np.isfinite(mine.get_momenta()).all() or not np.any(mine.get_momenta()):
        hint = " (a column 'velocities' is not read; ASE's is 'momenta')" if "velocities" in atoms.arrays else ""
        raise ValueError(f"{where} has no velocities{hint}; draw them with --temperature.")
    return mine
