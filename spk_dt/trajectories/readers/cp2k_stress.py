"""The pressure tensor of a CP2K run, from the file that ``&MOTION &PRINT &STRESS`` writes.

It holds the components xx, xy, ..., zz in bar, with the part of the momenta (``pv_total`` of CP2K's
``virial_methods.F``), so that the stress needs the velocities, too, see `spk_dt.trajectories.readers.pressure`.
"""

import logging
from pathlib import Path

import ase.units
import numpy as np

from spk_dt.trajectories.readers.cp2k_files import tensors

__all__ = ["pressures"]

log = logging.getLogger(__name__)


def pressures(file: Path, step: np.ndarray) -> dict[int, np.ndarray] | None:
    """The pressure tensor of each step, [3, 3] eV/Å^3; None, with a warning, if a step is missing.

    Args:
        file: the file that CP2K writes.
        step: [n_frames] steps of the frames.

    Raises:
        ValueError: if a line is not understood.
    """
    remedy = "Repair it, or move the file away to go without stress."
    found = {one: tensor * ase.units.bar for one, tensor in tensors(file, "stress", remedy).items()}
    missing = [int(one) for one in step if int(one) not in found]
    if missing:
        log.warning(
            "'%s' lacks step %d, so that the stress is left out; print it with the &EACH MD of the forces",
            file,
            missing[0],
        )
        return None
    return found
