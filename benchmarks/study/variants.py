"""Ways to train that were tried and are not part of spk_dt; an arm chooses one with ``task._target_``."""

import torch
from schnetpack import properties as spk_properties

from spk_dt import properties
from spk_dt.dynamics import rollout
from spk_dt.training import DynamicTrainingTask

__all__ = ["DrawnLength", "MotionLoss"]


class DrawnLength(DynamicTrainingTask):
    """The steps of each batch are drawn evenly from 1 to the S in force."""

    def training_step(self, batch, batch_idx):
        self._drawn = int(torch.randint(1, super().steps_of(batch) + 1, ()))
        return super().training_step(batch, batch_idx)

    def steps_of(self, batch):
        return self._drawn


class MotionLoss(DynamicTrainingTask):
    r"""Besides the forces at each step, positions and velocities at the end of the window, after the time t.

    They are compared as the forces whose mean over the window would have caused the difference to the reference,

    .. math:: m (v - v^\mathrm{ref}) / t \quad\text{and}\quad 2 m (x - x^\mathrm{ref}) / t^2,

    with the loss of the forces, and the weight of all steps together. For full gradients (there is one graph of all steps),
    and trajectories of which every step was saved, without a thermostat.
    """

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        n_steps = self.steps_of(batch)
        if n_steps == 1:
            return loss
        end, reference = self._end, _reference_end(batch, n_steps)
        time = (n_steps - 1) * end.time_step
        from_velocities = end.masses * (end.velocities - reference.velocities) / time
        from_positions = 2.0 * end.masses * (end.positions - reference.positions) / time**2
        targets = {**self._targets(batch, 0), self._force_target: torch.zeros_like(from_velocities)}
        forces = next(output for output in self.outputs if output.name == self.force_key)
        both = (forces.calculate_loss({self.force_key: f}, targets) for f in (from_velocities, from_positions))
        return loss + n_steps / 2 * sum(both)

    def _visit(self, *args, **kwargs):
        for visited, predicted, targets in super()._visit(*args, **kwargs):
            self._end = visited.state
            yield visited, predicted, targets


def _reference_end(batch, n_steps):
    """The state at the end of the windows: velocity Verlet with the forces of the reference, which it has come from."""
    forces = iter(batch[properties.window(spk_properties.forces)].unbind(1))
    *_, last = rollout(
        lambda positions: next(forces),
        batch[spk_properties.R].detach(),
        batch[properties.velocities],
        batch[spk_properties.masses],
        batch[properties.time_step][batch[spk_properties.idx_m]],
        n_steps,
    )
    return last.state
