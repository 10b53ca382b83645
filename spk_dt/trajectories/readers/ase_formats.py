"""Trajectory files of ASE, ``.traj``.

ASE writes the forces of the calculator to a ``.traj``, without the effect of constraints. Its dynamics also leave their time
step there, if the file was opened by them (``VelocityVerlet(..., trajectory="md.traj")``), but not how often they wrote.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import ase.units
from ase import Atoms
from ase.io.trajectory import TrajectoryReader

from spk_dt.trajectories.readers.base import RawTrajectory

__all__ = ["OPTIONS", "read", "recognises"]

#: keywords of `read`
OPTIONS = ("save_every",)

_MAGIC = b"- of UlmASE-Trajectory"


def recognises(path: Path) -> bool:
    """Whether it is a trajectory file of ASE."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def read(path: Path, save_every: int | None = None) -> list[RawTrajectory]:
    """The trajectory in a file.

    Args:
        path: the file.
        save_every: steps of the simulation between two frames, None for one; with it the time step that the file may say
            becomes the time between frames.

    Raises:
        ValueError: if the file is damaged, or of a relaxation.
    """
    try:
        with TrajectoryReader(path) as file:
            n_frames, description = len(file), file.description if len(file) > 0 else {}
    except Exception as error:  # whatever a damaged file leads to
        raise ValueError(
            f"'{path}' cannot be read ({error or type(error).__name__}); it is cut off or damaged."
        ) from None
    description = description if isinstance(description, dict) else {}
    if description.get("type") == "optimization":
        raise ValueError(
            f"'{path}' is of a relaxation ({description.get('optimizer')}), not of a molecular dynamics simulation: "
            "its frames have no time step."
        )
    step = description.get("timestep") if description.get("type") == "molecular-dynamics" else None
    return [
        RawTrajectory(
            name=path.stem,
            files=(path,),
            frames=partial(_frames, path, n_frames),
            timestep_fs=step / ase.units.fs * (save_every or 1) if isinstance(step, float) else None,
            n_frames=n_frames,
            inner_steps=save_every,
        )
    ]


def _frames(path: Path, n_frames: int) -> Iterator[Atoms]:
    """Frames of a file."""
    if n_frames == 0:
        raise ValueError(f"'{path}' is empty; it should hold frames of a trajectory.")
    with TrajectoryReader(path) as file:
        for index in range(n_frames):
            try:
                atoms = file[index]
            except Exception as error:  # whatever a damaged file leads to
                raise ValueError(
                    f"'{path}', frame {index} of {n_frames}: it cannot be read ({error or type(error).__name__}). The "
                    "file is cut off or damaged; copy it again, or write the frames before to a new file: ase "
                    f"convert -n :{index} {path.name} NEW.traj"
                ) from None
            yield atoms
