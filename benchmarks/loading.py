"""Windows per second from the loader of the training data, with neighbour lists, and what that means for training.

Wall time of whole epochs of the loader alone, batches thrown away: the first after the data module is ready, and the
median of later ones. Worker processes start anew in each epoch. The share is the time of a batch in later epochs
relative to a training step of the paper's EGNN on this machine with this batch (detached, wall time): what loading
adds without workers, and what must be smaller than one for workers to keep up.
"""

import time
from collections.abc import Sequence

import numpy as np

from benchmarks.models import LightningSteps, data_of, task_of
from benchmarks.settings import Settings
from benchmarks.systems import batch_of, spread
from benchmarks.tables import table

__all__ = ["run"]


def run(
    settings: Settings, lengths: Sequence[int] = (1, 20), workers: Sequence[int] = (0, 2), n_windows: int = 256
) -> str:
    """Table of rates.

    Args:
        settings: how to measure.
        lengths: frames of a window, S.
        workers: numbers of worker processes.
        n_windows: windows in an epoch.
    """
    rows = []
    for n_steps in lengths:
        common = (f"globals.max_rollout_length={n_steps}", f"task.rollout_length={n_steps}", "data.max_memory_gb=4")
        common += (f"data.max_train_windows={n_windows}", f"data.batch_size={settings.n_systems}")
        step = 0.0
        for number in workers:
            config = settings.config(*common, f"data.num_workers={number}")
            start = time.perf_counter()
            datamodule = data_of(config)
            in_setup = time.perf_counter() - start
            if step == 0.0:
                step = _training_step(settings, config, datamodule)
            epochs = [_epoch(datamodule) for _ in range(1 + settings.rounds(5))]
            first, later = epochs[0], float(np.median(epochs[1:]))
            per_batch = later / len(datamodule.train_dataloader())
            rates = [f"{n_windows / seconds:.0f}" for seconds in (first, later)]
            share = f"{per_batch / step:.1%}"
            rows.append((n_steps, number, f"{in_setup:.1f}", *rates, f"{per_batch * 1e3:.1f}", share))
    header = ("S", "workers", "setup / s", "windows/s, first epoch", "later", "ms per batch", "of a training step")
    return table(f"Loading: batches of {settings.n_systems} windows, wall time", header, rows)


def _epoch(datamodule) -> float:
    start = time.perf_counter()
    for _ in datamodule.train_dataloader():
        pass
    return time.perf_counter() - start


def _training_step(settings: Settings, config, datamodule) -> float:
    """Seconds of a training step, wall time."""
    batch = batch_of(datamodule, spread(datamodule, settings.n_systems))
    steps = LightningSteps(task_of(config), datamodule, batch, config, settings.device)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        steps()
        seconds.append(time.perf_counter() - start)
    steps.close()
    return min(seconds)
