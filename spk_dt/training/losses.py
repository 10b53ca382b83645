"""Model outputs with the losses of the paper: force error element by element, energy error per atom.

Both are `schnetpack.task.ModelOutput`, so they mix with any other in the list of outputs of a task. They read atomic
numbers or numbers of atoms among the targets, which `DynamicTrainingTask` always provides.
"""

from collections.abc import Mapping

import torch
from schnetpack import properties
from schnetpack.task import ModelOutput

from spk_dt.properties import elements_of

__all__ = ["ElementwiseOutput", "PerAtomOutput", "keep_counted", "loss_by_class"]


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
        if self.loss_weight == 0 or self.loss_fn is None:
            return pred[self.name].new_zeros(())
        return self.loss_weight * self.by_element(pred, target)[1].sum()

    def by_element(
        self, pred: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The terms of the loss, without its weight.

        Args:
            pred: as for `calculate_loss`.
            target: likewise.

        Returns:
            [n_elements] atomic numbers, [n_elements] losses, [n_elements] numbers of entries over which they are averaged.
        """
        predicted, expected = pred[self.name], target[self.target_property]
        numbers = target.get(elements_of(self.target_property))
        if numbers is None:
            numbers = _needed(target, properties.Z, self)
            if len(numbers) != len(predicted) and "considered_atoms" in target:
                numbers = numbers[target["considered_atoms"].nonzero()[:, 0]]
        elements, counts = torch.unique(numbers, return_counts=True)
        losses = [self.loss_fn(predicted[numbers == z], expected[numbers == z]) for z in elements]
        return elements, torch.stack(losses), counts * predicted[0].numel()


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


def loss_by_class(
    output: ModelOutput, pred: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss of an output as a sum of means, so that it can be accumulated over batches.

    The classes of an `ElementwiseOutput` are the elements; other outputs have one class. With a loss function that is a
    mean over entries (`torch.nn.L1Loss`, `MSELoss`, `HuberLoss`, `SmoothL1Loss`) the means of batches weighted by their
    entries give the mean over all of them. Other loss functions, such as a root or a sum, are weighted in the same way, and
    the result depends on the batches.

    Args:
        output: output with loss function and weight.
        pred: predictions.
        target: targets.

    Returns:
        [n] classes, [n] weighted losses, [n] numbers of entries over which they are averaged.
    """
    predicted = pred[output.name]
    if isinstance(output, ElementwiseOutput) and output.loss_weight != 0 and output.loss_fn is not None:
        elements, losses, counts = output.by_element(pred, target)
        return elements, output.loss_weight * losses, counts
    loss = torch.as_tensor(output.calculate_loss(pred, target), device=predicted.device).reshape(1)
    return torch.zeros_like(loss, dtype=torch.long), loss, torch.full_like(loss, predicted.numel(), dtype=torch.long)


def keep_counted(
    counted: torch.Tensor,
    name: str,
    target_property: str,
    pred: dict[str, torch.Tensor],
    target: dict[str, torch.Tensor],
) -> None:
    """Leave the components that count of an output of atoms, so that a loss, whatever it is, is a mean over them.

    Args:
        counted: [n_atoms, 3] which do.
        name: name of the output.
        target_property: name of its target.
        pred: predictions; [n_atoms, 3] of this output become [n].
        target: targets, likewise, with atomic numbers [n_atoms]; those of the entries [n] are added.
    """
    if target_property not in target:  # not trained on
        return
    numbers = target[properties.Z]
    if len(numbers) != len(pred[name]) and "considered_atoms" in target:
        considered = target["considered_atoms"].nonzero()[:, 0]
        numbers, counted = numbers[considered], counted[considered]
    pred[name], target[target_property] = pred[name][counted], target[target_property][counted]
    target[elements_of(target_property)] = numbers[counted.nonzero()[:, 0]]


def _needed(target: Mapping[str, torch.Tensor], key: str, output: ModelOutput) -> torch.Tensor:
    if key not in target:
        raise ValueError(
            f"{type(output).__name__} '{output.name}' needs '{key}' among the targets; use it in a "
            "spk_dt.training.DynamicTrainingTask, which with one step is a plain AtomisticTask."
        )
    return target[key]
