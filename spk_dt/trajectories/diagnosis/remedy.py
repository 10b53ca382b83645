"""Remedies as options of ``spkdt convert``: what a finding says in words and what can be done are the same object.

An option is a keyword of `spk_dt.trajectories.convert.convert`, such as ``{"units": {"forces": "Hartree/Bohr"}}``. Those of
all findings of a trajectory are done together, on the database that was checked.
"""

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["Options", "as_arguments", "merged", "shortest"]

#: keywords of `convert`
Options = Mapping[str, Any]


def merged(several: Iterable[Options]) -> dict[str, Any]:
    """Options that are done together: mappings and lists are joined, two factors of one quantity are multiplied."""
    found: dict[str, Any] = {}
    for options in several:
        for key, value in options.items():
            before = found.get(key)
            if before is None:
                found[key] = value
            elif isinstance(value, Mapping):
                both = {name: _product(before[name], value[name]) for name in before.keys() & value.keys()}
                found[key] = {**before, **value, **both}
            elif isinstance(value, tuple):
                found[key] = tuple(sorted({*before, *value}))
            else:
                found[key] = value
    return found


def _product(one: Any, other: Any) -> Any:
    """A unit and a sign in one."""
    for sign, unit in ((one, other), (other, one)):
        if sign == "-1" and isinstance(unit, str):
            return unit[1:] if unit.startswith("-") else f"-{unit}"
    return other


def as_arguments(options: Options) -> str:
    """Options as they are written on the command line."""
    words = []
    for key, value in options.items():
        name = f"--{key.replace('_', '-')}"
        if value is True:
            words.append(name)
        elif value is False:
            words.append("--keep-velocities" if key == "keep_momenta" else "")
        elif isinstance(value, Mapping):
            words.append(f"{name} {','.join(f'{who}={_text(what)}' for who, what in value.items())}")
        elif isinstance(value, tuple):
            words.append(f"{name} {','.join(map(str, value))}")
        else:
            words.append(f"{name} {_text(value)}")
    return " ".join(word for word in words if word)


def _text(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def shortest(value: float, relative_error: float) -> float:
    """The number with the fewest digits that a measured value can mean.

    Args:
        value: what was measured.
        relative_error: within which it is known.
    """
    for digits in range(1, 10):
        rounded = float(f"{value:.{digits}g}")
        if abs(rounded - value) <= relative_error * abs(value):
            return rounded
    return float(f"{value:.10g}")
