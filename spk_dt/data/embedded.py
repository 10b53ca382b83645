"""The data set that comes with the package: H2 on Pd6 anchored in a graphene vacancy, GFN1-xTB, 0.5 fs, NVE.

19 trajectories of 401 frames, 39 atoms, of the protocol that ``spkdt generate`` follows. Three of them see the molecule
dissociate; one of these (traj_10) is among the five test trajectories. In the package the frames are integers (of 1e-8 Å,
1e-8 Å/fs and 1e-7 eV/Å), as differences from frame to frame, compressed.
"""

import logging
from collections.abc import Iterator, Sequence
from importlib.resources import as_file, files
from pathlib import Path

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from spk_dt.data.datamodule import TrajectoryDataModule
from spk_dt.folders.hold import hold
from spk_dt.trajectories.database import TrajectoryWriter

__all__ = ["SPLITS", "H2Pd6Graphene", "pack", "unpack"]

log = logging.getLogger(__name__)

#: trajectories of each partition
SPLITS = {
    "train": tuple(f"traj_{i:02d}" for i in (1, 2, 4, 5, 6, 8, 9, 11, 12, 14, 17)),
    "val": tuple(f"traj_{i:02d}" for i in (15, 16, 19)),
    "test": tuple(f"traj_{i:02d}" for i in (3, 7, 10, 13, 18)),
}

_RESOURCE = files("spk_dt.data") / "h2_pd6_graphene.npz"
_STEP = {"positions": 1e-8, "velocities": 1e-8, "forces": 1e-7}  # Å, Å/fs, eV/Å


class H2Pd6Graphene(TrajectoryDataModule):
    """The embedded data set, written as a database to `datapath` on first use.

    Takes the arguments of `TrajectoryDataModule`.
    """

    def prepare_data(self) -> None:
        """Write the database if it is not there."""
        path = Path(self.datapath)
        path.parent.mkdir(parents=True, exist_ok=True)
        with hold(path.with_suffix(".lock"), wait=True):
            if not path.exists():
                log.info("the embedded data set is written to '%s'", path)
                unpack(path)


def unpack(path: str | Path) -> None:
    """Write the embedded trajectories as a trajectory database.

    Args:
        path: database to create.

    Raises:
        FileExistsError: if `path` exists.
    """
    with (
        TrajectoryWriter(path, SPLITS, metadata={"reference": {"reference": "tblite:GFN1-xTB"}}) as writer,
        as_file(_RESOURCE) as resource,
    ):
        for name, frames, timestep_fs in _read(resource):
            writer.add(name, frames, timestep_fs)


def pack(trajectories: Sequence[Sequence[Atoms]], names: Sequence[str], timestep_fs: float, path: str | Path) -> None:
    """Write trajectories of one system as the compressed file that the package carries.

    Args:
        trajectories: [n_trajectories][n_frames] frames of equal number, with velocities, energy and forces; composition
            and cell are those of the first frame.
        names: name of each trajectory.
        timestep_fs: time between frames, in fs.
        path: ``.npz`` file to write.
    """
    first = trajectories[0][0]
    values = {
        "positions": [[atoms.positions for atoms in frames] for frames in trajectories],
        "velocities": [[atoms.get_velocities() * ase.units.fs for atoms in frames] for frames in trajectories],
        "forces": [[atoms.get_forces() for atoms in frames] for frames in trajectories],
    }
    integers = {key: np.round(np.array(value) / _STEP[key]).astype(np.int64) for key, value in values.items()}
    differences = {key: np.diff(value, axis=1, prepend=0) for key, value in integers.items()}
    if any(np.abs(value).max() > np.iinfo(np.int32).max for value in differences.values()):
        raise ValueError("a value is too large for 32-bit integers")
    np.savez_compressed(
        path,
        names=np.array(names),
        timestep_fs=timestep_fs,
        numbers=first.numbers,
        cell=first.cell.array,
        pbc=first.pbc,
        energy=np.array([[atoms.get_potential_energy() for atoms in frames] for frames in trajectories]),
        **{key: value.astype(np.int32) for key, value in differences.items()},  # type: ignore[arg-type]  # for allow_pickle
    )


def _read(path: Path) -> Iterator[tuple[str, Iterator[Atoms], float]]:
    """Name, frames and time step of each trajectory of a packed file."""
    with np.load(path) as packed:
        data = dict(packed)
    values = {key: np.cumsum(data[key], axis=1, dtype=np.int64) * step for key, step in _STEP.items()}

    def frames(trajectory: int) -> Iterator[Atoms]:
        for frame, energy in enumerate(data["energy"][trajectory]):
            atoms = Atoms(
                numbers=data["numbers"],
                positions=values["positions"][trajectory, frame],
                velocities=values["velocities"][trajectory, frame] / ase.units.fs,
                cell=data["cell"],
                pbc=data["pbc"],
            )
            forces = values["forces"][trajectory, frame]
            atoms.calc = SinglePointCalculator(atoms, energy=float(energy), forces=forces)
            yield atoms

    for trajectory, name in enumerate(data["names"]):
        yield str(name), frames(trajectory), float(data["timestep_fs"])
