"""What is in the file for engines: SchNetPack's representations, given the neighbours of the engine (metatomic's interface).

Engines speak Å and eV, in double precision, and so does the file. Energies of atoms are summed in double precision.
"""

from typing import Dict, List, Optional  # noqa: UP035  # TorchScript reads these

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import ModelOutput, NeighborListOptions, System
from torch import Tensor, nn

from spk_dt.export.member import Member

__all__ = ["ENERGY", "ENSEMBLE", "UNCERTAINTY", "Committee"]

#: standard outputs of metatomic
ENERGY, ENSEMBLE, UNCERTAINTY = "energy", "energy_ensemble", "energy_uncertainty"


class Committee(nn.Module):
    """Energies of the mean of some models, and how far they differ, as metatomic asks for them.

    ``energy`` is the mean, ``energy_ensemble`` has one property for each model, and ``energy_uncertainty`` is the standard
    deviation over the models, sqrt(sum (E - mean)² / (n_models - 1)), of a system. All are sums over the selected atoms. Of
    atoms there are energies, and those of each model, but no uncertainty: how a model splits the energy among its atoms is
    its own choice, so that models that are equally right differ by more than an eV (`benchmarks.uncertainty`).

    Args:
        members: one model or more.
        cutoff: reach of the neighbours that they want, Å.
    """

    def __init__(self, members: List[Member], cutoff: float) -> None:  # noqa: UP006
        super().__init__()
        self.members = nn.ModuleList(members)
        self.neighbors = NeighborListOptions(cutoff=cutoff, full_list=True, strict=True, requestor="spk_dt")

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:  # noqa: UP006
        """The pairs that an engine has to find."""
        return [self.neighbors]

    def forward(
        self,
        systems: List[System],  # noqa: UP006
        outputs: Dict[str, ModelOutput],  # noqa: UP006
        selected_atoms: Optional[Labels] = None,  # noqa: UP045
    ) -> Dict[str, TensorMap]:  # noqa: UP006
        """What is asked for, of all systems at once; see `metatomic.torch.ModelInterface`."""
        results: Dict[str, TensorMap] = {}  # noqa: UP006
        if len(outputs) == 0:
            return results
        atoms = self._atoms(systems)
        energies = self._energies(systems, atoms)  # [n_atoms, n_models]
        if selected_atoms is not None:
            selected = selected_atoms.values.to(torch.int64)
            starts = torch.zeros(len(systems) + 1, dtype=torch.int64, device=atoms.device)
            starts[1:] = torch.bincount(atoms[:, 0].to(torch.int64), minlength=len(systems)).cumsum(0)
            energies = energies[starts[selected[:, 0]] + selected[:, 1]]
            atoms = selected_atoms.values.to(torch.int32)
        totals = torch.zeros((len(systems), len(self.members)), dtype=energies.dtype, device=energies.device)
        totals = totals.index_add(0, atoms[:, 0].to(torch.int64), energies)
        of_systems = torch.arange(len(systems), dtype=torch.int32, device=atoms.device).unsqueeze(1)
        for name, output in outputs.items():
            if output.sample_kind == "atom":
                samples, values = Labels(["system", "atom"], atoms), energies
            else:
                samples, values = Labels(["system"], of_systems), totals
            if name == "energy":
                values = values.mean(1, keepdim=True)
            elif name == "energy_uncertainty":
                values = values.std(1, keepdim=True)
            elif name != "energy_ensemble":
                raise ValueError("this model has no output '" + name + "'")
            properties = torch.arange(values.shape[1], dtype=torch.int32, device=values.device).unsqueeze(1)
            block = TensorBlock(values, samples, torch.jit.annotate(list[Labels], []), Labels(["energy"], properties))
            results[name] = TensorMap(
                Labels(["_"], torch.zeros((1, 1), dtype=torch.int32, device=values.device)), [block]
            )
        return results

    def _atoms(self, systems: List[System]) -> Tensor:  # noqa: UP006
        """[n_atoms, 2] system, and number in it, of each atom."""
        found: List[Tensor] = []  # noqa: UP006
        for i, system in enumerate(systems):
            number = torch.arange(len(system), dtype=torch.int32, device=system.positions.device)
            found.append(torch.stack([torch.full_like(number, i), number], dim=1))
        return torch.cat(found)

    def _energies(self, systems: List[System], atoms: Tensor) -> Tensor:  # noqa: UP006
        """[n_atoms, n_models] atomic energies, eV."""
        numbers: List[Tensor] = []  # noqa: UP006
        first: List[Tensor] = []  # noqa: UP006
        second: List[Tensor] = []  # noqa: UP006
        vectors: List[Tensor] = []  # noqa: UP006
        moved: List[Tensor] = []  # noqa: UP006
        start = 0
        for system in systems:
            pairs = system.get_neighbor_list(self.neighbors)
            ends = pairs.samples.values[:, :2].to(torch.int64) + start
            first.append(ends[:, 0])
            second.append(ends[:, 1])
            vectors.append(pairs.values.reshape(-1, 3))
            numbers.append(system.types.to(torch.int64))
            moved.append(system.positions)
            start += len(system)
        idx_m = atoms[:, 0].to(torch.int64)
        inputs: Dict[str, Tensor] = {  # noqa: UP006
            "_atomic_numbers": torch.cat(numbers),
            "_idx_i": torch.cat(first),
            "_idx_j": torch.cat(second),
            "_idx_m": idx_m,
            "_n_atoms": torch.bincount(idx_m, minlength=len(systems)),
            "_Rij": torch.cat(vectors),
        }
        energies: List[Tensor] = []  # noqa: UP006
        for member in self.members:
            energies.append(member(inputs))
        # atoms without neighbours have a gradient, too
        return torch.stack(energies, dim=1) + 0.0 * torch.cat(moved).sum()
