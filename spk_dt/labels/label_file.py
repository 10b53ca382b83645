"""The file in which labels are kept while they are computed: lines of JSON, appended one by one.

The first line names the reference method, its versions and settings (`spk_dt.labels.provenance`). Each further line belongs
to one geometry:

    id         name of the geometry
    geometry   hash of what the reference method sees of it
    energy     eV, null if the reference method failed
    forces     [n_atoms][3] eV/Å, null if it failed
    stress     [3][3] eV/Å^3 with the sign of ASE, where it was asked for
    error      what went wrong, null if nothing did
    program    version of the program, where its output says it

Where two lines have the same id the later one counts. A process that is killed leaves at worst a last line that is cut off;
it is dropped when the file is opened again.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from spk_dt.labels.provenance import differing
from spk_dt.trajectories.stored_properties import charge_and_spin

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
    begin = json.dumps({"format": LABEL_FORMAT})[:-1].encode()
    if b"\n" not in content and (begin.startswith(content) or content.startswith(begin)):  # new, or cut off there
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
    _check_header(path, records[0], header)
    if records[-1] is None:
        end -= len(lines.pop()) + 1
        records.pop()
    whole = [record for record in records if record is not None]
    if len(whole) < len(records):
        raise ValueError(f"line {records.index(None) + 1} of '{path}' is damaged; remove it to have it computed again.")
    if end < len(content):
        os.truncate(path, end)
    for number, record in enumerate(whole[1:], 2):
        if problem := _problem(record):
            raise ValueError(f"line {number} of '{path}' {problem}; remove it to have it computed again.")
    return {record["id"]: record for record in whole[1:]}


def geometry_hash(atoms: Atoms) -> str:
    """A name for what a reference method sees of a frame.

    These are elements, positions, cell, periodicity, initial charges and moments, and the total charge and spin multiplicity
    in `Atoms.info` where they are there.
    """
    parts = (
        np.asarray(atoms.numbers, dtype=np.int64),
        atoms.positions,
        atoms.cell.array,
        np.asarray(atoms.pbc, dtype=np.int64),
        atoms.get_initial_charges(),
        atoms.get_initial_magnetic_moments(),
    )
    known = charge_and_spin(atoms, "a geometry")
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part + 0).tobytes())  # + 0 makes 0.0 of -0.0
    for key in sorted(known):
        digest.update(f"{key}={known[key]!r}".encode())
    return digest.hexdigest()[:32]


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The object on a line, None if it is damaged."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _problem(record: Mapping[str, Any]) -> str:
    """What is wrong with a record, in words; nothing if it can be used."""
    if not isinstance(record.get("id"), str) or not isinstance(record.get("geometry"), str):
        return "does not say which geometry it is of"
    for name, shape in (("energy", ()), ("forces", (None, 3)), ("stress", (3, 3))):
        if record.get(name) is None:
            continue
        try:
            values = np.array(record[name], dtype=float)
        except (ValueError, TypeError, OverflowError):
            return f"has {name} that are no numbers"
        fits = values.ndim == len(shape) and all(n is None or n == m for n, m in zip(shape, values.shape, strict=True))
        if not fits or not np.isfinite(values).all():
            return f"has {name} of shape {list(values.shape)}, or that are not finite"
    if record.get("error") is None and (record.get("energy") is None) != (record.get("forces") is None):
        return "has energy or forces alone"
    return ""


def _check_header(path: Path, recorded: Mapping[str, Any], header: Mapping[str, Any]) -> None:
    """Refuse labels of another reference method, or of other versions or settings of it."""
    remedy = "Labels of two methods do not mix: begin in another folder, or remove those in this one"
    if recorded.get("reference") != header.get("reference"):
        raise ValueError(
            f"'{path}' was made with the reference '{recorded.get('reference')}', not with '{header.get('reference')}'. "
            f"{remedy}."
        )
    found = differing(recorded, header)
    if found:
        before, now = (", ".join(f"{name}={values[i]!r}" for name, values in found.items()) for i in (0, 1))
        raise ValueError(
            f"'{path}' was made with the reference '{recorded.get('reference')}' with {before}, not with {now}. {remedy}, "
            "or go back to the versions and settings that it was made with."
        )
