"""Rows of a study, as `benchmarks.study.commands` appends them to its files."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.study.arms import ARMS

__all__ = [
    "Row",
    "by_arm",
    "grouped",
    "longest",
    "longest_of_each",
    "most_starts",
    "read_rows",
    "several_seeds",
    "usual",
]

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
    """Of each model, training and arm the rows with the longest simulations; rows without any are left out."""
    return longest_of_each([row for row in rows if "long_run" in row], "model", "budget", "windows", "arm")


def longest_of_each(rows: Iterable[Row], *keys: str) -> list[Row]:
    """Of rows with the same values of some keys those with the longest simulations."""
    groups = grouped(rows, *keys)
    most = {key: max(row["picoseconds"] for row in same) for key, same in groups.items()}
    return [row for key, same in groups.items() for row in same if row["picoseconds"] == most[key]]


def present(rows: Iterable[Row]) -> list[Row]:
    """Of each model and arm the rows of the present version, or all if there are only some of earlier commits."""
    groups = grouped(rows, "model", "arm").values()
    return [row for same in groups for row in [one for one in same if "commit" not in one] or same]


def most_starts(rows: Iterable[Row]) -> list[Row]:
    """Of ensembles of the same model, run, thermostat and length that with the most starts, which has the others' too."""
    groups = grouped(rows, "model", "budget", "windows", "temperature", "picoseconds", "arm", "seed")
    return [max(same, key=lambda row: row["starts"]) for same in groups.values()]


def usual(rows: Iterable[Row]) -> list[Row]:
    """Rows of the compute and the number of windows that most of them have."""
    groups = grouped(rows, "budget", "windows")
    return max(groups.values(), key=len)


def several_seeds(rows: list[Row]) -> list[Row]:
    """Rows of the arms that have been run with more than one seed of their model; all if there are none."""
    seeds = Counter((model, arm) for model, arm, _ in grouped(rows, "model", "arm", "seed"))
    return [row for row in rows if seeds[row["model"], row["arm"]] > 1] or rows
