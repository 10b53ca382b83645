"""Reference methods by name: what computes the energies and forces that a model is trained on or compared with."""

import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, cast

from ase.calculators.calculator import Calculator

from spk_dt.imports import import_named

__all__ = ["TBLITE_SETTINGS", "importable_from", "reference_calculator", "reference_factory"]

#: settings of tblite with which the embedded data set was made: electronic temperature in K, accuracy without unit
TBLITE_SETTINGS: Mapping[str, Any] = MappingProxyType(
    {"electronic_temperature": 1000.0, "accuracy": 0.1, "verbosity": 0}
)

_TBLITE_METHODS = ("GFN1-xTB", "GFN2-xTB", "IPEA1-xTB")


def reference_calculator(spec: str, **kwargs: Any) -> Calculator:
    """The ASE calculator that a name stands for.

    Args:
        spec: ``"tblite:GFN1-xTB"`` (or ``GFN2-xTB``, ``IPEA1-xTB``) for a tight-binding method with `TBLITE_SETTINGS`,
            or the import path of any ASE calculator, or of a function that makes one, ``"package.module:name"``, for
            example ``"ase.calculators.emt:EMT"``. A module is also found in the current folder.
        kwargs: arguments of the calculator; they come before `TBLITE_SETTINGS`.

    Returns:
        a new calculator, in the units of ASE: eV and eV/Å.

    Raises:
        ValueError: if `spec` is not of this form, names no calculator, or the calculator does not take the arguments.
        ImportError: if the package of the calculator is not installed.
    """
    return reference_factory(spec)(**kwargs)


def reference_factory(spec: str) -> Callable[..., Calculator]:
    """What makes the calculator of a name, see `reference_calculator`; modules are found when this is called."""
    package, _, name = spec.partition(":")
    if not package or not name.replace("-", "_").isidentifier():
        raise ValueError(
            f"reference '{spec}' is not the name of a calculator. Write 'tblite:GFN1-xTB', or the import path of an ASE "
            "calculator as 'package.module:Class', for example 'ase.calculators.emt:EMT'."
        )
    if package == "tblite":
        return partial(_tblite, spec, name)
    sys.path += [folder for folder in importable_from() if folder not in sys.path]
    module = import_named(package, f"reference '{spec}'")
    make = getattr(module, name, None)
    if not callable(make):
        raise ValueError(f"reference '{spec}': module '{package}' has no calculator '{name}'.")
    return partial(_made, spec, make)


def _made(spec: str, make: Callable[..., Any], **kwargs: Any) -> Calculator:
    """A calculator of a class or function of the user."""
    try:
        calculator = make(**kwargs)
    except TypeError as error:
        raise ValueError(f"reference '{spec}' cannot be made with the arguments {kwargs}: {error}") from error
    if not hasattr(calculator, "get_property"):
        raise ValueError(f"reference '{spec}' is a {type(calculator).__name__}, which is not an ASE calculator.")
    return cast(Calculator, calculator)


def importable_from() -> list[str]:
    """Folders in which modules are found: `sys.path`, then the current folder, and that in which the command was given.

    The latter differ where a program has changed its folder, as ``spktrain`` does. All are absolute, so that a process that
    works in another folder can use them.
    """
    folders = [os.path.abspath(folder) for folder in [*sys.path, "", os.environ.get("PWD", "")]]
    return list(dict.fromkeys(folders))


def _tblite(spec: str, method: str, **kwargs: Any) -> Calculator:
    """A tight-binding method of tblite."""
    if method not in _TBLITE_METHODS:
        raise ValueError(f"reference '{spec}': tblite has no method '{method}'; it has {', '.join(_TBLITE_METHODS)}.")
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise ImportError(
            f"reference '{spec}' needs the package tblite ({error}); install it with: pip install 'spk_dt[reference]'"
        ) from error
    return TBLite(method=method, **{**TBLITE_SETTINGS, **kwargs})
