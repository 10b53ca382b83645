"""Rows of a study, as `benchmarks.study.commands` appends them to its files."""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.study.arms import ARMS

__all__ = ["Row", "by_arm", "grouped", "longest", "read_rows"]

Row = dict[str, Any]


def read_rows(file: Path) -> list[Row]:
    """All rows of a file; none if it is not there."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def by_arm(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows of each arm, in the order of `ARMS`."""
    groups = grouped(rows, "arm")
    return {arm: groups[arm] for arm in ARMS if arm in groups}


def grouped(rows: Iterable[Row], *keys: str) -> dict[Any, list[Row]]:
    """Rows with the same values of some keys; the values, one or a tuple, are the keys."""
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[keys[0]] if len(keys) == 1 else tuple(row[key] for key in keys)].append(row)
    return dict(groups)


def longest(rows: Iterable[Row]) -> list[Row]:
    """Of each model and arm the rows with the longest simulations; rows without any are left out."""
    groups = grouped([row for row in rows if "long_run" in row], "model", "arm", "picoseconds")
    most = {(model, arm): max(ps for m, a, ps in groups if (m, a) == (model, arm)) for model, arm, _ in groups}
    return [row for (model, arm, ps), same in groups.items() if ps == most[model, arm] for row in same]
