"""What an evaluation writes beside its simulations: settings, tables, numbers."""

import csv
import json
import math
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols

from spk_dt.data.continuation import EMBEDDED, Continuation
from spk_dt.evaluation import force_error
from spk_dt.evaluation.force_error import ErrorCurve
from spk_dt.evaluation.simulate import Group
from spk_dt.folders.file_hash import file_hash
from spk_dt.folders.hold import LOCK, hold

__all__ = ["new_folder", "settings", "without_nan", "write_curves", "write_numbers", "write_table"]


@contextmanager
def new_folder(out: Path) -> Iterator[None]:
    """Hold a folder for an evaluation, which must not exist, or be empty.

    Raises:
        FileExistsError: if there is something in it.
        ValueError: if another process evaluates to it.
    """
    _refuse_full(out)
    with hold(out / LOCK, f"evaluates to '{out}'; wait for it, or choose another folder."):
        _refuse_full(out)
        yield


def _refuse_full(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(path.name != LOCK for path in out.iterdir())):
        raise FileExistsError(f"'{out}' is not empty. Remove it or choose another folder.")


def settings(
    data: str | Path,
    models: Mapping[str, str | Path],
    starts: Sequence[Continuation],
    groups: Sequence[Group],
    hashed: bool = True,
) -> dict[str, Any]:
    """What ``settings.json`` says of data, models, start frames and versions; if `hashed`, with the hash of each model."""
    place = {index: (g, molecule) for g, group in enumerate(groups) for molecule, index in enumerate(group.members)}
    numbers = sorted({int(z) for one in starts for z in one.start.numbers})
    packages = ("spk_dt", "schnetpack", "torch", "ase")
    return {
        "data": str(data) if str(data) == EMBEDDED else str(Path(data).resolve()),
        "models": {name: str(Path(file).resolve()) for name, file in models.items()},
        "model_sha256": {name: file_hash(file) for name, file in models.items() if hashed},
        "elements": [chemical_symbols[z] for z in numbers],
        "starts": [
            {
                "trajectory": one.trajectory,
                "frame": one.frame,
                "group": place[index][0],
                "molecule": place[index][1],
                "timestep_fs": one.timestep_fs,
                "reference_steps": one.following,
                "inner_steps": one.inner_steps,
            }
            for index, one in enumerate(starts)
        ],
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
    }


def write_numbers(
    out: Path, metrics: Mapping[str, Any], distributions: Mapping[str, Any], motion: Mapping[str, Any]
) -> None:
    """``metrics.json``, ``distributions.json`` and ``motion.json``."""
    (out / "metrics.json").write_text(json.dumps(without_nan(metrics), indent=2) + "\n")
    (out / "distributions.json").write_text(json.dumps(distributions) + "\n")
    (out / "motion.json").write_text(json.dumps(without_nan(motion)) + "\n")


def write_curves(
    out: Path, averages: Mapping[str, Sequence[ErrorCurve]], by_start: Mapping[str, Sequence[ErrorCurve]]
) -> None:
    """``force_error.csv`` and ``force_error_by_start.csv``."""
    means = [
        {"model": name, **row}
        for name, curves in averages.items()
        for curve in curves
        for row in force_error.rows(curve, True)
    ]
    singles = [
        {"model": name, "start": start, **row}
        for name, curves in by_start.items()
        for start, curve in enumerate(curves)
        for row in force_error.rows(curve, False)
    ]
    for name, table in (("force_error.csv", means), ("force_error_by_start.csv", singles)):
        write_table(out / name, list(table[0]), table)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A CSV table with a row for each dictionary; None is empty."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def without_nan(value: Any) -> Any:
    """The same, with null for what is not a number, which JSON does not know."""
    if isinstance(value, dict):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
