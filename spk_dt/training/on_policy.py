"""On-policy labels: the model simulates, the reference method labels states of its simulations, and they join the training.

The windows of a reference trajectory show what is right near that trajectory. A model that is run for picoseconds leaves its
neighbourhood, where no frame shows what is wrong, for example that two atoms must not come that close. Learning from the
states that a policy (here the model in training) reaches itself, with labels of an expert (here the reference method), is
known as on-policy labelling, or dataset aggregation (DAgger): Ross, Gordon, Bagnell, AISTATS 2011, arXiv 1011.0686.

When: `RoundSchedule`, how the model simulates: `spk_dt.training.ModelSimulations`, labels: `spk_dt.training.Labelling`.
"""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from spk_dt import processes, properties
from spk_dt.data.datamodule import TrajectoryDataModule
from spk_dt.folders.whole_file import whole_file
from spk_dt.labels.reference_check import check_reference, frames_to_choose_from
from spk_dt.labels.reference_of_data import OF_DATA, reference_of_data
from spk_dt.labels.reference_process import reference_provenance
from spk_dt.training.labelling import EnergyRanges, Labelling, write_labelled, write_states
from spk_dt.training.model_simulations import ModelSimulations
from spk_dt.training.task import DynamicTrainingTask
from spk_dt.training.time_step import conserving_time_step

__all__ = ["JoiningLabels", "OnPolicyLabels", "RoundSchedule", "data_of"]

log = logging.getLogger(__name__)

#: class and folder of version 0.1 and before; their checkpoints and files are taken over
_OLD_CLASS, _OLD_FOLDER = "VisitedStates", "visited"


@dataclass
class RoundSchedule:
    """Before which epochs a round of simulations and labels is made.

    Args:
        n_rounds: number of rounds.
        first_epoch: epoch before which the first round is made.
        every_n_epochs: epochs from one round to the next.
        extra_rounds: so many times at most, a round in which a simulation fails (explodes, or comes to a state that is left
            out) is followed by another one in the next epoch, and does not count among `n_rounds`.
        done: rounds that have been made.
        extra: those of them that do not count.
        next_epoch: before which the next one is made.

    Raises:
        ValueError: if an argument makes no sense.
    """

    n_rounds: int = 6
    first_epoch: int = 0
    every_n_epochs: int = 2
    extra_rounds: int = 0
    done: int = field(default=0, init=False)
    extra: int = field(default=0, init=False)
    next_epoch: int = field(init=False)

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        for name, least in {"n_rounds": 1, "every_n_epochs": 1, "extra_rounds": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"callbacks.on_policy.schedule.{name}={getattr(self, name)} must be at least {least}.")
        self.next_epoch = self.first_epoch

    @property
    def counted(self) -> int:
        """Rounds of `n_rounds` that have been made."""
        return self.done - self.extra

    def due(self, epoch: int) -> bool:
        """Whether a round is to be made before this epoch."""
        return self.counted < self.n_rounds and epoch >= self.next_epoch

    def add(self, epoch: int, failed: bool) -> None:
        """Count a round that was made before this epoch, in which a simulation has failed or not."""
        again = failed and self.extra < self.extra_rounds
        self.done += 1
        self.extra += again
        self.next_epoch = epoch + (1 if again else self.every_n_epochs)

    def state_dict(self) -> dict[str, int]:
        """What has been made."""
        return {"done": self.done, "extra": self.extra, "next_epoch": self.next_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.done, self.extra, self.next_epoch = (state_dict[key] for key in ("done", "extra", "next_epoch"))


class JoiningLabels(Callback):
    """Labels of the reference method that join the training: how they are prepared for, kept, and read again.

    The frames of round n are kept as a trajectory database ``round_<n>.db`` in `folder`, each a trajectory of one frame. If
    several processes train together, the first one simulates and labels, and all others read what it has written.

    What is stored is the last model, which has learned from all labels: the validation frames, of the data, show nothing of
    the states that were labelled, so that a smaller loss of theirs may well belong to a model from before.

    Args:
        labels: reference method.
        schedule: when labels are made.
        share: expected share of the training batches that are of labelled states.
        folder: where the databases are written, in the run folder.

    Raises:
        ValueError: by `setup`, if there is no such reference method, the last checkpoint is not kept, or the task has
            targets beside energy, forces and stress; when training starts, if the reference method is not that of the data,
            or gives no stress where this is trained on.
    """

    def __init__(self, labels: Labelling, schedule: RoundSchedule, share: float, folder: str) -> None:
        self.labels, self.schedule, self.share, self.folder = labels, schedule, share, Path(folder)
        self.with_stress = False  # whether the labels have it
        self._ranges = EnergyRanges()  # those of the data, if energies are in the loss
        self._stored = ""  # checkpoint of the model that is stored

    @property
    def possible(self) -> bool:
        """Whether there may be labels, known after `setup`."""
        return True

    @property
    def more_rounds(self) -> bool:
        """Whether there may be another round."""
        return self.schedule.counted < self.schedule.n_rounds

    # pl_module is a DynamicTrainingTask; the signature of a hook is Lightning's
    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        """Refuse what could not work, and prepare the training data for more frames."""
        if stage != "fit":
            return
        checkpoint = trainer.checkpoint_callback
        if isinstance(checkpoint, ModelCheckpoint) and not checkpoint.save_last:
            raise ValueError(
                "trainings with on-policy labels store the last model: set callbacks.model_checkpoint.save_last=true."
            )
        self._find_reference(data_of(trainer))
        unlabelled = sorted(set(pl_module.target_names()) - {properties.energy, properties.forces, properties.stress})
        self.with_stress = properties.stress in pl_module.target_names()
        if unlabelled:
            raise ValueError(
                "callbacks.on_policy labels states with energy, forces and stress only, but the task has the targets "
                f"{unlabelled}; train without callbacks.on_policy, or on energy, forces and stress."
            )
        older = self.folder.with_name(_OLD_FOLDER)
        if self.folder.name == "on_policy" and older.is_dir() and not self.folder.exists():
            log.info("on-policy labels: '%s' is of an older version; the run goes on with it", older)
            self.folder = older
        data_of(trainer).mix_in(self.share)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare the reference method with the data, and read the rounds that are done."""
        self._check_reference(data_of(trainer), pl_module)
        for number in range(self.schedule.done):
            self._add_round(trainer, number)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Store the last model."""
        self._store(trainer, getattr(trainer.checkpoint_callback, "last_model_path", ""))

    def on_test_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Store it all the same: the test has taken up the state of its checkpoint, which names another one as the best."""
        self._store(trainer, self._stored)

    def _store(self, trainer: pl.Trainer, checkpoint: str) -> None:
        """Let the model of a checkpoint be stored, if there is one."""
        self._stored = checkpoint
        if isinstance(trainer.checkpoint_callback, ModelCheckpoint) and checkpoint:
            trainer.checkpoint_callback.best_model_path = checkpoint

    def _add_round(self, trainer: pl.Trainer, number: int) -> None:
        """Add the labels of a round to the training, if it has any that are kept."""
        if processes.by_first(self._file(number).exists):
            data_of(trainer).add_training_frames(self._file(number))

    def _find_reference(self, datamodule: TrajectoryDataModule) -> None:
        """Find the reference method, and see that its calculator can be made."""
        if self.labels.reference == OF_DATA:
            self._take_reference_of(datamodule)
        labels = self.labels
        processes.by_first(lambda: reference_provenance(labels.reference, labels.scratch, labels.time_limit))

    def _take_reference_of(self, datamodule: TrajectoryDataModule) -> None:
        """Take the reference method that the data name."""
        name = reference_of_data(datamodule.frames.source, "callbacks.on_policy.labels.reference=")
        self.labels = replace(self.labels, reference=name)

    def _check_reference(self, datamodule: TrajectoryDataModule, task: Any) -> None:
        """Compare the reference method with training frames, and refuse another one."""
        frames, training = datamodule.frames, np.sort(datamodule.train_idx)
        inside = [(one, training[np.isin(training, one.frames)] - one.start) for one in frames.trajectories]
        in_loss = [
            f"task.outputs.{i}.loss_weight=0"
            for i, one in enumerate(task.outputs)
            if one.target_property == properties.energy and one.loss_weight != 0.0
        ]
        if in_loss and not self.labels.another_reference:
            self._ranges = EnergyRanges(frames)
        way_out = "use this one on purpose with callbacks.on_policy.labels.another_reference=true"
        if in_loss:
            way_out += f"; if it is the zero of energy alone, train on forces only ({' '.join(in_loss)})"
        processes.by_first(
            lambda: check_reference(
                frames_to_choose_from(frames.source, [(one, found.tolist()) for one, found in inside if len(found)]),
                self.labels.reference,
                frames.source,
                self.folder / "training_frame.jsonl",
                another=self.labels.another_reference,
                energies=bool(in_loss),
                way_out=way_out,
                name="callbacks.on_policy.labels.reference",
                scratch=self.labels.scratch,
                time_limit=self.labels.time_limit,
                stress=self.with_stress,
            )
        )

    def _file(self, number: int) -> Path:
        return self.folder / f"round_{number:03d}.db"


class OnPolicyLabels(JoiningLabels):
    """Lets the model simulate now and then, and adds states of its simulations, with reference labels, to the training.

    When the run is continued, rounds that are done are read, not computed again, and the simulations go on.

    Args:
        labels: reference method, and how many states of a round it labels.
        simulations: how the model simulates.
        schedule: when.
        share: expected share of the training batches that are of labelled states.
        folder: where the databases are written, in the run folder, see `JoiningLabels`.

    Raises:
        ValueError: if arguments contradict each other; later see `JoiningLabels`.
    """

    def __init__(
        self,
        labels: Labelling,
        simulations: ModelSimulations | None = None,
        schedule: RoundSchedule | None = None,
        share: float = 0.25,
        folder: str = "on_policy",
    ) -> None:
        super().__init__(labels, RoundSchedule() if schedule is None else schedule, share, folder)
        self.simulations = ModelSimulations() if simulations is None else simulations
        n_systems, steps = self.simulations.n_systems, self.simulations.steps
        if labels.n_labels > n_systems * steps:
            raise ValueError(
                f"callbacks.on_policy.labels.n_labels={labels.n_labels}: {n_systems} simulations of {steps} steps have "
                "fewer states; set callbacks.on_policy.simulations.steps higher."
            )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Make a round, if it is time."""
        if not trainer.should_stop and self.schedule.due(trainer.current_epoch):
            failed = processes.by_first(lambda: self._round(data_of(trainer), pl_module))
            self._add_round(trainer, self.schedule.done)
            self.schedule.add(trainer.current_epoch, failed)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Store the last model, and say so if rounds are missing."""
        super().on_train_end(trainer, pl_module)
        schedule = self.schedule
        if self.more_rounds:
            log.warning(
                "on-policy labels: the training has ended after %d rounds, %d of which count, of %d. For more of them train "
                "longer, or set callbacks.on_policy.%s below %d.",
                *(schedule.done, schedule.counted, schedule.n_rounds, *self._sooner()),
            )

    def _sooner(self) -> tuple[str, int]:
        """A setting, and its value, that with a smaller one leaves room for more rounds."""
        if self.schedule.every_n_epochs > 1:
            return "schedule.every_n_epochs", self.schedule.every_n_epochs
        return "simulations.steps", self.simulations.steps

    def state_dict(self) -> dict[str, Any]:
        """Rounds that are done, and where the simulations are."""
        return {**self.schedule.state_dict(), **self.simulations.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.schedule.load_state_dict(state_dict)
        self.simulations.load_state_dict(state_dict)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Find the state in a checkpoint of an older version."""
        states = checkpoint["callbacks"]
        if _OLD_CLASS in states and self.state_key not in states:
            log.info("on-policy labels: the state of %s in the checkpoint is taken over", _OLD_CLASS)
            states[self.state_key] = states[_OLD_CLASS]

    def _round(self, datamodule: TrajectoryDataModule, task: DynamicTrainingTask) -> bool:
        """Simulate and label; what an interrupted round has left is used.

        Returns:
            whether a simulation has failed.
        """
        number = self.schedule.done
        database = self._file(number)
        frames, simulations = datamodule.frames, self.simulations
        states, after = database.with_suffix(".traj"), database.with_suffix(".pt")
        if states.exists() and after.exists():
            exploded = self._take_up(after)
        else:
            step = conserving_time_step(task, datamodule.train_dataset, frames, simulations.time_step)
            simulations.start(datamodule.train_dataset, task.target_names(), step)
            drawn, exploded = simulations.run(task, frames, self.labels.n_labels)
            if not drawn:
                log.warning("on-policy labels, round %d: all simulations exploded before a state was taken", number)
                return True
            if not states.exists():  # else they are of a version that kept nothing else, and may be labelled
                with whole_file(after, make_folder=True) as part:
                    torch.save([simulations.state_dict(), torch.get_rng_state(), exploded], part)
                write_states(states, drawn)
        kept, left_out, n_failures, n_impossible, made_by = self.labels.label(states, self.with_stress, self._ranges)
        for atoms in left_out:
            simulations.start_again(atoms.info["system"])
        if kept and not database.exists():  # else it was made after the checkpoint from which the run goes on
            write_labelled(database, f"round_{number}", kept, frames, simulations.inputs(frames), made_by)
        log.info(
            "on-policy labels, round %d: %d labelled, %d left out (%d without a label, %d with an impossible energy, others "
            "with a force above %g eV/Å), %d exploded",
            *(number, len(kept), len(left_out), n_failures, n_impossible, self.labels.max_force, exploded),
        )
        return exploded > 0 or bool(left_out)

    def _take_up(self, after: Path) -> int:
        """Be where simulations and random numbers were after those of an interrupted round; how many have exploded."""
        state, random_state, exploded = torch.load(after, weights_only=False)
        self.simulations.load_state_dict(state)
        torch.set_rng_state(random_state)
        return int(exploded)


def data_of(trainer: pl.Trainer) -> TrajectoryDataModule:
    """The data module of a training."""
    return trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it, but does not declare it
