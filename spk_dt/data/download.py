"""Files from the network: whole or not at all, and what to do by hand where there is no network."""

import hashlib
import logging
import re
import zipfile
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

__all__ = ["download", "unpack"]

log = logging.getLogger(__name__)

_CHUNK = 2**20


def download(
    url: str,
    path: Path,
    by_hand: str,
    md5: str | None = None,
    size: int | None = None,
    timeout: float = 60.0,
) -> None:
    """Download a file; it appears under its name only when all of it is there. A file that is there already is kept.

    Args:
        url: where it is.
        path: file to write.
        by_hand: what to do where this fails, for the error message.
        md5: checksum, if it is known.
        size: number of bytes, if it is known; otherwise what the server says.
        timeout: longest time without an answer, in s.

    Raises:
        ConnectionError: if it cannot be had, or breaks off.
        ValueError: if it is not the file that the checksum is of.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        _fetch(url, part, by_hand, md5, size, timeout)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def _fetch(url: str, part: Path, by_hand: str, md5: str | None, size: int | None, timeout: float) -> None:
    """Write what a server sends to a file, and check it."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    log.info("downloading %s", url)
    checksum, done = hashlib.md5(usedforsecurity=False), 0
    try:
        response = urlopen(Request(url, headers={"User-Agent": "spk_dt"}), timeout=timeout)
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
            checksum.update(chunk)
            done += len(chunk)
            bar.update(task, completed=done)
    if done == 0 or (total is not None and done != total):
        raise ConnectionError(f"'{url}' broke off: {done} bytes came, {total or 'some'} were expected. {by_hand}")
    if md5 is not None and checksum.hexdigest() != md5.lower():
        raise ValueError(f"'{url}' is not what it should be: its MD5 is {checksum.hexdigest()}, not {md5}. {by_hand}")


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
        ValueError: if the archive is damaged, or has names that lead out of the folder.
    """
    files = []
    try:
        with zipfile.ZipFile(archive) as content:
            for member in content.infolist():
                path = Path(member.filename)
                if member.is_dir() or wanted.fullmatch(path.name) is None or "__MACOSX" in path.parts:
                    continue
                if path.is_absolute() or ".." in path.parts:
                    raise ValueError(
                        f"'{archive}' has a file '{member.filename}' that is not below the archive. {by_hand}"
                    )
                files.append(Path(content.extract(member, folder)))
    except Exception as error:  # a damaged archive can make the libraries raise anything
        if isinstance(error, OSError) or (type(error) is ValueError and str(archive) in str(error)):
            raise
        raise ValueError(f"'{archive}' is damaged ({error}). {by_hand}") from error
    return files
