"""Labels where the model goes: the states that it visits in its own simulations are computed anew by the reference method.

The windows of a reference trajectory tell what is right near that trajectory. A model that is run for picoseconds leaves
their neighbourhood, and nothing there has told it what is wrong, for example that two atoms must not come that close. Here
the model that is being trained simulates, some of the states it visits are labelled by the reference method, and they are
trained on beside the windows. The simulations go on from round to round with the model as it then is, so that they
reach later times, and failures that are still there. Learning from what a policy visits itself, with labels of an
expert, is known as dataset aggregation (Ross, Gordon, Bagnell, AISTATS 2011, arXiv 1011.0686).
"""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import ase.io
import ase.units
import numpy as np
import pytorch_lightning as pl
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from pytorch_lightning.callbacks import Callback
from schnetpack import properties as spk_properties
from schnetpack.data.loader import _atoms_collate_fn

from spk_dt import properties, units
from spk_dt.data.datamodule import TrajectoryDataModule
from spk_dt.labels.calculator import reference_calculator
from spk_dt.labels.reference_check import check_reference
from spk_dt.labels.relabel import relabel
from spk_dt.training.task import DynamicTrainingTask
from spk_dt.trajectories.database import TrajectoryWriter
from spk_dt.trajectories.frames import Frames
from spk_dt.trajectories.stored_properties import set_total_charge

__all__ = ["VisitedStates"]

log = logging.getLogger(__name__)

#: times as many states are drawn as are labelled, in place of those that exploded simulations do not reach
_SPARE = 4


class VisitedStates(Callback):
    """Lets the model simulate now and then, and adds visited states with labels of the reference method to the training.

    The frames of round n are kept as a trajectory database ``visited/round_<n>.db`` in the run folder, each a trajectory
    of one frame. When the run is continued they are read, not computed again, and the simulations go on.

    Args:
        reference: reference calculator, see `spk_dt.labels.calculator.reference_calculator`. It must be the one that the
            data were made with: before the training a frame of the data is computed with it and compared.
        n_rounds: number of rounds.
        first_epoch: epoch before which the first round is made.
        every_n_epochs: epochs from one round to the next.
        extra_rounds: so many times at most, a round in which a simulation fails (explodes, or comes to a state that is left
            out) is followed by another one in the next epoch, and does not count among `n_rounds`.
        n_systems: simulations side by side, from training frames drawn at random.
        steps: steps of each simulation in a round.
        n_labels: states of a round that are labelled, drawn at random from the simulations until they end or explode.
        max_steps: steps after which a simulation begins anew, from another training frame.
        time_step: time step of the simulations in units of that of the data; above one they come further in as many steps.
        kinetic_energy: of a simulation at its beginning, in units of that of the training frame; above one rare events come
            sooner, and labels reach to higher energies, which should not be below those at which the model will be used.
        share: expected share of the training batches that are of visited states.
        max_force: eV/Å; a simulation that has come to a state in which a reference force is larger begins anew, and the
            state is left out.
        n_processes: processes that run the reference method.
        folder: where the databases are written, in the run folder.

    Raises:
        ValueError: if an argument makes no sense; by `setup`, if there is no such reference method, the task has targets
            beside energy and forces, or training runs in several processes; when training starts, if the reference method
            is not that of the data.
    """

    def __init__(
        self,
        reference: str,
        n_rounds: int = 6,
        first_epoch: int = 0,
        every_n_epochs: int = 2,
        extra_rounds: int = 0,
        n_systems: int = 4,
        steps: int = 800,
        n_labels: int = 20,
        max_steps: int = 8000,
        time_step: float = 1.0,
        kinetic_energy: float = 1.0,
        share: float = 0.25,
        max_force: float = 30.0,
        n_processes: int = 1,
        folder: str = "visited",
    ) -> None:
        counts = {"n_rounds": n_rounds, "every_n_epochs": every_n_epochs, "n_systems": n_systems, "n_labels": n_labels}
        for name, value in {**counts, "steps": steps, "max_steps": max_steps, "n_processes": n_processes}.items():
            if value < 1:
                raise ValueError(f"callbacks.visits.{name}={value}: it takes one at least.")
        if n_labels > n_systems * steps:
            raise ValueError(
                f"callbacks.visits.n_labels={n_labels}: {n_systems} simulations of {steps} steps have fewer states."
            )
        for name, value in {"max_force": max_force, "time_step": time_step, "kinetic_energy": kinetic_energy}.items():
            if not value > 0.0:
                raise ValueError(f"callbacks.visits.{name}={value} must be positive.")
        if extra_rounds < 0:
            raise ValueError(f"callbacks.visits.extra_rounds={extra_rounds} must not be negative.")
        self.reference = reference
        self.n_rounds, self.extra_rounds = n_rounds, extra_rounds
        self.first_epoch, self.every_n_epochs = first_epoch, every_n_epochs
        self.n_systems, self.steps, self.n_labels, self.max_steps = n_systems, steps, n_labels, max_steps
        self.time_step, self.kinetic_energy = time_step, kinetic_energy
        self.share, self.max_force, self.n_processes = share, max_force, n_processes
        self.folder = Path(folder)
        self._done = 0  # rounds
        self._extra = 0  # those of them that do not count
        self._next_epoch = first_epoch  # before which the next one is made
        self._systems: list[dict[str, torch.Tensor]] = []  # samples of one frame, where the simulations are
        self._age: list[int] = []  # steps they have made

    def setup(self, trainer: pl.Trainer, pl_module: DynamicTrainingTask, stage: str) -> None:
        """Refuse what could not work, and prepare the training data for more frames."""
        if stage != "fit":
            return
        reference_calculator(self.reference)
        unlabelled = sorted(set(pl_module._target_names()) - {properties.energy, properties.forces})
        if unlabelled:
            raise ValueError(
                f"callbacks.visits labels states with energy and forces only, but the task has the targets {unlabelled}; "
                "train without callbacks.visits, or on energy and forces."
            )
        if trainer.world_size > 1:
            raise ValueError("callbacks.visits works in one process only; set trainer.devices=1.")
        trainer.datamodule.mix_in(self.share)

    def on_train_start(self, trainer: pl.Trainer, pl_module: DynamicTrainingTask) -> None:
        """Compare the reference method with the data, and read the rounds that are done."""
        check_reference(trainer.datamodule, self.reference, self.folder / "training_frame.jsonl")
        for path in filter(Path.exists, map(self._file, range(self._done))):
            trainer.datamodule.add_training_frames(path)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: DynamicTrainingTask) -> None:
        """Make a round, if it is time."""
        over = trainer.should_stop or self._done - self._extra == self.n_rounds
        if over or trainer.current_epoch < self._next_epoch:
            return
        again = self._round(trainer.datamodule, pl_module) and self._extra < self.extra_rounds
        self._done += 1
        self._extra += again
        self._next_epoch = trainer.current_epoch + (1 if again else self.every_n_epochs)

    def on_train_end(self, trainer: pl.Trainer, pl_module: DynamicTrainingTask) -> None:
        """Say so if rounds are missing."""
        if self._done - self._extra < self.n_rounds:
            log.warning(
                "visited states: the training has ended after %d rounds, %d of which count, of %d. For more of them train "
                "longer, or set callbacks.visits.every_n_epochs below %d.",
                *(self._done, self._done - self._extra, self.n_rounds, self.every_n_epochs),
            )

    def _file(self, number: int) -> Path:
        return self.folder / f"round_{number:03d}.db"

    # a round

    def _round(self, datamodule: TrajectoryDataModule, task: DynamicTrainingTask) -> bool:
        """Simulate, label, and add to the training; what an interrupted round has left is used.

        Returns:
            whether a simulation has failed; of an interrupted round that is not known, and taken for no.
        """
        database = self._file(self._done)
        if database.exists():  # made after the checkpoint from which the run goes on
            datamodule.add_training_frames(database)
            return False
        self._begin(datamodule, task._target_names())
        states, exploded = database.with_suffix(".traj"), 0
        if not states.exists():
            visited, exploded = self._simulate(task, datamodule.frames)
            if not visited:
                log.warning("visited states, round %d: all simulations exploded before a state was taken", self._done)
                return True
            self.folder.mkdir(exist_ok=True)
            part = states.with_suffix(".part")
            ase.io.write(part, visited, format="traj")
            part.rename(states)
        frames = ase.io.read(states, ":")
        labels = relabel(frames, self.reference, states.with_suffix(".jsonl"), self.n_processes)
        kept = []
        for atoms, energy, forces in zip(frames, labels.energy, labels.forces, strict=True):
            if np.isfinite(forces).all() and np.abs(forces).max() <= self.max_force:
                atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
                kept.append(atoms)
            else:
                self._age[atoms.info["system"]] = self.max_steps  # begins anew
        if kept:
            reference_frames = datamodule.frames
            inputs = {key: reference_frames.units[key] for key in self._inputs(reference_frames)}
            for key in reference_frames.atomwise & inputs.keys():  # a .traj file has no arrays but those of ASE
                for atoms in kept:
                    atoms.set_array(key, np.asarray(atoms.info.pop(key)))
            with TrajectoryWriter(database, inputs=inputs) as writer:
                for i, atoms in enumerate(kept):
                    writer.add(f"round_{self._done}_{i}", [atoms], atoms.info["timestep_fs"])
            datamodule.add_training_frames(database)
        log.info(
            "visited states, round %d: %d labelled, %d left out (%d without a label, others with a force above %g eV/Å), "
            "%d exploded",
            *(self._done, len(kept), len(frames) - len(kept), len(labels.failures), self.max_force, exploded),
        )
        return exploded > 0 or len(kept) < len(frames)

    def _begin(self, datamodule: TrajectoryDataModule, targets: Collection[str] = ()) -> None:
        """Put systems that are not there yet, or have run their time, at training frames drawn at random."""
        windows = datamodule.train_dataset
        for i in range(self.n_systems):
            if i < len(self._systems) and self._age[i] < self.max_steps:
                continue
            sample = windows[int(torch.randint(len(windows), ()))]
            system = {k: value for k, value in sample.items() if properties.is_input(k) and k not in targets}
            system[properties.velocities] = system[properties.velocities] * self.kinetic_energy**0.5
            system[properties.time_step] = system[properties.time_step] * self.time_step
            self._systems[i : i + 1] = [system]
            self._age[i : i + 1] = [0]

    def _simulate(self, task: DynamicTrainingTask, frames: Frames) -> tuple[list[Atoms], int]:
        """Run the model from where the systems are.

        Returns:
            states of it as drawn, in the units of ASE, and how many simulations have exploded.
        """
        batch = task.transfer_batch_to_device(_atoms_collate_fn(self._systems), task.device, 0)
        drawn = torch.randperm(self.n_systems * self.steps)[: _SPARE * self.n_labels].tolist()
        wanted: dict[int, list[int]] = {}
        for number in drawn:
            wanted.setdefault(1 + number // self.n_systems, []).append(number)
        guard, found = task.guard(batch), {}
        sizes = batch[spk_properties.n_atoms].tolist()
        training = task.training
        task.eval()
        with torch.no_grad():
            for visited in task.rollout(batch, self.steps + 1, guard=guard):
                state = visited.state
                for number in wanted.get(visited.step, []):
                    i = number % self.n_systems
                    if not guard.exploded[i]:
                        positions, velocities = (x.split(sizes)[i] for x in (state.positions, state.velocities))
                        found[number] = self._atoms(i, positions, velocities, frames)
        task.train(training)
        for i, system in enumerate(self._systems):
            system[spk_properties.R] = state.positions.split(sizes)[i].cpu()
            system[properties.velocities] = state.velocities.split(sizes)[i].cpu()
            self._age[i] = self.max_steps if guard.exploded[i] else self._age[i] + self.steps
        return [found[number] for number in drawn if number in found][: self.n_labels], int(guard.exploded.sum())

    def _atoms(self, i: int, positions: torch.Tensor, velocities: torch.Tensor, frames: Frames) -> Atoms:
        """A state of system i, in the units of ASE."""
        system = self._systems[i]
        length = units.conversion(frames.distance_unit, "Ang", "distance")
        time_unit = units.time_unit_in_fs(frames.units[spk_properties.energy], frames.distance_unit)
        atoms = Atoms(
            system[spk_properties.Z].numpy(),
            length * positions.double().cpu().numpy(),
            cell=length * system[spk_properties.cell][0].double().numpy(),
            pbc=system[spk_properties.pbc].numpy(),
            info={"system": i, "timestep_fs": time_unit * float(system[properties.time_step])},
        )
        for key in self._inputs(frames):
            atoms.info[key] = system[key].double().numpy()
        if spk_properties.total_charge in system:
            set_total_charge(atoms, float(system[spk_properties.total_charge]))
        atoms.set_masses(system[spk_properties.masses].double().numpy())
        atoms.set_velocities(velocities.double().cpu().numpy() * length / (time_unit * ase.units.fs))
        return atoms

    def _inputs(self, frames: Frames) -> list[str]:
        """What the database has that the simulations go on with, beside the structure."""
        return [key for key in frames.values if key in self._systems[0] and key not in properties.STRUCTURE]

    # state

    def state_dict(self) -> dict[str, Any]:
        """Rounds that are done, and where the simulations are."""
        return {
            "done": self._done,
            "extra": self._extra,
            "next_epoch": self._next_epoch,
            "systems": self._systems,
            "age": list(self._age),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._done, self._extra, self._next_epoch = (state_dict[key] for key in ("done", "extra", "next_epoch"))
        self._systems, self._age = state_dict["systems"], list(state_dict["age"])
