"""Dynamic Training of machine-learning interatomic potentials, a plugin to SchNetPack."""

from importlib import import_module
from typing import Any

#: public name -> module that holds it; loaded when first used, so that `import spk_dt` is quick
_PUBLIC = {
    "EGNN": "spk_dt.representation",
    "Curriculum": "spk_dt.training",
    "Detached": "spk_dt.dynamics",
    "DynamicTrainingTask": "spk_dt.training",
    "Full": "spk_dt.dynamics",
    "Langevin": "spk_dt.dynamics",
    "ModelForces": "spk_dt.dynamics",
    "TrajectoryDataModule": "spk_dt.data",
    "TrajectoryWriter": "spk_dt.trajectories",
    "Truncated": "spk_dt.dynamics",
    "VelocityVerlet": "spk_dt.dynamics",
    "VerletList": "spk_dt.dynamics",
    "rollout": "spk_dt.dynamics",
    "write_extxyz": "spk_dt.trajectories.from_arrays",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'spk_dt' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
