"""Elements and masses of the atoms of a CP2K run: XYZ files hold names only, ``&KIND`` of the input has the masses.

CP2K writes the element of an atom, or the name of its kind with ``PRINT_ATOM_KIND``. Kinds of one element with
different masses, as H and D, can be told apart by the names, or by the kinds under ``&COORD`` in the restart file or
the input.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import atomic_masses, atomic_numbers

__all__ = ["Kind", "elements_and_masses"]

_SYMBOL = re.compile(r"([A-Z][a-z]?)\d*")


@dataclass(frozen=True)
class Kind:
    """A kind of atoms of the input.

    Args:
        name: its name.
        element: symbol; None if it is not said and the name is not one.
        mass: Dalton, None if it is not said.
    """

    name: str
    element: str | None
    mass: float | None


def elements_and_masses(
    symbols: Sequence[str], kinds: Mapping[str, Kind], coordinates: Sequence[str], path: Path
) -> tuple[list[int], np.ndarray | None]:
    """Atomic numbers and masses of atoms.

    Args:
        symbols: [n_atoms] their names in the XYZ file.
        kinds: kinds of the input, by name in capitals.
        coordinates: names of the kinds of the atoms in the input, in order, if it has them.
        path: the XYZ file, for error messages.

    Returns:
        [n_atoms] atomic numbers; [n_atoms] masses in Dalton, None if no kind has one.

    Raises:
        ValueError: if a name is not that of an element or a kind, or its mass is not clear.
    """
    named = {symbol: _element(symbol, kinds) for symbol in set(symbols)}
    unknown = sorted(symbol for symbol, element in named.items() if element is None)
    if unknown:
        raise ValueError(
            f"'{path}' has atoms named '{unknown[0]}', which is not an element. Put the input with its &KIND and "
            "ELEMENT beside it; or print without PRINT_ATOM_KIND, or replace the name by that of the element."
        )
    numbers = [atomic_numbers[named[symbol] or ""] for symbol in symbols]
    if not any(kind.mass for kind in kinds.values()):
        return numbers, None
    printed = _same_elements(symbols, coordinates, named, kinds)
    by_atom = coordinates if printed else symbols
    of_kinds = printed or any(name not in atomic_numbers for name in symbols)
    masses = [
        _mass(name, str(named[symbol]), kinds, of_kinds, path) for name, symbol in zip(by_atom, symbols, strict=True)
    ]
    return numbers, np.array(masses)


def _element(name: str, kinds: Mapping[str, Kind]) -> str | None:
    """The element that a name in the XYZ file stands for; an element that has a number behind it is one."""
    kind = kinds.get(name.upper())
    if kind is not None and kind.element is not None:
        return kind.element
    match = _SYMBOL.fullmatch(name)
    return match[1] if match is not None and match[1] in atomic_numbers else None


def _same_elements(
    symbols: Sequence[str], coordinates: Sequence[str], named: Mapping[str, str | None], kinds: Mapping[str, Kind]
) -> bool:
    """Whether the kinds of the input are those of these atoms."""
    return len(coordinates) == len(symbols) and all(
        _element(name, kinds) == named[symbol] for name, symbol in zip(coordinates, symbols, strict=True)
    )


def _mass(name: str, element: str, kinds: Mapping[str, Kind], of_kinds: bool, path: Path) -> float:
    """Mass of an atom, in Dalton; its name is that of a kind, or else that of the element, of which there may be several."""
    standard = float(atomic_masses[atomic_numbers[element]])
    if of_kinds:
        own = kinds.get(name.upper())
        return (own.mass if own is not None else None) or standard
    found = {kind.name: kind.mass or standard for kind in kinds.values() if kind.element == element}
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{kind} ({mass:g})" for kind, mass in found.items())
        raise ValueError(
            f"atoms {element} of '{path}' may be of the kinds {listed}, which have different masses, and CP2K wrote "
            "the element only. Put the restart file of the run beside it, which has the kinds under &COORD."
        )
    return next(iter(found.values()), standard)
