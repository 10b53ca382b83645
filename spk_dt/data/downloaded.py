"""Data modules whose trajectories are downloaded, and written as a database, on first use."""

import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from spk_dt.data.datamodule import TrajectoryDataModule
from spk_dt.folders.hold import hold

__all__ = ["DownloadedTrajectories"]


class DownloadedTrajectories(TrajectoryDataModule, ABC):
    """A data set that others publish; processes that start together download it once.

    Args:
        datapath: trajectory database.
        batch_size: windows per training batch.
        url: where the files are.
        kwargs: arguments of `TrajectoryDataModule`.

    Raises:
        ConnectionError: by `prepare_data`, if a file cannot be downloaded; it can also be put beside `datapath`.
        ValueError: by `prepare_data`, if a file is not what its checksum says, or is damaged.
    """

    def __init__(self, datapath: str, batch_size: int, url: str, **kwargs: Any) -> None:
        super().__init__(datapath, batch_size, **kwargs)
        self.url = url

    def prepare_data(self) -> None:
        """Download the files and write the database, if it is not there."""
        path = Path(self.datapath)
        path.parent.mkdir(parents=True, exist_ok=True)
        with hold(path.with_suffix(".lock"), wait=True):
            if not path.exists():
                folder = path.with_name(f".{path.stem}.download")
                finished = folder / path.name
                self._make(folder, finished)
                finished.rename(path)
                shutil.rmtree(folder)
            self._check(path)

    @abstractmethod
    def _make(self, folder: Path, out: Path) -> None:
        """Download to a folder beside the database, which is removed afterwards, and write the database `out` in it."""

    def _check(self, path: Path) -> None:
        """Refuse a database that is there already and of other data."""
