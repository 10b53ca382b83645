from spk_dt.training.curriculum import Converged, Curriculum, Elapsed, Stage
from spk_dt.training.losses import ElementwiseOutput, PerAtomOutput
from spk_dt.training.metrics import StepwiseElementMAE
from spk_dt.training.task import DynamicTrainingTask

__all__ = [
    "Converged",
    "Curriculum",
    "DynamicTrainingTask",
    "Elapsed",
    "ElementwiseOutput",
    "PerAtomOutput",
    "Stage",
    "StepwiseElementMAE",
]
