"""Simulations of SchNetPack: the HDF5 file of its ``FileLogger``, as ``spkmd`` and ``spkdt evaluate`` write it.

Each molecule, and each replica of it, is a trajectory. ``MoleculeStream`` stores energies (kJ/mol), positions (nm),
velocities (nm/ps) and cells in SchNetPack's units (`schnetpack.units`); the first entry is the state after the first step.
Forces are only there if ``PropertyStream`` was told so, and in the unit of the model, which the file does not name. Both
together tell it: the second difference of positions is T² F/m (and for entries n steps apart (1 - 1/n²)/12 of the second
difference of that, as in Numerov's method), so the ratio of the two is the unit, to a few per cent, and only one of the
usual units is so close.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import exp, log
from pathlib import Path

import ase.units
import h5py
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_masses

from spk_dt.folders.hdf5_probe import refuse_endless
from spk_dt.trajectories.moves import moves
from spk_dt.trajectories.readers.base import RawTrajectory
from spk_dt.units import conversion, time_unit_in_fs

__all__ = ["read", "recognises"]

logger = logging.getLogger(__name__)

#: units of force that models have
_FORCE_UNITS = (
    "eV/Ang", "eV/Bohr", "kcal/mol/Ang", "kcal/mol/Bohr", "kJ/mol/Ang", "kJ/mol/nm", "Hartree/Bohr", "Hartree/Ang",
)  # fmt: skip
_TOLERANCE = 0.2  # of the ratio that tells the unit; units differ by more than a factor of 1.8
_SMALLEST_MATCH = 0.5  # cosine between second difference and F/m
_SAMPLE = 200  # entries that tell the unit
_FILTERS = {1, 2, 3, 32000}  # deflate, shuffle, checksum, LZF
_LARGEST_RATIO = 1_100  # of what deflate unpacks
_BLOCK = 2**24  # bytes that are read at a time

#: SchNetPack's units of length and time, nm and ps
_ANG, _FS = conversion("nm", "Ang", "length"), time_unit_in_fs("kJ / mol", "nm")

_STORE_FORCES = "simulate again with calculator.required_properties=[forces] (calculator.force_key), which stores them"


@dataclass(frozen=True)
class _Molecule:
    """One molecule and replica of a file.

    Args:
        path: the file.
        entries: number of entries that belong to its trajectory.
        replica: index of the replica.
        numbers: [n_atoms] atomic numbers.
        masses: [n_atoms] Dalton.
        pbc: [3] whether it is periodic.
        columns: where energy, positions, velocities and cell lie in a row of ``molecules``; None for what is not there.
        force_columns: where its forces lie in a row of ``properties``.
        time_step: time between entries in ps, SchNetPack's unit of time.
        inner_steps: steps of the simulation between entries.
    """

    path: Path
    entries: int
    replica: int
    numbers: np.ndarray
    masses: np.ndarray
    pbc: np.ndarray
    columns: dict[str, slice | None]
    force_columns: slice
    time_step: float
    inner_steps: int


def recognises(path: Path) -> bool:
    """Whether it is an HDF5 file with a data set ``molecules``, or an HDF5 file that cannot be opened."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            if stream.read(8) != b"\x89HDF\r\n\x1a\n":
                return False
        try:
            with _opened(path) as file:
                return "molecules" in file
        except Exception:  # damaged: `read` says so
            return True
    except OSError:
        return False


def read(path: Path) -> list[RawTrajectory]:
    """The trajectories of a file.

    Raises:
        ValueError: if forces or energies were not stored, or the file is not finished or damaged.
    """
    refuse_endless(path)
    with _open(path) as file:
        molecules = _molecules(path, file)
    several = len(molecules) > 1
    return [
        RawTrajectory(
            name=path.stem + (f"_{index}" if several else ""),
            files=(path,),
            frames=partial(_frames, molecule, *_force_unit(molecule)),
            timestep_fs=float(round(molecule.time_step * _FS, 6)),
            n_frames=molecule.entries,
            inner_steps=molecule.inner_steps,
        )
        for index, molecule in enumerate(molecules)
    ]


def _opened(path: Path) -> h5py.File:
    """The file, opened for reading; one that was never closed opens as what a simulation is still writing.

    That mode is not for other files: where something is damaged, HDF5 waits for the writer to mend it.
    """
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if "open for write" not in str(error):
            raise
        return h5py.File(path, "r", swmr=True, libver="latest")


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    """The file. A damaged one can make HDF5 raise anything: that becomes a ValueError."""
    try:
        with _opened(path) as file:
            yield file
    except Exception as error:
        if type(error) is ValueError and str(path) in str(error):  # says what is wrong already
            raise
        raise ValueError(
            f"'{path}' is damaged, cut off, or still being written ({error}). Wait for the simulation to end, copy the file "
            "again, or simulate again."
        ) from error


def _molecules(path: Path, file: h5py.File) -> list[_Molecule]:
    """Each molecule and replica."""
    data = file["molecules"]
    if not isinstance(file.get("properties"), h5py.Dataset):
        raise ValueError(f"'{path}' has no forces: {_STORE_FORCES}.")
    attributes, stored = dict(data.attrs), file["properties"]
    entries = min(int(attributes["entries"]), int(stored.attrs["entries"]), len(data), len(stored))
    if entries < 2:
        raise ValueError(
            f"'{path}' has {entries} entries. The simulation ended before its buffer was written for the first time: lower "
            "callbacks.hdf5.buffer_size, and simulate again."
        )
    if max(int(attributes["entries"]), int(stored.attrs["entries"])) > entries:
        logger.warning("'%s' was cut short; the first %d entries are used", path, entries)
    for name in ("molecules", "properties"):
        if problem := _not_within(file, name, entries):
            raise ValueError(f"'{path}' is no file of spkmd: its data set '{name}' {problem}. Simulate again.")
    n_atoms = np.atleast_1d(attributes["n_atoms"]).astype(int)
    total, n_molecules, n_replicas = (int(attributes[f]) for f in ("total_n_atoms", "n_molecules", "n_replicas"))
    has_velocities, has_cells = bool(attributes["has_velocities"]), bool(attributes["has_cells"])
    width = n_molecules * (19 if has_cells else 1) + total * (6 if has_velocities else 3)
    if n_atoms.shape != (n_molecules,) or n_atoms.sum() != total or data.shape[1:] != (n_replicas, width):
        raise ValueError(
            f"'{path}' is damaged: its data do not have the shape that its attributes state. Simulate again."
        )
    forces = _forces(path, stored, total)
    inner_steps = int(attributes.get("every_n_steps", 1))
    time_step = float(attributes["time_step"])
    if inner_steps < 1 or not time_step > 0.0:
        raise ValueError(f"'{path}' is damaged: time step {time_step}, every_n_steps {inner_steps}. Simulate again.")
    exploded = np.broadcast_to(file.attrs.get("exploded_step", -1), n_molecules)
    pbc = np.asarray(attributes["pbc"], dtype=bool).reshape(n_molecules, 3)
    if pbc.any() and not has_cells:
        raise ValueError(
            f"'{path}' is periodic, but holds no cells: a molecule of it has none. Simulate it on its own."
        )
    found = []
    for molecule in range(n_molecules):
        atoms = slice(int(n_atoms[:molecule].sum()), int(n_atoms[: molecule + 1].sum()))
        good = entries
        if exploded[molecule] >= 0:  # entry i is the state after step 1 + i * inner_steps
            good = min(entries, max(0, -(-(int(exploded[molecule]) - 1) // inner_steps)))
        if good < 3:
            logger.warning("molecule %d of '%s' is left out: it exploded at once", molecule, path)
            continue
        after_positions = n_molecules + 3 * total
        after_velocities = after_positions + (3 * total if has_velocities else 0)
        columns = {
            "energy": slice(molecule, molecule + 1),
            "positions": slice(n_molecules + 3 * atoms.start, n_molecules + 3 * atoms.stop),
            "velocities": slice(after_positions + 3 * atoms.start, after_positions + 3 * atoms.stop)
            if has_velocities
            else None,
            "cell": slice(after_velocities + 9 * molecule, after_velocities + 9 * (molecule + 1))
            if has_cells
            else None,
        }
        found += [
            _Molecule(
                path=path,
                entries=good,
                replica=replica,
                numbers=np.asarray(attributes["atom_types"]).astype(int)[atoms],
                masses=np.asarray(attributes["masses"], dtype=float)[atoms],
                pbc=pbc[molecule],
                columns=columns,
                force_columns=slice(forces + 3 * atoms.start, forces + 3 * atoms.stop),
                time_step=time_step,
                inner_steps=inner_steps,
            )
            for replica in range(n_replicas)
        ]
    if not found:
        raise ValueError(f"'{path}' has no molecule with three entries or more. Simulate longer.")
    return found


def _not_within(file: h5py.File, name: str, entries: int) -> str:
    """Why the entries of a data set are not in this file itself, in words; nothing if they are.

    HDF5 can take data from other files (links, external and virtual storage), unpack them by plug-ins, and give zeros for
    what was never written, of any size.
    """
    data = file[name]
    layout = data.id.get_create_plist()
    filters = {layout.get_filter(i)[0] for i in range(layout.get_nfilters())}
    if not isinstance(file.get(name, getlink=True), h5py.HardLink) or data.external or data.is_virtual:
        return "is in another file"
    if filters - _FILTERS:
        return f"needs filters that are not built in ({sorted(filters - _FILTERS)})"
    size = entries * data.dtype.itemsize * int(np.prod(data.shape[1:], dtype=object))
    if size > data.id.get_storage_size() * (_LARGEST_RATIO if filters else 1):
        return f"would have {size} bytes in {entries} entries, which were never written"
    return ""


def _forces(path: Path, stored: h5py.Dataset, total: int) -> int:
    """First column of the forces among the stored properties."""
    shapes, positions = json.loads(stored.attrs["shapes"]), json.loads(stored.attrs["positions"])
    candidates = [key for key, shape in shapes.items() if list(shape) == [total, 3]]
    named = [key for key in candidates if "force" in key.lower()] or candidates
    if not named:
        raise ValueError(f"'{path}' has no forces among its properties ({', '.join(shapes)}): {_STORE_FORCES}.")
    if len(named) > 1:
        raise ValueError(
            f"'{path}' has several properties that may be the forces: {', '.join(named)}. Store one of them only, and "
            "simulate again."
        )
    return int(positions[named[0]][0])


def _force_unit(molecule: _Molecule) -> tuple[float, str]:
    """Unit of the stored forces in eV/Å, and its name, from the motion."""
    keys = ("positions", "forces", "energy", "cell")
    blocks = [[block[key] for key in keys] for block in _blocks(molecule, min(molecule.entries, _SAMPLE))]
    positions, forces, energy, cell = (np.concatenate(values) for values in zip(*blocks, strict=True))
    if not energy.any():
        raise ValueError(
            f"'{molecule.path}' has no energies. Set calculator.energy_key to what the model calls them, and simulate again."
        )
    bend = np.diff(moves(positions, cell.reshape(-1, 3, 3), molecule.pbc), axis=0)
    correction = (1.0 - 1.0 / molecule.inner_steps**2) / 12.0
    acceleration = (forces[1:-1] + correction * np.diff(forces, 2, axis=0)) / molecule.masses[:, None]
    weight = molecule.masses[:, None]
    power = float(np.sum(weight * acceleration**2))
    drive = float(np.sum(weight * acceleration * bend))
    size = float(np.sum(weight * bend**2))
    match = drive / np.sqrt(power * size) if power > 0.0 and size > 0.0 else 0.0
    if not match > _SMALLEST_MATCH:
        raise ValueError(
            f"forces of '{molecule.path}' do not move the atoms from entry to entry: the cosine between the second "
            f"difference of positions and F/m is {match:.2f}, not near 1. Entries are too far apart (every_n_steps), not "
            "precise enough (precision: 16), or of a ring polymer, whose beads move by other forces too."
        )
    ratio = drive / power / molecule.time_step**2  # kJ/mol/nm
    found = {unit: conversion(unit, "kJ/mol/nm", "forces") for unit in _FORCE_UNITS}
    name = min(found, key=lambda unit: abs(log(ratio / found[unit])))
    if abs(log(ratio / found[name])) > _TOLERANCE:
        raise ValueError(
            f"the unit of the forces of '{molecule.path}' is not known: by the motion it is {ratio:.4g} kJ/mol/nm, within "
            f"{100 * (exp(_TOLERANCE) - 1):.0f} % of none of {', '.join(found)}. Check calculator.energy_unit and "
            "calculator.position_unit of the simulation, or entries are too far apart (every_n_steps)."
        )
    return conversion(name, "eV/Ang", "forces"), name


def _blocks(molecule: _Molecule, entries: int) -> Iterator[dict[str, np.ndarray]]:
    """Entries of a molecule in SchNetPack's units, forces as stored: [n, n_atoms, 3], or [n, width] for the rest."""
    with _open(molecule.path) as file:
        data, stored = file["molecules"], file["properties"]
        rows = max(1, _BLOCK // (8 * (data.shape[2] + stored.shape[2])))
        for start in range(0, entries, rows):
            part = slice(start, min(start + rows, entries))
            block = {
                key: data[part, molecule.replica, columns].astype(np.float64)
                for key, columns in molecule.columns.items()
                if columns is not None
            }
            block["forces"] = stored[part, molecule.replica, molecule.force_columns].astype(np.float64)
            for key, values in block.items():
                good = np.isfinite(values).all(axis=1)
                if not good.all():
                    raise ValueError(
                        f"{key} of entry {start + int(np.argmin(good))} of '{molecule.path}' are not finite; the "
                        "simulation has exploded. Simulate again, for example with callbacks stop_exploded."
                    )
            block.setdefault("cell", np.zeros((len(block["energy"]), 9)))
            yield {
                key: values.reshape(len(values), -1, 3) if key in ("positions", "velocities", "forces") else values
                for key, values in block.items()
            }


def _frames(molecule: _Molecule, force_factor: float, force_unit: str) -> Iterator[Atoms]:
    """The frames of a molecule."""
    logger.info("forces of '%s' are in %s", molecule.path, force_unit)
    energy = conversion("kJ/mol", "eV", "energy")
    masses = molecule.masses if not np.allclose(molecule.masses, atomic_masses[molecule.numbers], rtol=1e-6) else None
    for block in _blocks(molecule, molecule.entries):
        for entry in range(len(block["energy"])):
            atoms = Atoms(
                molecule.numbers,
                _ANG * block["positions"][entry],
                masses=masses,
                cell=_ANG * block["cell"][entry].reshape(3, 3),
                pbc=molecule.pbc,
            )
            if "velocities" in block:
                atoms.set_velocities(_ANG / (_FS * ase.units.fs) * block["velocities"][entry])
            atoms.calc = SinglePointCalculator(
                atoms, energy=energy * float(block["energy"][entry, 0]), forces=force_factor * block["forces"][entry]
            )
            yield atoms
