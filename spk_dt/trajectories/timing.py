"""How far apart the frames of a file are, and how many steps of the simulation lie between: from the file, or as stated."""

from math import isclose

from spk_dt.trajectories.readers.base import RawTrajectory

__all__ = ["timing"]


def timing(raw: RawTrajectory, timestep_fs: float | None, save_every: int | None) -> tuple[float, int]:
    """Time between two frames in fs, and the steps of the simulation between them.

    Args:
        raw: the trajectory, with what its file says.
        timestep_fs: time step of the simulation that is stated; None if it is not.
        save_every: steps between two frames that are stated; None if they are not. For a trajectory whose timing may be
            restated, one without `timestep_fs` leaves the time between frames as it is.

    Raises:
        ValueError: if the time step is neither in the file nor stated, or what is stated contradicts the file.
    """
    file = f"'{raw.files[0]}'" if raw.files else f"'{raw.name}'"
    inner_steps, said = raw.inner_steps, raw.timestep_fs
    if raw.restatable:
        inner_steps = save_every or inner_steps
        said = said if timestep_fs is None else None
    elif inner_steps is not None and save_every is not None and inner_steps != save_every:
        raise ValueError(
            f"{file} has {inner_steps} steps between frames, but --save-every says {save_every}; leave the option away."
        )
    inner_steps = inner_steps or save_every or 1
    if timestep_fs is None:
        if said is None:
            raise ValueError(
                f"{file} does not say the time step of the simulation. Give it with --timestep-fs, and with --save-every "
                "N if only every Nth step is in the file."
            )
        interval_fs = said
    else:
        interval_fs = timestep_fs * inner_steps
        if said is not None and not isclose(interval_fs, said, rel_tol=1e-5):
            raise ValueError(
                f"{file} has {said:g} fs between frames, but --timestep-fs {timestep_fs:g} with {inner_steps} steps between "
                f"frames (--save-every) makes {interval_fs:g} fs. Leave --timestep-fs away, or correct it."
            )
    if not 0.0 < interval_fs < float("inf"):
        raise ValueError(f"{file} has {interval_fs:g} fs between frames; a time step is positive.")
    return float(interval_fs), int(inner_steps)
