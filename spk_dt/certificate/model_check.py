"""Whether a model agrees with the data, before it simulates: not if its units are others, or it sees no neighbours."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spk_dt.certificate.engines import ModelEngine
from spk_dt.data.continuation import Continuation
from spk_dt.data.isolated import refuse_isolated
from spk_dt.labels.unit_check import POSITION_UNITS, Unit, check_units
from spk_dt.md.neighborlist import model_cutoff
from spk_dt.trajectories.fixed_atoms import forces_held, mobile_of
from spk_dt.units import conversion

__all__ = ["check_model"]


def check_model(
    name: str, file: str | Path, frames: Sequence[Continuation], units: tuple[Unit, Unit], device: str = "cpu"
) -> None:
    """Refuse a model whose forces are not those of the data.

    Forces of fixed atoms that the data mask do not count.

    Args:
        name: of the model, for messages.
        file: stored SchNetPack model.
        frames: of the data; start frames alone do not do where the first of a trajectory is relaxed, with hardly any forces
            to agree with.
        units: of its energies and positions.
        device: where to compute.

    Raises:
        ValueError: if its forces do not agree, most likely because of its units, which are named; or no atom has a neighbour
            within its cutoff.
    """
    counted = np.concatenate([forces_held(one.forces, mobile_of(one.start)) for one in frames])
    reference = np.where(counted, np.concatenate([one.forces[0] for one in frames]), 0.0)
    longest = max(conversion(unit, "Ang", "positions") for unit in (units[1], *POSITION_UNITS.values()))
    refuse_isolated((one.start for one in frames), model_cutoff(str(file)) * longest, f"the frames for '{name}'")

    def forces_for(unit: Unit) -> np.ndarray:
        """Forces in the unit of the model."""
        found = ModelEngine(file, "eV", unit, compile=False, device=device).evaluated([one.start for one in frames])
        forces = np.concatenate([atoms.get_forces(apply_constraint=False) for atoms in found])
        return np.where(counted, forces * conversion(unit, "Ang", "length"), 0.0)

    check_units(name, reference, forces_for, *units)
