"""One frame of each trajectory, as ASE structures: where simulations start that are compared with the trajectories."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from schnetpack import properties as spk_properties
from schnetpack.data import ASEAtomsData

from spk_dt import properties
from spk_dt.data.trajectories import PROPERTY_UNITS, Trajectory, read_trajectories

__all__ = ["start_frames"]


def start_frames(datapath: str | Path, split: str = "test", number: int | None = None, frame: int = 0) -> list[Atoms]:
    """One frame of each trajectory of a partition.

    Args:
        datapath: trajectory database.
        split: partition in the metadata of the database; if it has none, all trajectories are taken.
        number: number of trajectories, the first ones; None takes all.
        frame: which frame of each trajectory, from 0.

    Returns:
        frames in the units of ASE, with momenta, and with energy and forces in a calculator; name of the trajectory and
        index of the frame are in ``info``.

    Raises:
        FileNotFoundError: if there is no database.
        ValueError: if there is no such partition, or it has fewer trajectories, or one of them fewer frames.
    """
    if not Path(datapath).exists():
        raise FileNotFoundError(f"there is no trajectory database '{datapath}'.")
    metadata = connect(datapath).metadata
    trajectories = _of_partition(metadata, split, str(datapath))
    missing = set(PROPERTY_UNITS) - set(metadata["_property_unit_dict"])
    if missing:
        raise ValueError(
            f"'{datapath}' has no {', no '.join(sorted(missing))}; simulations cannot start from its frames."
        )
    if number is not None:
        if not 1 <= number <= len(trajectories):
            raise ValueError(
                f"number={number}: '{datapath}' has {len(trajectories)} trajectories for '{split}'; ask for 1 to "
                f"{len(trajectories)}."
            )
        trajectories = trajectories[:number]
    shortest = min(trajectories, key=lambda trajectory: trajectory.length)
    if not 0 <= frame < shortest.length:
        raise ValueError(
            f"frame={frame}: trajectory '{shortest.name}' of '{datapath}' has frames 0 to {shortest.length - 1}."
        )
    dataset = ASEAtomsData(str(datapath), property_units=PROPERTY_UNITS, distance_unit="Ang")
    return [read_frame(dataset, trajectory, frame) for trajectory in trajectories]


def _of_partition(metadata: Mapping[str, Any], split: str, source: str) -> list[Trajectory]:
    """The trajectories whose first frame belongs to the partition."""
    trajectories = read_trajectories(metadata, source)
    if "splits" not in metadata:
        return trajectories
    splits = metadata["splits"]
    if split not in splits:
        raise ValueError(f"'{source}' has no partition '{split}'; it has {', '.join(splits)}.")
    members = set(splits[split][0])
    found = [trajectory for trajectory in trajectories if trajectory.start in members]
    if not found:
        raise ValueError(f"partition '{split}' of '{source}' has no trajectories.")
    return found


def read_frame(dataset: ASEAtomsData, trajectory: Trajectory, frame: int) -> Atoms:
    """A frame of a trajectory, in the units of ASE."""
    row = dataset.conn.get(trajectory.start + frame + 1)
    values = {key: np.asarray(row.data[key]) * dataset.conversions[key] for key in PROPERTY_UNITS}
    atoms = row.toatoms()
    atoms.set_cell(row.cell * dataset.distance_conversion)
    atoms.set_positions(row.positions * dataset.distance_conversion)
    atoms.info = {"trajectory": trajectory.name, "frame": frame}
    atoms.set_velocities(values[properties.velocities] / ase.units.fs)
    energy = float(values[spk_properties.energy].sum())
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=values[spk_properties.forces])
    return atoms
