from spk_dt.md.barostats import AnisotropicBarostat, CentroidBarostat
from spk_dt.md.calculator import EnsembleCalculator, ModelCalculator
from spk_dt.md.fixed_check import FixedAtoms
from spk_dt.md.fixed_system import FixedSystem, hold_fixed
from spk_dt.md.freezing import MAX_DISPLACEMENT, FreezingVerlet
from spk_dt.md.hooks import ExplodedError, ReferenceComparison, StopExploded
from spk_dt.md.initial_conditions import FramesInit, system_of
from spk_dt.md.model_inputs import InputsCalculator
from spk_dt.md.neighborlist import VerletNeighborList
from spk_dt.md.output_folder import OutputFolder
from spk_dt.md.random_velocities import MaxwellBoltzmannInit, UniformInit
from spk_dt.md.restart import Checkpoint, FileLogger
from spk_dt.md.streams import MoleculeStream, PropertyStream
from spk_dt.md.stress_check import StressForBarostat

__all__ = [
    "MAX_DISPLACEMENT",
    "AnisotropicBarostat",
    "CentroidBarostat",
    "Checkpoint",
    "EnsembleCalculator",
    "ExplodedError",
    "FileLogger",
    "FixedAtoms",
    "FixedSystem",
    "FramesInit",
    "FreezingVerlet",
    "InputsCalculator",
    "MaxwellBoltzmannInit",
    "ModelCalculator",
    "MoleculeStream",
    "OutputFolder",
    "PropertyStream",
    "ReferenceComparison",
    "StopExploded",
    "StressForBarostat",
    "UniformInit",
    "VerletNeighborList",
    "hold_fixed",
    "system_of",
]
