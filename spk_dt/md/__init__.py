from spk_dt.md.barostats import AnisotropicBarostat, CentroidBarostat
from spk_dt.md.hooks import ExplodedError, ReferenceComparison, StopExploded
from spk_dt.md.initial_conditions import FramesInit
from spk_dt.md.neighborlist import VerletNeighborList
from spk_dt.md.output_folder import OutputFolder
from spk_dt.md.restart import Checkpoint, FileLogger
from spk_dt.md.streams import MoleculeStream

__all__ = [
    "AnisotropicBarostat",
    "CentroidBarostat",
    "Checkpoint",
    "ExplodedError",
    "FileLogger",
    "FramesInit",
    "MoleculeStream",
    "OutputFolder",
    "ReferenceComparison",
    "StopExploded",
    "VerletNeighborList",
]
