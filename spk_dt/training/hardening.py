"""Hardening: on-policy labels where simulations of the model go wrong, until simulations of a given length pass.

A round is a trial (`spk_dt.training.trials`) of the averaged model, which is the one that is stored: simulations from
training frames, up to a time that has been reached before. The reference method judges them (`spk_dt.training.trial_judge`)
as in a certificate (`spk_dt.certificate.verdict`): by their ends, closest contacts, largest forces and newest states
(`spk_dt.certificate.novelty`; known are frames and labels that it is trained on), and by bisection from a wrong state back
to the first wrong one. If all pass, they go on to twice the time, with the same model; if one fails, all states that were
labelled for the verdict, the first wrong and the last right ones among them, join the training, beside some drawn at random.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from ase import Atoms

from spk_dt import processes, properties
from spk_dt.certificate.criteria import Criteria, scales_of
from spk_dt.certificate.engines import ModelEngine
from spk_dt.certificate.novelty import N_KNOWN
from spk_dt.data.datamodule import TrajectoryDataModule
from spk_dt.data.start_frames import open_dataset, read_frame, spread_frames
from spk_dt.folders.whole_file import whole_file
from spk_dt.labels.reference_process import ReferenceProcess
from spk_dt.models import own_file
from spk_dt.training.average import averaged_weights
from spk_dt.training.budget import SecondsUsedUpError, budgets_of, in_time
from spk_dt.training.hardening_goal import GOAL, HardeningGoal
from spk_dt.training.labelling import Labelling, write_labelled
from spk_dt.training.on_policy import JoiningLabels, RoundSchedule, data_of
from spk_dt.training.time_step import conserving_time_step
from spk_dt.training.trial_judge import TrialJudge
from spk_dt.training.trials import Trial, TrialSimulations

__all__ = ["Hardening"]

log = logging.getLogger(__name__)


class LastTrial(NamedTuple):
    """What has come of the simulations of the last model.

    Args:
        told: which of them do not pass, in words; empty if all pass.
        passed_ps: time of the first failure, or else of the end, ps.
        come_to: how far the goal is reached, if labels were kept for the training.
    """

    told: str
    passed_ps: float
    come_to: dict[str, Any] | None


class Hardening(JoiningLabels):
    """Labels states where simulations of the model go wrong, until they pass, or labels or the training are at an end.

    When the goal is reached no more rounds are made, and the training goes on to the end of its schedule, with falling
    learning rate. Then the last model is tried once more, in as many simulations, whose labels are not trained on and do
    not count as used. It is stored in any case: ``val_loss``, an error near the trajectories of the data, does not tell how
    long simulations last, and models that had passed earlier, at a higher learning rate, have lasted less long
    (docs/lasting.md). Models that are tried or stored are those with averaged weights.

    ``<folder>/round_<n>/`` has the model of a round, ``trial_<m>/`` with its simulations and ``labels.jsonl``. A training
    that was interrupted in a round goes on with the files, and its batches come in the same order, as if it had not been. If
    `spk_dt.training.ComputeBudget` ends the training in the middle of a round, that round does not count.

    Args:
        labels: reference method; `n_labels` states before the first wrong ones of a round are drawn at random.
        goal: what is to be reached.
        simulations: how the model simulates.
        criteria: when a state is wrong.
        schedule: when rounds are made.
        share: expected share of the training batches that are of labelled states.
        folder: in the run folder.

    Raises:
        ValueError: if arguments contradict each other; by `setup`, if the data have inputs of models beside the structure;
            see also `JoiningLabels`.
    """

    def __init__(
        self,
        labels: Labelling,
        goal: HardeningGoal | None = None,
        simulations: TrialSimulations | None = None,
        criteria: Criteria | None = None,
        schedule: RoundSchedule | None = None,
        share: float = 0.35,
        folder: str = "hardening",
    ) -> None:
        super().__init__(labels, RoundSchedule(n_rounds=1000) if schedule is None else schedule, share, folder)
        self.goal = HardeningGoal() if goal is None else goal
        self.simulations = TrialSimulations() if simulations is None else simulations
        self.criteria = Criteria(n_checks=0) if criteria is None else criteria
        if self.goal.begin_ps < self.simulations.interval_ps:
            raise ValueError(
                f"{GOAL}.begin_ps={self.goal.begin_ps} is shorter than callbacks.on_policy.simulations.interval_ps="
                f"{self.simulations.interval_ps}, the distance of two states: set one of them otherwise."
            )
        self._engine: ModelEngine | None = None
        self._seed = int(torch.randint(2**31, ()))
        self._frames: list[Atoms] = []  # of the data
        self._processes: list[ReferenceProcess] = []  # of the reference method, during a round
        self._tried: str | None = None  # which simulations of the last model do not pass, None before they are made
        #: length of the simulations in which the last model is tried, ps
        self.last_ps = self.goal.until_ps

    @property
    def more_rounds(self) -> bool:
        """Whether there may be another round."""
        return self.goal.open and super().more_rounds

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        """Refuse what could not work."""
        if stage != "fit":
            return
        names = set(data_of(trainer).frames.values) - set(properties.STRUCTURE) - set(pl_module.target_names())
        if inputs := sorted(filter(properties.is_input, names)):
            raise ValueError(
                f"hardening simulates from the structure alone, but the data have the inputs {inputs}; train with "
                "experiment=dt_on_policy, whose simulations take them along."
            )
        super().setup(trainer, pl_module, stage)
        self._seed = processes.by_first(lambda: self._seed)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Make a round, if it is time."""
        epoch = trainer.current_epoch
        data_of(trainer).order_batches(int(np.random.SeedSequence([self._seed, epoch]).generate_state(1)[0]))
        if not trainer.should_stop and self.goal.open and self.schedule.due(epoch):
            try:
                passed_ps, come_to = self._by_first(lambda: self._round(trainer, pl_module))
            except SecondsUsedUpError:
                trainer.should_stop = True
                return
            self._add_labels(trainer, pl_module, passed_ps, come_to)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Store the last model, and say what has ended the hardening."""
        super().on_train_end(trainer, pl_module)
        goal, stored = self.goal, "the last model"
        if goal.reached >= 0 and self._tried is None:
            self._tried = self._by_first(lambda: self._last_trial(trainer, pl_module, join=False)).told
        if self._tried is not None:
            passes = f"passes {goal.n_passing} simulations of {self.last_ps:g} ps"
            stored += ", which " + (f"was tried in {self._tried}" if self._tried else passes)
        if goal.reached >= 0:
            ended = f"the goal is reached, in round {goal.reached}"
        elif not goal.open and self._tried is None:
            ended = f"the {goal.max_labels - goal.kept} labels are used up"
        elif any(one.fraction >= 1.0 for one in budgets_of(trainer)):
            ended = "the seconds of callbacks.budget are used up"
        elif self.schedule.counted >= self.schedule.n_rounds:
            ended = f"all {self.schedule.n_rounds} rounds are made"
        else:
            ended = "the training has ended"
        log.log(
            logging.INFO if self._tried == "" else logging.WARNING,
            "hardening: %s after %d round%s and %d labels of %s; last round: %s; stored is %s",
            *(
                ended,
                self.schedule.done,
                "" if self.schedule.done == 1 else "s",
                goal.labels,
                self.labels.reference,
                goal.told,
                stored,
            ),
        )

    def state_dict(self) -> dict[str, Any]:
        """Rounds that are done, how far they came, and the seed of the order of batches."""
        return {**self.schedule.state_dict(), "goal": self.goal.state_dict(), "seed": self._seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.schedule.load_state_dict(state_dict)
        self.goal.load_state_dict(state_dict["goal"])
        self._seed = state_dict["seed"]

    def _by_first[T](self, what: Callable[[], T]) -> T:
        """Let the first process do something with the reference method; thermostats have their own seeds."""

        def compute() -> T:
            with torch.random.fork_rng(), self.labels.processes() as self._processes:
                return what()

        return processes.by_first(compute)

    def _round(self, trainer: pl.Trainer, task: Any) -> tuple[float, dict[str, Any]]:
        """Try the model as far as it passes, and keep what was labelled for the training.

        Returns:
            time of the first failure, ps, or the time of the simulations that all passed, and how far the goal is reached.
        """
        goal, number = self.goal, self.schedule.done
        folder = self.folder / f"round_{number:03d}"
        judge, runs = self._judge(trainer, task, folder), self._conserving(trainer, task)
        n_before, n_systems, n_trials, labelled = goal.labels, self.simulations.n_systems, 0, []
        while True:
            trial = self._trial(runs, data_of(trainer), folder / f"trial_{n_trials}", (number, n_trials))
            judged = judge.judge(trial, goal.horizon_ps, goal.labels_left, lambda: in_time(trainer, task))
            n_trials += 1
            goal.labels += judged.n_labels
            labelled += judged.labelled
            goal.horizon_ps = judged.ps
            if judged.n_failed or n_trials * n_systems >= goal.n_passing or not goal.open:
                break
        goal.told = f"{n_trials * n_systems} simulations of {judged.ps:g} ps, {judged.told}"
        if judged.n_failed:
            goal.after_failure(judged.passed_ps)
        elif n_trials * n_systems >= goal.n_passing:
            goal.reached = number
        self._keep(trainer, labelled, goal.labels - n_before, goal.told, judge.made_by)
        return judged.passed_ps, goal.state_dict()

    def _keep(
        self, trainer: pl.Trainer, labelled: list[Atoms], n_labels: int, told: str, made_by: dict[str, Any]
    ) -> None:
        """Write the labels of the round that is next, without those of enormous forces, where the training finds them."""
        number = self.schedule.done
        kept = [
            one for one in labelled if np.abs(one.get_forces(apply_constraint=False)).max() <= self.labels.max_force
        ]
        if kept and not self._file(number).exists():  # else it was made after the checkpoint from which the run goes on
            write_labelled(self._file(number), f"round_{number}", kept, data_of(trainer).frames, [], made_by)
        log.info(
            "hardening, round %d: %s; %d labels, %d of them trained on; in all %d of %d",
            *(number, told, n_labels, len(kept), self.goal.labels, self.goal.max_labels),
        )

    def _add_labels(self, trainer: pl.Trainer, task: Any, passed_ps: float, come_to: dict[str, Any]) -> None:
        """Let all processes train on the labels of the round that is next, and know how far it came; log it."""
        self.goal.load_state_dict(come_to)
        self._add_round(trainer, self.schedule.done)
        self.schedule.add(trainer.current_epoch, failed=False)
        measured = {"hardening_ps": passed_ps, "hardening_labels": float(self.goal.labels)}
        task.log_dict(measured, on_step=False, on_epoch=True)

    def _last_trial(self, trainer: pl.Trainer, task: Any, join: bool) -> LastTrial:
        """Try the last model in as many simulations as the goal says, of `last_ps`.

        Args:
            trainer: at the end of the training.
            task: that is trained.
            join: whether labels are kept for the training, as of a round, if a simulation fails and as many may be used.
        """
        goal, labelled, n_labels = self.goal, [], 0
        folder = self.folder / f"last_trial_{trainer.global_step}"
        log.info("hardening: the last model is tried in %d simulations of %g ps", goal.n_passing, self.last_ps)
        judge, runs = self._judge(trainer, task, folder), self._conserving(trainer, task)
        for number in range(-(-goal.n_passing // runs.n_systems)):
            trial = self._trial(runs, data_of(trainer), folder / f"trial_{number}", (self.schedule.done, number, 1))
            judged = judge.judge(trial, self.last_ps, inf)
            labelled += judged.labelled
            n_labels += judged.n_labels
            if judged.n_failed:
                break
        else:
            return LastTrial("", self.last_ps, None)
        told = f"{(number + 1) * runs.n_systems} simulations of {self.last_ps:g} ps, {judged.told}"
        if not join or goal.labels + n_labels > goal.max_labels:
            return LastTrial(told, judged.passed_ps, None)
        goal.labels += n_labels
        self._keep(trainer, labelled, n_labels, told, judge.made_by)
        return LastTrial(told, judged.passed_ps, goal.state_dict())

    def _judge(self, trainer: pl.Trainer, task: Any, folder: Path) -> TrialJudge:
        """What tries the averaged model, by way of a file, with which an interrupted round goes on."""
        file = folder / "model"
        if not file.exists():
            with averaged_weights(trainer, task.model), whole_file(file, make_folder=True) as part:
                task.save_model(part, do_postprocessing=True)
        own_file(file)
        if self._engine is None:
            frames, runs = data_of(trainer).frames, self.simulations
            energy, length = frames.units[properties.energy], frames.distance_unit
            self._engine = runs.engine(file, energy, length, str(task.device))
        self._engine.load(file)
        rounds = [self._file(number) for number in range(self.schedule.done)]
        labelled = [atoms for file in rounds if file.exists() for atoms in spread_frames(file)]
        self._engine.know(self._frames_of(data_of(trainer)) + labelled)
        how = (self.labels, self._processes, self.with_stress, self.criteria, self._ranges, self.goal.until_ps)
        return TrialJudge(self._engine, *how)

    def _conserving(self, trainer: pl.Trainer, task: Any) -> TrialSimulations:
        """How the model simulates, with a time step that conserves energy."""
        windows, frames = data_of(trainer).train_dataset, data_of(trainer).frames
        step = conserving_time_step(task, windows, frames, self.simulations.time_step)
        return replace(self.simulations, time_step=step)

    def _trial(
        self, runs: TrialSimulations, datamodule: TrajectoryDataModule, folder: Path, key: tuple[int, ...]
    ) -> Trial:
        """Simulations from training frames that are drawn at random, the same ones for the same key."""
        scales = scales_of(self._frames_of(datamodule))
        drawn = np.random.default_rng(key).choice(np.asarray(datamodule.train_idx), runs.n_systems)
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        return runs.trial(folder, _read(datamodule, drawn), scales, sum(key) * runs.n_systems, seed)

    def _frames_of(self, datamodule: TrajectoryDataModule) -> list[Atoms]:
        """Training frames at equal distances, from which follows what errors are measured by, and what is new."""
        if not self._frames:
            members = np.asarray(datamodule.train_idx)
            chosen = np.linspace(0, len(members) - 1, min(N_KNOWN, len(members))).astype(int)
            self._frames = [atoms for atoms, _ in _read(datamodule, members[chosen])]
        return self._frames


def _read(datamodule: TrajectoryDataModule, numbers: np.ndarray) -> list[tuple[Atoms, float]]:
    """Frames of the data in the units of ASE, and the time steps of their simulations, fs."""
    frames, found = datamodule.frames, []
    dataset = open_dataset(frames.source)
    for number in map(int, numbers):
        trajectory = frames.trajectories[frames.trajectory_of(number)]
        atoms = read_frame(dataset, trajectory, number - trajectory.start)
        found.append((atoms, trajectory.timestep_fs / trajectory.inner_steps))
    return found
