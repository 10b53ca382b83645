"""The table of metrics of a training, which is the same whether the training was interrupted or not."""

import csv
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.loggers import csv_logs

from spk_dt.folders.whole_file import whole_file

__all__ = ["CSVLogger"]

log = logging.getLogger(__name__)


class CSVLogger(csv_logs.CSVLogger):
    """`pytorch_lightning.loggers.CSVLogger` that goes on with the table that is there.

    Lightning begins a new one each time that a training is started. Here rows that the training is going to write again are
    taken out, and all others stay. If these are of more than the epoch that was interrupted, as when a training goes on
    from an older checkpoint, or begins anew, the table as it was is kept beside it as ``metrics.old.<n>.csv``.

    Args:
        save_dir: folder of the table, with `name` and `version`.
        name: folder in it.
        version: folder in this, as a string, or its number; None takes the last one that is there, or the first.
        kwargs: see `pytorch_lightning.loggers.CSVLogger`.
    """

    def _get_next_version(self) -> int:
        """The last one, if there is any."""
        return max(0, super()._get_next_version() - 1)

    @property
    @rank_zero_experiment
    def experiment(self) -> "_Table":
        """What writes the table."""
        if not isinstance(self._experiment, _Table):
            self._experiment = _Table(self.log_dir)
        return self._experiment

    @rank_zero_only
    def go_on(self, step: int, epoch: int) -> None:
        """Take out what is going to be written again.

        Args:
            step: number of steps that have been made.
            epoch: number of epochs that are over.
        """
        self.experiment.go_on(step, epoch)


class _Table(csv_logs.ExperimentWriter):
    """Rows with a common header; the file changes its header, and loses rows, as a whole or not at all."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self._path = Path(self.metrics_file_path)
        if self._path.exists():
            with self._path.open(newline="") as stream:
                self.metrics_keys = next(csv.reader(stream), [])

    def go_on(self, step: int, epoch: int) -> None:
        """Take out rows of later steps and epochs, and one that was cut off when the program was killed."""
        if not self._path.exists():
            return
        text = self._path.read_text()
        rows = list(csv.DictReader(text.splitlines()))
        kept = [row for row in rows if _is_whole(row) and _is_before(row, step, epoch)]
        if any(row.get("epoch") and int(row["epoch"]) > epoch for row in rows if _is_whole(row)):
            number = 1 + len(list(self._path.parent.glob("metrics.old.*.csv")))
            old = self._path.with_name(f"metrics.old.{number}.csv")
            log.warning("'%s' has epochs that are trained again; as it was it is kept as '%s'", self._path, old.name)
            with whole_file(old) as part:
                part.write_text(text)
        if len(kept) < len(rows) or not text.endswith("\n"):
            self._write(kept)
        if not kept:
            self._path.unlink()

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with self._path.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        self._write(rows, fieldnames)

    def _write(self, rows: Iterable[Mapping[str, Any]], fieldnames: list[str] | None = None) -> None:
        """The whole table."""
        used = {key for row in rows for key, value in row.items() if value}
        self.metrics_keys = [key for key in self.metrics_keys if key in used] if fieldnames is None else fieldnames
        with whole_file(self._path) as part, part.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, self.metrics_keys, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def _check_log_dir_exists(self) -> None:
        """The table that is there stays."""


def _is_whole(row: Mapping[str, Any]) -> bool:
    """Whether a row has all columns, and no more."""
    return None not in row and None not in row.values() and row["step"].isdigit()


def _is_before(row: Mapping[str, str], step: int, epoch: int) -> bool:
    """Whether a row is of an epoch that is over."""
    return int(row["step"]) < step and (not row.get("epoch") or int(row["epoch"]) < epoch)
