"""Atoms that a CP2K input holds fixed: ``&MOTION &CONSTRAINT &FIXED_ATOMS``, see https://manual.cp2k.org.

Each such section names atoms, counted from 1, in ``LIST 1..36 40``, and what is fixed of them in ``COMPONENTS_TO_FIX XYZ``.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from spk_dt.trajectories.readers.text import open_text

__all__ = ["fixed_atoms"]

_RANGE = re.compile(r"(\d+)(?:\.\.(\d+))?")

_REMEDY = "name the atoms, counted from 0, with --fixed, or --fixed none if there are none"


def fixed_atoms(path: Path, n_atoms: int) -> np.ndarray | None:
    """[n_atoms, 3] false for what an input or restart file fixes; None if it fixes nothing.

    Raises:
        ValueError: if a section names atoms otherwise than by their numbers, or is not understood.
    """
    mobile = np.ones((n_atoms, 3), dtype=bool)
    for section in _sections(path):
        components = "XYZ"
        members: list[int] = []
        for keyword, values in section:
            if keyword == "LIST":
                members += _members(values, n_atoms, path)
            elif keyword == "COMPONENTS_TO_FIX":
                components = "".join(values).upper()
                if not components or set(components) - set("XYZ"):
                    raise ValueError(
                        f"'{path}': COMPONENTS_TO_FIX {components} of &FIXED_ATOMS is not some of X, Y, Z."
                    )
            elif keyword in ("MOLNAME", "MM_SUBSYS", "QM_SUBSYS"):
                raise ValueError(f"'{path}': &FIXED_ATOMS by {keyword} does not say which atoms these are; {_REMEDY}.")
        for component in components:
            mobile[members, "XYZ".index(component)] = False
    return None if mobile.all() else mobile


def _members(values: list[str], n_atoms: int, path: Path) -> list[int]:
    """Indices of atoms, counted from 0."""
    found: list[int] = []
    for word in values:
        match = _RANGE.fullmatch(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= n_atoms:
            raise ValueError(
                f"'{path}': LIST {word} of &FIXED_ATOMS is not of the atoms 1 to {n_atoms} of the trajectory; {_REMEDY}."
            )
        found += range(first - 1, last)
    return found


def _sections(path: Path) -> Iterator[list[tuple[str, list[str]]]]:
    """Keywords and values of each section FIXED_ATOMS that is switched on."""
    sections: list[str] = []
    found: list[tuple[str, list[str]]] = []
    with open_text(path) as lines:
        text = re.sub(r"\\[ \t]*\n", " ", lines.read())
    for line in text.splitlines():
        words = re.split(r"[!#]", line, maxsplit=1)[0].split()
        inside = sections == ["MOTION", "CONSTRAINT", "FIXED_ATOMS"]
        if not words or words[0].startswith("@"):  # of the preprocessor
            continue
        if not words[0].startswith("&"):
            if inside:
                found.append((words[0].upper(), words[1:]))
        elif words[0].upper() != "&END":
            off = len(words) > 1 and words[1].upper().strip(".") in ("F", "FALSE", "OFF", "NO")
            sections.append(words[0][1:].upper() + (" off" if off else ""))
            found = []
        elif sections:
            if inside:
                yield found
            sections.pop()
