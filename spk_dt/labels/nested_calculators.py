"""Calculators within calculators: a sum of a functional and a dispersion correction, a cluster in its surroundings."""

from collections.abc import Iterator
from pathlib import Path

__all__ = ["nested_calculators", "put_into"]


def nested_calculators(calculator: object) -> list[object]:
    """A calculator and those that it holds in its attributes, the outermost first."""
    found: list[object] = [calculator]
    for one in found:
        for value in _held(one):
            if all(value is not other for other in found):
                found.append(value)
    return found


def put_into(calculator: object, folder: Path) -> None:
    """Let a calculator, and those in it, write to a folder.

    The working folder of the process is this folder already. So calculators inside others keep what is relative, and get
    folders of their own in place of absolute ones.
    """
    for number, one in enumerate(nested_calculators(calculator)):
        directory = getattr(one, "directory", None)
        if number == 0:
            if directory is not None:
                one.directory = folder  # type: ignore[attr-defined]
        elif isinstance(directory, str | Path) and Path(directory).is_absolute():
            inner = folder / str(number)
            inner.mkdir()
            one.directory = inner  # type: ignore[attr-defined]


def _held(calculator: object) -> Iterator[object]:
    """Calculators among the attributes of one, in its lists, and in its `Mixer` (ASE's sums)."""
    attributes = vars(calculator) if hasattr(calculator, "__dict__") else {}
    for name, value in attributes.items():
        if name == "mixer":
            yield from _held(value)
        for one in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]:
            if callable(getattr(one, "get_property", None)) and not isinstance(one, type):
                yield one
