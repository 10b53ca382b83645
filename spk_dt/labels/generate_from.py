"""Reference trajectories that begin at structures of the user: velocity Verlet, or Langevin dynamics throughout.

Each trajectory is made in pieces of some 20 steps, see `spk_dt.labels.pieces`:

    traj_II_JJ.heat.KKKKK   Langevin dynamics from structure I towards the temperature, which is not kept
    traj_II_JJ.KKKKK        the trajectory, its J-th from this structure

The random numbers of a piece come from a generator of its own, seeded by the seed, the structure, the repetition and the
piece, so that they depend on nothing else.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import ase.units
import numpy as np
from ase import Atoms
from ase.constraints import FixCom
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet

from spk_dt.labels.conserved import Conserved
from spk_dt.labels.pieces import InProcess, read_piece, run_dynamics, thermal_velocities, write_piece
from spk_dt.labels.plan import HowToMake, Progress, carry_out
from spk_dt.labels.reference_process import ReferenceProcess
from spk_dt.labels.side_by_side import Task
from spk_dt.labels.starts import Start, differences, prepare, record
from spk_dt.trajectories.fixed_atoms import mobile_of

__all__ = ["Protocol", "generate_from"]

log = logging.getLogger(__name__)

#: steps of a piece: what is lost at most when a run is killed
_PIECE = 20

#: friction of the equilibration of trajectories at constant energy, 1/fs
_FRICTION = 0.01

#: longest time step for hydrogen of mass 1, fs: a tenth of a vibration
_FOR_HYDROGEN = 1.0


@dataclass(frozen=True)
class Protocol:
    """How trajectories are made from structures.

    Args:
        temperature_k: K; velocities are drawn from the Maxwell-Boltzmann distribution. None keeps those of the structures.
        timestep_fs: fs.
        save_every: steps from one frame to the next.
        friction_per_fs: of Langevin dynamics throughout, 1/fs; None for constant energy.
        equilibrate_fs: time of Langevin dynamics before the first frame, fs, with a friction of 0.01/fs unless
            `friction_per_fs` says another; None for none. Without it, half of the heat of a relaxed structure at constant
            energy goes into its vibrations, and half the temperature is left.
    """

    temperature_k: float | None = None
    timestep_fs: float = 0.5
    save_every: int = 1
    friction_per_fs: float | None = None
    equilibrate_fs: float | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        for name, value in asdict(self).items():
            if value is not None and not 0 < value < np.inf:
                raise ValueError(f"{name}={value}: must be larger than zero, and finite.")
        for name in ("friction_per_fs", "equilibrate_fs"):
            if getattr(self, name) is not None and self.temperature_k is None:
                raise ValueError(f"{name}={getattr(self, name)} needs a temperature: give --temperature.")
        if self.timestep_fs * (self.friction_per_fs or 0.0) > 1.0:
            raise ValueError(
                f"friction_per_fs={self.friction_per_fs}: velocities would be forgotten within a time step of "
                f"{self.timestep_fs} fs. It is in 1/fs, and 0.001 to 0.1 is usual."
            )


def generate_from(
    starts: Sequence[Atoms | Start],
    path: str | Path,
    steps: int,
    protocol: Protocol,
    reference: str,
    n_trajectories: int = 1,
    seed: int = 0,
    **how: Unpack[HowToMake],
) -> Path:
    """Make trajectories from structures and write them as a database; continue if an earlier run was interrupted.

    A run may also be continued with more steps, trajectories or, at the end, structures, or fewer. Atoms that constraints
    of a structure hold fixed do not move; without any the centre of mass is at rest if velocities are drawn. The database
    keeps what the calculator gives beside energy and forces: stress, dipole, charges and magnetic moments. A trajectory at
    constant energy of which the energy changes by half of the kinetic energy fails.

    Args:
        starts: structures; momenta count without a temperature.
        path: database to create, ending in ``.db``.
        steps: steps of each trajectory, a multiple of `Protocol.save_every`.
        protocol: temperature, time step and so on.
        reference: calculator, see `spk_dt.labels.calculator.reference_calculator`.
        n_trajectories: number of trajectories of each structure.
        seed: seed of all random numbers.
        how: see `spk_dt.labels.plan.carry_out`, as what is raised.

    Returns:
        the folder with the pieces, which may be removed.

    Raises:
        ValueError: if a structure or an argument makes no sense.
    """
    if n_trajectories < 1 or steps < 1 or steps % protocol.save_every:
        raise ValueError(
            f"trajectories={n_trajectories}, steps={steps}, save_every={protocol.save_every}: make at least one "
            "trajectory, and steps a multiple of --save-every."
        )
    if not starts:
        raise ValueError("there is no structure to start from.")
    named = [one if isinstance(one, Start) else Start(one, f"structure {i}") for i, one in enumerate(starts, start=1)]
    prepared = prepare(named, protocol.temperature_k is not None)
    if protocol.temperature_k is None:
        _refuse_equal(named, prepared, n_trajectories)
    _warn(prepared, protocol)
    plan = _FromStructures(prepared, protocol, steps, n_trajectories, seed)
    return carry_out(plan, path, reference, **how)


def _refuse_equal(named: Sequence[Start], prepared: Sequence[Atoms], n_trajectories: int) -> None:
    """Trajectories with velocities of the structures, which would be the same one."""
    if n_trajectories > 1:
        raise ValueError(
            f"{n_trajectories} trajectories with the velocities of the structure would all be the same; draw them with "
            "--temperature, or leave --trajectories out."
        )
    known: dict[str, str] = {}
    for start, atoms in zip(named, prepared, strict=True):
        before = known.setdefault(json.dumps(record(atoms)), start.where)
        if before is not start.where:
            raise ValueError(
                f"{start.where} is the same as {before}, with the same velocities, and so would be its trajectory; leave "
                "one of them out, or draw velocities with --temperature."
            )


def _warn(prepared: Sequence[Atoms], protocol: Protocol) -> None:
    """Say what users would rather know before the computation than after it."""
    light = [a.get_masses()[(a.numbers == 1) & mobile_of(a).any(axis=1)] for a in prepared]
    mass = min((float(masses.min()) for masses in light if len(masses)), default=np.inf)
    limit = _FOR_HYDROGEN * np.sqrt(mass / 1.008)
    if protocol.timestep_fs > 1.001 * limit:
        log.warning(
            "a time step of %g fs is long for hydrogen of mass %.4g, which vibrates within %.2g fs: take --timestep-fs "
            "%.2g or less.",
            *(protocol.timestep_fs, mass, 9.0 * limit / _FOR_HYDROGEN, limit),
        )
    if protocol.friction_per_fs is not None and protocol.save_every > 1:
        log.warning(
            "the random forces of a thermostat are found from consecutive steps: data of Langevin dynamics with "
            "--save-every %d cannot be trained on with data.replay_kicks=true. Save every step, or leave --friction out "
            "and take --equilibrate.",
            protocol.save_every,
        )


@dataclass(frozen=True)
class _Piece:
    """Steps `first` to `last` of a trajectory, or of the heating before it."""

    file: Path
    heats: bool
    number: int
    first: int
    last: int


class _FromStructures:
    """Trajectories from structures; `spk_dt.labels.plan.Plan` says what the methods are.

    Args:
        prepared: the structures.
        protocol: see `Protocol`.
        steps: of each trajectory.
        n_trajectories: of each structure.
        seed: of all random numbers.
    """

    def __init__(
        self, prepared: Sequence[Atoms], protocol: Protocol, steps: int, n_trajectories: int, seed: int
    ) -> None:
        self.prepared, self.protocol, self.steps, self.seed = prepared, protocol, steps, seed
        self._runs = {
            f"traj_{i + 1:02d}_{j + 1:02d}": (i, j) for j in range(n_trajectories) for i in range(len(prepared))
        }
        self.names = list(self._runs)
        self.settings: dict[str, Any] = {
            **{"simulates": "structures", **asdict(protocol), "seed": seed},
            "structures": [record(atoms) for atoms in prepared],
        }
        self.timestep_fs, self.inner_steps = protocol.timestep_fs * protocol.save_every, protocol.save_every
        ensemble = "constant energy" if protocol.friction_per_fs is None else "Langevin"
        self.metadata = {"simulation": {"ensemble": ensemble, **asdict(protocol), "seed": seed}}
        time = protocol.equilibrate_fs
        self._heating = 0 if time is None else max(1, round(time / protocol.timestep_fs))
        self._told: set[str] = set()

    def differences(self, recorded: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
        return differences(recorded["structures"], self.settings["structures"])

    def pieces(self, folder: Path) -> dict[str, list[Path]]:
        chains = {name: [piece.file for piece in self._chain(folder, name)] for name in self.names}
        return {name: there for name, files in chains.items() if (there := [file for file in files if file.exists()])}

    def tasks(self, folder: Path, progress: Progress) -> list[Task]:
        def task(name: str) -> Task:
            def run(process: ReferenceProcess) -> list[Task]:
                self._make(folder, name, process, progress)
                return []

            return Task(name, run)

        return [task(name) for name in self.names]

    def frames(self, folder: Path, name: str) -> Iterator[Atoms]:
        for piece in self._chain(folder, name):
            if not piece.heats:
                yield from self._saved(read_piece(piece.file))

    def way_out(self, folder: Path) -> str:
        there = [
            max((p.last for p in self._chain(folder, name) if not p.heats and p.file.exists()), default=0)
            for name in self.names
        ]
        steps = min(there) // self.protocol.save_every * self.protocol.save_every
        return f"--steps {steps} writes what all of them have; " if 0 < steps < self.steps else ""

    def _saved(self, frames: Sequence[Atoms]) -> list[Atoms]:
        """Those of the trajectory, of which a piece may have one more, and of an earlier run more steps."""
        return [f for f in frames if f.info["step"] % self.inner_steps == 0 and f.info["step"] <= self.steps]

    def _chain(self, folder: Path, name: str) -> Iterator[_Piece]:
        for steps, heats in ((self._heating, True), (self.steps, False)):
            for number, first in enumerate(range(0, steps, _PIECE)):
                file = folder / f"{name}.{'heat.' if heats else ''}{number:05d}.traj"
                yield _Piece(file, heats, number, first, min(first + _PIECE, steps))

    def _make(self, folder: Path, name: str, process: ReferenceProcess, progress: Progress) -> None:
        """Make the pieces that are not there, each from the end of the one before."""
        i, j = self._runs[name]
        state, done = self.prepared[i], 0
        conserved = Conserved(name, self.protocol.timestep_fs)
        for piece in self._chain(folder, name):
            frames = read_piece(piece.file) if piece.file.exists() else []
            new = not frames or frames[-1].info["step"] < piece.last
            if new:
                rng = np.random.default_rng([self.seed, i, j, int(piece.heats), piece.number])
                dynamics = self._dynamics(state, piece, rng)
                dynamics.atoms.calc = InProcess(process, True, state if state.calc else None, self._told)

                def report(step: int, before: int = done - piece.first) -> None:
                    progress(name, before + step, self._heating + self.steps)

                steps = range(piece.first, piece.last + 1)
                frames = list(run_dynamics(dynamics, steps, report, partial(self._wanted, piece)))
            if not piece.heats and self.protocol.friction_per_fs is None:
                conserved.add(frames, self._saved(frames))
            if new:
                write_piece(piece.file, frames)
            state = read_piece(piece.file)[-1]
            done += piece.last - piece.first
            progress(name, done, self._heating + self.steps)
        conserved.warn(self.timestep_fs)

    def _wanted(self, piece: _Piece, step: int) -> bool:
        """Whether a piece keeps a step: those of the trajectory, and the last, from which the next piece goes on."""
        if step == piece.last or piece.heats:
            return step == piece.last
        return step % self.inner_steps == 0 and (step > piece.first or step == 0)

    def _dynamics(self, state: Atoms, piece: _Piece, rng: np.random.Generator) -> MolecularDynamics:
        """Dynamics that go on from a state, or begin with it."""
        atoms, protocol = state.copy(), self.protocol
        first = piece.number == 0 and piece.heats == (self._heating > 0)
        free = bool(mobile_of(atoms).all()) and len(atoms) > 1
        if protocol.temperature_k is not None and free:
            atoms.set_constraint(FixCom())
        if first and protocol.temperature_k is not None:
            atoms.set_velocities(thermal_velocities(atoms, protocol.temperature_k, rng))  # constraints apply
        step = protocol.timestep_fs * ase.units.fs
        if protocol.friction_per_fs is None and not piece.heats:
            if free:
                atoms.set_constraint()
            return VelocityVerlet(atoms, step)
        friction = (protocol.friction_per_fs or _FRICTION) / ase.units.fs
        return Langevin(atoms, step, temperature_K=protocol.temperature_k, friction=friction, fixcm=False, rng=rng)
