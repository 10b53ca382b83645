"""Labels of the reference method for states of simulations, and the trajectory databases that keep them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from spk_dt.labels.relabel import relabel
from spk_dt.trajectories.database import TrajectoryWriter
from spk_dt.trajectories.frames import Frames

__all__ = ["LabelledStates", "Labelling", "write_labelled", "write_states"]


class LabelledStates(NamedTuple):
    """What has become of states.

    Args:
        kept: states with energy (eV) and forces (eV/Å) of the reference method.
        left_out: states without a label, or with a force above `Labelling.max_force`.
        n_failures: number of those without a label.
    """

    kept: list[Atoms]
    left_out: list[Atoms]
    n_failures: int


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

    Raises:
        ValueError: if a number is not positive.
    """

    reference: str
    n_labels: int = 20
    max_force: float = 30.0
    n_processes: int = 1
    another_reference: bool = False

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        for name in ("n_labels", "max_force", "n_processes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"callbacks.on_policy.labels.{name}={getattr(self, name)} must be positive.")

    def label(self, states: Path) -> LabelledStates:
        """Compute the states of a file; labels of an interrupted call are kept beside it, and not computed again.

        Args:
            states: file that `write_states` has written.
        """
        frames = ase.io.read(states, ":")
        labels = relabel(frames, self.reference, states.with_suffix(".jsonl"), self.n_processes)
        kept, left_out = [], []
        for atoms, energy, forces in zip(frames, labels.energy, labels.forces, strict=True):
            if np.isfinite(forces).all() and np.abs(forces).max() <= self.max_force:
                atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
                kept.append(atoms)
            else:
                left_out.append(atoms)
        return LabelledStates(kept, left_out, len(labels.failures))


def write_states(path: Path, states: Sequence[Atoms]) -> None:
    """Keep states that are to be labelled; the file is there when it is complete."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    ase.io.write(part, states, format="traj")
    part.rename(path)


def write_labelled(path: Path, name: str, states: Sequence[Atoms], frames: Frames, inputs: Sequence[str]) -> None:
    """Write states with labels as a trajectory database, each a trajectory of one frame.

    Args:
        path: the database.
        name: of the trajectories, before their numbers.
        states: with labels.
        frames: of the data, for what they know of `inputs`.
        inputs: keys of what models read beside the structure, in `Atoms.info`.
    """
    for key in frames.atomwise & set(inputs):  # a .traj file has no arrays but those of ASE
        for atoms in states:
            atoms.set_array(key, np.asarray(atoms.info.pop(key)))
    with TrajectoryWriter(path, inputs={key: frames.units[key] for key in inputs}) as writer:
        for i, atoms in enumerate(states):
            writer.add(f"{name}_{i}", [atoms], atoms.info["timestep_fs"])
