"""Peak memory of training steps.

Each number is that of a new process which makes two training steps (`benchmarks.training_step`), minus what the
process had after imports (`benchmarks.points`).
"""

from collections.abc import Sequence

from benchmarks.models import LightningSteps, data_of, task_of
from benchmarks.points import Memory, fits, in_process, mebibytes
from benchmarks.reference import ReferenceSteps
from benchmarks.settings import Settings
from benchmarks.systems import batch_of, spread, windows_of
from benchmarks.tables import table
from benchmarks.training_step import MODES

__all__ = ["run"]

_MODES = {**MODES, "full, recompute=false": ("task/gradient=full", "task.gradient.recompute=false")}
_REFERENCE = "reference code"


def run(settings: Settings, lengths: Sequence[int] = (1, 5, 20), modes: Sequence[str] = tuple(_MODES)) -> str:
    """Table of memory.

    Args:
        settings: how to measure.
        lengths: values of S, ascending.
        modes: gradient modes of the EGNN.
    """
    rows = []
    for name in [*modes, *([_REFERENCE] if settings.reference else [])]:
        sizes: list[float] = []
        for n_steps in lengths:
            expected = _extrapolated(lengths, sizes, n_steps)
            if fits(expected, settings.device):
                sizes.append(in_process(_point, settings, name, n_steps, max(lengths)))
                text = mebibytes(sizes[-1])
            else:
                sizes.append(expected)
                text = f"does not fit here (about {mebibytes(expected)})"
            label = name if name == _REFERENCE else f"EGNN, {name}"
            rows.append((label, n_steps, text, f"{sizes[-1] / max(sizes[0], 1.0):.2f}"))
    title = f"Memory of a training step: {settings.n_systems} systems of 39 atoms"
    return table(title, ("model", "S", "peak above imports / MiB", f"relative to S = {lengths[0]}"), rows)


def _extrapolated(lengths: Sequence[int], sizes: Sequence[float], n_steps: int) -> float:
    """Bytes that a straight line through the last two points promises."""
    if len(sizes) < 2:
        return 0.0
    (a, b), (size_a, size_b) = lengths[len(sizes) - 2 : len(sizes)], sizes[-2:]
    return size_b + max(0.0, size_b - size_a) * (n_steps - b) / (b - a)


def _point(settings: Settings, name: str, n_steps: int, window: int) -> int:
    """Bytes of one contender at one S."""
    reference = settings.their_code() if name == _REFERENCE else None
    overrides = (f"globals.max_rollout_length={max(window, 20)}", f"task.rollout_length={n_steps}")
    config = settings.config(*overrides, *_MODES.get(name, ()))
    task_of(config)  # imports
    memory = Memory(settings.device)
    datamodule = data_of(config)
    indices = spread(datamodule, settings.n_systems)
    if reference is not None:
        steps = ReferenceSteps(reference, windows_of(datamodule, indices), n_steps, settings.clock)
    else:
        batch = batch_of(datamodule, indices)
        steps = LightningSteps(task_of(config), datamodule, batch, config, settings.device)
    for _ in range(2):
        steps()
    return memory()
