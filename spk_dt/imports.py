"""Modules that users name: a calculator of their own, a class in a config.

``python script.py`` and ``python -m`` look into the folder of the script, or the current one; a program that is installed,
as ``spkdt``, ``spktrain`` and ``spkmd`` are, does not.
"""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

__all__ = ["import_named", "look_into_current_folder"]


def look_into_current_folder() -> None:
    """Let Python find modules in the current folder, after all others: a file ``random.py`` there hides nothing.

    Processes that are started later inherit it.
    """
    folder = str(Path.cwd())
    if "" not in sys.path and folder not in sys.path:
        sys.path.append(folder)


def import_named(module: str, what: str) -> ModuleType:
    """Import a module that a user has named.

    Args:
        module: its name, as ``package.module``.
        what: what it was named for, for the error message.

    Raises:
        ImportError: if it, or one that it imports, is not found.
    """
    look_into_current_folder()
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{what}: there is no module '{error.name}' in '{Path.cwd()}', on PYTHONPATH or among the packages of "
            f"{sys.executable}. Correct the name, install its package, or put the folder of the file on the path: "
            "export PYTHONPATH=FOLDER"
        ) from error
