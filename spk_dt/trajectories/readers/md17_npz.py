"""The NumPy archives of MD17 and of the sGDML programs: ``z``, ``R``, ``E``, ``F``.

=========  ====================  ===========================================================
array      shape                 unit
=========  ====================  ===========================================================
``z``      [n_atoms]             atomic numbers
``R``      [n, n_atoms, 3]       Å, or what ``r_unit`` says
``E``      [n, 1] or [n]         kcal/mol, or what ``e_unit`` says
``F``      [n, n_atoms, 3]       energy unit per length unit
=========  ====================  ===========================================================

A cell, if there is one, is ``lattice``, [3, 3], with the lattice vectors as columns. Other arrays are not read. Format:
http://www.sgdml.org/doc. Data: Chmiela et al., Sci. Adv. 3, e1603015 (2017), doi 10.1126/sciadv.1603015, from simulations at
500 K with steps of 0.5 fs.

The archive holds neither velocities nor time step, so both are found from the data: see `consecutive`. Where frames are
missing, the trajectory is cut.

The revised MD17 (rMD17; Christensen and von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018 (2020), doi
10.1088/2632-2153/abba6f) is refused: its frames are a subset of MD17, and not consecutive.
"""

import logging
import zipfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from math import prod
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_masses

from spk_dt.trajectories.readers.base import RawTrajectory
from spk_dt.trajectories.readers.consecutive import measured_time_step, motion, nominal_time_step, unbroken
from spk_dt.units import conversion

__all__ = ["TIMESTEP_FS", "read", "recognises"]

log = logging.getLogger(__name__)

#: time between frames of MD17, in fs
TIMESTEP_FS = 0.5

_MD17 = {"z.npy", "R.npy", "E.npy", "F.npy"}
_RMD17 = {"nuclear_charges.npy", "coords.npy"}
_OTHER = {"name.npy", "theory.npy", "type.npy", "md5.npy", "code_version.npy", "r_unit.npy", "e_unit.npy"}
_BLOCK = 2**22  # bytes of an array that are read at a time


def recognises(path: Path) -> bool:
    """Whether it is an archive with arrays ``R`` and ``F``, or those of rMD17, or one that is cut off and begins so."""
    try:
        if path.suffix != ".npz" or not path.is_file():
            return False
        with path.open("rb") as stream:
            head = stream.read(64)
        if not head.startswith(b"PK"):
            return False
        try:
            with zipfile.ZipFile(path) as archive:
                names = set(archive.namelist())
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            return any(head[30:].startswith(name.encode()) for name in _MD17 | _RMD17 | _OTHER)
    except OSError:
        return False
    return {"R.npy", "F.npy"} <= names or names >= _RMD17


def read(path: Path) -> list[RawTrajectory]:
    """The trajectory of an archive; several, where frames are missing in between.

    Raises:
        ValueError: if the archive is damaged, an array is missing, or its frames are not consecutive.
    """
    with _open(path) as archive:
        names = set(archive.namelist())
        if names >= _RMD17:
            raise ValueError(
                f"'{path}' is of the revised MD17, which recomputed a subset of the frames of MD17: they are not "
                "consecutive. Take the original MD17, for example with data=md17_trajectory, or use this file for "
                "conventional training."
            )
        if missing := _MD17 - names:
            raise ValueError(f"'{path}' has no {', '.join(sorted(name[0] for name in missing))}; {_REMEDY}.")
        system = _System(path, archive)
        shapes = {key: _Array(path, archive, key).shape for key in "REF"}
        n_frames = shapes["R"][0] if shapes["R"] else 0
        frame = (len(system.numbers), 3)
        expected: dict[str, list[tuple[int, ...]]] = {
            "R": [(n_frames, *frame)],
            "F": [(n_frames, *frame)],
            "E": [(n_frames,), (n_frames, 1)],
        }
        for key, shape in shapes.items():
            if shape not in expected[key]:
                raise ValueError(
                    f"{key} of '{path}' has shape {shape}, which does not fit {frame[0]} atoms and {n_frames} frames of R; "
                    f"{_REMEDY}."
                )
    sums = _motion(path, system)
    timestep_fs = nominal_time_step(measured_time_step(sums, f"'{path}'"), TIMESTEP_FS, f"'{path}'")
    parts = unbroken(sums, timestep_fs)
    used = sum(map(len, parts))
    if 2 * used < n_frames:
        raise ValueError(f"frames of '{path}' are not consecutive: {n_frames - used} of {n_frames} stand alone.")
    if len(parts) > 1 or used < n_frames:
        log.warning(
            "'%s' is cut into %d parts where frames are missing: %d of %d frames", path, len(parts), used, n_frames
        )
    return [
        RawTrajectory(
            name=path.stem if len(parts) == 1 else f"{path.stem}_{i}",
            files=(path,),
            frames=partial(_frames, path, system, part),
            timestep_fs=timestep_fs,
            n_frames=len(part),
        )
        for i, part in enumerate(parts)
    ]


_REMEDY = "download the file again"


@contextmanager
def _open(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive. A damaged one can make the libraries raise anything: that becomes a ValueError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except Exception as error:
        if type(error) is ValueError and str(path) in str(error):  # says what is wrong already
            raise
        raise ValueError(f"'{path}' is damaged or cut off ({error}); {_REMEDY}.") from error


class _Array:
    """An array of an archive, read along its first axis without holding all of it.

    Raises:
        ValueError: if it is not an array of numbers or text.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, key: str) -> None:
        self.where = f"{key} of '{path}'"
        self._stream = archive.open(f"{key}.npy")
        try:
            version = np.lib.format.read_magic(self._stream)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            self.shape, self._fortran, self.dtype = read(self._stream)
        except (ValueError, KeyError, SyntaxError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.where} is not a NumPy array ({error}); {_REMEDY}.") from error
        if self.dtype.hasobject or self.dtype.itemsize == 0:
            raise ValueError(f"{self.where} is of Python objects, which are not read; {_REMEDY}.")

    def whole(self) -> np.ndarray:
        """All of it."""
        values = self._take(prod(self.shape), self.shape[::-1] if self._fortran else self.shape, 0)
        return values.T if self._fortran else values

    def rows(self, number: int) -> Iterator[np.ndarray]:
        """Blocks of `number` rows."""
        if self._fortran:
            values = self.whole()
            for start in range(0, len(values), number):
                yield values[start : start + number]
            return
        width = prod(self.shape[1:])
        for start in range(0, self.shape[0], number):
            length = min(number, self.shape[0] - start)
            yield self._take(length * width, (length, *self.shape[1:]), start)

    def _take(self, size: int, shape: tuple[int, ...], start: int) -> np.ndarray:
        """The next `size` values."""
        data = self._stream.read(size * self.dtype.itemsize)
        if len(data) < size * self.dtype.itemsize:
            raise ValueError(f"{self.where} is cut off after frame {start}; {_REMEDY}.")
        return np.frombuffer(data, self.dtype).reshape(shape)


class _System:
    """What does not change along the trajectory, in Å and eV."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        names = set(archive.namelist())
        numbers = _Array(path, archive, "z").whole()
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or not ((numbers > 0) & (numbers < 119)).all():
            raise ValueError(f"z of '{path}' does not hold the atomic numbers of the atoms; {_REMEDY}.")
        self.numbers = numbers.astype(int)
        self.masses = atomic_masses[self.numbers]
        unit = {"r_unit": "Ang", "e_unit": "kcal/mol"}
        for key in unit:
            if f"{key}.npy" in names:
                value = _Array(path, archive, key).whole().item()
                unit[key] = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        self.length = conversion(unit["r_unit"], "Ang", f"r_unit of '{path}'")
        self.energy = conversion(unit["e_unit"], "eV", f"e_unit of '{path}'")
        self.cell, self.pbc = np.zeros((3, 3)), np.zeros(3, dtype=bool)
        if "lattice.npy" in names:
            lattice = _Array(path, archive, "lattice").whole()
            if lattice.shape != (3, 3) or lattice.dtype.kind != "f" or not abs(np.linalg.det(lattice)) > 0.0:
                raise ValueError(f"lattice of '{path}' is not three lattice vectors; {_REMEDY}.")
            self.cell, self.pbc = self.length * lattice.T, ~self.pbc
        self.rows = max(1, _BLOCK // (24 * len(self.numbers)))  # frames at a time


def _blocks(path: Path, system: _System, keys: str) -> Generator[list[np.ndarray], None, None]:
    """Blocks of frames of the arrays, in Å, eV and eV/Å."""
    factors = {"R": system.length, "E": system.energy, "F": system.energy / system.length}
    with _open(path) as archive:
        arrays = [_Array(path, archive, key) for key in keys]
        for array in arrays:
            if array.dtype.kind not in "fiu":
                raise ValueError(f"{array.where} does not hold numbers; {_REMEDY}.")
        first = 0
        for blocks in zip(*(array.rows(system.rows) for array in arrays), strict=True):
            for array, block in zip(arrays, blocks, strict=True):
                good = np.isfinite(block).reshape(len(block), -1).all(axis=1)
                if not good.all():
                    raise ValueError(
                        f"{array.where} is not finite in frame {first + int(np.argmin(good))}; {_REMEDY}, or leave out "
                        "this frame."
                    )
            yield [factors[key] * np.asarray(block, np.float64) for key, block in zip(keys, blocks, strict=True)]
            first += len(blocks[0])


def _motion(path: Path, system: _System) -> np.ndarray:
    """What tells whether frames follow each other, for all frames but the first and the last."""
    sums = [np.zeros((0, 5))]
    positions, forces = np.zeros((2, 0, len(system.numbers), 3))
    for block in _blocks(path, system, "RF"):
        positions, forces = (np.concatenate(pair) for pair in zip((positions, forces), block, strict=True))
        sums.append(motion(positions, forces, system.masses, system.cell, system.pbc))
        positions, forces = positions[-2:], forces[-2:]
    return np.concatenate(sums)


def _frames(path: Path, system: _System, part: range) -> Iterator[Atoms]:
    """The frames of a part of the trajectory."""
    with ExitStack() as stack:
        blocks = _blocks(path, system, "REF")
        stack.callback(blocks.close)
        every = (frame for block in blocks for frame in zip(*block, strict=True))
        for positions, energy, forces in islice(every, part.start, part.stop):
            atoms = Atoms(system.numbers, positions, cell=system.cell, pbc=system.pbc)
            atoms.calc = SinglePointCalculator(atoms, energy=float(energy.sum()), forces=forces)
            yield atoms
