"""Labels of the reference method for states of simulations, and the trajectory databases that keep them."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress

from spk_dt import properties, units
from spk_dt.folders.whole_file import whole_file
from spk_dt.labels.pools import check_pool
from spk_dt.labels.reference_process import ReferenceProcess, reference_processes
from spk_dt.labels.relabel import relabel
from spk_dt.trajectories.database import TrajectoryWriter
from spk_dt.trajectories.frames import Frames

__all__ = ["EnergyRanges", "LabelledStates", "Labelling", "write_labelled", "write_states"]

#: eV per atom; a label that is further from the energies of the same atoms in the data is wrong
_BEYOND = 10.0


class EnergyRanges:
    """Energies in the data, by the atoms that a system has.

    Args:
        frames: of the data; None if labels may have another zero, and then all finite energies are possible.
    """

    def __init__(self, frames: Frames | None = None) -> None:
        self._known: dict[bytes, tuple[float, float]] = {}
        if frames is None:
            return
        energies = np.asarray(frames.values[properties.energy]).reshape(len(frames), -1).sum(axis=1)
        energies = energies * units.conversion(frames.units[properties.energy], "eV", "energy")
        for one, numbers in zip(frames.trajectories, frames.atomic_numbers, strict=True):
            of_trajectory, key = energies[one.start : one.start + one.length], _composition(numbers)
            low, high = self._known.get(key, (np.inf, -np.inf))
            self._known[key] = min(low, of_trajectory.min()), max(high, of_trajectory.max())

    def possible(self, numbers: np.ndarray, energy: float) -> bool:
        """Whether an energy (eV) is finite and within some 10 eV per atom of those of the same atoms in the data."""
        low, high = self._known.get(_composition(numbers), (energy, energy))
        margin = _BEYOND * len(numbers)
        return bool(np.isfinite(energy) and low - margin <= energy <= high + margin)


def _composition(numbers: np.ndarray) -> bytes:
    return np.sort(np.asarray(numbers, dtype=np.int64)).tobytes()


class LabelledStates(NamedTuple):
    """What has become of states.

    Args:
        kept: states with energy (eV), forces (eV/Å) and, if asked for, stress (eV/Å^3) of the reference method.
        left_out: states without a label, with a force above `Labelling.max_force`, or with an impossible energy.
        n_failures: number of those without a label.
        n_impossible: number of those with an impossible energy.
        made_by: the reference method with its versions and settings, see `spk_dt.labels.provenance`.
    """

    kept: list[Atoms]
    left_out: list[Atoms]
    n_failures: int
    n_impossible: int
    made_by: dict[str, Any]


@dataclass(frozen=True)
class Labelling:
    """How states are labelled.

    Args:
        reference: reference calculator, see `spk_dt.labels.calculator.reference_calculator`. It must be the one that the
            data were made with: before the training a few frames of the data are computed with it and compared.
        n_labels: states of a round that are labelled.
        max_force: eV/Å; a simulation that has come to a state in which a component of a reference force is larger starts
            again, and the state is left out.
        n_processes: processes that run the reference method.
        another_reference: take a reference that is not the method of the data, with a warning; its labels contradict
            the data.
        scratch: where each reference calculation has its folder; None takes that for temporary files (TMPDIR).
        time_limit: s, after which a reference calculation is ended, tried once more, and its state left out; None waits.
        pool: where the processes run, see `spk_dt.labels.pools`.

    Raises:
        ValueError: if a number is not positive, or there is no such pool.
    """

    reference: str
    n_labels: int = 20
    max_force: float = 30.0
    n_processes: int = 1
    another_reference: bool = False
    scratch: str | None = None
    time_limit: float | None = None
    pool: str = "processes"

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        for name in ("n_labels", "max_force", "n_processes", "time_limit"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"callbacks.on_policy.labels.{name}={value} must be positive.")
        check_pool(self.pool, "callbacks.on_policy.labels.pool")

    def processes(self) -> AbstractContextManager[list[ReferenceProcess]]:
        """Processes of the reference method for several calls, since each takes a second or more to start."""
        return reference_processes(self.reference, self.n_processes, self.scratch, self.time_limit, self.pool)

    def label(self, states: Path, stress: bool = False, ranges: EnergyRanges | None = None) -> LabelledStates:
        """Compute the states of a file; labels of an interrupted call are kept beside it, and not computed again.

        Args:
            states: file that `write_states` has written.
            stress: whether their stress is wanted, too.
            ranges: energies of the data; None if labels may have another zero.
        """
        ranges = ranges or EnergyRanges()
        frames = ase.io.read(states, ":")
        labels = relabel(
            frames,
            self.reference,
            states.with_suffix(".jsonl"),
            self.n_processes,
            scratch=self.scratch,
            time_limit=self.time_limit,
            stress=stress,
            pool=self.pool,
        )
        kept, left_out, n_impossible = [], [], 0
        for atoms, energy, forces, tensor in zip(frames, labels.energy, labels.forces, labels.stress, strict=True):
            possible = ranges.possible(atoms.numbers, energy)
            n_impossible += bool(np.isfinite(forces).all() and not possible)
            if np.isfinite(forces).all() and np.abs(forces).max() <= self.max_force and possible:
                results = {"stress": full_3x3_to_voigt_6_stress(tensor)} if stress else {}
                atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, **results)
                kept.append(atoms)
            else:
                left_out.append(atoms)
        return LabelledStates(kept, left_out, len(labels.failures), n_impossible, labels.made_by)


def write_states(path: Path, states: Sequence[Atoms]) -> None:
    """Keep states that are to be labelled; the file is there when it is complete."""
    with whole_file(path, make_folder=True) as part:
        ase.io.write(part, states, format="traj")


def write_labelled(
    path: Path,
    name: str,
    states: Sequence[Atoms],
    frames: Frames,
    inputs: Sequence[str],
    made_by: Mapping[str, Any] | None = None,
) -> None:
    """Write states with labels as a trajectory database, each a trajectory of one frame.

    Args:
        path: the database.
        name: of the trajectories, before their numbers.
        states: with labels.
        frames: of the data, for what they know of `inputs`.
        inputs: keys of what models read beside the structure, in `Atoms.info`.
        made_by: the reference method, for the metadata of the database.
    """
    for key in frames.atomwise & set(inputs):  # a .traj file has no arrays but those of ASE
        for atoms in states:
            atoms.set_array(key, np.asarray(atoms.info.pop(key)))
    units, metadata = {key: frames.units[key] for key in inputs}, {"reference": made_by} if made_by else {}
    with TrajectoryWriter(path, inputs=units, metadata=metadata) as writer:
        for i, atoms in enumerate(states):
            writer.add(f"{name}_{i}", [atoms], atoms.info["timestep_fs"])
