"""Whether a model agrees with the data, before it simulates: not if its units are others, or it sees no neighbours.

And whether it can be simulated with a time step.
"""

from collections.abc import Sequence
from math import pi, sqrt
from pathlib import Path

import ase.units
import numpy as np
import torch
from ase import Atoms

from spk_dt.certificate.engines import ModelEngine
from spk_dt.data.continuation import Continuation
from spk_dt.data.isolated import refuse_isolated
from spk_dt.dynamics.fastest_vibration import LONGEST_PHASE, fastest_vibrations
from spk_dt.labels.unit_check import POSITION_UNITS, Unit, check_units
from spk_dt.md.neighborlist import model_cutoff
from spk_dt.trajectories.fixed_atoms import forces_held, mobile_of
from spk_dt.units import conversion

__all__ = ["check_model", "check_time_step"]

#: frames in which the fastest vibration is looked for
_N_FRAMES = 8


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


def check_time_step(
    name: str, file: str | Path, frames: Sequence[Atoms], units: tuple[Unit, Unit], step: float
) -> None:
    """Refuse a time step that is too long for simulations of a model to conserve energy.

    Args:
        name: of the model, for messages.
        file: stored SchNetPack model.
        frames: some of the data.
        units: of its energies and positions.
        step: time step, fs.

    Raises:
        ValueError: if it is in the resonance of the fastest vibration of the model (`spk_dt.dynamics.fastest_vibration`).
    """
    chosen = [frames[i] for i in np.linspace(0, len(frames) - 1, min(_N_FRAMES, len(frames))).astype(int)]
    ends = np.cumsum([len(atoms) for atoms in chosen])[:-1]
    engine = ModelEngine(file, *units, compile=False)

    def forces_at(positions: torch.Tensor) -> torch.Tensor:
        moved = [atoms.copy() for atoms in chosen]
        for atoms, own in zip(moved, np.split(positions.numpy(), ends), strict=True):
            atoms.positions = own
        found = [atoms.get_forces(apply_constraint=False) for atoms in engine.evaluated(moved)]
        return torch.from_numpy(np.concatenate(found))

    frequencies = fastest_vibrations(
        forces_at,
        torch.from_numpy(np.concatenate([atoms.positions for atoms in chosen])),
        torch.from_numpy(np.concatenate([atoms.get_masses() for atoms in chosen])),
        torch.arange(len(chosen)).repeat_interleave(torch.tensor([len(atoms) for atoms in chosen])),
        displacement=0.01,
        mobile=torch.from_numpy(np.concatenate([mobile_of(atoms) for atoms in chosen])),
    )
    fastest = float(frequencies.max()) * ase.units.fs  # rad/fs
    if fastest * step > sqrt(2.0):
        raise ValueError(
            f"--time-step {step:g} fs: the fastest vibration of '{name}' in start frames has a period of "
            f"{2.0 * pi / fastest:.1f} fs, and with so long steps its simulations do not conserve energy. Take "
            f"{LONGEST_PHASE / fastest:.2g} fs or less, or leave the option out: then it is that of the data."
        )
