"""Data streams of the HDF5 file of a simulation."""

from collections.abc import Sequence

from schnetpack.md import Simulator
from schnetpack.md.simulation_hooks import callback_hooks

__all__ = ["MoleculeStream", "PropertyStream"]


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


class PropertyStream(callback_hooks.PropertyStream):
    """`schnetpack.md.simulation_hooks.PropertyStream` that also stores what the calculator is asked for.

    Args:
        target_properties: names of outputs of the calculator.
        required_properties: further ones, those of ``calculator.required_properties``.
    """

    def __init__(self, target_properties: Sequence[str], required_properties: Sequence[str] = ()) -> None:
        super().__init__(list(dict.fromkeys([*target_properties, *required_properties])))
