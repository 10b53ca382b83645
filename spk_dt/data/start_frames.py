"""One frame of each trajectory, as ASE structures: where simulations start that are compared with the trajectories."""

from collections.abc import Iterable
from pathlib import Path

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress
from schnetpack import properties as spk_properties
from schnetpack.data import ASEAtomsData

from spk_dt import properties
from spk_dt.data.partition import read_partition
from spk_dt.trajectories.checked_database import read_metadata
from spk_dt.trajectories.database import PROPERTY_UNITS, Trajectory, read_trajectories
from spk_dt.trajectories.stored_properties import set_spin_multiplicity, set_total_charge
from spk_dt.units import conversion

__all__ = ["open_dataset", "read_frame", "spread_frames", "start_frames"]


def start_frames(
    datapath: str | Path,
    split: str | None = None,
    number: int | None = None,
    frame: int = 0,
    split_files: Iterable[Path] = (),
) -> list[Atoms]:
    """One frame of each trajectory of a partition.

    Args:
        datapath: trajectory database.
        split: partition, see `spk_dt.data.partition.read_partition`.
        number: number of trajectories, the first ones; None takes all.
        frame: which frame of each of them, from 0, of those in the partition.
        split_files: of runs on these data, see `spk_dt.data.partition.read_partition`.

    Returns:
        frames in the units of ASE, with momenta, and with energy, forces and, where the data have it, stress in a
        calculator; name of the trajectory and index of the frame are in ``info``.

    Raises:
        FileNotFoundError: if there is no database.
        ValueError: if there is no such partition, or it has fewer trajectories, or one of them fewer frames.
    """
    partition = read_partition(datapath, split, split_files).first(number)
    dataset = open_dataset(datapath)
    shortest = min(partition.parts, key=lambda part: len(part.frames))
    if not 0 <= frame < len(shortest.frames):
        raise ValueError(
            f"frame={frame}: trajectory '{shortest.trajectory.name}' of '{datapath}' has frames 0 to "
            f"{len(shortest.frames) - 1} in '{partition.name}'."
        )
    return [read_frame(dataset, part.trajectory, part.frames[frame]) for part in partition.parts]


def spread_frames(datapath: str | Path, at_most: int | None = None) -> list[Atoms]:
    """Frames at equal distances over all trajectories of a database, in the units of ASE.

    Args:
        datapath: trajectory database.
        at_most: number of frames; None takes all.

    Raises:
        ValueError: see `open_dataset`.
    """
    dataset = open_dataset(datapath)
    trajectories = read_trajectories(read_metadata(datapath), str(datapath))
    frames = [(one, frame) for one in trajectories for frame in range(one.length)]
    number = min(len(frames), at_most or len(frames))
    return [read_frame(dataset, *frames[i * len(frames) // number]) for i in range(number)]


def open_dataset(datapath: str | Path) -> ASEAtomsData:
    """A database in the units of `PROPERTY_UNITS` and Å.

    Raises:
        ValueError: if it lacks one of these properties.
    """
    missing = set(PROPERTY_UNITS) - set(read_metadata(datapath)["_property_unit_dict"])
    if missing:
        raise ValueError(
            f"'{datapath}' has no {', no '.join(sorted(missing))}; simulations cannot start from its frames."
        )
    return ASEAtomsData(str(datapath), property_units=PROPERTY_UNITS, distance_unit="Ang")


def read_frame(dataset: ASEAtomsData, trajectory: Trajectory, frame: int) -> Atoms:
    """A frame of a trajectory, in the units of ASE."""
    row = dataset.conn.get(trajectory.start + frame + 1)
    values = {key: np.asarray(row.data[key]) * dataset.conversions[key] for key in PROPERTY_UNITS}
    atoms = row.toatoms()
    atoms.set_cell(row.cell * dataset.distance_conversion)
    atoms.set_positions(row.positions * dataset.distance_conversion)
    atoms.info = {"trajectory": trajectory.name, "frame": frame}
    if properties.total_charge in row.data:
        set_total_charge(atoms, float(np.sum(row.data[properties.total_charge])))
    if properties.spin_multiplicity in row.data:
        set_spin_multiplicity(atoms, float(np.sum(row.data[properties.spin_multiplicity])))
    atoms.set_velocities(values[properties.velocities] / ase.units.fs)
    energy = float(values[spk_properties.energy].sum())
    results = {"energy": energy, "forces": values[spk_properties.forces]}
    if properties.stress in row.data:
        to_ase = conversion(dataset.units[properties.stress], "eV/Ang/Ang/Ang", properties.stress)
        results["stress"] = full_3x3_to_voigt_6_stress(np.reshape(row.data[properties.stress], (3, 3))) * to_ase
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms
