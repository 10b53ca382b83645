"""MD17: molecules at 500 K, DFT (PBE with Tkatchenko-Scheffler van der Waals), steps of 0.5 fs.

Chmiela, Tkatchenko, Sauceda, Poltavsky, Schütt, Müller, Sci. Adv. 3, e1603015 (2017), doi 10.1126/sciadv.1603015. The files
are those that `schnetpack.datasets.MD17` takes. They hold neither velocities, which are recovered from the positions, nor
the kicks of the thermostat; with ``replay_kicks`` these are found from the velocities, and replayed in rollouts.
"""

from collections.abc import Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.db import connect
from ase.formula import Formula
from schnetpack.data import ASEAtomsData

from spk_dt.data.download import download
from spk_dt.data.downloaded import DownloadedTrajectories
from spk_dt.trajectories.database import VELOCITIES, TrajectoryWriter
from spk_dt.trajectories.readers import md17_npz
from spk_dt.trajectories.readers.base import RawTrajectory
from spk_dt.trajectories.unwrapping import checked_frames
from spk_dt.trajectories.velocities import recover_velocities

__all__ = ["MOLECULES", "MD17Trajectory"]

#: file and formula of each molecule
MOLECULES = {
    "aspirin": ("md17_aspirin.npz", "C9H8O4"),
    "azobenzene": ("azobenzene_dft.npz", "C12H10N2"),
    "benzene": ("md17_benzene2017.npz", "C6H6"),
    "ethanol": ("md17_ethanol.npz", "C2H6O"),
    "malonaldehyde": ("md17_malonaldehyde.npz", "C3H4O2"),
    "naphthalene": ("md17_naphthalene.npz", "C10H8"),
    "paracetamol": ("paracetamol_dft.npz", "C8H9NO2"),
    "salicylic_acid": ("md17_salicylic.npz", "C7H6O3"),
    "toluene": ("md17_toluene.npz", "C7H8"),
    "uracil": ("md17_uracil.npz", "C4H4N2O2"),
}

_KEY = "md17"  # of the metadata that tell what a database was made from


class MD17Trajectory(DownloadedTrajectories):
    """The trajectory of a molecule of MD17, downloaded and written as a database to `datapath` on first use.

    Args:
        datapath: trajectory database.
        batch_size: windows per training batch.
        molecule: one of `MOLECULES`.
        max_frames: how many frames to take, from the start; None takes all, which are 100,000 to a million.
        url: folder that the files are downloaded from.
        kwargs: arguments of `TrajectoryDataModule`.

    Raises:
        ValueError: if the molecule is not known, or `max_frames` is below three; by `prepare_data`, if the file or the
            database is not of this molecule, or the file is damaged.
        ConnectionError: by `prepare_data`, if the file cannot be downloaded; it can also be put beside `datapath`.
    """

    URL = "http://www.quantum-machine.org/gdml/data/npz/"

    def __init__(
        self,
        datapath: str,
        batch_size: int,
        molecule: str,
        max_frames: int | None = None,
        url: str = URL,
        **kwargs: Any,
    ) -> None:
        super().__init__(datapath, batch_size, url, **kwargs)
        if molecule not in MOLECULES:
            raise ValueError(f"data.molecule='{molecule}' is not of MD17; choose {', '.join(MOLECULES)}.")
        if max_frames is not None and max_frames < 3:
            raise ValueError(f"data.max_frames={max_frames}: velocities are recovered from at least three frames.")
        self.molecule = molecule
        self.max_frames = max_frames

    def _make(self, folder: Path, out: Path) -> None:
        """Download, unless the file was put beside the database, and convert."""
        name = MOLECULES[self.molecule][0]
        source = placed = Path(self.datapath).with_name(name)
        if not placed.exists():
            source = folder / name
            url = f"{self.url.rstrip('/')}/{name}"
            download(url, source, f"Download it in another way, and put it there as '{placed}'.")
        try:
            self._write(source, out)
        except ValueError:
            if source != placed:
                source.unlink()  # so that the next run downloads it again
            raise

    def _write(self, source: Path, out: Path) -> None:
        """Write the database; what an interrupted run has written is continued."""
        trajectories = md17_npz.read(source)
        out.unlink(missing_ok=True)
        with TrajectoryWriter(out, resume=True) as writer:
            for raw, length in self._parts(trajectories):
                assert raw.timestep_fs is not None  # known of these files
                frames = recover_velocities(_checked(raw, length, self.molecule), raw.timestep_fs)
                stat = source.stat()
                depends_on = [version("spk_dt"), source.name, stat.st_size, stat.st_mtime_ns, length]
                writer.add(raw.name, frames, raw.timestep_fs, 1, VELOCITIES[1], depends_on)
        ASEAtomsData(str(out)).update_metadata(**{_KEY: self._made_from()})

    def _parts(self, trajectories: list[RawTrajectory]) -> Iterator[tuple[RawTrajectory, int]]:
        """The trajectories, and how many frames of each are taken."""
        left = self.max_frames
        for raw in trajectories:
            assert raw.n_frames is not None  # known of these files
            length = raw.n_frames if left is None else min(left, raw.n_frames)
            if length >= 3:
                yield raw, length
            left = None if left is None else left - length

    def _made_from(self) -> dict[str, Any]:
        """What the database is made from."""
        return {"molecule": self.molecule, "max_frames": self.max_frames}

    def _check(self, path: Path) -> None:
        """Refuse a database of another molecule, or of another number of frames."""
        database = connect(path, use_lock_file=False)
        found, wanted = database.metadata.get(_KEY, self._made_from()), self._made_from()
        if found != wanted:
            raise ValueError(
                f"'{path}' was made with {found}, not {wanted} (data.molecule, data.max_frames). Remove it to make it "
                "anew, or set data.datapath."
            )
        _same_molecule(Formula(database.get(1).formula), self.molecule, path)


def _same_molecule(formula: Formula, molecule: str, path: Path) -> None:
    """Refuse the file of another molecule."""
    expected = Formula(MOLECULES[molecule][1])
    if formula.count() != expected.count():
        raise ValueError(
            f"'{path}' is of {formula:hill}, but {molecule} is {expected:hill}. Set data.molecule or data.datapath."
        )


def _checked(raw: RawTrajectory, length: int, molecule: str) -> Iterator[Atoms]:
    """The first frames of a trajectory, of this molecule."""
    path = raw.files[0]
    for index, atoms in enumerate(checked_frames(islice(raw.frames(), length), f"'{path}'")):
        if index == 0:
            _same_molecule(atoms.symbols.formula, molecule, path)
        yield atoms
