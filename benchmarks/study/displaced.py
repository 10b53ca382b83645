"""The control of on-policy labels: as many labels, of training frames whose atoms are displaced at random."""

import torch
from ase import Atoms
from schnetpack import properties

from spk_dt.training import DynamicTrainingTask, ModelSimulations
from spk_dt.trajectories.frames import Frames

__all__ = ["DisplacedFrames"]

_DEVIATION = 0.1  # Å, of each coordinate


class DisplacedFrames(ModelSimulations):
    """Training frames drawn at random, each coordinate displaced by a normal deviate; nothing is simulated."""

    def run(self, task: DynamicTrainingTask, frames: Frames, n_states: int) -> tuple[list[Atoms], int]:
        """As many states as are asked for; none explodes."""
        found = []
        for _ in range(n_states):
            for i in range(len(self.systems)):  # so that other frames are drawn
                self.start_again(i)
            self.start(task.trainer.datamodule.train_dataset)
            system = self.systems[0]
            moved = system[properties.R] + _DEVIATION * torch.randn_like(system[properties.R])
            found.append(self.atoms(0, moved, torch.zeros_like(moved), frames))
        return found, 0
