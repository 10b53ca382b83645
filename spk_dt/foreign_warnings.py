"""Warnings of other packages about themselves, which users of our programs would see at every start and cannot act on.

Programs silence them, and nothing else does: to import spk_dt changes no warning filter. What a user can act on (a training
set smaller than the logging interval, a CUDA driver that is too old) is not here. ``spktrain`` and ``spkmd`` are programs of
SchNetPack that load us when they read their configs, but warn before, while they are imported. So the wheel also installs
``programs.pth``, a line that Python runs at its start, and that does nothing in any other program. An editable install is
without it, and silences what comes after the imports.
"""

import os
import re
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

__all__ = ["ForeignWarning", "foreign_warnings", "silence", "silence_in_programs"]

#: programs of SchNetPack that read our configs
_PROGRAMS = {"spktrain", "spkmd", "spkpredict"}


class ForeignWarning(NamedTuple):
    """Which warning, in the order of `warnings.filterwarnings`.

    Args:
        message: regular expression that its text begins with.
        category: its class.
        module: regular expression for the name of the module that it is about.
    """

    message: str
    category: type[Warning]
    module: str


def foreign_warnings() -> list[ForeignWarning]:
    """All of them. SchNetPack looks for configs in two folders, of which the second is seldom there."""
    folder = re.escape(os.environ.get("PWD", "") + "/configs")
    lightning = r"pytorch_lightning\."
    return [
        # of import schnetpack; a SyntaxWarning comes when a module is compiled and names its file
        ForeignWarning(r"`torch\.jit\.script` is deprecated", FutureWarning, r"torch\.jit\._script$"),
        ForeignWarning(
            r".*invalid escape sequence", SyntaxWarning, r".*\b(dirsync[\\/.]syncer|schnetpack[\\/.](md[\\/.])?cli)$"
        ),
        # of import schnetpack.md.cli
        ForeignWarning(r"\s*The version_base parameter is not specified", UserWarning, r"schnetpack\.md\.cli$"),
        # of every training
        ForeignWarning(
            rf"provider=hydra\.searchpath in main, path={folder} is not available", UserWarning, r"hydra\._internal\."
        ),
        ForeignWarning("Attribute 'model' is an instance of `nn.Module`", UserWarning, lightning + "utilities"),
        ForeignWarning("Skipping 'outputs' parameter because", UserWarning, lightning + "core"),
        ForeignWarning(r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning, lightning + "utilities"),
    ]


def silence() -> None:
    """Show none of them in this process, or until `warnings.catch_warnings` ends."""
    for one in foreign_warnings():
        warnings.filterwarnings("ignore", *one)


def silence_in_programs() -> None:
    """Do so if this process is a program of SchNetPack, not one of somebody else that only uses its configs."""
    if Path(sys.argv[0]).stem in _PROGRAMS:
        silence()
