"""Trajectories as arrays, to which faults can be done, and the frames that a check sees."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet
from schnetpack import properties as spk

from helpers.simulated import warm
from spk_dt import properties, units
from spk_dt.data import Frames, Trajectory
from spk_dt.trajectories.diagnosis import Diagnosis, diagnose


@dataclass(frozen=True)
class Path:
    """A trajectory: positions x Å, velocities v Å/fs, forces f eV/Å, energies e eV, step h fs."""

    numbers: np.ndarray
    masses: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    x: np.ndarray
    v: np.ndarray
    f: np.ndarray
    e: np.ndarray
    h: float
    inner: int = 1
    velocities: str = "file"

    def __len__(self) -> int:
        return len(self.x)

    def take(self, frames: Any) -> "Path":
        """Some of its frames."""
        cell = self.cell if self.cell.ndim == 2 else self.cell[frames]
        return replace(self, x=self.x[frames], v=self.v[frames], f=self.f[frames], e=self.e[frames], cell=cell)

    def every(self, n: int) -> "Path":
        """Every nth frame, as it should be written."""
        return replace(self.take(slice(None, None, n)), h=self.h * n, inner=n)

    def with_central_differences(self) -> "Path":
        """Without its ends, and with velocities from the positions."""
        v = (self.x[2:] - self.x[:-2]) / (2.0 * self.h)
        return replace(self.take(slice(1, -1)), v=v, velocities="central differences")


def join(one: Path, other: Path) -> Path:
    """One after the other, as if they were one."""
    return replace(one, **{key: np.concatenate([getattr(one, key), getattr(other, key)]) for key in "xvfe"})


def frames_of(*paths: Path, names: tuple[str, ...] | None = None) -> Frames:
    """The frames of a database of these trajectories, in Å and eV."""
    lengths = [len(path) for path in paths]
    starts = np.cumsum([0, *lengths[:-1]])
    time = units.time_unit_in_fs()
    records = tuple(
        Trajectory(names[i] if names else f"run_{i}", int(starts[i]), len(path), path.h, path.inner, path.velocities)
        for i, path in enumerate(paths)
    )
    return Frames(
        source="some.db",
        trajectories=records,
        atomic_numbers=tuple(path.numbers for path in paths),
        masses=tuple(path.masses for path in paths),
        pbc=tuple(path.pbc for path in paths),
        time_step=tuple(path.h / time for path in paths),
        cell=np.concatenate([np.broadcast_to(path.cell, (len(path), 3, 3)) for path in paths]),
        values={
            spk.R: np.concatenate([path.x.reshape(-1, 3) for path in paths]),
            properties.velocities: np.concatenate([path.v.reshape(-1, 3) * time for path in paths]),
            spk.forces: np.concatenate([path.f.reshape(-1, 3) for path in paths]),
            spk.energy: np.concatenate([path.e for path in paths]),
        },
        atomwise=frozenset((spk.R, properties.velocities, spk.forces)),
        units={spk.energy: "eV", spk.forces: "eV/Ang"},
        distance_unit="Ang",
    )


def check(path: Path, replay_kicks: bool = False) -> Diagnosis:
    """The diagnosis of one trajectory."""
    return diagnose(frames_of(path), 0, replay_kicks)


def keys(diagnosis: Diagnosis, *severities: str) -> list[str]:
    """Keys of the findings, of these severities or of all but notes."""
    return [finding.key for finding in diagnosis.findings if finding.severity in (severities or ("warning", "refused"))]


def simulate(
    atoms: Atoms,
    steps: int,
    h: float,
    kelvin: float = 600.0,
    seed: int = 0,
    equilibrate: int = 0,
    dynamics: Callable[[Atoms, float], MolecularDynamics] = VelocityVerlet,
    during: Callable[[Atoms], None] | None = None,
    momenta: bool = True,
    calculator: Calculator | None = None,
) -> Path:
    """Run molecular dynamics, with the effective-medium potential if no other is given.

    Args:
        atoms: where it starts.
        steps: number of steps that are kept.
        h: time step, fs.
        kelvin: temperature of the velocities it starts with.
        seed: of these.
        equilibrate: steps before those that are kept.
        dynamics: from atoms and a time step of ASE to an integrator.
        during: called after each step, to change something.
        momenta: whether it starts with velocities.
        calculator: of energy and forces.
    """
    atoms = atoms.copy()
    atoms.calc = calculator or EMT()
    if momenta:
        warm(atoms, kelvin, seed)
    md = dynamics(atoms, h * ase.units.fs)
    kept: dict[str, list] = {key: [] for key in "xvfe"}
    for step in range(equilibrate + steps + 1):
        if step > 0:
            md.run(1)
            if during is not None:
                during(atoms)
        if step >= equilibrate:
            kept["x"].append(atoms.positions.copy())
            kept["v"].append(atoms.get_velocities() * ase.units.fs)
            kept["f"].append(atoms.get_forces(apply_constraint=False))
            kept["e"].append(atoms.get_potential_energy())
    return Path(
        numbers=atoms.numbers,
        masses=atoms.get_masses(),
        cell=atoms.cell.array.copy(),
        pbc=atoms.pbc.copy(),
        h=h,
        **{key: np.array(values) for key, values in kept.items()},
    )
