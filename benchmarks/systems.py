"""What is computed on: windows of the embedded data, the same for every contender."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import ase.units
import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from schnetpack import properties
from schnetpack.data.loader import _atoms_collate_fn

from spk_dt import TrajectoryDataModule
from spk_dt import properties as dt_properties
from spk_dt.dynamics import VerletList

__all__ = ["batch_of", "datapath", "spread", "windows_of", "within"]


def datapath() -> str:
    """The embedded data set as a database; written once, it stays among the temporary files."""
    return str(Path(tempfile.gettempdir()) / "spk_dt_benchmarks" / "h2_pd6_graphene.db")


def spread(datamodule: TrajectoryDataModule, number: int, partition: str = "train") -> list[int]:
    """Indices of windows spread evenly over a partition."""
    available = len(getattr(datamodule, f"{partition}_dataset"))
    return np.linspace(0, available - 1, number).round().astype(int).tolist()


def batch_of(
    datamodule: TrajectoryDataModule, indices: Sequence[int], partition: str = "train"
) -> dict[str, torch.Tensor]:
    """Windows with all transforms of the data module, as its loaders batch them."""
    dataset = getattr(datamodule, f"{partition}_dataset")
    return _atoms_collate_fn([dataset[index] for index in indices])


def within(batch: Mapping[str, torch.Tensor], cutoff: float) -> dict[str, torch.Tensor]:
    """The batch with no pairs beyond the cutoff, which the data may have for later steps."""
    local = (properties.lidx_i, properties.lidx_j)
    return {key: value for key, value in batch.items() if key not in local} | VerletList(cutoff, 0.5).pairs(dict(batch))


def windows_of(
    datamodule: TrajectoryDataModule, indices: Sequence[int], partition: str = "train", length: int | None = None
) -> list[list[Atoms]]:
    """The same windows as structures with energies and forces; velocities in Å/fs, whatever ASE thinks."""
    dataset, frames = getattr(datamodule, f"{partition}_dataset"), datamodule.frames
    windows = []
    for index in indices:
        start = int(dataset.starts[index])
        trajectory = frames.trajectory_of(start)
        n_frames = dataset.length if length is None else length
        values = {key: frames.window(key, start, n_frames, trajectory) for key in frames.values}
        window = []
        for k in range(n_frames):
            atoms = Atoms(
                frames.atomic_numbers[trajectory],
                positions=values[properties.R][k],
                cell=frames.cell[start],
                pbc=frames.pbc[trajectory],
            )
            atoms.set_velocities(values[dt_properties.velocities][k] * ase.units.fs)
            energy, forces = float(np.ravel(values["energy"][k])[0]), values["forces"][k]
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
            window.append(atoms)
        windows.append(window)
    return windows
