"""From numbers to sentences: is what the simulation held fixed said, and does what is said to be fixed stay?"""

import numpy as np
from ase.data import chemical_symbols

from spk_dt import properties
from spk_dt.trajectories.diagnosis.finding import Finding
from spk_dt.trajectories.diagnosis.pieces import PieceReader
from spk_dt.trajectories.diagnosis.survey import Survey
from spk_dt.trajectories.fixed_atoms import forces_held, index_ranges

__all__ = ["of_masked_forces", "of_strays", "of_undeclared"]

#: Å from frame to frame, more than rounding
_STRAYS = 1e-6


def of_strays(reader: PieceReader, survey: Survey) -> list[Finding]:
    """Atoms that are said to be fixed, and move."""
    atoms = np.flatnonzero(survey.strays > _STRAYS)
    if not len(atoms):
        return []
    text = (
        f"{len(atoms)} atoms that are said to be held fixed ({index_ranges(atoms)}) move, by up to "
        f"{survey.strays.max():.2g} Å from frame to frame: a rollout would hold them."
    )
    remedy = "Convert again with --fixed and what the simulation did hold, or --fixed none."
    return [Finding("fixed_atoms_move", "refused", text, remedy, values={"atoms": atoms.tolist()})]


def of_undeclared(reader: PieceReader, survey: Survey) -> list[Finding]:
    """Atoms, and components of their positions, that never change though nobody says that they are fixed."""
    held = survey.undeclared
    if not held.any():
        return []
    atoms = np.flatnonzero(held.all(axis=1))
    parts = {
        "".join(np.array(list("xyz"))[kind]): kind
        for kind in np.unique(held[held.any(axis=1)], axis=0)
        if not kind.all()
    }
    terms = [f"{index_ranges(np.flatnonzero((held == kind).all(axis=1)))}:{name}" for name, kind in parts.items()]
    said = []
    if len(atoms):
        kinds = ", ".join(chemical_symbols[z] for z in np.unique(reader.numbers[atoms]))
        said.append(f"{len(atoms)} atoms ({kinds}) never move")
    if parts:
        number = int((held.any(axis=1) & ~held.all(axis=1)).sum())
        said.append(f"components ({', '.join(parts)}) of {number} atoms never change although forces act on them")
    option = ",".join(
        [*([index_ranges(np.flatnonzero(~reader.mobile.any(axis=1) | held.all(axis=1)))] if len(atoms) else []), *terms]
    )
    text = f"{' and '.join(said)}: a model would let them go. The simulation seems to have held them fixed."
    remedy = f"Convert again with: spkdt convert ... --fixed {option}"
    return [
        Finding("frozen_atoms", "refused", text, remedy, values={"atoms": np.flatnonzero(held.any(axis=1)).tolist()})
    ]


def of_masked_forces(reader: PieceReader) -> list[Finding]:
    """Forces on fixed atoms that the program wrote as zeros."""
    if reader.mobile.all() or forces_held(reader.raw(properties.forces, 0, len(reader)), reader.mobile).all():
        return []
    atoms = np.flatnonzero(~reader.mobile.all(axis=1))
    text = f"forces on what is held fixed ({len(atoms)} atoms) are all zero: the program masked them."
    remedy = "They do not count in losses and force errors."
    return [Finding("masked_forces", "note", text, remedy, values={"atoms": atoms.tolist()})]
