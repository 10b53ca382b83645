"""What all commands share."""

import ctypes
import logging
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from omegaconf import DictConfig

from benchmarks.models import composed
from benchmarks.reference import Reference
from benchmarks.timing import Clock

__all__ = ["Settings", "prepare"]

_M_ARENA_MAX = -8  # of malloc.h


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Args:
        device: cpu or cuda.
        overrides: Hydra overrides of the training config, for all contenders of ours.
        reference: clone of the code released with the paper, to be measured beside ours.
        quick: few repetitions, to see that all works.
        repetitions: rounds; None takes what suits the command.
        n_systems: systems in a batch.
    """

    device: str = "cpu"
    overrides: tuple[str, ...] = ()
    reference: Path | None = None
    quick: bool = False
    repetitions: int | None = None
    n_systems: int = 8

    @property
    def clock(self) -> Clock:
        return Clock(self.device)

    def rounds(self, usual: int) -> int:
        """Rounds of a measurement that usually takes `usual`."""
        return self.repetitions or (1 if self.quick else usual)

    def config(self, *overrides: str, model: str = "EGNN") -> DictConfig:
        """The training config with the overrides of the command line last."""
        return composed(*overrides, *self.overrides, model=model)

    def their_code(self) -> Reference | None:
        """The reference code with a model of the same size."""
        return None if self.reference is None else Reference(self.reference, self.config())

    def with_overrides(self, *more: str) -> "Settings":
        return replace(self, overrides=(*self.overrides, *more))


def prepare(threads: int = 1) -> None:
    """Threads, one memory arena for all, and silence from libraries about themselves."""
    torch.set_num_threads(threads)
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt"):
        # trainers run in threads here, which would get arenas of their own from glibc: other than in the main thread, large
        # tensors would be mapped and unmapped at each use
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
