"""Models of both kinds: files that run no code, and SchNetPack's ``best_model``, which does."""

import logging
import shlex
from pathlib import Path
from typing import Any, ClassVar

import torch
from schnetpack.model import AtomisticModel
from schnetpack.utils import load_model as load_pickled

from spk_dt.models.file import is_plain, read_model_file

__all__ = ["already_told", "load_model", "own_file"]

log = logging.getLogger(__name__)


class _Said:
    """Whether users were told in this process, and files of which they need not be."""

    told: ClassVar[bool] = False
    own: ClassVar[set[Path]] = set()


def own_file(file: str | Path) -> None:
    """Note that a pickled model is written by the program itself, so that nothing is said when it is loaded."""
    _Said.own.add(Path(file).absolute())


def already_told() -> None:
    """Note that another process has told users that a model is a pickle, so that this one does not."""
    _Said.told = True


def load_model(file: str | Path) -> AtomisticModel:
    """Load a stored model, on the CPU.

    Args:
        file: a ``.safetensors`` of `spkdt export`, or a ``best_model``. The latter runs whatever code it names, which is
            said once in a process.

    Raises:
        ValueError: if a ``.safetensors`` is damaged or not what it should be. What unpickling raises is left as it is.
    """
    if is_plain(file):
        return read_model_file(file)[0]
    if not _Said.told and Path(file).absolute() not in _Said.own:
        _Said.told = True
        log.warning(
            "'%s' is a pickle: loading it runs whatever code it holds. Load none that you do not trust; a file that runs no "
            "code is made by: spkdt export %s MODEL.safetensors",
            *(file, shlex.quote(str(file))),
        )
    model: Any = load_pickled(str(file), device=torch.device("cpu"))
    return model
