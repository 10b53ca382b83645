"""What must hold before training starts: finite numbers, and a time step and velocities that belong to the frames."""

import numpy as np
from schnetpack import properties as spk_properties

from spk_dt import properties, units
from spk_dt.data.frames import Frames

__all__ = ["check_frames"]

#: relative difference between the velocities of the database and those that the frames show, above which we refuse
_TIME_STEP_TOLERANCE = 0.1


def check_frames(frames: Frames) -> None:
    """Refuse frames with which a rollout would be compared with the wrong reference.

    Velocity Verlet leads from each frame to the next, x(t+h) - x(t) = s v h + F h^2 / (2 m), with the time step h and the
    scale s of the velocities. With the h of the database, the part along v must give s = 1, as median over the frames.

    Raises:
        ValueError: if a number is not finite, or time step and velocities do not lead from frame to frame.
    """
    for key, values in frames.values.items():
        for trajectory in range(len(frames.trajectories)):
            _check_finite(frames, key, values, trajectory)
    for trajectory in range(len(frames.trajectories)):
        _check_time_step(frames, trajectory)


def _check_finite(frames: Frames, key: str, values: np.ndarray, trajectory: int) -> None:
    record = frames.trajectories[trajectory]
    window = frames.window(key, record.start, record.length, trajectory)
    finite = np.isfinite(window).reshape(record.length, -1).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise ValueError(
            f"{key.strip('_')} of '{frames.source}' are not finite (NaN or infinite) in {len(bad)} of {record.length} "
            f"frames of trajectory '{record.name}', first in frame {bad[0]}. Remove these frames, and write what is "
            "before and after them as two trajectories."
        )


def _check_time_step(frames: Frames, trajectory: int) -> None:
    record = frames.trajectories[trajectory]
    if record.length < 2:
        return
    read = {
        key: frames.window(key, record.start, record.length, trajectory)
        for key in (spk_properties.R, properties.velocities, spk_properties.forces)
    }
    dt = frames.time_step[trajectory]
    masses = frames.masses[trajectory][:, None]
    velocities = read[properties.velocities][:-1]
    accelerations = read[spk_properties.forces][:-1] / masses
    speed = np.sum(velocities**2, axis=(1, 2))
    moving = speed > 0.0
    if not moving.any():
        raise ValueError(
            f"all velocities of trajectory '{record.name}' of '{frames.source}' are zero. Dynamic training starts from "
            "velocities; for velocity Verlet they are v(t) = (x(t + dt) - x(t - dt)) / (2 dt)."
        )
    speed, velocities, accelerations = speed[moving], velocities[moving], accelerations[moving]
    # the part along v of the equation above, divided by v^2: c = s h + a h^2 / 2
    c = np.sum(velocities * np.diff(read[spk_properties.R], axis=0)[moving], axis=(1, 2)) / speed
    a = np.sum(velocities * accelerations, axis=(1, 2)) / speed
    scale = np.median(c - 0.5 * a * dt**2) / dt  # if h = dt
    if abs(scale - 1.0) > _TIME_STEP_TOLERANCE:
        step = np.median(2.0 * c / (1.0 + np.sqrt(np.maximum(1.0 + 2.0 * a * c, 0.0))))  # if s = 1
        step_fs = step * units.time_unit_in_fs(frames.units[spk_properties.energy], frames.distance_unit)
        raise ValueError(
            f"trajectory '{record.name}' of '{frames.source}' says {record.timestep_fs:g} fs between frames, but its "
            f"velocities do not lead from one to the next. Either the frames are {step_fs:.3g} fs apart (the time step is "
            "wrong, or frames are missing between the saved ones), or the velocities are in another unit, in which they "
            f"are {scale:.3g} times too small."
        )
