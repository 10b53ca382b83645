"""The longest time step with which simulations of a model in training conserve energy."""

import logging
from math import pi

import numpy as np
import torch
from schnetpack import properties as spk_properties
from schnetpack.data.loader import _atoms_collate_fn

from spk_dt import properties, units
from spk_dt.data.windows import TrajectoryWindows
from spk_dt.dynamics.fastest_vibration import LONGEST_PHASE, fastest_vibrations
from spk_dt.training.task import DynamicTrainingTask
from spk_dt.trajectories.frames import Frames

__all__ = ["conserving_time_step"]

log = logging.getLogger(__name__)

#: training frames that are looked at
_N_FRAMES = 8
_DISPLACEMENT_ANG = 0.01


def conserving_time_step(task: DynamicTrainingTask, windows: TrajectoryWindows, frames: Frames, wanted: float) -> float:
    """A time step, halved until the fastest vibration of the model in training frames allows for it.

    It does not become shorter than that of the data, with which the reference was simulated: a model that would need a
    shorter one is wrong, and its simulations show it.

    Args:
        task: whose model it is; it is in training mode again afterwards if it was before.
        windows: of the training partition.
        frames: of the data, for their units.
        wanted: time step in units of that of the data.

    Returns:
        `wanted`, or a half, a fourth ... of it, but not less than 1.
    """
    if wanted <= 1.0:
        return wanted
    chosen = np.linspace(0, len(windows) - 1, min(_N_FRAMES, len(windows))).astype(int)
    samples = [{k: v for k, v in windows[int(i)].items() if properties.is_input(k)} for i in chosen]
    batch = task.transfer_batch_to_device(_atoms_collate_fn(samples), task.device, 0)

    def forces_at(positions: torch.Tensor) -> torch.Tensor:
        return next(iter(task.rollout({**batch, spk_properties.R: positions}, 1))).state.forces

    training = task.training
    task.eval()
    with torch.no_grad():
        frequencies = fastest_vibrations(
            forces_at,
            batch[spk_properties.R],
            batch[spk_properties.masses],
            batch[spk_properties.idx_m],
            _DISPLACEMENT_ANG * units.conversion("Ang", frames.distance_unit, "distance"),
            batch.get(properties.mobile),
        )
    task.train(training)
    step = batch[properties.time_step] / batch[properties.inner_steps]
    phase = float((frequencies * step).nan_to_num(0.0, 0.0).max())  # of a time step of the data
    found = wanted
    while found > 1.0 and phase * found > LONGEST_PHASE:
        found = max(found / 2.0, 1.0)
    if found < wanted:
        log.info(
            "simulations of the model take steps of %g times that of the data, not %g: of the latter there are %.1f in its "
            "fastest vibration, too few to conserve energy",
            *(found, wanted, 2.0 * pi / (phase * wanted)),
        )
    return found
