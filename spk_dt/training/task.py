"""The task of dynamic training: a SchNetPack task whose model is trained on short simulations that it runs itself."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from schnetpack import properties as spk_properties
from schnetpack.task import ModelOutput, UnsupervisedModelOutput

from spk_dt import processes, properties
from spk_dt.data.isolated import first_frames, refuse_isolated
from spk_dt.dynamics import (
    CompiledPotential,
    Detached,
    ExplosionGuard,
    GradientMode,
    Integrator,
    Kicks,
    ModelForces,
    VerletList,
    Visited,
    predict_stress,
    rollout,
    stress_key_of,
)
from spk_dt.representation.cutoff import cutoff_of
from spk_dt.training.accidents import Accidents, AccidentsLeftOut
from spk_dt.training.accumulate import PartwiseLoss
from spk_dt.training.checkpointed_task import CheckpointedTask
from spk_dt.training.force_error_logging import ForceErrorLogging
from spk_dt.training.losses import keep_counted, loss_by_class
from spk_dt.training.metrics import RolloutLoss
from spk_dt.training.pair_radius import pair_radius
from spk_dt.training.parts_of_batch import at_step, model_inputs, some_systems
from spk_dt.training.precision import loss_scaler
from spk_dt.training.repeated_windows import without_repeated
from spk_dt.training.step_losses import StepLosses
from spk_dt.training.stress_of_data import refuse_without_stress, trained_stress

__all__ = ["DynamicTrainingTask"]


class DynamicTrainingTask(AccidentsLeftOut, ForceErrorLogging, StepLosses, CheckpointedTask):
    r"""Dynamic training.

    With one step (S = 1) this is `schnetpack.AtomisticTask`: all outputs, on single frames. With S > 1 the model
    propagates the first frame of each window with velocity Verlet, and is compared with the reference frame at each step,

    .. math::
        L = \sum_{k=0}^{S-1} w_k \sum_o L_o(y_o(x_k), y_o^\mathrm{ref}(k)),

    with the outputs named in `rollout_outputs`. The S in force is `rollout_length`; `spk_dt.training.Curriculum` raises it.
    Validation and test are free rollouts along the whole window, logged as ``val_loss``: the mean over the steps of the
    loss of `rollout_outputs`, the same quantity at every S. Its means are over all systems of the epoch, of all processes,
    however they are put into batches (`spk_dt.training.losses.loss_by_class`). What the data hold fixed stays where it is in
    all rollouts; which of its forces count is up to the data module.

    Žugec, Hadži Veljković, Alducin, Juaristi: Dynamic Training Enhances Machine Learning Potentials for Long-Lasting
    Molecular Dynamics. J. Chem. Inf. Model. 2025, doi 10.1021/acs.jcim.5c01180, arXiv 2504.03521.

    Args:
        model: any SchNetPack model that predicts forces.
        outputs: outputs with losses and metrics.
        rollout_length: S to begin with.
        gradient: how far gradients flow back in time; default `Detached`, as in the paper.
        first_step_weight: w_0, weight of the first frame, whose forces the reference knows exactly. Applies for S > 1.
        step_weight: w_1, weight of the next step.
        step_weight_ratio: w_{k+1} / w_k of the later steps: above one the end of the window counts most, below one its
            beginning.
        rollout_outputs: names of the outputs in the loss for S > 1 and in the validation loss; default the forces, and the
            `stress` if it is given.
        force_key: name of the forces among the outputs of the model.
        skin: by how much the neighbour lists of rollouts reach beyond the cutoff, in the length unit of the data.
        max_displacement: a system in which an atom would move further than this in one step counts as exploded and is
            stopped for the rest of the rollout; length unit of the data, default a tenth of the cutoff.
        compile: compile energy and forces into one function (`spk_dt.dynamics.CompiledPotential`).
        stress: an output beside `outputs` that is the stress; the model is made to predict it.
        max_left_out: share of the windows of an epoch that may be left out of the training since their rollouts explode, and
            of updates since their gradients are not finite (`spk_dt.training.accidents`).
        kwargs: arguments of `schnetpack.AtomisticTask`.

    Raises:
        ValueError: if an argument makes no sense; by `setup`, if the neighbour list of the data is shorter than the
            cutoff of the model, or the precision of the trainer is too low; in training, if the loss is not finite,
            or too much is left out.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        outputs: list[ModelOutput],
        rollout_length: int = 1,
        gradient: GradientMode | None = None,
        first_step_weight: float = 50.0,
        step_weight: float = 1.0,
        step_weight_ratio: float = 1.0,
        rollout_outputs: Sequence[str] | None = None,
        force_key: str = spk_properties.forces,
        skin: float = 0.5,
        max_displacement: float | None = None,
        compile: bool = False,
        stress: ModelOutput | None = None,
        max_left_out: float = 0.5,
        **kwargs: Any,
    ) -> None:
        if stress is not None:
            predict_stress(model, stress.name)
        super().__init__(model, outputs if stress is None else [*outputs, stress], **kwargs)
        self.rollout_length = rollout_length
        self.gradient = gradient if gradient is not None else Detached()
        self.first_step_weight = first_step_weight
        self.step_weight = step_weight
        self.step_weight_ratio = step_weight_ratio
        self.force_key = force_key
        self.skin = skin
        self.cutoff = cutoff_of(model)
        self.max_displacement = self.cutoff / 10.0 if max_displacement is None else max_displacement
        if rollout_outputs is None:
            rollout_outputs = [force_key] if stress is None else [force_key, stress.name]
        names = [output.name for output in self.outputs]
        if not set(rollout_outputs) <= set(names):
            raise ValueError(f"task.rollout_outputs={rollout_outputs} must be among the outputs of the task, {names}")
        predicted: Any = model.model_outputs
        if lacking := {force_key, *names} - set(predicted):
            hint = "; task/stress=trained lets it" if lacking == {spk_properties.stress} else ""
            raise ValueError(f"the model predicts {predicted}, but not {sorted(lacking)}, which the task needs{hint}")
        if rollout_length < 1:
            raise ValueError(f"task.rollout_length={rollout_length}: a rollout has at least one step, the first frame")
        self.rollout_outputs = [output for output in self.outputs if output.name in rollout_outputs]
        self._force_target = next((o.target_property for o in self.outputs if o.name == force_key), force_key)
        self._predict = CompiledPotential(model) if compile else self.predict_without_postprocessing
        self._batch_radius: float | None = None
        self._scaler: torch.amp.GradScaler | None = None
        self.val_loss, self.test_loss = (RolloutLoss(len(self.rollout_outputs)) for _ in range(2))
        self._force_errors = {}
        self._accidents = Accidents(max_left_out)

    def setup(self, stage: str | None = None) -> None:
        """Initialise transforms, and learn how far the neighbour list in the batches reaches, and what scales the loss."""
        super().setup(stage)
        processes.refuse_other_folders()
        processes.same_seed()
        self._scaler = loss_scaler(self.trainer.precision_plugin)
        self._force_errors.clear()  # of an epoch that was interrupted
        self.val_loss.reset()
        self.test_loss.reset()
        self._batch_radius = pair_radius(self.trainer.datamodule, self.cutoff)
        if (frames := getattr(self.trainer.datamodule, "frames", None)) is not None:
            refuse_isolated(first_frames(frames), self.cutoff, f"'{frames.source}'", frames.distance_unit)
            if (target := trained_stress(self.outputs, stress_key_of(self.model))) is not None:
                refuse_without_stress(frames, target)
        available = getattr(self.trainer.datamodule, "window", {"train": 1})["train"]
        if stage == "fit" and self.rollout_length > available:
            raise ValueError(
                f"a rollout of S = {self.rollout_length} steps needs windows of as many frames, but "
                f"data.train_window={available}"
            )

    # one step of training, validation or test

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor | None:
        """Loss of a batch; for S > 1 of rollouts of S steps, without those that explode. None if all do."""
        n_steps = self.steps_of(batch)
        loss, exploded, seen = self._loss_of(batch, n_steps)
        if n_steps > 1 and self._count_windows(exploded, batch, n_steps):
            if exploded.all():
                if processes.number() == 1:
                    return None
                loss, seen = self._loss_of_none(n_steps), []
            else:
                batch = some_systems(batch, ~exploded)
                loss, _, seen = self._loss_of(batch, n_steps)
        for step, forces, predicted, targets in seen:
            if n_steps == self.rollout_length:
                self._add_force_errors("train", batch, forces, step)
            if step == 0:
                self.log_metrics(predicted, targets, "train")
        of_all = processes.total(loss.detach()) / processes.number()
        if not bool(torch.isfinite(of_all)):
            raise ValueError(
                f"the training loss is {of_all.item()} in epoch {self.current_epoch} with S = {n_steps}. Lower globals.lr "
                "or task.scheduler_args, or look at the data with data.check_data=true."
            )
        self.log("train_loss", of_all, on_step=True, on_epoch=False, prog_bar=False)
        return loss

    def _loss_of(self, batch: dict[str, torch.Tensor], n_steps: int) -> tuple[torch.Tensor, torch.Tensor, list[Any]]:
        """Loss, [n_systems] which have exploded, and step, forces, predictions and targets of each step."""
        total = PartwiseLoss(list(self.parameters()), self.trainer.world_size > 1, self._scaler)
        loss_fn = self._loss_fn(n_steps)
        part = nothing = torch.zeros((), device=self.device)
        guard, seen = self.guard(batch), []
        for visited, predicted, targets in self._visit(batch, n_steps, self.gradient, guard):
            if n_steps == 1:
                part = loss_fn(predicted, targets)
            else:
                part = part + self._weight(visited.step) * loss_fn(predicted, targets)
                guard.stop_where_not_finite(visited.state.forces)
            kept = {key: value.detach() for key, value in predicted.items()} if visited.step == 0 else {}
            seen.append((visited.step, visited.state.forces.detach(), kept, targets if kept else {}))
            if visited.step + 1 < n_steps and self.gradient.cuts(visited.step + 1):
                total.add(part)  # before the next step is made, so that only one graph is in memory
                part = nothing
        return total.total(part), guard.exploded, seen

    def steps_of(self, batch: Mapping[str, torch.Tensor]) -> int:
        """S of a training batch: single frames among windows are trained on as for S = 1."""
        return 1 if self._window_length(batch) == 1 else self.rollout_length

    def force_evaluations(self, batch: Mapping[str, torch.Tensor]) -> int:
        """Forces of systems that a rollout of a training batch computes, of those that rest between frames as well.

        What `spk_dt.dynamics.Full` computes once more to save memory is not counted.
        """
        n_steps = self.steps_of(batch)
        inner_steps = int(batch[properties.inner_steps].max()) if n_steps > 1 else 1
        return len(batch[spk_properties.idx]) * (1 + (n_steps - 1) * inner_steps)

    def backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        """Gradients of the parameters; those of the positions, which took part in the forces, are not computed."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        loss.backward(inputs=parameters, **kwargs)

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> dict[str, torch.Tensor]:
        """Error of free rollouts along the whole window."""
        return {"val_loss": self._free_rollout(batch, batch_idx, "val", self.val_loss)}

    def test_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> dict[str, torch.Tensor]:
        """Error of free rollouts along the whole window."""
        return {"test_loss": self._free_rollout(batch, batch_idx, "test", self.test_loss)}

    def _free_rollout(
        self, batch: dict[str, torch.Tensor], batch_idx: int, subset: str, of_epoch: RolloutLoss
    ) -> torch.Tensor:
        """Rollout loss of a batch, mean over the steps; that of the epoch is logged with its parts."""
        n_steps = self._window_length(batch)
        loss = torch.zeros((), device=self.device)
        unrepeated = without_repeated(batch, batch_idx, getattr(self.trainer, f"{subset}_dataloaders", None))
        if unrepeated is None:
            return loss
        batch = unrepeated
        guard = self.guard(batch)
        with torch.no_grad():
            for visited, predicted, targets in self._visit(batch, n_steps, Detached(), guard):
                parts = [loss_by_class(output, predicted, targets) for output in self.rollout_outputs]
                loss = loss + sum(means.sum() for _, means, _ in parts)
                of_epoch.update(parts, visited.step)
                self._add_force_errors(subset, batch, visited.state.forces, visited.step)
                if visited.step == 0:
                    self.log_metrics(predicted, targets, subset)
        # the same in all processes: schedulers, curriculum and checkpoints go by it
        log = {"on_step": False, "on_epoch": True, "batch_size": len(guard.exploded), "sync_dist": True}
        self.log(f"{subset}_loss", of_epoch, prog_bar=True, **log)
        self.log(f"{subset}_exploded", guard.exploded.float().mean(), **log)
        return loss / n_steps

    def _visit(
        self,
        batch: dict[str, torch.Tensor],
        n_steps: int,
        gradient: GradientMode,
        guard: ExplosionGuard | None = None,
    ) -> Iterator[tuple[Visited, dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
        """States of a rollout, with predictions and targets after constraints."""
        for visited in self.rollout(batch, n_steps, gradient, guard):
            targets = self._targets(batch, visited.step)
            outputs = {key: value.contiguous() for key, value in visited.outputs.items()}  # as metrics ask for
            predicted, targets = self.apply_constraints(outputs, targets)
            if properties.counted_forces in batch:
                keep_counted(batch[properties.counted_forces], self.force_key, self._force_target, predicted, targets)
            yield visited, predicted, targets

    def rollout(
        self,
        batch: Mapping[str, torch.Tensor],
        n_steps: int,
        gradient: GradientMode | None = None,
        guard: ExplosionGuard | None = None,
        integrator: Integrator | None = None,
    ) -> Iterator[Visited]:
        """Run the model from the first frames of a batch; more steps than the windows have frames are allowed.

        Args:
            batch: windows, or frames with velocities, masses and time step.
            n_steps: number of states, S; if the batch holds the kicks of a thermostat, one more than kicks at most.
            gradient: how far gradients flow back; default `Detached`.
            guard: stops systems that explode; default one with the `max_displacement` of the task.
            integrator: how a step is made; default `spk_dt.dynamics.VelocityVerlet`.
        """
        gradient, guard = gradient or Detached(), guard or self.guard(batch)
        neighbors = VerletList(self.cutoff, self.skin)
        if self._batch_radius is not None and spk_properties.idx_i in batch:
            neighbors.adopt(batch, batch.get(properties.pair_skin, (self._batch_radius - self.cutoff) / 2.0))
        force_fn = ModelForces(self._predict, self._model_inputs(batch), neighbors, self.force_key)
        positions = batch[spk_properties.R]
        if n_steps == 1:  # any SchNetPack data will do: velocities are not needed
            zeros = torch.zeros_like(positions)
            return rollout(force_fn, positions, zeros, torch.ones_like(positions[:, 0]), 1.0, 1, gradient)
        idx_m, inner_steps = batch[spk_properties.idx_m], batch[properties.inner_steps]
        time_step = batch[properties.time_step] / inner_steps
        kicks, mobile = None, batch.get(properties.mobile)
        if properties.position_kicks in batch:
            kicks = Kicks(batch[properties.position_kicks], batch[properties.velocity_kicks])
        return rollout(
            force_fn,
            positions,
            batch[properties.velocities],
            batch[spk_properties.masses],
            time_step[idx_m],
            n_steps,
            gradient,
            guard,
            inner_steps[idx_m],
            kicks,
            integrator,
            None if mobile is None or bool(mobile.all()) else mobile,
        )

    # parts of a batch

    def target_names(self) -> list[str]:
        """Names in the data of what is trained on."""
        return [o.target_property for o in self.outputs if not isinstance(o, UnsupervisedModelOutput)]

    def _window_length(self, batch: Mapping[str, torch.Tensor]) -> int:
        """Frames of the windows in a batch, 1 if it holds single frames."""
        window = batch.get(properties.window(self.target_names()[0]))
        return 1 if window is None else window.shape[1]

    def _targets(self, batch: Mapping[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        """Targets at a step, and what losses may need to know of the systems."""
        targets = {name: at_step(batch, name, step) for name in self.target_names()}
        for key in (spk_properties.Z, spk_properties.n_atoms, "considered_atoms"):
            if key in batch:
                targets[key] = batch[key]
        return targets

    def _model_inputs(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the model reads of a batch."""
        return model_inputs(batch, self.target_names())

    def guard(self, batch: Mapping[str, torch.Tensor]) -> ExplosionGuard:
        """A new guard for a rollout from a batch."""
        idx_m = batch[spk_properties.idx_m]
        return ExplosionGuard(idx_m, len(batch[spk_properties.n_atoms]), self.max_displacement)
