"""From a trajectory database to arrays; nothing is read from SQLite after this.

Above a size the arrays are files beside the database, mapped into memory.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from ase.db.row import AtomsRow
from schnetpack import properties as spk_properties
from schnetpack.data import ASEAtomsData

from spk_dt import properties, units
from spk_dt.folders.damage import reading
from spk_dt.folders.hold import LOCK, hold
from spk_dt.trajectories.database import Trajectory, read_trajectories
from spk_dt.trajectories.fixed_atoms import mobile_of
from spk_dt.trajectories.frames import Frames

__all__ = ["load_frames", "rows_of"]

#: atoms whose rows are fetched at once
_PIECE = 40_000

_REQUIRED = (spk_properties.energy, spk_properties.forces, properties.velocities)


def load_frames(
    dataset: ASEAtomsData,
    max_memory_gb: float = 4.0,
    progress: Callable[[int], None] | None = None,
) -> Frames:
    """Read a trajectory database into arrays.

    Args:
        dataset: the database, opened with the units and properties asked for. Velocities are converted to the length
            unit per unit of time that follows from the units of length and energy, and the stress, unless its unit is
            asked for, to energy per volume.
        max_memory_gb: above this size the arrays are kept in a folder beside the database and mapped into memory.
        progress: called with the number of frames read so far.

    Raises:
        ValueError: if energy, forces or velocities are missing, or the metadata does not fit the rows.
    """
    with reading(dataset.datapath, "trajectory database", "Get it again, or convert the files of the simulation anew."):
        return _load(dataset, max_memory_gb, progress)


def rows_of(dataset: ASEAtomsData, first: int, last: int) -> Iterator[Any]:
    """Rows of a database in order, some at a time: ASE fetches all that it selects before it gives the first one.

    Args:
        dataset: the database.
        first: index of the first row, counted from 0.
        last: index behind the last one.

    Raises:
        ValueError: if a row is missing.
    """
    size = max(1, _PIECE // dataset.conn.get(first + 1).natoms)
    for start in range(first, last, size):
        stop = min(start + size, last)
        rows = list(dataset.conn.select(f"id>={start + 1},id<={stop}", sort="id"))
        if len(rows) < stop - start:
            raise ValueError(
                f"'{dataset.datapath}' has {len(rows)} of the {stop - start} rows from {start} on; write it anew."
            )
        yield from rows


def _load(dataset: ASEAtomsData, max_memory_gb: float, progress: Callable[[int], None] | None) -> Frames:
    source = dataset.datapath
    available = dataset.available_properties
    missing = [key for key in _REQUIRED if key not in available]
    if missing:
        raise ValueError(
            f"'{source}' has no {', no '.join(missing)} (it has {', '.join(available)}). Dynamic training needs energy, "
            "forces and velocities of every frame."
        )
    keys = [key for key in available if key in _REQUIRED or key in dataset.load_properties]
    trajectories = tuple(read_trajectories(dataset.metadata, source))
    n_frames = sum(trajectory.length for trajectory in trajectories)
    if n_frames != len(dataset):
        raise ValueError(
            f"the trajectories of '{source}' have {n_frames} frames in all, but it has {len(dataset)} rows; write it anew."
        )
    factors, unit_of = _conversions(dataset, keys)

    first_rows = [dataset.conn.get(trajectory.start + 1) for trajectory in trajectories]
    numbers = tuple(row.numbers.copy() for row in first_rows)
    shapes, atomwise = _shapes(first_rows, keys, trajectories)
    fill = partial(_fill, dataset, keys, factors, trajectories, numbers, atomwise, progress)
    if sum(8 * prod(shape) for shape in shapes.values()) <= 1e9 * max_memory_gb:
        arrays = {key: np.empty(shape) for key, shape in shapes.items()}
        fill(arrays)
    else:
        arrays = _mapped(Path(source), shapes, unit_of, fill)

    energy_unit = unit_of[spk_properties.energy]
    time_unit = units.time_unit_in_fs(energy_unit, dataset.distance_unit)
    return Frames(
        source=source,
        trajectories=trajectories,
        atomic_numbers=numbers,
        masses=tuple(row.toatoms().get_masses() for row in first_rows),
        pbc=tuple(np.asarray(row.pbc, dtype=bool) for row in first_rows),
        time_step=tuple(trajectory.timestep_fs / time_unit for trajectory in trajectories),
        cell=arrays.pop(spk_properties.cell),
        values=arrays,
        atomwise=atomwise,
        units=unit_of,
        distance_unit=dataset.distance_unit,
        mobile=tuple(mobile_of(row.toatoms()) for row in first_rows),
    )


def _conversions(dataset: ASEAtomsData, keys: Sequence[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Factor and final unit of each property; velocities and stress go to the units that follow from length and energy."""
    factors = {key: float(dataset.conversions[key]) for key in keys}
    unit_of = {key: dataset.units[key] for key in keys}
    energy_unit, distance_unit = unit_of[spk_properties.energy], dataset.distance_unit
    expected = f"{energy_unit}/{distance_unit}"
    if abs(units.conversion(unit_of[spk_properties.forces], expected, "forces") - 1.0) > 1e-6:
        raise ValueError(
            f"'{dataset.datapath}': forces in '{unit_of[spk_properties.forces]}' do not belong to energies in "
            f"'{energy_unit}' and lengths in '{distance_unit}'; set data.property_units and data.distance_unit so that "
            "they do."
        )
    to_length_per_fs = units.conversion(unit_of[properties.velocities], f"{distance_unit}/fs", properties.velocities)
    factors[properties.velocities] *= to_length_per_fs * units.time_unit_in_fs(energy_unit, distance_unit)
    unit_of[properties.velocities] = f"{distance_unit} sqrt({energy_unit}/Dalton)/{distance_unit}"
    if factors.get(properties.stress) == 1.0:  # no other unit than that of the database was asked for
        per_volume = f"{energy_unit}/{distance_unit}/{distance_unit}/{distance_unit}"
        factors[properties.stress] *= units.conversion(unit_of[properties.stress], per_volume, properties.stress)
        unit_of[properties.stress] = per_volume
    return factors, unit_of


def _shapes(
    first_rows: Sequence[AtomsRow], keys: Sequence[str], trajectories: Sequence[Trajectory]
) -> tuple[dict[str, tuple[int, ...]], frozenset[str]]:
    """Shapes of all arrays, and which properties have one row per atom.

    SchNetPack concatenates along the first dimension, which is 1 for a property of the system and the number of atoms
    for one of atoms.
    """
    n_frames = sum(trajectory.length for trajectory in trajectories)
    n_rows = sum(t.length * row.natoms for t, row in zip(trajectories, first_rows, strict=True))
    atomwise = {spk_properties.R}
    shapes = {spk_properties.cell: (n_frames, 3, 3), spk_properties.R: (n_rows, 3)}
    for key in keys:
        values = [np.asarray(row.data[key]) for row in first_rows]
        if all(value.shape[0] == row.natoms for value, row in zip(values, first_rows, strict=True)):
            atomwise.add(key)
        elif any(value.shape[0] != 1 for value in values):
            raise ValueError(
                f"property '{key}' has shape {values[0].shape} in the first frame; its first dimension must be 1, or the "
                "number of atoms."
            )
        shapes[key] = (n_rows if key in atomwise else n_frames, *values[0].shape[1:])
    return shapes, frozenset(atomwise)


def _fill(
    dataset: ASEAtomsData,
    keys: Sequence[str],
    factors: dict[str, float],
    trajectories: Sequence[Trajectory],
    numbers: Sequence[np.ndarray],
    atomwise: frozenset[str],
    progress: Callable[[int], None] | None,
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Read all rows of the database into the arrays."""
    first_atom = 0
    for trajectory, expected in zip(trajectories, numbers, strict=True):
        n_atoms = len(expected)
        rows = rows_of(dataset, trajectory.start, trajectory.start + trajectory.length)
        for frame, row in zip(trajectory.frames, rows, strict=True):
            if not np.array_equal(row.numbers, expected):
                raise ValueError(
                    f"frame {frame} of '{dataset.datapath}' has other atoms than the first of its trajectory "
                    f"'{trajectory.name}'."
                )
            atoms = slice(first_atom, first_atom + n_atoms)
            arrays[spk_properties.cell][frame] = row.cell * dataset.distance_conversion
            arrays[spk_properties.R][atoms] = row.positions * dataset.distance_conversion
            for key in keys:
                arrays[key][atoms if key in atomwise else slice(frame, frame + 1)] = row.data[key] * factors[key]
            first_atom += n_atoms
            if progress is not None:
                progress(frame + 1)


def _mapped(
    source: Path,
    shapes: dict[str, tuple[int, ...]],
    unit_of: dict[str, str],
    fill: Callable[[Mapping[str, np.ndarray]], None],
) -> dict[str, np.ndarray]:
    """Arrays as files in a folder beside the database, filled once and used again while database and units are the same.

    New files take the place of earlier ones. A process that has these mapped keeps them: they go when it ends.
    """
    folder = source.with_suffix(".frames")
    folder.mkdir(exist_ok=True)
    marker = folder / "complete.json"
    names = {key: folder / f"{key.strip('_')}.npy" for key in shapes}
    stat = source.stat()
    stamp = json.dumps({"size": stat.st_size, "modified": stat.st_mtime_ns, "units": unit_of, "shapes": shapes})
    with hold(folder / LOCK, wait=True):
        if not (marker.exists() and marker.read_text() == stamp):
            parts = {key: name.with_suffix(".part") for key, name in names.items()}
            arrays = {
                key: np.lib.format.open_memmap(parts[key], mode="w+", dtype=np.float64, shape=shape)
                for key, shape in shapes.items()
            }
            fill(arrays)
            for array in arrays.values():
                array.flush()
            marker.unlink(missing_ok=True)
            for key, part in parts.items():
                part.replace(names[key])
            marker.write_text(stamp)
        # before another process may replace them
        return {key: np.load(name, mmap_mode="r") for key, name in names.items()}
