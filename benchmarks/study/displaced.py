"""The control of visited states: as many labels, of training frames whose atoms are displaced at random."""

import torch
from schnetpack import properties

from spk_dt.training import VisitedStates

__all__ = ["DisplacedFrames"]

_DEVIATION = 0.1  # Å, of each coordinate


class DisplacedFrames(VisitedStates):
    """Training frames drawn at random, each coordinate displaced by a normal deviate; nothing is simulated."""

    def _simulate(self, task, frames):
        found = []
        for _ in range(self.n_labels):
            self._age = [self.max_steps] * len(self._age)  # so that other frames are drawn
            self._begin(task.trainer.datamodule)
            system = self._systems[0]
            moved = system[properties.R] + _DEVIATION * torch.randn_like(system[properties.R])
            found.append(self._atoms(0, moved, torch.zeros_like(moved), frames))
        return found, 0
