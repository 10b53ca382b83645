"""Reference trajectories that begin at structures of the user: velocity Verlet, or Langevin dynamics throughout.

Each trajectory is made in pieces of some 50 steps, see `spk_dt.labels.pieces`. Its random numbers come from a generator for
each piece, seeded by the seed, the structure, the repetition and the piece, so that they depend on nothing else.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import ase.units
import numpy as np
from ase import Atoms
from ase.constraints import FixCom
from ase.data import covalent_radii
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet
from ase.neighborlist import neighbor_list

from spk_dt.folders.hold import hold
from spk_dt.labels.pieces import (
    InProcess,
    Progress,
    check_method,
    check_settings,
    read_piece,
    run_dynamics,
    silent,
    splits_of,
    write_piece,
)
from spk_dt.labels.reference_process import ReferenceProcess
from spk_dt.trajectories.database import TrajectoryWriter
from spk_dt.trajectories.fixed_atoms import fixes_positions, mobile_of, set_mobile

__all__ = ["Protocol", "generate_from"]

#: steps of a piece, about
_PIECE = 50


@dataclass(frozen=True)
class Protocol:
    """How trajectories are made from structures.

    Args:
        temperature_k: K; velocities are drawn from the Maxwell-Boltzmann distribution. None keeps those of the structures.
        timestep_fs: fs.
        save_every: steps from one frame to the next.
        friction_per_fs: of Langevin dynamics throughout, 1/fs; None for constant energy.
    """

    temperature_k: float | None = None
    timestep_fs: float = 0.5
    save_every: int = 1
    friction_per_fs: float | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        for name, value in asdict(self).items():
            if value is not None and not 0 < value < np.inf:
                raise ValueError(f"{name}={value}: must be larger than zero, and finite.")
        if self.friction_per_fs is not None and self.temperature_k is None:
            raise ValueError(f"friction_per_fs={self.friction_per_fs} needs a temperature: give --temperature.")


def generate_from(
    starts: Sequence[Atoms],
    path: str | Path,
    steps: int,
    protocol: Protocol,
    reference: str,
    n_trajectories: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
    scratch: str | Path | None = None,
    time_limit: float | None = None,
) -> Path:
    """Make trajectories from structures and write them as a database; continue if an earlier run was interrupted.

    A run may also be continued with more steps or trajectories, or fewer. Atoms that constraints of a structure hold fixed
    do not move; without any the centre of mass is at rest if velocities are drawn.

    Args:
        starts: structures; momenta count without a temperature.
        path: database to create, ending in ``.db``.
        steps: steps of each trajectory, a multiple of `Protocol.save_every`.
        protocol: temperature, time step and so on.
        reference: calculator, see `spk_dt.labels.calculator.reference_calculator`.
        n_trajectories: number of trajectories of each structure.
        seed: seed of all random numbers.
        progress: called after each step.
        scratch: see `spk_dt.labels.generate.generate`.
        time_limit: see `spk_dt.labels.generate.generate`.

    Returns:
        the folder with the pieces, which may be removed.

    Raises:
        FileExistsError: if `path` exists; before anything is computed.
        NoLabelError: if the reference fails at a geometry; the pieces before it are kept.
        ValueError: if a structure or an argument makes no sense, or the folder holds pieces made in another way.
        ImportError: if the package of the reference calculator is not installed.
    """
    if n_trajectories < 1 or steps < 1 or steps % protocol.save_every:
        raise ValueError(
            f"trajectories={n_trajectories}, steps={steps}, save_every={protocol.save_every}: make at least one "
            "trajectory, and steps a multiple of --save-every."
        )
    if not starts:
        raise ValueError("there is no structure to start from.")
    prepared = [_checked(atoms, f"structure {i}", protocol) for i, atoms in enumerate(starts, start=1)]
    if protocol.temperature_k is None and n_trajectories > 1:
        raise ValueError(
            f"{n_trajectories} trajectories with the velocities of the structure would all be the same; draw them with "
            "--temperature, or leave --trajectories out."
        )
    runs = {f"start_{i + 1:02d}_{j + 1:02d}": (i, j) for j in range(n_trajectories) for i in range(len(prepared))}
    length = protocol.save_every * max(1, _PIECE // protocol.save_every)
    sizes = [min(length, steps - done) for done in range(0, steps, length)]
    writer = TrajectoryWriter(path, splits=splits_of(list(runs)))
    folder = writer.path.with_name(f"{writer.path.stem}.generate")
    report = progress or silent
    with ReferenceProcess(reference, scratch, time_limit) as process:
        made_by = {"reference": reference, **process.describe()}
        folder.mkdir(parents=True, exist_ok=True)
        with hold(folder / "lock", f"makes trajectories in '{folder}'; wait for it, or choose another name."):
            begun = [
                [a.numbers.tolist(), a.positions.tolist(), a.cell.tolist(), a.get_momenta().tolist()] for a in prepared
            ]
            check_settings(folder, {**asdict(protocol), "seed": seed, "structures": begun, **made_by})
            files = {name: [folder / f"{name}.{k:05d}.traj" for k in range(len(sizes))] for name in runs}
            check_method(folder, files, reference, scratch, time_limit)
            for name, (i, j) in runs.items():
                state, done = prepared[i], 0
                for k, (file, size) in enumerate(zip(files[name], sizes, strict=True)):
                    expected = size // protocol.save_every + 1
                    if not file.exists() or len(read_piece(file)) < expected:
                        dynamics = _dynamics(state, protocol, np.random.default_rng([seed, i, j, k]), k == 0)
                        dynamics.atoms.calc = InProcess(process)
                        before = done

                        def tell(step: int, name: str = name, before: int = before) -> None:
                            report(name, before + step, steps)

                        write_piece(file, run_dynamics(dynamics, size, tell, protocol.save_every))
                    state = read_piece(file)[expected - 1]
                    done += size
                report(name, steps, steps)
            writer.metadata = {"reference": made_by}
            with writer:
                for name in runs:
                    frames = (
                        frame
                        for k, (file, size) in enumerate(zip(files[name], sizes, strict=True))
                        for frame in read_piece(file)[(k > 0) : size // protocol.save_every + 1]
                    )
                    writer.add(name, frames, protocol.timestep_fs * protocol.save_every, protocol.save_every)
    return folder


def _dynamics(state: Atoms, protocol: Protocol, rng: np.random.Generator, first: bool) -> MolecularDynamics:
    """Dynamics that go on from a state, or begin with it."""
    atoms = state.copy()
    free = bool(mobile_of(atoms).all()) and len(atoms) > 1
    if protocol.temperature_k is not None and free:
        atoms.set_constraint(FixCom())
    if first and protocol.temperature_k is not None:
        spread = np.sqrt(ase.units.kB * protocol.temperature_k / atoms.get_masses())[:, None]
        atoms.set_velocities(spread * rng.standard_normal((len(atoms), 3)))  # constraints apply
    step = protocol.timestep_fs * ase.units.fs
    if protocol.friction_per_fs is None:
        if free:
            atoms.set_constraint()
        return VelocityVerlet(atoms, step)
    friction = protocol.friction_per_fs / ase.units.fs
    return Langevin(atoms, step, temperature_K=protocol.temperature_k, friction=friction, fixcm=False, rng=rng)


def _checked(atoms: Atoms, where: str, protocol: Protocol) -> Atoms:
    """A copy with constraints that hold atoms fixed only; refuses what cannot be simulated."""
    other = [type(one).__name__ for one in atoms.constraints if not fixes_positions(one)]
    if other:
        raise ValueError(f"{where} has the constraint {other[0]}; only fixed atoms can be kept. Remove it.")
    if not np.isfinite(atoms.positions).all() or len(atoms) == 0:
        raise ValueError(f"{where} has no atoms, or positions that are not finite.")
    if any(on and not np.any(vector) for on, vector in zip(atoms.pbc, atoms.cell.array, strict=True)):
        raise ValueError(f"{where} is periodic along a direction in which it has no cell; set the cell, or pbc.")
    first, second, distance = neighbor_list("ijd", atoms, (0.5 * covalent_radii[atoms.numbers]).tolist())
    if len(distance):
        k = int(distance.argmin())
        raise ValueError(
            f"{where}: atoms {first[k]} and {second[k]} (from 0) are {distance[k]:.3g} Å apart, they overlap. Move them "
            "apart, and see whether the file is in Å."
        )
    if protocol.temperature_k is None and not (atoms.has("momenta") and np.any(atoms.get_momenta())):
        raise ValueError(f"{where} has no velocities; draw them with --temperature.")
    mine = atoms.copy()
    set_mobile(mine, mobile_of(mine))
    mine.set_momenta(mine.get_momenta())  # fixed atoms are at rest
    return mine
