"""Neighbour list for SchNetPack's molecular dynamics."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from schnetpack import properties
from schnetpack.transform import MatScipyNeighborList, NeighborListTransform

from spk_dt.dynamics import VerletList
from spk_dt.models import is_plain, load_model
from spk_dt.representation.cutoff import cutoff_of

__all__ = ["VerletNeighborList"]

log = logging.getLogger(__name__)


class VerletNeighborList:
    """Neighbour list of `schnetpack.md.calculators`, correct for many systems at once.

    `schnetpack.md.NeighborListMD` remembers the positions of all systems whenever the list of one is made anew, so lists
    of the others may miss pairs; this one keeps its own positions for each system (`spk_dt.dynamics.VerletList`).

    Args:
        cutoff: cutoff in the length unit of the model. If None, it is read from the model.
        cutoff_shell: by how much lists reach beyond the cutoff.
        base_nbl: makes the neighbour list of one system for a given radius.
        model_file: model, or models, to read the cutoff from, or to check it against.

    Raises:
        ValueError: if there is neither cutoff nor model, if they contradict each other, or if a model file is none.
    """

    def __init__(
        self,
        cutoff: float | None = None,
        cutoff_shell: float = 1.0,
        base_nbl: Callable[[float], NeighborListTransform] = MatScipyNeighborList,
        model_file: str | Sequence[str] | None = None,
    ) -> None:
        files = [model_file] if isinstance(model_file, str) else list(model_file or [])
        cutoffs = {file: model_cutoff(file) for file in files}
        if cutoff is None:
            if not cutoffs:
                raise ValueError(
                    "set calculator.model_file, or calculator.neighbor_list.cutoff for a calculator without a model"
                )
            cutoff = max(cutoffs.values())
        for file, needed in cutoffs.items():
            if needed > cutoff * (1.0 + 1e-6):
                raise ValueError(
                    f"calculator.neighbor_list.cutoff={cutoff:g} is shorter than the cutoff {needed:g} of '{file}'; leave "
                    "it out to take it from the model."
                )
        self.cutoff = cutoff
        self.cutoff_shell = cutoff_shell
        self._base = base_nbl
        self._list: VerletList | None = None
        self._n_atoms = torch.empty(0)

    def forget(self) -> None:
        """Make the lists anew next time, so that what follows depends on the present positions alone."""
        self._list = None

    def get_neighbors(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Pairs of all systems, the interface of SchNetPack's calculators.

        Args:
            inputs: batch of all systems and replicas under SchNetPack's keys.

        Returns:
            idx_i and idx_j [n_pairs], offsets [n_pairs, 3].
        """
        n_atoms = inputs[properties.n_atoms]
        if self._list is None or not torch.equal(n_atoms, self._n_atoms):
            self._list = VerletList(self.cutoff, self.cutoff_shell, self._base)
            self._n_atoms = n_atoms.clone()
            pairs = self._list.pairs(inputs)
            if len(pairs[properties.idx_i]) == 0:
                log.warning(
                    "no pair of atoms is within the cutoff %g of the model (in its unit of length): all forces are zero. Is "
                    "the cutoff, or the unit of the positions (calculator.position_unit), what it should be?",
                    self.cutoff,
                )
            return pairs
        return self._list.pairs(inputs)


def model_cutoff(model_file: str) -> float:
    """Cutoff of a stored SchNetPack model, in its length unit.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a SchNetPack model.
    """
    if not Path(model_file).is_file():
        raise FileNotFoundError(
            f"there is no model file '{model_file}'; spktrain writes 'best_model' into its run folder."
        )
    try:
        return cutoff_of(load_model(model_file))
    except Exception as error:
        if is_plain(model_file):
            raise  # it says what is wrong
        raise ValueError(
            f"'{model_file}' is not a SchNetPack model ({type(error).__name__}: {str(error).splitlines()[0][:200]}). Give "
            "the file 'best_model' of a run folder, not a checkpoint or a '.task' file."
        ) from error
