"""The data that were published with Dynamic Training: H2 on Pd6 anchored in graphene, AIMD with steps of 0.5 fs.

Žugec, Hadži Veljković, Alducin, Juaristi, J. Chem. Inf. Model. 2025, doi 10.1021/acs.jcim.5c01180; data doi
10.6084/m9.figshare.28498778. The list of files comes from figshare's interface (https://docs.figshare.com): name, size,
checksum and address of each.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from spk_dt.data.download import download, unpack
from spk_dt.data.downloaded import DownloadedTrajectories
from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.readers import dtegnn_files

__all__ = ["DTEGNN"]

_WANTED = re.compile(r"traj_\d+\.traj|velall-\d+")


class DTEGNN(DownloadedTrajectories):
    """The published trajectories, downloaded and written as a database to `datapath` on first use.

    Args:
        datapath: trajectory database.
        batch_size: windows per training batch.
        url: address that gives the list of files.
        kwargs: arguments of `TrajectoryDataModule`.

    Raises:
        ConnectionError: by `prepare_data`, if a file cannot be downloaded; the archive can also be put beside `datapath`.
        ValueError: by `prepare_data`, if a file is not what its checksum says, or is damaged.
    """

    URL = "https://api.figshare.com/v2/articles/28498778/files?page_size=1000"

    def __init__(self, datapath: str, batch_size: int, url: str = URL, **kwargs: Any) -> None:
        super().__init__(datapath, batch_size, url, **kwargs)

    def _make(self, folder: Path, out: Path) -> None:
        """Download, unless the archive was put beside the database, unpack and convert."""
        placed = Path(self.datapath).with_suffix(".zip")
        by_hand = (
            "Download the archive of https://doi.org/10.6084/m9.figshare.28498778 in another way, and put it there as "
            f"'{placed}'."
        )
        files = [placed] if placed.exists() else self._download(folder / "files", by_hand)
        unpacked = folder / "unpacked"
        shutil.rmtree(unpacked, ignore_errors=True)  # what an interrupted run has left may not be whole
        unpacked.mkdir(parents=True)
        for file in files:
            if _WANTED.fullmatch(file.name):
                shutil.copy2(file, unpacked)
            elif file.suffix.lower() == ".zip":
                self._unpack(file, unpacked, by_hand, keep=file == placed)
        folders = sorted({found.parent for found in unpacked.rglob("traj_*.traj") if dtegnn_files.recognises(found)})
        if not folders:
            names = ", ".join(f"'{file.name}'" for file in files)
            raise ValueError(f"there is no traj_N.traj with velall-N in {names}. {by_hand}")
        out.unlink(missing_ok=True)
        convert(folders, out)

    def _unpack(self, file: Path, unpacked: Path, by_hand: str, keep: bool) -> None:
        """Unpack an archive; a damaged one that was downloaded is removed, so that the next run downloads it again."""
        try:
            unpack(file, unpacked, _WANTED, by_hand)
        except ValueError:
            if not keep:
                file.unlink()
            raise

    def _download(self, folder: Path, by_hand: str) -> list[Path]:
        """The files of the list."""
        listing = folder / "files.json"
        listing.unlink(missing_ok=True)
        download(self.url, listing, by_hand)
        try:
            entries = [
                (Path(entry["name"]).name, entry["download_url"], entry["computed_md5"] or None, int(entry["size"]))
                for entry in json.loads(listing.read_text(encoding="utf-8"))
                if not entry.get("is_link_only", False)
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"'{self.url}' does not give a list of files ({error!r}). {by_hand}") from error
        files = []
        for name, url, md5, size in entries:
            files.append(folder / "content" / name)
            download(url, files[-1], by_hand, ("md5", md5) if md5 else None, size)
        return files
