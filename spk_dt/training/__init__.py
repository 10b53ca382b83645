from spk_dt.training.average import ExponentialMovingAverage
from spk_dt.training.budget import ComputeBudget
from spk_dt.training.checkpoint import ModelCheckpoint
from spk_dt.training.curriculum import Converged, Curriculum, Elapsed, Scheduled, Stage
from spk_dt.training.free_simulations import FreeSimulations
from spk_dt.training.hardening import Hardening
from spk_dt.training.hardening_goal import HardeningGoal
from spk_dt.training.labelling import Labelling
from spk_dt.training.last_stage import LastStage
from spk_dt.training.losses import ElementwiseOutput, PerAtomOutput
from spk_dt.training.metrics import StepwiseElementMAE
from spk_dt.training.metrics_file import CSVLogger
from spk_dt.training.model_simulations import ModelSimulations
from spk_dt.training.on_policy import OnPolicyLabels, RoundSchedule
from spk_dt.training.progress import TrainingProgress
from spk_dt.training.task import DynamicTrainingTask
from spk_dt.training.trials import TrialSimulations
from spk_dt.training.visits import VisitedStates

__all__ = [
    "CSVLogger",
    "ComputeBudget",
    "Converged",
    "Curriculum",
    "DynamicTrainingTask",
    "Elapsed",
    "ElementwiseOutput",
    "ExponentialMovingAverage",
    "FreeSimulations",
    "Hardening",
    "HardeningGoal",
    "Labelling",
    "LastStage",
    "ModelCheckpoint",
    "ModelSimulations",
    "OnPolicyLabels",
    "PerAtomOutput",
    "RoundSchedule",
    "Scheduled",
    "Stage",
    "StepwiseElementMAE",
    "TrainingProgress",
    "TrialSimulations",
    "VisitedStates",
]
