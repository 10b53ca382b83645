"""What came of a training, as a table: stages, errors, labels, where the model is, and what can be done with it next."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from spk_dt.training.hardening import Hardening
from spk_dt.training.next_commands import next_commands
from spk_dt.training.on_policy import JoiningLabels

__all__ = ["StageSummary", "summary"]

#: characters of a line
_WIDTH = 120


@dataclass
class StageSummary:
    """Epochs with one S, with or without labels of the reference method.

    Args:
        length: S.
        labelled: whether such labels joined the training.
        epochs: number of epochs.
        best: smallest validation loss; infinite before the first validation.
        errors: force error of each element at that time.
    """

    length: int
    labelled: bool
    epochs: int = 0
    best: float = math.inf
    errors: dict[str, float] = field(default_factory=dict)

    def add(self, loss: float | None, errors: Mapping[str, float]) -> None:
        """Add an epoch with its validation."""
        self.epochs += 1
        if loss is not None and loss < self.best:
            self.best, self.errors = loss, dict(errors)

    def state_dict(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        return asdict(self)


def summary(
    stages: Sequence[StageSummary],
    test: tuple[float | None, Mapping[str, float]] | None,
    labels: JoiningLabels | None,
    data: Any,
    folder: Path,
) -> str:
    """The text.

    Args:
        stages: of the training, in their order.
        test: loss and force errors of the test; None if there was none.
        labels: the callback that adds labels of the reference method, if there is one.
        data: data module.
        folder: of the run, as seen from where the program was started.
    """
    frames = getattr(data, "frames", None)
    unit = "" if frames is None else f" ({frames.units.get('forces', '')})"
    elements = sorted({element for one in stages for element in one.errors} | set(test[1] if test else ()))
    table = Table(title=" ", box=None)
    table.add_column("stage")
    for title in ("epochs", f"val_loss{unit}", *(f"forces, {element}" for element in elements)):
        table.add_column(title, justify="right")
    for number, one in enumerate(stages, 1):
        name = f"{number}: S = {one.length}{', with labels' if one.labelled else ''}"
        table.add_row(name, str(one.epochs), _number(one.best), *(_number(one.errors.get(e)) for e in elements))
    if test is not None:
        table.add_row("test", "", _number(test[0]), *(_number(test[1].get(e)) for e in elements))
    out = io.StringIO()
    Console(file=out, width=_WIDTH, no_color=True).print(table)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    return "\n".join(["the training is over", "", *lines[1:], "", *_labels(labels), *_next(data, folder)])


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.4f}"


def _labels(labels: JoiningLabels | None) -> list[str]:
    if labels is None or not labels.schedule.done:
        return []
    used = f"{labels.goal.labels} labels in " if isinstance(labels, Hardening) else ""
    return [f"labels:  {used}{labels.schedule.done} rounds, of {labels.labels.reference}"]


def _next(data: Any, folder: Path) -> list[str]:
    """Where the model is, and commands that use it."""
    first, *others = next_commands(data, folder)
    return [f"model:   {folder / 'best_model'}", f"next:    {first}", *(f"         {one}" for one in others)]
