"""Several runs of ``spktrain`` in one table: what differs in their settings, and what has come of each."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import inf, isfinite
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from spk_dt.evaluation.certificates import FILE, Certificate, read_certificate
from spk_dt.evaluation.training_curve import logged_metrics
from spk_dt.folders.file_hash import file_hash
from spk_dt.folders.whole_file import whole_file

__all__ = ["Run", "gather", "table_of", "write_table"]

#: settings that are names of the run
_NAMES = ("run.",)
#: how deep runs are looked for in a folder that is none itself
_DEPTH = 4
#: a line of the log with which a training begins
_BEGINS = "Running on host"


@dataclass
class Run:
    """A run, and what is known of it.

    Args:
        folder: its folder.
        settings: all of its settings, by their names on the command line.
        best: least ``val_loss``; None without an epoch.
        length: largest S that was reached.
        epochs: number of epochs that were validated.
        seconds: of the processor, if there was a budget, else of the clock, as far as the log tells.
        certificates: what certificates say of the model.
        troubles: what is wrong with it, in words.
    """

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    best: float | None = None
    length: int | None = None
    epochs: int = 0
    seconds: float | None = None
    certificates: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


def gather(folders: Iterable[str | Path], certificates: Iterable[str | Path] = ()) -> list[Run]:
    """Look at runs.

    Args:
        folders: of runs, or with runs in them, as a sweep has them.
        certificates: folders that ``spkdt certify`` wrote. Those in the folder of a run are found. A certificate belongs to
            the run whose ``best_model`` it is of, by the hash of the file.

    Returns:
        the runs in the order of the folders, also those that are broken.

    Raises:
        FileNotFoundError: if there is no such folder, or a folder of `certificates` has none.
    """
    found: dict[Path, None] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder '{folder}'; name folders of runs, or with runs in them.")
        found |= dict.fromkeys(_runs_in(folder))
    given = [read_certificate(folder) for folder in certificates]
    return [_looked_at(folder, given) for folder in found]


def table_of(runs: Sequence[Run]) -> tuple[list[str], list[list[Any]]]:
    """Names of the columns, and a row for each run; the settings in which runs differ come after the name of the run."""
    names = list(dict.fromkeys(name for run in runs for name in run.settings if not name.startswith(_NAMES)))
    known = [run for run in runs if run.settings]
    differing = [name for name in names if len({repr(run.settings.get(name)) for run in known}) > 1]
    columns = ["run", *differing, "best val_loss", "S", "epochs", "seconds", "certificate", "trouble"]
    rows: list[list[Any]] = [
        [
            str(run.folder),
            *(run.settings.get(name) for name in differing),
            *(run.best, run.length, run.epochs, run.seconds),
            *("; ".join(run.certificates) or None, "; ".join(run.troubles) or None),
        ]
        for run in runs
    ]
    return columns, rows


def write_table(path: str | Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as CSV; what is not known is empty.

    Raises:
        FileExistsError: if there is such a file.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(
            f"'{path}' exists, and nothing is overwritten; choose another name with --out, or remove it."
        )
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(["" if value is None else value for value in row] for row in rows)


def _runs_in(folder: Path, depth: int = _DEPTH) -> list[Path]:
    """A folder if it is of a run, or else the runs in it; itself if there are none."""

    def below(here: Path, left: int) -> list[Path]:
        if (here / "config.yaml").exists() or (here / "csv").is_dir():
            return [here]
        inside = sorted(one for one in here.iterdir() if one.is_dir() and not one.name.startswith(".")) if left else []
        return [run for one in inside for run in below(one, left - 1)]

    return below(folder, depth) or [folder]


def _looked_at(folder: Path, certificates: Sequence[Certificate]) -> Run:
    run = Run(folder)
    try:
        run.settings = dict(_flat(OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"), resolve=False)))
    except FileNotFoundError:
        run.troubles.append("no config.yaml")
    except Exception as error:  # of several packages
        run.troubles.append(f"config.yaml cannot be read ({type(error).__name__})")
    _look_at_metrics(run)
    if run.seconds is None:
        run.seconds = _seconds_by_clock(folder)
    model = folder / "best_model"
    if not model.is_file():
        run.troubles.append("no best_model: it has not ended")
        return run
    own = []
    for file in sorted(folder.glob(f"*/{FILE}")):
        try:
            own.append(read_certificate(file.parent))
        except ValueError:
            run.troubles.append(f"{file.relative_to(folder)} cannot be read")
    sha256 = file_hash(model)
    for one in [*own, *certificates]:
        statements = [
            f"{one.title}: {record['failures']} of {record['simulations']} fail"
            for name, record in one.models.items()
            if one.settings.get("model_sha256", {}).get(name) == sha256
        ]
        run.certificates += statements
        if one in own and not statements:
            run.troubles.append(f"{one.folder.name} is of another model")
    return run


def _look_at_metrics(run: Run) -> None:
    try:
        rows = logged_metrics(run.folder)
    except FileNotFoundError:
        run.troubles.append("no metrics")
        return
    except (csv.Error, OSError, UnicodeDecodeError, ValueError) as error:
        run.troubles.append(f"metrics cannot be read ({type(error).__name__})")
        return
    epochs, losses, lengths, seconds, broken = set(), [], [], [], 0
    for row in rows:
        try:
            if row.get("val_loss"):
                losses.append(float(row["val_loss"]))
                epochs.add(int(row["epoch"]))
            if row.get("S"):
                lengths.append(int(float(row["S"])))
            if row.get("train_seconds"):
                seconds.append(float(row["train_seconds"]))
        except (ValueError, TypeError, KeyError):
            broken += 1
    if broken:
        run.troubles.append(f"{broken} rows of metrics.csv make no sense")
    if not losses:
        run.troubles.append("no epoch was validated")
    finite = [loss for loss in losses if isfinite(loss)]
    if losses and not finite:
        run.troubles.append("val_loss was never a finite number")
    run.best = min(finite, default=inf if losses else None)
    run.length, run.epochs, run.seconds = max(lengths, default=None), len(epochs), max(seconds, default=None)


def _seconds_by_clock(folder: Path) -> float | None:
    """From the beginning of each training in the log to its last line, or the last row of metrics."""
    log = folder / "cli.log"
    if not log.is_file():
        return None
    spans: list[list[float]] = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            now = datetime.strptime(line[1:24], "%Y-%m-%d %H:%M:%S,%f").timestamp()
        except ValueError:
            continue
        if _BEGINS in line or not spans:
            spans.append([now, now])
        spans[-1][1] = now
    if not spans:
        return None
    written = [file.stat().st_mtime for file in folder.glob("csv/version_*/metrics.csv")]
    spans[-1][1] = max(spans[-1][1], *written, spans[-1][0])
    return round(sum(end - begin for begin, end in spans), 1)


def _flat(value: Any, name: str = "") -> Iterable[tuple[str, Any]]:
    """Settings by their names on the command line."""
    inside = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if inside is None or not value:
        yield name, value
        return
    for key, one in inside:
        yield from _flat(one, f"{name}.{key}" if name else f"{key}")
