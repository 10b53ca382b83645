"""Time of a validation: free rollouts of untrained models, without training.

Timed: everything that `Trainer.validate` does for a batch: all steps of the rollout with their neighbour lists,
forces without a graph for the weights, losses and metrics per step. Of the reference code: the validation part of its
epoch for a batch, likewise with its neighbour lists (pymatgen, anew at each step). The readout of both is scaled
down, so that atoms move as in the data.
"""

from collections.abc import Sequence

from benchmarks.models import LightningSteps, data_of, task_of
from benchmarks.reference import ReferenceSteps
from benchmarks.settings import Settings
from benchmarks.systems import batch_of, spread, windows_of
from benchmarks.tables import table
from benchmarks.timing import alternate, quartiles, ratio

__all__ = ["run"]


def run(settings: Settings, n_systems: Sequence[int] = (8, 32), n_steps: int = 60) -> str:
    """Table of times.

    Args:
        settings: how to measure.
        n_systems: systems in a batch.
        n_steps: steps of the rollout.
    """
    config = settings.config(f"data.val_window={n_steps}", f"data.max_val_windows={max(n_systems)}")
    datamodule = data_of(config)
    reference = settings.their_code()
    rows = []
    for number in n_systems:
        indices = spread(datamodule, number, "val")
        batch = batch_of(datamodule, indices, "val")
        steps = LightningSteps(task_of(config), datamodule, batch, config, settings.device, validate=True)
        contenders = {"EGNN": settings.clock.timed(steps)}
        if reference is not None:
            windows = windows_of(datamodule, indices, "val")
            contenders["reference code"] = ReferenceSteps(reference, windows, n_steps, settings.clock, validate=True)
        times = alternate(contenders, settings.rounds(3), warm_up=0 if settings.quick else 1)
        steps.close()
        for name, values in times.items():
            per_step = quartiles(values / n_steps / number, 1e3, ".2f")
            compared = "" if reference is None else ratio(times["reference code"], values)
            rows.append((number, name, quartiles(values, form=".2f"), per_step, compared))
    clock = settings.clock.name
    header = ("systems", "model", f"{clock} / s", "ms per step and system", "reference / this")
    return table(f"Validation: free rollouts of {n_steps} steps, 39 atoms per system", header, rows)
