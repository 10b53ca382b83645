"""Refuses data that a stress cannot be trained on: without stress, of another unit, or of systems without a volume."""

from collections.abc import Iterable

import numpy as np
from schnetpack import properties
from schnetpack.task import ModelOutput, UnsupervisedModelOutput

from spk_dt.trajectories.frames import Frames
from spk_dt.units import conversion

__all__ = ["refuse_without_stress", "trained_stress"]

_WAYS_OUT = "or train without the stress (leave task/stress=trained out)"


def trained_stress(outputs: Iterable[ModelOutput], key: str | None) -> str | None:
    """Name in the data of the stress that is trained on, None if it is not.

    Args:
        outputs: of a task.
        key: name of the stress among the outputs of the model, None if it predicts none.
    """
    named = (o for o in outputs if o.name == key and not isinstance(o, UnsupervisedModelOutput))
    return next((output.target_property for output in named), None)


def refuse_without_stress(frames: Frames, target: str) -> None:
    """Look at the stress of all frames.

    Args:
        frames: the data.
        target: name of the stress in them.

    Raises:
        ValueError: if there is no stress, it is not that of the units of energy and length, it is not finite in some frames
            or zero in all, or systems are not periodic, have no volume, or a left-handed cell, for which SchNetPack's
            stress has the wrong sign.
    """
    source = f"'{frames.source}'"
    if target not in frames.values:
        present = ", ".join(sorted(key for key in frames.values if not key.startswith("_")))
        raise ValueError(
            f"the stress is to be trained on, but {source} has no '{target}' (it has {present}). "
            f"Convert files in which every frame has one (spkdt convert says of which it was left out), {_WAYS_OUT}."
        )
    length = frames.distance_unit
    expected = f"{frames.units[properties.energy]}/{length}/{length}/{length}"
    factor = conversion(frames.units[target], expected, f"data.property_units.{target}")
    if abs(factor - 1.0) > 1e-6:
        raise ValueError(
            f"the stress '{target}' of {source} is in '{frames.units[target]}', but that of a model with these energies "
            f"and lengths is in '{expected}'. Set +data.property_units.{target}={expected}."
        )
    values = np.asarray(frames.values[target]).reshape(len(frames), -1)
    _refuse_some(frames, ~np.isfinite(values).all(axis=1), f"a stress '{target}' that is no number")
    if not values.any():
        raise ValueError(
            f"the stress '{target}' is zero in all frames of {source}: the program did not compute it. Convert files with "
            f"a stress, {_WAYS_OUT}."
        )
    lengths = [trajectory.length for trajectory in frames.trajectories]
    periodic = np.repeat([bool(np.any(pbc)) for pbc in frames.pbc], lengths)
    volume = np.linalg.det(frames.cell)
    _refuse_some(frames, ~periodic | (np.abs(volume) < 1e-6), "no periodic cell with a volume, and so no stress")
    left = "a left-handed cell, for which SchNetPack's stress has the wrong sign; exchange two vectors of the cell"
    _refuse_some(frames, volume < 0.0, left)


def _refuse_some(frames: Frames, wrong: np.ndarray, what: str) -> None:
    """Refuse frames, [n_frames], and name the first."""
    if not wrong.any():
        return
    frame = int(wrong.argmax())
    trajectory = frames.trajectories[frames.trajectory_of(frame)]
    raise ValueError(
        f"the stress is to be trained on, but {int(wrong.sum())} of {len(frames)} frames of '{frames.source}' have {what}; "
        f"the first is frame {frame - trajectory.start} of trajectory '{trajectory.name}'. Convert the files without them, "
        f"{_WAYS_OUT}."
    )
