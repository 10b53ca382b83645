"""Model outputs with the losses of the paper: force error element by element, energy error per atom.

Both are `schnetpack.task.ModelOutput`, so they mix with any other in the list of outputs of a task. They read atomic
numbers or numbers of atoms among the targets, which `DynamicTrainingTask` always provides.
"""

from collections.abc import Mapping

import torch
from schnetpack import properties
from schnetpack.task import ModelOutput

__all__ = ["ElementwiseOutput", "PerAtomOutput"]


class ElementwiseOutput(ModelOutput):
    """Output of atoms whose loss is the sum over elements of the loss averaged over the atoms of the element.

    A light element that is rare, such as two H among 37 other atoms, thus counts as much as the others.

    Takes the arguments of `schnetpack.task.ModelOutput`; with ``torch.nn.L1Loss`` and forces it is the force loss of
    Žugec et al., J. Chem. Inf. Model. 2025, doi 10.1021/acs.jcim.5c01180.
    """

    def calculate_loss(self, pred: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Weighted loss.

        Args:
            pred: predictions, this output [n_atoms, ...].
            target: targets, likewise, and atomic numbers [n_atoms].

        Raises:
            ValueError: if the targets have no atomic numbers, as in a plain `AtomisticTask`.
        """
        predicted, expected = pred[self.name], target[self.target_property]
        if self.loss_weight == 0 or self.loss_fn is None:
            return predicted.new_zeros(())
        numbers = _needed(target, properties.Z, self)
        if len(numbers) != len(predicted) and "considered_atoms" in target:
            numbers = numbers[target["considered_atoms"].nonzero()[:, 0]]
        losses = [self.loss_fn(predicted[numbers == z], expected[numbers == z]) for z in torch.unique(numbers)]
        return self.loss_weight * torch.stack(losses).sum()


class PerAtomOutput(ModelOutput):
    """Output of a system whose loss is that of the value per atom, such as the energy per atom.

    Takes the arguments of `schnetpack.task.ModelOutput`.
    """

    def calculate_loss(self, pred: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Weighted loss.

        Args:
            pred: predictions, this output [n_systems].
            target: targets, likewise, and numbers of atoms [n_systems].

        Raises:
            ValueError: if the targets have no numbers of atoms, as in a plain `AtomisticTask`.
        """
        predicted, expected = pred[self.name], target[self.target_property]
        if self.loss_weight == 0 or self.loss_fn is None:
            return predicted.new_zeros(())
        n_atoms = _needed(target, properties.n_atoms, self)
        return self.loss_weight * self.loss_fn(predicted / n_atoms, expected / n_atoms)


def _needed(target: Mapping[str, torch.Tensor], key: str, output: ModelOutput) -> torch.Tensor:
    if key not in target:
        raise ValueError(
            f"{type(output).__name__} '{output.name}' needs '{key}' among the targets; use it in a "
            "spk_dt.training.DynamicTrainingTask, which with one step is a plain AtomisticTask."
        )
    return target[key]
