"""Databases of others: SQLite files are looked at before ASE reads them.

SQLite runs what a file defines beside its tables: a view or a virtual table may compute rows without end when a table of its
name is read. A database of ASE has tables and indices only, and so has what is read here.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from ase.db import connect

from spk_dt.folders.damage import reading

__all__ = ["check_database", "read_metadata"]

_MAGIC = b"SQLite format 3\x00"
_TABLES = {"systems", "species", "keys", "text_key_values", "number_key_values", "information", "sqlite_sequence"}
#: bytes of metadata: so much in any case, and so much more for each frame (partitions and trajectories name frames)
_METADATA, _METADATA_OF_FRAME = 2**24, 256
_REMEDY = "Get it again from where it comes from, or convert the files of the simulation anew (spkdt convert)."


def check_database(file: str | Path) -> None:
    """Refuse an SQLite file that is damaged, or has more in it than a database of ASE.

    Args:
        file: the database.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is refused.
    """
    file = Path(file)
    if not file.exists():
        raise FileNotFoundError(f"there is no database '{file}'.")
    with reading(file, "database of ASE", _REMEDY):
        with file.open("rb") as stream:
            if stream.read(16) != _MAGIC:
                raise ValueError("it does not begin as SQLite does")
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master"):
                plain = kind == "table" and name in _TABLES and "virtual" not in str(sql).lower().split("(")[0]
                if not (plain or kind == "index"):
                    raise ValueError(f"it has a {kind} '{str(name)[:40]}', which no database of ASE has")
            (rows,) = connection.execute("SELECT COUNT(*) FROM systems").fetchone()
            (longest,) = connection.execute("SELECT MAX(LENGTH(value)) FROM information").fetchone()
            if (longest or 0) > _METADATA + _METADATA_OF_FRAME * rows:
                raise ValueError(f"its metadata have {longest} bytes, for {rows} frames")


def read_metadata(file: str | Path) -> dict[str, Any]:
    """The metadata of a database that was checked.

    Args:
        file: the database.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is refused.
    """
    check_database(file)
    with reading(file, "database of ASE", _REMEDY):
        metadata = connect(file, use_lock_file=False).metadata
        if not isinstance(metadata, dict):
            raise ValueError("its metadata are no mapping")
        return metadata
