"""Data streams of the HDF5 file of a simulation."""

from schnetpack.md import Simulator
from schnetpack.md.simulation_hooks import callback_hooks

__all__ = ["MoleculeStream"]


class MoleculeStream(callback_hooks.MoleculeStream):
    """`schnetpack.md.simulation_hooks.MoleculeStream` that also takes the stress of a model.

    SchNetPack's flattens the stress as a view, which its memory layout does not allow.
    """

    def update_buffer(self, buffer_position: int, simulator: Simulator) -> None:
        """Store the current step at a position of the buffer."""
        simulator.system.stress = simulator.system.stress.contiguous()
        super().update_buffer(buffer_position, simulator)
