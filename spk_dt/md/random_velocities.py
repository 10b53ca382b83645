"""SchNetPack's initial velocities for systems that may hold atoms fixed, as constraints of ASE in their file say."""

from pathlib import Path
from typing import Any

import ase.io
from hydra.utils import to_absolute_path
from schnetpack.md import System
from schnetpack.md import initial_conditions as host

from spk_dt.md.fixed_system import hold_fixed
from spk_dt.md.model_inputs import state_inputs

__all__ = ["MaxwellBoltzmannInit", "UniformInit"]


class _HoldsFixed(host.Initializer):
    """Reads constraints before it draws velocities.

    Args:
        molecule_file: the file that the system was loaded from.
        kwargs: arguments of SchNetPack's class.
    """

    def __init__(self, molecule_file: str | Path, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.molecule_file = to_absolute_path(str(molecule_file))

    def initialize_system(self, system: System) -> None:
        """Draw velocities of what may move.

        Raises:
            ValueError: if a constraint fixes other directions than x, y and z.
        """
        molecules = list(ase.io.iread(self.molecule_file, ":"))
        hold_fixed(system, molecules)
        state_inputs(system, molecules)
        super().initialize_system(system)


class MaxwellBoltzmannInit(_HoldsFixed, host.MaxwellBoltzmannInit):
    """`schnetpack.md.MaxwellBoltzmannInit` that leaves fixed atoms at rest."""


class UniformInit(_HoldsFixed, host.UniformInit):
    """`schnetpack.md.UniformInit` that leaves fixed atoms at rest, with the temperature of the others."""
