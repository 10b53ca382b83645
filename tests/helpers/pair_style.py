"""What ``pair_style schnetpack`` hands to a TorchScript file, written after SchNetPack's ``pair_schnetpack.cpp``."""

import numpy as np
import torch
from ase.neighborlist import neighbor_list


def pair_style_input(atoms, cutoff):
    """Positions as they are, wrapped or not; an offset leads from an atom to its image that is the neighbour."""
    positions = atoms.positions.astype(np.float32)
    i, j, shifts = neighbor_list("ijS", atoms, cutoff)
    images = atoms.positions[j] + shifts @ atoms.cell.array
    return {
        "_positions": torch.tensor(positions),
        "_idx_i": torch.tensor(i, dtype=torch.int64),
        "_idx_j": torch.tensor(j, dtype=torch.int64),
        "_idx_m": torch.zeros(len(atoms), dtype=torch.int64),
        "_offsets": torch.tensor((images - positions[j]).astype(np.float32)),
        "_cell": torch.tensor(atoms.cell.array, dtype=torch.float32),
        "_n_atoms": torch.tensor([len(atoms)]),
        "_atomic_numbers": torch.tensor(atoms.numbers, dtype=torch.int64),
    }


def by_pair_style(file, atoms):
    """Energy and forces that LAMMPS gets, in its units."""
    about = {"cutoff": ""}
    model = torch.jit.load(str(file), _extra_files=about).eval()
    found = model(pair_style_input(atoms, float(about["cutoff"])))
    assert {found[name].dtype for name in ("energy", "forces")} == {torch.float32}
    return float(found["energy"].detach().flatten()[0]), found["forces"].detach().double().numpy()
