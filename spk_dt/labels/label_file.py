"""The file in which labels are kept while they are computed: lines of JSON, appended one by one.

The first line names the reference method. Each further line belongs to one geometry:

    id         name of the geometry
    geometry   hash of what the reference method sees of it
    energy     eV, null if the reference method failed
    forces     [n_atoms][3] eV/Å, null if it failed
    error      what went wrong, null if nothing did

A process that is killed leaves at worst a last line that is cut off; it is dropped when the file is opened again.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

__all__ = ["LABEL_FORMAT", "geometry_hash", "open_labels"]

#: what the first line says it is
LABEL_FORMAT = "spk_dt labels, version 1"


def open_labels(path: Path, header: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The records in a file by id; a last line that was cut off is removed, a missing file is begun.

    Args:
        path: file to read, or to begin.
        header: its first line: format and reference method.

    Raises:
        ValueError: if the file holds something else, or labels of another reference method, or is damaged before its last
            line.
    """
    content = path.read_bytes() if path.exists() else b""
    first = (json.dumps(header) + "\n").encode()
    if len(content) < len(first) and first.startswith(content):  # new, or interrupted in its first line
        path.write_bytes(first)
        return {}
    end = content.rfind(b"\n") + 1
    lines = content[:end].splitlines()
    records = [_parsed(line) for line in lines]
    if not records or records[0] is None or records[0].get("format") != LABEL_FORMAT:
        raise ValueError(f"'{path}' does not hold labels in the format '{LABEL_FORMAT}'; choose another name.")
    if len(lines) == 1:  # nothing was computed yet
        path.write_bytes(first)
        return {}
    if records[0] != header:
        raise ValueError(
            f"'{path}' was made with the reference {_described(records[0])}, not with {_described(header)}. Labels of "
            "two methods do not mix: begin in another folder, or remove those in this one."
        )
    if records[-1] is None:
        end -= len(lines.pop()) + 1
        records.pop()
    whole = [record for record in records if record is not None]
    if len(whole) < len(records):
        raise ValueError(f"line {records.index(None) + 1} of '{path}' is damaged; remove it to have it computed again.")
    if end < len(content):
        os.truncate(path, end)
    return {record["id"]: record for record in whole[1:]}


def geometry_hash(atoms: Atoms) -> str:
    """A name for what a reference method sees of a frame: elements, positions, cell, periodicity, charges, moments."""
    parts = (
        np.asarray(atoms.numbers, dtype=np.int64),
        atoms.positions,
        atoms.cell.array,
        np.asarray(atoms.pbc, dtype=np.int64),
        atoms.get_initial_charges(),
        atoms.get_initial_magnetic_moments(),
    )
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part + 0).tobytes())  # + 0 makes 0.0 of -0.0
    return digest.hexdigest()[:32]


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The object on a line, None if it is damaged."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _described(header: Mapping[str, Any]) -> str:
    """The reference method of a file, for a message."""
    settings = header.get("settings")
    return f"'{header.get('reference')}'" + (f" with {settings}" if settings else "")
