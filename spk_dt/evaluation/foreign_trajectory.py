"""Files of other programs as trajectories that can be judged: what they have, and what they do not.

Frames pass through the chain of `spkdt convert`: time step and units are those of the file or stated, never guessed,
positions are unwrapped, and velocities recovered where every step is there. Energies, forces and velocities may be missing:
then what follows from them is not known, and that is said. Where the motion can be followed from frame to frame, it tells
whether time step, units and masses are right (`spk_dt.trajectories.diagnosis`); what contradicts it is refused.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import ase.units
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from schnetpack import properties as spk

from spk_dt import properties, units
from spk_dt.evaluation.simulated_trajectory import SimulatedTrajectory
from spk_dt.trajectories.database import VELOCITIES, Trajectory
from spk_dt.trajectories.diagnosis import diagnose
from spk_dt.trajectories.fixed_atoms import mobile_of
from spk_dt.trajectories.frames import Frames
from spk_dt.trajectories.held import Held
from spk_dt.trajectories.inputs import Job, Reading, whole_frames
from spk_dt.trajectories.readers.incomplete import BrokenDownError
from spk_dt.trajectories.timing import timing
from spk_dt.trajectories.unwrapping import checked_frames
from spk_dt.trajectories.velocities import recover_velocities

__all__ = ["ForeignTrajectory", "read_foreign"]

_CHECKED = 2000  # frames of which the motion is followed, at most

#: findings of `diagnose` that contradict what files or options say
_CONTRADICTIONS = (
    *("time_step", "thinned", "reversed", "force_sign", "velocity_unit", "force_unit", "energy_unit"),
    *(
        "energy_and_force_unit",
        "length_unit",
        "masses",
        "momenta",
        "half_step_velocities",
        "velocity_shift",
        "force_shift",
    ),
    *("energy_shift", "not_consecutive", "velocities_unrelated"),
)

#: findings of what moves atoms beside the forces
_NOT_CONSERVING = ("thermostat", "other_forces", "single_kicks")


@dataclass(frozen=True)
class ForeignTrajectory:
    """A trajectory that another program made.

    Args:
        job: where it comes from.
        start: its first frame, in the units of ASE, with what it has.
        trajectory: all frames; one that is not finite stands for the step at which the simulation broke down.
        timestep_fs: time step of the simulation, fs.
        inner_steps: steps of the simulation between two frames.
        exploded_step: step at which it broke down, None if it did not.
        conserving: whether its total energy is known, and constant if the simulation was made at constant energy.
        notes: what its user should know.
        not_known: what cannot be said of it, and why.
    """

    job: Job
    start: Atoms
    trajectory: SimulatedTrajectory
    timestep_fs: float
    inner_steps: int
    exploded_step: int | None
    conserving: bool
    notes: tuple[str, ...]
    not_known: dict[str, str]


@dataclass
class _Columns:
    """Frames as lists of arrays, while they pass."""

    first: Atoms | None = None
    positions: list[np.ndarray] = field(default_factory=list)
    cells: list[np.ndarray] = field(default_factory=list)
    velocities: list[np.ndarray] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    forces: list[np.ndarray] = field(default_factory=list)

    def take(self, atoms: Atoms) -> None:
        """Keep what a frame has."""
        if self.first is None:
            self.first = atoms.copy()
            self.first.calc = atoms.calc
        self.positions.append(atoms.positions.copy())
        self.cells.append(atoms.cell.array.copy())
        if atoms.has("momenta"):
            self.velocities.append(atoms.get_velocities() * ase.units.fs)
        results = atoms.calc.results
        if "energy" in results:
            self.energies.append(float(results["energy"]))
        if "forces" in results:
            self.forces.append(np.asarray(results["forces"]))


def read_foreign(
    job: Job, reading: Reading, elements: Collection[int], data: str, periodic: bool = True
) -> ForeignTrajectory:
    """Read a trajectory.

    Args:
        job: where it comes from.
        reading: what is stated of it.
        elements: atomic numbers that the data have.
        data: name of the data.
        periodic: whether the data are periodic, for files that do not say it.

    Raises:
        ValueError: if it cannot be understood, has other elements than the data, its time step is not known, or its motion
            contradicts time step, units or masses.
    """
    raw, source = job.raw, job.source
    interval_fs, inner_steps = timing(raw, reading.timestep_fs, reading.save_every)
    notes: list[str] = list(raw.notes)
    far: list[str] = []
    held = Held(raw, job.fixed, source)
    read = whole_frames(raw, reading.drop_incomplete, notes)
    frames = held.watched(checked_frames(_boxed(read, raw.periodic_said or periodic), source, True, far.append))
    columns, broken, recovered = _Columns(), None, False
    try:
        first = next(frames, None)
        if first is None:
            raise ValueError(f"{source} has no complete frame.")
        _check_elements(first, elements, source, data)
        frames = chain([first], frames)
        recovered = raw.beads == 1 and "forces" in first.calc.results
        recovered &= reading.recover_velocities or (not first.has("momenta") and inner_steps == 1)
        for atoms in recover_velocities(frames, interval_fs, inner_steps, source) if recovered else frames:
            columns.take(atoms)
    except BrokenDownError as error:
        if columns.first is None:
            raise
        broken = str(error)
    assert columns.first is not None
    trajectory = _trajectory(columns, interval_fs, inner_steps, raw.beads > 1, broken is not None, not far)
    if broken is not None:
        notes.append(f"it broke down: {broken}")
    if recovered:
        notes.append("velocities are recovered from the positions")
    if far:
        notes.append(f"positions are not unwrapped: {far[0]}")
    not_known = _not_known(trajectory, raw.beads)
    notes += _check_motion(trajectory, inner_steps, interval_fs, recovered, raw.beads, job)
    exploded = None if broken is None else int(trajectory.step[-1])
    return ForeignTrajectory(
        job,
        columns.first,
        trajectory,
        interval_fs / inner_steps,
        inner_steps,
        exploded,
        "conservation of energy" not in not_known,
        (*notes, *held.notes()),
        not_known,
    )


def _check_elements(first: Atoms, elements: Collection[int], source: str, data: str) -> None:
    """Refuse elements that the data do not have."""
    missing = sorted({int(z) for z in first.numbers} - set(elements))
    if missing:
        symbols, known = (", ".join(chemical_symbols[z] for z in zs) for zs in (missing, sorted(elements)))
        raise ValueError(
            f"{source} has atoms of {symbols}, of which '{data}' has none (it has {known}). If types were taken for wrong "
            "elements, state them (--lammps-elements for a dump); else compare with data that have these elements."
        )


def _boxed(frames: Iterator[Atoms], periodic: bool) -> Iterator[Atoms]:
    """The frames, without their box where it is none of the system."""
    for atoms in frames:
        if not periodic:
            atoms.pbc = False
            atoms.set_cell(np.zeros((3, 3)))
        yield atoms


def _trajectory(
    columns: _Columns, interval_fs: float, inner_steps: int, bead: bool, broken: bool, unwrapped: bool
) -> SimulatedTrajectory:
    """All frames, and one that is not finite where the simulation broke down."""
    n_frames = len(columns.positions)

    def table(values: list[Any]) -> np.ndarray | None:
        if len(values) != n_frames:  # recovered velocities end a frame earlier where a simulation breaks down
            return None
        return np.array([*values, np.full_like(values[-1], np.nan)] if broken else values)

    step = inner_steps * np.arange(n_frames + broken)
    cells = np.array([*columns.cells, *columns.cells[-1:]] if broken else columns.cells)
    first = columns.first
    assert first is not None
    positions = table(columns.positions)
    assert positions is not None
    return SimulatedTrajectory(
        step=step,
        time_fs=step * (interval_fs / inner_steps),
        positions=positions,
        velocities=None if bead else table(columns.velocities),
        potential_energy=table(columns.energies),
        forces=table(columns.forces),
        atomic_numbers=first.numbers,
        masses=first.get_masses(),
        cell=cells[0] if (cells == cells[0]).all() else cells,
        pbc=first.pbc,
        mobile=mobile_of(first),
        unwrapped=unwrapped,
    )


def _not_known(trajectory: SimulatedTrajectory, beads: int) -> dict[str, str]:
    """What cannot be said of a trajectory, and why."""
    lacking = [
        name
        for name, value in (
            ("energies", trajectory.potential_energy),
            ("velocities", trajectory.velocities),
        )
        if value is None
    ]
    found: dict[str, str] = {}
    if beads > 1:
        found["conservation of energy"] = f"it is one of the {beads} beads of a ring polymer, whose springs do work too"
        found["temperature"] = (
            f"velocities of one of {beads} beads are those of a higher temperature than that of the system"
        )
    elif lacking:
        found["conservation of energy"] = f"the files have no {' and no '.join(lacking)}"
        if trajectory.velocities is None:
            found["temperature"] = "the files have no velocities"
    elif trajectory.cell_changes:
        found["conservation of energy"] = "the cell changes, which does work too"
    if trajectory.forces is None:
        found["true error of forces"] = "the files have no forces"
    if trajectory.potential_energy is None:
        found["true error of energies"] = "the files have no energies" if beads == 1 else "the files have none of beads"
    return found


def _check_motion(
    trajectory: SimulatedTrajectory, inner_steps: int, interval_fs: float, recovered: bool, beads: int, job: Job
) -> list[str]:
    """Refuse a trajectory whose motion contradicts its time step, its units or its masses; note what else moves atoms."""
    whole = trajectory[np.flatnonzero(trajectory.intact)[:_CHECKED]]
    if beads > 1 or whole.cell_changes or not whole.unwrapped:
        return []
    if whole.velocities is None or whole.forces is None or whole.potential_energy is None or len(whole.step) < 3:
        return []
    time, n_frames = units.time_unit_in_fs(), len(whole.step)
    record = Trajectory(job.name, 0, n_frames, interval_fs, inner_steps, VELOCITIES[1 if recovered else 0])
    frames = Frames(
        source=job.source,
        trajectories=(record,),
        atomic_numbers=(whole.atomic_numbers,),
        masses=(whole.masses,),
        pbc=(whole.pbc,),
        time_step=(interval_fs / time,),
        cell=np.broadcast_to(whole.cell, (n_frames, 3, 3)),
        values={
            spk.R: whole.positions.reshape(-1, 3),
            properties.velocities: whole.velocities.reshape(-1, 3) * time,
            spk.forces: whole.forces.reshape(-1, 3),
            spk.energy: whole.potential_energy,
        },
        atomwise=frozenset((spk.R, properties.velocities, spk.forces)),
        units={spk.energy: "eV", spk.forces: "eV/Ang"},
        distance_unit="Ang",
        mobile=(np.ones((len(whole.masses), 3), dtype=bool) if whole.mobile is None else whole.mobile,),
    )
    notes = []
    for finding in diagnose(frames, 0).findings:
        if finding.key in _CONTRADICTIONS and finding.severity == "refused":
            raise ValueError(
                f"{job.source}: its motion contradicts what files or options say: {finding.text} {finding.remedy} Here, "
                "correct --timestep-fs, --save-every, --units, --masses or --lammps-elements, or the file."
            )
        if finding.key in _NOT_CONSERVING:
            notes.append(f"{finding.text} If it had a thermostat, state its temperature (--temperature)")
    return notes
