"""Data streams of the HDF5 file of a simulation."""

from schnetpack.md import Simulator
from schnetpack.md.simulation_hooks import callback_hooks

__all__ = ["MoleculeStream"]


class MoleculeStream(callback_hooks.MoleculeStream):
    """`schnetpack.md.simulation_hooks.MoleculeStream` that also takes the stress of a model, and tells where it begins.

    SchNetPack's flattens the stress as a view, which its memory layout does not allow. Attribute ``start_step`` of the group
    tells how many steps were made before the file begins, 0 unless the run was continued from another folder.
    """

    def _init_data_stream(self, simulator: Simulator) -> None:
        """Describe the group."""
        super()._init_data_stream(simulator)
        if not self.restart:
            self.data_group.attrs["start_step"] = simulator.step

    def update_buffer(self, buffer_position: int, simulator: Simulator) -> None:
        """Store the current step at a position of the buffer."""
        simulator.system.stress = simulator.system.stress.contiguous()
        super().update_buffer(buffer_position, simulator)
