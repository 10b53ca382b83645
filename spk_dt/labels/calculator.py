"""Reference methods by name: what computes the energies and forces that a model is trained on or compared with."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ase.calculators.calculator import Calculator

from spk_dt.imports import import_named

__all__ = ["TBLITE_SETTINGS", "reference_calculator"]

#: settings of tblite with which the embedded data set was made: electronic temperature in K, accuracy without unit
TBLITE_SETTINGS: Mapping[str, Any] = MappingProxyType(
    {"electronic_temperature": 1000.0, "accuracy": 0.1, "verbosity": 0}
)

_TBLITE_METHODS = ("GFN1-xTB", "GFN2-xTB", "IPEA1-xTB")


def reference_calculator(spec: str, **kwargs: Any) -> Calculator:
    """The ASE calculator that a name stands for.

    Args:
        spec: ``"tblite:GFN1-xTB"`` (or ``GFN2-xTB``, ``IPEA1-xTB``) for a tight-binding method with `TBLITE_SETTINGS`,
            or the import path of any ASE calculator, ``"package.module:Class"``, for example
            ``"ase.calculators.emt:EMT"``.
        kwargs: arguments of the calculator; they come before `TBLITE_SETTINGS`.

    Returns:
        a new calculator, in the units of ASE: eV and eV/Å.

    Raises:
        ValueError: if `spec` is not of this form, names no calculator, or the calculator does not take the arguments.
        ImportError: if the package of the calculator is not installed.
    """
    package, _, name = spec.partition(":")
    if not package or not name.replace("-", "_").isidentifier():
        raise ValueError(
            f"reference '{spec}' is not the name of a calculator. Write 'tblite:GFN1-xTB', or the import path of an ASE "
            "calculator as 'package.module:Class', for example 'ase.calculators.emt:EMT'."
        )
    if package == "tblite":
        return _tblite(spec, name, **kwargs)
    module = import_named(package, f"reference '{spec}'")
    make = getattr(module, name, None)
    if not callable(make):
        raise ValueError(f"reference '{spec}': module '{package}' has no calculator '{name}'.")
    try:
        calculator = make(**kwargs)
    except TypeError as error:
        raise ValueError(f"reference '{spec}' cannot be made with the arguments {kwargs}: {error}") from error
    if not hasattr(calculator, "get_property"):
        raise ValueError(f"reference '{spec}' is a {type(calculator).__name__}, which is not an ASE calculator.")
    return calculator


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
