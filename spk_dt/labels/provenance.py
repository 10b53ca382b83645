"""By which versions and settings labels are made: what a calculator, its packages and its program tell."""

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

import numpy as np

from spk_dt.labels.nested_calculators import nested_calculators

__all__ = ["differing", "provenance", "version_after"]


def provenance(calculator: object, folder: Path) -> dict[str, Any]:
    """What a calculator says of itself, as JSON can hold it.

    Args:
        calculator: an ASE calculator, before it has computed anything.
        folder: its scratch folder, which is not part of its settings.

    Returns:
        calculator: its class.
        versions: of the packages that it, and calculators in it, come from, by name; ASE among them.
        programs: versions of programs, by class of the calculator; only of those that tell without a calculation.
        parameters: of the calculator, and under ``"1"``, ``"2"`` of calculators in it.
    """
    all_of_them = nested_calculators(calculator)
    settings = {str(number): _parameters(one) for number, one in enumerate(all_of_them)}
    found = {
        "calculator": _class(calculator),
        "versions": _versions(all_of_them),
        "programs": {_class(one): told for one in all_of_them if (told := _program(one)) is not None},
        "parameters": settings.pop("0") | {number: each for number, each in settings.items() if each},
    }
    text = json.dumps(found, sort_keys=True)
    return json.loads(text.replace(json.dumps(str(folder))[1:-1], "."))


def version_after(calculator: object) -> str | None:
    """Version of the program, from calculators that read it in its output, as those of VASP and MOPAC do."""
    results = getattr(calculator, "results", None) or {}
    for told in (results.get("version"), getattr(calculator, "version", None)):
        if isinstance(told, str):
            return told
    return None


def differing(recorded: Mapping[str, Any], present: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Both values of what is recorded and is otherwise now, by name; what was never recorded is not compared.

    Args:
        recorded: as read from a file.
        present: as it would be written now.
        prefix: of the names.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for key, before in recorded.items():
        now = present.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            if key == "parameters":  # a parameter that was not there before is another setting
                before = {**dict.fromkeys(now), **before}
            found |= differing(before, now, f"{prefix}{key}.")
        elif before != now:
            found[prefix + key] = (before, now)
    return found


def _class(calculator: object) -> str:
    return f"{type(calculator).__module__}.{type(calculator).__qualname__}"


def _versions(calculators: list[object]) -> dict[str, str]:
    """Versions of the distributions that hold the classes, and those that they inherit from."""
    distributions = packages_distributions()
    modules = {cls.__module__.partition(".")[0] for one in calculators for cls in type(one).__mro__} | {"ase"}
    found = {}
    for name in sorted({name for module in modules for name in distributions.get(module, [])}):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an installation that is not whole
            continue
    return found


def _program(calculator: object) -> str | None:
    """Version of the program behind a calculator, None if it does not tell, or needs a calculation for it."""
    for method in (
        getattr(getattr(calculator, "profile", None), "version", None),
        getattr(calculator, "get_version", None),
    ):
        try:
            told = method() if callable(method) else None
        except Exception:  # each calculator has its own; that a program is missing shows when it is to compute
            continue
        if isinstance(told, str | int | float):
            return str(told)
    return None


def _parameters(calculator: object) -> dict[str, Any]:
    """Parameters of a calculator, defaults included where it knows them."""
    found: dict[str, Any] = {}
    for get in ("todict", "asdict"):
        method = getattr(calculator, get, None)
        try:
            told = method() if callable(method) else None
        except Exception:  # not every calculator can
            continue
        if isinstance(told, Mapping):
            found |= told
    parameters = getattr(calculator, "parameters", None)
    if isinstance(parameters, Mapping):
        found |= parameters
    return {str(key): _as_json(value) for key, value in found.items()}


def _as_json(value: object) -> Any:
    """A value as JSON can hold it; of an object without a value its class."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    if isinstance(value, np.generic | np.ndarray):
        return _as_json(value.tolist())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _as_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
