"""The hidden file in which a trajectory database grows: ``.name.part.db``, named ``name.db`` when it is complete.

Rows are committed every `COMMIT_EVERY` frames, so a program that is killed loses no more than these. What was begun, and
from which source, is kept in the metadata: ``[first row, fingerprint of the source]`` of each trajectory, the last of which
may be incomplete, and the properties found in it. With it a later writer continues where the earlier one was.
"""

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.db import connect
from ase.db.sqlite import SQLite3Database, all_tables

from spk_dt.folders.hold import hold

__all__ = ["COMMIT_EVERY", "PartFile", "Row", "fingerprint"]

log = logging.getLogger(__name__)

#: frames from one commit to the next
COMMIT_EVERY = 500

#: structure, key-value pairs and data
Row = tuple[Atoms, dict[str, Any], dict[str, np.ndarray]]

_BEGUN = "begun"
_FOUND = "found"


def fingerprint(source: Any) -> str:
    """A short text that is the same for the same source only.

    Args:
        source: anything that JSON can hold.
    """
    return hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()[:16]


class PartFile:
    """The growing database.

    Args:
        target: name of the database when it is complete.
        resume: whether to continue a part that an interrupted writer has left.
        units: unit of each property.
    """

    def __init__(self, target: Path, resume: bool, units: Mapping[str, str]) -> None:
        self.target = target
        self.path = target.with_name(f".{target.stem}.part.db")
        self._resume = resume
        self._units = dict(units)
        self._begun: list[tuple[int, str]] = []
        self._found: list[tuple[frozenset[str], frozenset[str]]] = []
        self._lock = contextlib.ExitStack()

    @property
    def n_rows(self) -> int:
        """Number of rows that are committed."""
        return connect(self.path, use_lock_file=False).count()

    @property
    def found(self) -> list[tuple[frozenset[str], frozenset[str]]]:
        """Of each trajectory begun: the properties that all of its rows have, and those that at least one has."""
        return list(self._found)

    def check_target(self) -> None:
        """Refuse a target that exists; nothing is overwritten.

        Raises:
            FileExistsError: if it does.
        """
        if self.target.exists():
            if self.path.exists() and self.path.samefile(self.target):  # killed between the two halves of the naming
                self.path.unlink()
            raise FileExistsError(f"'{self.target}' exists. Remove it or choose another name.")

    def open(self) -> None:
        """Create the file, or continue it.

        Raises:
            FileExistsError: if the target exists; another process may have finished it meanwhile.
            ValueError: if another process is writing it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock.enter_context(
            hold(self.path.with_suffix(".lock"), f"writes '{self.target}'; wait for it, or choose another name.")
        )
        try:
            self.check_target()
        except FileExistsError:
            self._lock.close()
            raise
        self._begun, self._found = self._read_begun() if self._resume else ([], [])
        if not self._begun:
            self.remove()
            # what schnetpack.data.ASEAtomsData.create writes
            connect(self.path).metadata = {
                "_property_unit_dict": self._units,
                "_distance_unit": "Ang",
                "atomrefs": {},
            }

    def begin(self, index: int, start: int, source: str) -> int | None:
        """Begin trajectory number `index` at row `start`; rows of another source are removed.

        Args:
            index: number of the trajectory.
            start: its first row, counted from 0.
            source: fingerprint of where it comes from.

        Returns:
            its length if it is here completely, else None.
        """
        known = self._begun[index : index + 2]
        if not known or known[0] != (start, source):
            if known:
                log.warning(f"'{self.target}' was begun with other files or options; they are converted again.")
            self.cut(start)
            self._begun = [*self._begun[:index], (start, source)]
            self._found = self._found[:index]
            if self._resume:
                self._note(connect(self.path, use_lock_file=False))
        return known[1][0] - start if known and known[0] == (start, source) and len(known) == 2 else None

    def _note(self, database: SQLite3Database) -> None:
        """Write down, for a later writer, what is begun and which properties were found."""
        found = [[sorted(each), sorted(some)] for each, some in self._found]
        database.metadata = {**database.metadata, _BEGUN: self._begun, _FOUND: found}

    def write(self, rows: Iterable[Row]) -> int:
        """Append rows to the trajectory begun last: structure, key-value pairs and data of each.

        Returns:
            number of rows written.
        """
        iterator = iter(rows)
        total, written = 0, COMMIT_EVERY
        while written == COMMIT_EVERY:
            with connect(self.path, use_lock_file=False) as database:
                written = 0
                before = list(self._found)
                for row in islice(iterator, COMMIT_EVERY):
                    database.write(*row)
                    self._add_found(frozenset(row[2]))
                    written += 1
                if self._resume and self._found != before:
                    self._note(database)  # in the transaction of the rows
            total += written
        return total

    def _add_found(self, keys: frozenset[str]) -> None:
        """Take note of the properties of a row of the trajectory begun last."""
        last = len(self._begun) - 1
        each, some = self._found[last] if last < len(self._found) else (keys, keys)
        self._found[last:] = [(each & keys, some | keys)]

    def cut(self, start: int) -> None:
        """Remove all rows from `start` on; the next row written gets its number."""
        if self.n_rows > start:
            database = connect(self.path, use_lock_file=False)
            with database, database.managed_connection() as connection:
                for table in reversed(all_tables):
                    connection.execute(f"DELETE FROM {table} WHERE id > ?", (start,))
                connection.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'systems'", (start,))

    def finish(self, n_rows: int, metadata: Mapping[str, Any]) -> None:
        """Keep the first `n_rows` rows, add the metadata, and give the file its name.

        Raises:
            FileExistsError: if another process has given it to another file meanwhile.
        """
        self.cut(n_rows)
        database = connect(self.path, use_lock_file=False)
        before = database.metadata
        database.metadata = {**{key: value for key, value in before.items() if key not in (_BEGUN, _FOUND)}, **metadata}
        try:
            self._give_name()
        except FileExistsError:
            database.metadata = before  # so that it can be continued
            raise

    def _give_name(self) -> None:
        """Rename the file, without replacing another."""
        try:
            os.link(self.path, self.target)  # rename would replace
        except OSError:  # the target exists, or the file system has no hard links
            self.check_target()
            self.path.rename(self.target)
        else:
            self.path.unlink()

    def close(self) -> None:
        """Let go of the file; it is left only where it may be continued and has rows."""
        if not (self._resume and self.path.exists() and self.n_rows > 0):
            self.remove()
        self._lock.close()

    def remove(self) -> None:
        """Remove the file; its journal last, since without it an interrupted database would look complete."""
        self.path.unlink(missing_ok=True)
        self.path.with_name(f"{self.path.name}-journal").unlink(missing_ok=True)

    def _read_begun(self) -> tuple[list[tuple[int, str]], list[tuple[frozenset[str], frozenset[str]]]]:
        """What an interrupted writer has begun and found; nothing if there is no file, or one that cannot be continued."""
        if not self.path.exists():
            return [], []
        with contextlib.suppress(sqlite3.Error, OSError, ValueError, TypeError, KeyError):
            metadata = connect(self.path).metadata
            begun = [(int(start), str(source)) for start, source in metadata[_BEGUN]]
            return begun, [(frozenset(each), frozenset(some)) for each, some in metadata[_FOUND]]
        return [], []
