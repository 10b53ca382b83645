"""The data published with Dynamic Training: ``traj_N.traj`` with ``velall-N``.

Žugec et al., J. Chem. Inf. Model. 2025, doi 10.1021/acs.jcim.5c01180; data doi 10.6084/m9.figshare.28498778. As their
program (https://github.com/IZugec/DTEGNN, ``CreateDataset.py``) reads them:

- ``traj_N.traj`` is an ASE trajectory with energy (eV) and forces (eV/Å) of each frame;
- ``velall-N`` is text with three numbers in a line, one line for each atom of the first frame, of the second, and so on:
  velocities in direct coordinates per step, as VASP prints them. With the lattice vectors as rows of C, a line d stands
  for the velocity d C / h.

The step h is not in the files; it is 0.5 fs in the authors' settings (``potim`` in ``config/example.yml``), and is checked
against positions and forces. VASP may print velocities of half a step before or after the positions; such velocities are
not used, since those that positions tell are exact.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import TrajectoryReader

from spk_dt.trajectories.moves import shortest
from spk_dt.trajectories.readers.base import RawTrajectory
from spk_dt.trajectories.readers.consecutive import measured_time_step, motion, nominal_time_step

__all__ = ["TIMESTEP_FS", "read", "recognises"]

log = logging.getLogger(__name__)

#: time between frames, in fs
TIMESTEP_FS = 0.5

_NAME = re.compile(r"traj_(\d+)\.traj")
_SAMPLE = 200  # frames that tell time step and kind of velocities
_REMEDY = "Unpack the archive again"


def recognises(path: Path) -> bool:
    """Whether it is a ``traj_N.traj`` with ``velall-N`` beside it, or a folder with such a pair."""
    try:
        if path.is_dir():
            return any(recognises(file) for file in path.glob("traj_*.traj"))
        return path.is_file() and _NAME.fullmatch(path.name) is not None and _velocities_of(path).is_file()
    except OSError:
        return False


def read(path: Path) -> list[RawTrajectory]:
    """The trajectory of a file, or all of a folder, in the order of their numbers.

    Raises:
        ValueError: if a file is damaged, or its frames are not consecutive.
    """
    files = [path]
    if path.is_dir():
        numbers = {file: int(name[1]) for file in path.glob("traj_*.traj") if (name := _NAME.fullmatch(file.name))}
        files = sorted(numbers, key=numbers.__getitem__)
        for file in files:
            if not _velocities_of(file).is_file():
                raise ValueError(f"'{file}' has no '{_velocities_of(file).name}' beside it. {_REMEDY}.")
    return [_read(file) for file in files]


def _velocities_of(path: Path) -> Path:
    """The file of velocities that belongs to a trajectory."""
    return path.with_name(_NAME.sub(r"velall-\1", path.name))


def _read(path: Path) -> RawTrajectory:
    """A trajectory and its velocities."""
    with _open(path) as trajectory:
        n_frames = len(trajectory)
    sample = list(islice(_with_steps(path), _SAMPLE))
    if len(sample) < 3:
        raise ValueError(f"'{path}' has {len(sample)} frames; a trajectory needs at least three. {_REMEDY}.")
    first = sample[0][0]
    positions = np.array([atoms.positions for atoms, _ in sample])
    forces = np.array([atoms.calc.results["forces"] for atoms, _ in sample])
    masses, cell, pbc = first.get_masses(), first.cell.array, first.pbc
    sums = motion(positions, forces, masses, cell, pbc)
    source = f"'{path}'"
    timestep_fs = nominal_time_step(measured_time_step(sums, source), TIMESTEP_FS, source)
    time_step = timestep_fs * ase.units.fs
    velocities = np.array([step for _, step in sample]) / time_step
    moved = shortest(np.diff(positions, axis=0), cell, pbc) / time_step
    on_step = _on_step(moved, velocities[:-1], time_step * forces[:-1] / masses[:, None], source)
    if not on_step:
        log.warning("velocities of '%s' are of half a step before or after the positions, and are not used", path)
    return RawTrajectory(
        name=path.stem,
        files=(path, _velocities_of(path)),
        frames=partial(_frames, path, time_step if on_step else None),
        timestep_fs=timestep_fs,
        n_frames=n_frames,
    )


def _on_step(moved: np.ndarray, velocities: np.ndarray, kicks: np.ndarray, source: str) -> bool:
    """Whether velocities are of the time of the positions.

    In velocity Verlet the mean velocity of a step is v + s h a with s = 1/2; with velocities of half a step later s = 0, of
    half a step earlier s = 1.

    Args:
        moved: [n, n_atoms, 3] steps over h.
        velocities: [n, n_atoms, 3].
        kicks: [n, n_atoms, 3] h a.
        source: name of the file, for the error message.

    Raises:
        ValueError: if the velocities are not those of the steps.
    """
    kicks = np.where(moved == 0.0, 0.0, kicks)  # frozen atoms
    share = np.sum((moved - velocities) * kicks) / np.sum(kicks**2)
    left = np.sum((moved - velocities - share * kicks) ** 2) / np.sum(moved**2)
    if not (left < 0.05**2 and -0.25 < share < 1.25):
        raise ValueError(
            f"velocities beside {source} do not lead from frame to frame: {100 * np.sqrt(left):.3g} % of the steps is left. "
            f"They are in another unit than direct coordinates per step, or of another trajectory. {_REMEDY}."
        )
    return bool(abs(share - 0.5) < 0.25)


@contextmanager
def _open(path: Path) -> Iterator[TrajectoryReader]:
    """The ASE trajectory. A damaged one can make ASE raise anything: that becomes a ValueError."""
    try:
        with TrajectoryReader(path) as trajectory:
            yield trajectory
    except Exception as error:
        if type(error) is ValueError and str(path) in str(error):  # says what is wrong already
            raise
        raise ValueError(f"'{path}' is damaged or cut off ({error}). {_REMEDY}.") from error


def _with_steps(path: Path) -> Iterator[tuple[Atoms, np.ndarray]]:
    """Each frame, and the velocities of its atoms times h, [n_atoms, 3] Å."""
    file = _velocities_of(path)
    with _open(path) as trajectory, file.open(encoding="utf-8", errors="replace") as lines:
        first = None
        for frame in range(len(trajectory)):
            try:
                atoms = trajectory[frame]
                results = dict(atoms.calc.results) if atoms.calc is not None else {}
            except Exception as error:
                raise ValueError(f"frame {frame} of '{path}' is damaged ({error}). {_REMEDY}.") from error
            first = atoms if first is None else first
            if missing := [key for key in ("energy", "forces") if key not in results]:
                raise ValueError(f"frame {frame} of '{path}' has no {' and no '.join(missing)}. {_REMEDY}.")
            if not np.array_equal(atoms.numbers, first.numbers) or not np.allclose(atoms.cell, first.cell, atol=1e-8):
                raise ValueError(
                    f"frame {frame} of '{path}' has other atoms, or another cell, than the first. {_REMEDY}."
                )
            if not abs(np.linalg.det(atoms.cell)) > 0.0:
                raise ValueError(f"frame {frame} of '{path}' has no cell, which its velocities refer to. {_REMEDY}.")
            values = (atoms.positions, results["energy"], results["forces"])
            if not all(np.isfinite(value).all() for value in values):
                raise ValueError(f"frame {frame} of '{path}' has values that are not finite. {_REMEDY}.")
            yield atoms, _direct(list(islice(lines, len(atoms))), len(atoms), frame, file) @ atoms.cell.array
        if lines.read(1000).strip():
            raise ValueError(
                f"'{file}' has lines after the last of the {len(trajectory)} frames of '{path}'. {_REMEDY}."
            )


def _direct(lines: list[str], n_atoms: int, frame: int, file: Path) -> np.ndarray:
    """[n_atoms, 3] velocities of a frame in direct coordinates per step."""
    if len(lines) < n_atoms:
        raise ValueError(f"'{file}' is cut off in frame {frame}: {len(lines)} lines of {n_atoms} atoms. {_REMEDY}.")
    try:
        values = np.array([[float(word) for word in line.split()] for line in lines])
        if values.shape != (n_atoms, 3) or not np.isfinite(values).all():
            raise ValueError
    except ValueError:
        raise ValueError(f"frame {frame} of '{file}' has a line that is not three numbers. {_REMEDY}.") from None
    return values


def _frames(path: Path, time_step: float | None) -> Iterator[Atoms]:
    """The frames, with velocities if the time step that they refer to (ASE's unit) is given."""
    for stored, step in _with_steps(path):
        atoms = Atoms(stored.numbers, stored.positions, cell=stored.cell, pbc=stored.pbc)
        if time_step is not None:
            atoms.set_velocities(step / time_step)
        results = {
            key: value for key, value in stored.calc.results.items() if key in ("energy", "free_energy", "forces")
        }
        atoms.set_constraint(stored.constraints)
        atoms.calc = SinglePointCalculator(atoms, **results)
        yield atoms
