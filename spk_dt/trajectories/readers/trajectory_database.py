"""A trajectory database of our own, to do with it what a check of it has named.

Units and masses can be stated for any file (`spk_dt.trajectories.stated`). Here frames can also be left out, a trajectory be
cut in two, turned round, or have its forces or energies moved to the frames they belong to; time step and steps between
frames, which a user has once stated, may be stated anew.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import ase.units
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect

from spk_dt import properties, units
from spk_dt.folders.damage import reading
from spk_dt.trajectories.checked_database import read_metadata
from spk_dt.trajectories.database import PROPERTY_UNITS, VELOCITIES, Trajectory, read_trajectories
from spk_dt.trajectories.readers.base import RawTrajectory
from spk_dt.trajectories.stored_properties import OPTIONAL_UNITS, set_stored_properties

__all__ = ["OPTIONS", "read", "recognises"]

#: keywords of `read`
OPTIONS = ("take", "cut", "leave_out", "reverse", "shift")

_MAGIC = b"SQLite format 3\x00"
#: what can be moved along the trajectory
_SHIFTED = (properties.energy, properties.forces)


def recognises(path: Path) -> bool:
    """Whether it is an SQLite file with the name of a database of ASE."""
    try:
        with path.open("rb") as file:
            return path.suffix == ".db" and file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def read(
    path: Path,
    take: Sequence[str] | None = None,
    cut: Sequence[int] | None = None,
    leave_out: Sequence[int] | None = None,
    reverse: bool | None = None,
    shift: Mapping[str, int] | None = None,
) -> list[RawTrajectory]:
    """The trajectories in a database, or parts of one of them.

    Args:
        path: the database.
        take: names of the trajectories to take; None for all.
        cut: frames, counted from 0, after which the trajectory is cut.
        leave_out: frames to leave out.
        reverse: whether the order of the frames is turned round; their velocities stay as they are.
        shift: by how many frames ``forces`` or ``energy`` of a frame are found behind it; frames without them are left out.

    Raises:
        ValueError: if it is no trajectory database, has no such trajectory or frame, or frames are named while several
            trajectories are taken.
    """
    try:
        metadata = read_metadata(path)
    except (sqlite3.Error, KeyError, ValueError) as error:
        raise ValueError(f"'{path}' cannot be read as a database of ASE ({error}).") from None
    records = read_trajectories(metadata, str(path))
    if take is not None:
        unknown = sorted(set(take) - {record.name for record in records})
        if unknown:
            raise ValueError(f"'{path}' has no trajectory {', '.join(unknown)}, which --take names.")
        records = [record for record in records if record.name in take]
    factors = _factors(metadata, path)
    single = {"--cut": cut, "--leave-out": leave_out, "--reverse": reverse, "--shift": shift}
    given = [name for name, value in single.items() if value]
    if given and len(records) > 1:
        raise ValueError(f"'{path}' has {len(records)} trajectories; {given[0]} is for one, which --take names.")
    left = {"splits": "its partitions (splits)", "atomrefs": "its single-atom values (atomrefs)"}
    notes = tuple(f"{what} of '{path}' do not go along" for key, what in left.items() if metadata.get(key))
    found = []
    for record in records:
        order, parts = _order(record, path, cut or (), leave_out or (), bool(reverse), shift or {})
        for number, part in enumerate(parts):
            name = record.name if len(parts) == 1 else f"{record.name}_{number + 1}"
            found.append(
                RawTrajectory(
                    name=name,
                    files=(path,),
                    frames=partial(_frames, path, record, [order[i] for i in part], factors, dict(shift or {})),
                    timestep_fs=record.timestep_fs,
                    n_frames=len(part),
                    inner_steps=record.inner_steps,
                    restatable=True,
                    notes=notes,
                )
            )
    return found


def _order(
    record: Trajectory,
    path: Path,
    cut: Sequence[int],
    leave_out: Sequence[int],
    reverse: bool,
    shift: Mapping[str, int],
) -> tuple[list[int], list[range]]:
    """Frames that are taken, in their new order, and the parts into which they are cut; a frame alone is left out."""
    for option, frames in (("--cut", cut), ("--leave-out", leave_out)):
        outside = [frame for frame in frames if not 0 <= frame < record.length]
        if outside:
            raise ValueError(f"{option} {outside[0]}: '{record.name}' of '{path}' has frames 0 to {record.length - 1}.")
    if unknown := sorted(set(shift) - set(_SHIFTED)):
        raise ValueError(f"--shift {unknown[0]}: only {' and '.join(_SHIFTED)} can be moved along a trajectory.")
    far = [*shift.values(), 0]
    kept = [k for k in range(-min(far), record.length - max(far)) if k not in set(leave_out)]
    if not kept:
        raise ValueError(f"no frame of '{record.name}' of '{path}' is left.")
    ends = sorted({sum(k <= frame for k in kept) for frame in cut} | {0, len(kept)})
    parts = [range(low, high) for low, high in pairwise(ends) if high - low > 1 or len(ends) == 2]
    if reverse:
        kept = kept[::-1]
        parts = [range(len(kept) - part.stop, len(kept) - part.start) for part in reversed(parts)]
    if not parts:
        raise ValueError(f"--cut leaves no two frames of '{record.name}' of '{path}' together.")
    return kept, parts


def _factors(metadata: Mapping[str, Any], path: Path) -> dict[str, float]:
    """Factors to our units."""
    stored = metadata["_property_unit_dict"]
    ours = PROPERTY_UNITS | OPTIONAL_UNITS
    missing = [key for key in PROPERTY_UNITS if key not in stored]
    if missing:
        raise ValueError(f"'{path}' has no {', no '.join(missing)}.")
    factors = {
        key: 1.0 if stored[key] == ours[key] else units.conversion(stored[key], ours[key], key)
        for key in stored
        if key in ours
    }
    return factors | {properties.R: units.conversion(metadata.get("_distance_unit", "Ang"), "Ang", "distance")}


def _frames(
    path: Path, record: Trajectory, order: Sequence[int], factors: Mapping[str, float], shift: Mapping[str, int]
) -> Iterator[Atoms]:
    """Frames in the order asked for."""
    with reading(path, "trajectory database", "Get it again from where it comes from."), connect(path) as database:
        for index in order:
            row = database.get(record.start + index + 1)
            data = dict(row.data)
            for key, by in shift.items():
                data[key] = database.get(record.start + index + by + 1).data[key]
            values = {key: data[key] * factor for key, factor in factors.items() if key in data}
            atoms = row.toatoms()
            atoms.set_cell(atoms.cell.array * factors[properties.R])
            atoms.arrays["positions"] *= factors[properties.R]
            atoms.calc = SinglePointCalculator(
                atoms, energy=float(values[properties.energy].reshape(-1)[0]), forces=values[properties.forces]
            )
            set_stored_properties(atoms, values)
            if "momenta" in atoms.arrays:
                del atoms.arrays["momenta"]
            if record.velocities == VELOCITIES[0]:
                momenta = values[properties.velocities] / ase.units.fs * atoms.get_masses()[:, None]
                atoms.set_array("momenta", momenta, float, (3,))  # also of constrained atoms
            yield atoms
