"""Files from the network: whole or not at all, and what to do by hand where there is no network."""

import errno
import hashlib
import logging
import re
import stat
import zipfile
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from spk_dt.folders.whole_file import whole_file

__all__ = ["download", "unpack"]

log = logging.getLogger(__name__)

_CHUNK = 2**20

#: an archive that unpacks to more bytes than this, to more than this times its own size, or to more files, is refused
_MOST_BYTES, _MOST_TIMES, _MOST_FILES = 200 * 2**30, 200, 100_000

#: longest time without an answer of a server, s
_TIMEOUT = 60.0


def download(
    url: str,
    path: Path,
    by_hand: str,
    checksum: tuple[str, str] | None = None,
    size: int | None = None,
) -> None:
    """Download a file; it appears under its name only when all of it is there. A file that is there already is kept.

    Args:
        url: where it is.
        path: file to write.
        by_hand: what to do where this fails, for the error message.
        checksum: name of the algorithm (``sha256``, or ``md5`` where nothing better is published) and its hexadecimal
            digest, if it is known.
        size: number of bytes, if it is known; otherwise what the server says.

    Raises:
        ConnectionError: if it cannot be had, or breaks off.
        ValueError: if it is not the file that the checksum is of.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        _fetch(url, part, by_hand, checksum, size)


def _fetch(url: str, part: Path, by_hand: str, checksum: tuple[str, str] | None, size: int | None) -> None:
    """Write what a server sends to a file, and check it."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    log.info("downloading %s", url)
    algorithm, expected = checksum or ("sha256", None)
    digest, done = hashlib.new(algorithm, usedforsecurity=False), 0
    try:
        response = urlopen(Request(url, headers={"User-Agent": "spk_dt"}), timeout=_TIMEOUT)
    except (OSError, HTTPException, ValueError) as error:
        raise ConnectionError(f"'{url}' cannot be downloaded ({error}). {by_hand}") from error
    with response, part.open("wb") as file, Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        announced = response.headers.get("Content-Length", "")
        total = int(announced) if size is None and announced.isdecimal() else size
        task = bar.add_task(url.rpartition("/")[2], total=total)
        while True:
            try:
                chunk = response.read(_CHUNK)
            except (OSError, HTTPException) as error:
                raise ConnectionError(f"'{url}' broke off after {done} bytes ({error}). {by_hand}") from error
            if not chunk:
                break
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            bar.update(task, completed=done)
    if done == 0 or (total is not None and done != total):
        raise ConnectionError(f"'{url}' broke off: {done} bytes came, {total or 'some'} were expected. {by_hand}")
    if expected is not None and digest.hexdigest() != expected.lower():
        raise ValueError(
            f"'{url}' is not what it should be: its {algorithm.upper()} is {digest.hexdigest()}, not {expected}. {by_hand}"
        )
    log.info("%s of '%s': %s", algorithm.upper(), url, digest.hexdigest())


def unpack(archive: Path, folder: Path, wanted: re.Pattern[str], by_hand: str) -> list[Path]:
    """Unpack the files of a ZIP archive whose names match; nothing is written outside of the folder.

    Args:
        archive: the archive.
        folder: where to.
        wanted: pattern of the names, without their folders.
        by_hand: what to do where this fails, for the error message.

    Returns:
        the files, in the folders that they have in the archive.

    Raises:
        ValueError: if the archive is damaged, has names that lead out of the folder, or would unpack to far more than data
            compress to.
    """
    files = []
    try:
        with zipfile.ZipFile(archive) as content:
            _refuse_bomb(archive, content, by_hand)
            for member in content.infolist():
                path = Path(member.filename)
                if member.is_dir() or wanted.fullmatch(path.name) is None or "__MACOSX" in path.parts:
                    continue
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise ValueError(f"'{archive}' has a link '{member.filename}', which data have not. {by_hand}")
                if path.is_absolute() or ".." in path.parts:
                    raise ValueError(
                        f"'{archive}' has a file '{member.filename}' that is not below the archive. {by_hand}"
                    )
                files.append(Path(content.extract(member, folder)))
    except Exception as error:  # a damaged archive can make the libraries raise anything
        disk = isinstance(error, OSError) and error.errno != errno.EINVAL  # that is of an offset that makes no sense
        if disk or (type(error) is ValueError and str(archive) in str(error)):
            raise
        raise ValueError(f"'{archive}' is damaged ({error}). {by_hand}") from error
    return files


def _refuse_bomb(archive: Path, content: zipfile.ZipFile, by_hand: str) -> None:
    """Refuse an archive that would fill the disk; zipfile reads no more of a file than its header says."""
    members = content.infolist()
    n_bytes = sum(member.file_size for member in members)
    if len(members) > _MOST_FILES or n_bytes > min(_MOST_BYTES, _MOST_TIMES * archive.stat().st_size):
        raise ValueError(
            f"'{archive}' ({archive.stat().st_size} bytes) would unpack to {n_bytes} bytes in {len(members)} files, more "
            f"than data do. {by_hand}"
        )
