from spk_dt.dynamics.compiled import CompiledPotential
from spk_dt.dynamics.explosion import ExplosionGuard
from spk_dt.dynamics.gradients import Detached, Full, GradientMode, Truncated
from spk_dt.dynamics.integrators import Integrator, Langevin, VelocityVerlet
from spk_dt.dynamics.kicks import Kicks
from spk_dt.dynamics.model_forces import ModelForces
from spk_dt.dynamics.neighbors import VerletList
from spk_dt.dynamics.rollout import ForceFunction, Visited, rollout
from spk_dt.dynamics.state import State
from spk_dt.dynamics.stress import predict_stress, strained, stress_key_of, without_stress

__all__ = [
    "CompiledPotential",
    "Detached",
    "ExplosionGuard",
    "ForceFunction",
    "Full",
    "GradientMode",
    "Integrator",
    "Kicks",
    "Langevin",
    "ModelForces",
    "State",
    "Truncated",
    "VelocityVerlet",
    "VerletList",
    "Visited",
    "predict_stress",
    "rollout",
    "strained",
    "stress_key_of",
    "without_stress",
]
