"""A SchNetPack model as a force function of positions."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from schnetpack import properties

from spk_dt.dynamics.compiled import CompiledPotential
from spk_dt.dynamics.neighbors import VerletList

__all__ = ["ModelForces"]


class ModelForces:
    """Forces and all other outputs of a model for a batch of systems, as a function of positions alone.

    Under `torch.no_grad` they are computed all the same, and come without a graph.

    Args:
        predict: the model, or anything that maps a SchNetPack input dictionary to a dictionary of outputs.
        inputs: batch of systems: atomic numbers, cells, pbc, number of atoms, system of each atom, and whatever else the
            model reads. It is not modified. It must not hold targets: a model that fails to predict one would return it.
        neighbors: finds the pairs at each position; it serves this batch only.
        force_key: name of the forces among the outputs.
    """

    def __init__(
        self,
        predict: Callable[[dict[str, torch.Tensor]], Mapping[str, torch.Tensor]],
        inputs: Mapping[str, torch.Tensor],
        neighbors: VerletList,
        force_key: str = properties.forces,
    ) -> None:
        self.predict = predict
        self.inputs = dict(inputs)
        self.neighbors = neighbors
        self.force_key = force_key

    def at(self, positions: torch.Tensor) -> Callable[[torch.Tensor], tuple[torch.Tensor, Mapping[str, torch.Tensor]]]:
        """The force function with the pairs at `positions`, [n_atoms, 3]."""
        pairs = self.neighbors.pairs({**self.inputs, properties.R: positions.detach()})
        if isinstance(self.predict, CompiledPotential):
            self.predict.prepare({**self.inputs, **pairs, properties.R: positions})
        return partial(self._evaluate, pairs)

    def __call__(self, positions: torch.Tensor) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """Forces [n_atoms, 3] and all outputs at `positions`, [n_atoms, 3]."""
        return self.at(positions)(positions)

    def _evaluate(
        self, pairs: Mapping[str, torch.Tensor], positions: torch.Tensor
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        # models set requires_grad on the positions they are given: not on the caller's
        positions = positions if positions.requires_grad else positions.detach()
        inputs = {**self.inputs, **pairs, properties.R: positions}
        if torch.is_grad_enabled():
            outputs = self.predict(inputs)
        else:
            with torch.enable_grad():  # forces are a gradient themselves
                outputs = {key: value.detach() for key, value in self.predict(inputs).items()}
        return outputs[self.force_key], outputs
