"""Spoil a trajectory, do mechanically what a check of the database says, and see what comes out."""

from dataclasses import replace
from pathlib import Path as File
from typing import Any

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from schnetpack import properties as spk
from schnetpack.data import ASEAtomsData

from helpers.diagnosis_data import Path, check
from spk_dt import properties
from spk_dt.data import TrajectoryWriter, load_frames
from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.diagnosis import Diagnosis, diagnose
from spk_dt.trajectories.inputs import Reading
from spk_dt.trajectories.stated import restated
from spk_dt.trajectories.velocities import recover_velocities


def write(path: Path, file: File) -> File:
    """A database of the trajectory, with the numbers as they are."""
    with TrajectoryWriter(file) as writer:
        writer.add("run", frames_of(path), path.h, path.inner, path.velocities)
    return file


def frames_of(path: Path) -> list[Atoms]:
    """The trajectory as frames of ASE."""
    frames = []
    for x, v, f, e in zip(path.x, path.v, path.f, path.e, strict=True):
        atoms = Atoms(path.numbers, x, cell=path.cell, pbc=path.pbc, masses=path.masses)
        atoms.set_velocities(v / ase.units.fs)
        atoms.calc = SinglePointCalculator(atoms, energy=float(e), forces=f)
        frames.append(atoms)
    return frames


def read(file: File) -> list[tuple[Path, Diagnosis]]:
    """The trajectories of a database, with what a check says of each."""
    frames = load_frames(ASEAtomsData(str(file)))
    found = []
    for index, record in enumerate(frames.trajectories):
        x, v, f, e = (
            np.array(frames.window(key, record.start, record.length, index))
            for key in (spk.R, properties.velocities, spk.forces, spk.energy)
        )
        path = Path(
            numbers=frames.atomic_numbers[index],
            masses=frames.masses[index],
            cell=frames.cell[record.start],
            pbc=frames.pbc[index],
            x=x,
            v=v * ase.units.fs,
            f=f,
            e=e[:, 0],
            h=record.timestep_fs,
            inner=record.inner_steps,
            velocities=record.velocities,
        )
        found.append((path, diagnose(frames, index)))
    return found


def mended(path: Path, folder: File, which: int = 0) -> tuple[list[tuple[Path, Diagnosis]], Diagnosis, dict[str, Any]]:
    """What a remedy makes of a spoilt trajectory, what was said of it, and the remedy.

    Args:
        path: the trajectory.
        folder: for the databases.
        which: of the remedies.
    """
    database = folder / "spoilt.db"
    database.unlink(missing_ok=True)
    write(path, database)
    ((_, said),) = read(database)
    assert said.verdict == "refused", [str(finding) for finding in said.findings]
    assert said.remedies, [str(finding) for finding in said.findings]
    convert([database], folder / f"mended_{which}.db", Reading(**said.remedies[which]))
    return read(folder / f"mended_{which}.db"), said, said.remedies[which]


def mended_in_memory(path: Path, which: int = 0) -> tuple[list[tuple[Path, Diagnosis]], Diagnosis, dict[str, Any]]:
    """The same for units, masses and time step, without databases."""
    said = check(path)
    assert said.remedies, [str(finding) for finding in said.findings]
    remedy = dict(said.remedies[which])
    inner = remedy.pop("save_every", path.inner)
    h = remedy.pop("timestep_fs") * inner if "timestep_fs" in remedy else path.h
    stated = restated(
        frames_of(path), remedy.pop("units", {}), remedy.pop("masses", {}), remedy.pop("keep_momenta", False), "here"
    )
    assert not remedy, remedy
    frames = list(stated if path.velocities == "file" else recover_velocities(stated, h, inner))
    found = replace(
        path,
        h=h,
        inner=inner,
        masses=frames[0].get_masses(),
        cell=frames[0].cell.array,
        x=np.array([atoms.positions for atoms in frames]),
        v=np.array([atoms.get_velocities() * ase.units.fs for atoms in frames]),
        f=np.array([atoms.calc.results["forces"] for atoms in frames]),
        e=np.array([atoms.calc.results["energy"] for atoms in frames]),
    )
    return [(found, check(found))], said, said.remedies[which]


def same(one: Path, other: Path, relative: float = 2e-6) -> list[str]:
    """What differs between two trajectories by more than rounding; positions up to lattice vectors of all frames alike."""
    if len(one) != len(other):
        return [f"{len(one)} and {len(other)} frames"]
    differs = [
        key
        for key, scale in (
            ("h", None),
            ("inner", None),
            ("masses", None),
            ("cell", None),
            *(("xvfe"[i], 1) for i in range(4)),
        )
        if not np.allclose(
            getattr(one, key),
            getattr(other, key),
            rtol=relative if scale is None else 0.0,
            atol=0.0 if scale is None else relative * (np.ptp(getattr(other, key)) + np.abs(getattr(other, key)).max()),
        )
    ]
    return differs + (["velocities"] if one.velocities != other.velocities else [])


def scaled(path: Path, x: float = 1.0, v: float = 1.0, f: float = 1.0, e: float = 1.0, h: float = 1.0) -> Path:
    """Numbers multiplied; the cell goes with the positions, and velocities that are recovered follow."""
    spoilt = replace(path, x=x * path.x, v=v * path.v, f=f * path.f, e=e * path.e, h=h * path.h, cell=x * path.cell)
    return replace(spoilt, v=path.v * x / h) if path.velocities != "file" else spoilt
