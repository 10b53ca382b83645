from spk_dt.md.initial_conditions import FramesInit
from spk_dt.md.neighborlist import VerletNeighborList

__all__ = ["FramesInit", "VerletNeighborList"]
