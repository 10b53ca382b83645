"""Start a simulation of `spkmd` from the velocities stored in its frames (``system/initializer=frames``).

SchNetPack reads positions only (`schnetpack.md.System.load_molecules`), and passes them through 32-bit numbers even in a
64-bit run. To compare a run with the trajectory that its first frame comes from, both have to go.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import ase.io
import numpy as np
import torch
from ase import Atoms
from schnetpack import units as spk_units
from schnetpack.md import System
from schnetpack.md.initial_conditions import Initializer

from spk_dt.md.fixed_system import hold_fixed
from spk_dt.md.model_inputs import state_inputs
from spk_dt.trajectories.fixed_atoms import fixes_positions

__all__ = ["FramesInit", "system_of"]

log = logging.getLogger(__name__)


class FramesInit(Initializer):
    r"""Initial positions, cells, masses and momenta from the frames of a file, in double precision.

    Every replica of a molecule starts from the same frame. Units change as

    .. math:: x = x_f\,u_x, \qquad m = m_f\,u_m, \qquad p = p_f\,u_m\,u_x / u_t,

    with the unit :math:`u_t = \sqrt{\mathrm{Da}\,Å^2/\mathrm{eV}} \approx 10.18` fs that ASE gives to time in every file:

    =============  =======================  =============================================
    symbol         variable                 meaning
    =============  =======================  =============================================
    `x_f`          ``atoms.positions``      positions, and alike the cell, in the file
    `m_f`          ``atoms.get_masses()``   masses in the file
    `p_f`          ``atoms.get_momenta()``  momenta in the file
    `u_x`, `u_m`   ``*_unit_input``         units of `x_f` and `m_f`
    `x`, `m`, `p`  ``system.positions`` …   the same in SchNetPack's units: nm, Da, kJ/mol
    =============  =======================  =============================================

    Unlike with SchNetPack's own initializers nothing is moved or removed by default, so that the run is the continuation
    of the trajectory that the frames come from. What constraints of ASE fix in the frames stays where it is
    (`spk_dt.md.fixed_system`).

    Args:
        molecule_file: the file that the system was loaded from, in any format of ASE that keeps momenta, such as
            ``.traj``, extended ``.xyz`` or ``.db``; relative to the folder that the program was started in.
        position_unit_input: unit of positions and cells in the file.
        mass_unit_input: unit of the masses in the file, in Dalton or by name.
        remove_center_of_mass: move the centre of mass of each molecule to the origin.
        remove_translation: subtract the mean momentum of the atoms of a molecule from each of them.
        remove_rotation: remove the angular momentum about the origin; use with `remove_center_of_mass` only.
        wrap_positions: move atoms into the cell.
    """

    def __init__(
        self,
        molecule_file: str | Path,
        position_unit_input: str | float = "Angstrom",
        mass_unit_input: str | float = 1.0,
        remove_center_of_mass: bool = False,
        remove_translation: bool = False,
        remove_rotation: bool = False,
        wrap_positions: bool = False,
    ) -> None:
        super().__init__(
            temperature=0.0,  # asked for by the base class, which does no more than count it
            remove_center_of_mass=remove_center_of_mass,
            remove_translation=remove_translation,
            remove_rotation=remove_rotation,
            wrap_positions=wrap_positions,
        )
        self.molecule_file = str(molecule_file)
        self._position_unit = spk_units.unit2internal(position_unit_input)
        self._mass_unit = spk_units.unit2internal(mass_unit_input)

    def initialize_system(self, system: System) -> None:
        """Set positions, cells, masses and momenta of a system loaded from the same file.

        Args:
            system: with `n_molecules` molecules of together `total_n_atoms` atoms. Its tensors become, in float64 and
                internal units, ``positions`` and ``momenta`` [n_replicas, total_n_atoms, 3], ``cells``
                [n_replicas, n_molecules, 3, 3] and ``masses`` [1, total_n_atoms, 1].

        Raises:
            ValueError: if a frame has no momenta, the frames are not the molecules of the system, or a constraint fixes
                other directions than x, y and z.
        """
        frames = list(ase.io.iread(self.molecule_file, index=":"))
        self._check(frames, system)
        _set_frames(frames, system, self._position_unit, self._mass_unit)
        super().initialize_system(system)

    def _setup_momenta(self, system: System) -> None:
        """Nothing to draw: the momenta come with the frames."""

    def _check(self, frames: list[Atoms], system: System) -> None:
        """Refuse frames without momenta, and frames that are not the molecules of the system."""
        without = [i for i, atoms in enumerate(frames) if not atoms.has("momenta")]
        if without:
            raise ValueError(
                f"'{self.molecule_file}' has no momenta in {len(without)} of its {len(frames)} frames (the first of them: "
                f"frame {without[0]}), so system/initializer=frames cannot start from it. Store velocities with "
                "atoms.set_velocities(...) and a format that keeps them (.traj, extended .xyz, .db), or draw them with "
                "system/initializer=maxwell_boltzmann."
            )
        in_file = _describe([len(atoms) for atoms in frames], [int(z) for atoms in frames for z in atoms.numbers])
        in_system = _describe(system.n_atoms.tolist(), system.atom_types.tolist())
        if in_file != in_system:
            raise ValueError(
                f"'{self.molecule_file}' holds {in_file}, but the system was loaded with {in_system}. Give initializer and "
                "system the same file: system.initializer.molecule_file=${system.molecule_file}."
            )
        others = {type(one).__name__ for atoms in frames for one in atoms.constraints if not fixes_positions(one)}
        if others:
            log.warning(
                f"Frames of '{self.molecule_file}' have constraints of ASE ({', '.join(sorted(others))}). SchNetPack's "
                "molecular dynamics does not know them: these atoms will move freely."
            )


def system_of(frames: Sequence[Atoms]) -> System:
    """SchNetPack's system of frames as they are, in double precision.

    Args:
        frames: with momenta, in the units of ASE.
    """
    system = System()
    system.load_molecules(list(frames))
    _set_frames(frames, system, spk_units.unit2internal("Angstrom"), spk_units.unit2internal(1.0))
    return system


def _set_frames(frames: Sequence[Atoms], system: System, position_unit: float, mass_unit: float) -> None:
    """Overwrite what `System.load_molecules` rounded, and set what it does not take from the frames."""
    momentum_unit = mass_unit * position_unit * spk_units.time  # 1 / u_t = spk_units.time
    positions = np.concatenate([atoms.positions for atoms in frames]) * position_unit
    momenta = np.concatenate([atoms.get_momenta() for atoms in frames]) * momentum_unit
    masses = np.concatenate([atoms.get_masses() for atoms in frames]) * mass_unit
    cells = np.stack([atoms.cell.array for atoms in frames]) * position_unit

    def tensor(array: np.ndarray, copies: int) -> torch.Tensor:
        """[...] -> [copies, ...], in float64 on the system's device."""
        value = torch.as_tensor(array, dtype=torch.float64, device=system.device)
        return value.repeat(copies, *[1] * value.ndim)

    system.positions = tensor(positions, system.n_replicas)
    system.momenta = tensor(momenta, system.n_replicas)
    system.masses = tensor(masses[:, None], 1)
    system.cells = tensor(cells, system.n_replicas)
    hold_fixed(system, frames)
    state_inputs(system, frames)


def _describe(sizes: list[int], numbers: list[int]) -> str:
    """Number and formulas of molecules, with atoms in order: ``2 molecules (Ar4, OH2)``.

    Args:
        sizes: [n_molecules] number of atoms of each molecule.
        numbers: [total_n_atoms] atomic numbers of all molecules, one after the other.
    """
    ends = np.cumsum(sizes)
    molecules = (Atoms(numbers[end - size : end]) for size, end in zip(sizes, ends, strict=True))
    return f"{len(sizes)} molecules ({', '.join(atoms.get_chemical_formula('reduce') for atoms in molecules)})"
