"""Whether a file for engines gives what the model gives: seen to before it is kept."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from schnetpack import properties

from spk_dt.export.stored import Stored

__all__ = ["check_agreement"]


def check_agreement(
    of_file: Callable[[Atoms], tuple[float, np.ndarray]], stored: Sequence[Stored], types: Sequence[int], limit: float
) -> None:
    """Compare what a file gives with what the models give, for atoms of all elements, and one alone.

    Args:
        of_file: energy (eV) and forces [n_atoms, 3] (eV/Å) of atoms without a cell by the file.
        stored: the model, or those whose mean it is, in the precision of the file.
        types: atomic numbers that the file knows.
        limit: by which it may differ, eV per atom and eV/Å, for forces up to 1 eV/Å; in proportion for larger ones.

    Raises:
        ValueError: if it differs by more.
    """
    rng = np.random.default_rng(0)
    cutoff = min(one.cutoff for one in stored)
    numbers = [*types, *types, *types][: max(3, len(types))]
    spread = 0.5 * cutoff * np.arange(len(numbers))[:, None] * np.array([1.0, 0.1, 0.0])
    together = Atoms(numbers, spread + rng.normal(scale=0.05 * cutoff, size=(len(numbers), 3)))
    together.positions = together.positions.astype(np.float32)  # what an engine may round them to
    for atoms in (together, Atoms([types[0]])):
        energy, forces = of_file(atoms)
        expected = [_of_model(one, atoms) for one in stored]
        of_models = np.mean([one[0] for one in expected]), np.mean([one[1] for one in expected], axis=0)
        off = max(abs(energy - of_models[0]) / len(atoms), float(np.abs(forces - of_models[1]).max()))
        if not off <= limit * max(1.0, float(np.abs(of_models[1]).max())):
            raise ValueError(
                f"the file would differ from the model by {off:.2g} eV per atom, or eV/Å, for "
                f"{atoms.get_chemical_formula()}: {type(stored[0].model.representation).__name__} does something that is "
                "not known here. It is not written."
            )


def _of_model(stored: Stored, atoms: Atoms) -> tuple[float, np.ndarray]:
    """Energy (eV) and forces (eV/Å) by SchNetPack."""
    model = stored.model
    dtype = next(p.dtype for p in stored.energy.parameters())
    i, j = (torch.tensor(index) for index in neighbor_list("ij", atoms, stored.cutoff))
    positions = torch.tensor(atoms.positions / stored.length, dtype=dtype, requires_grad=True)
    inputs = {
        properties.Z: torch.tensor(atoms.numbers, dtype=torch.int64),
        properties.R: positions,
        properties.idx_i: i,
        properties.idx_j: j,
        properties.idx_m: torch.zeros(len(atoms), dtype=torch.int64),
        properties.n_atoms: torch.tensor([len(atoms)]),
        properties.offsets: torch.zeros((len(i), 3), dtype=dtype),
        properties.cell: torch.zeros((1, 3, 3), dtype=dtype),
        properties.pbc: torch.zeros(3, dtype=torch.bool),
        properties.idx: torch.zeros(1, dtype=torch.int64),
    }
    for module in model.input_modules:
        inputs = module(inputs)
    inputs = model.representation(inputs)
    own = stored.energy(inputs)[stored.energy.output_key]
    (gradient,) = torch.autograd.grad(own.sum(), positions, allow_unused=True)
    inputs[stored.energy.output_key] = own.detach().to(torch.float64)
    energy = float(model.postprocess(inputs)[stored.energy.output_key].sum())
    forces = (
        np.zeros((len(atoms), 3)) if gradient is None else -gradient.double().numpy() * stored.scale / stored.length
    )
    return energy * stored.energy_unit, forces
