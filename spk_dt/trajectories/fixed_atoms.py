"""Atoms, or components of their positions, that a simulation holds fixed.

Inside they are a mask, false for what is fixed; in ASE's structures and in the database they are ASE's constraints
`FixAtoms` and `FixCartesian`. What another constraint leaves free is told by the directions in which an atom may move; these
have to be some of x, y and z. Constraints that fix something else (bond lengths, the centre of mass) are left alone.
"""

import re
from collections.abc import Sequence
from itertools import groupby

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian, FixConstraint, FixedLine, FixedPlane, FixScaled

__all__ = [
    "FixedSelection",
    "degrees_of_freedom",
    "fixes_positions",
    "forces_held",
    "index_ranges",
    "mobile_of",
    "movable_components",
    "set_mobile",
]

_FIXING = (FixAtoms, FixCartesian, FixScaled, FixedPlane, FixedLine)

#: a component of a direction below which an atom does not move along it
_NOTHING = 1e-8


def mobile_of(atoms: Atoms) -> np.ndarray:
    """[n_atoms, 3] false for components of positions that constraints of ASE hold fixed.

    Raises:
        ValueError: if a constraint lets an atom move along directions that are not some of x, y and z.
    """
    mobile = np.ones((len(atoms), 3), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            mobile[constraint.index] = False
        elif isinstance(constraint, FixCartesian):
            mobile[constraint.index] &= ~constraint.mask
        elif isinstance(constraint, FixScaled):
            mobile[constraint.index] &= movable_components(atoms.cell.array[~constraint.mask])
        elif isinstance(constraint, FixedPlane):
            mobile[constraint.index] &= movable_components(np.eye(3) - np.outer(constraint.dir, constraint.dir))
        elif isinstance(constraint, FixedLine):
            mobile[constraint.index] &= movable_components(constraint.dir[None])
    return mobile


def degrees_of_freedom(atoms: Atoms) -> int:
    """Components of positions that are not held fixed, at least one."""
    return max(int(mobile_of(atoms).sum()), 1)


def fixes_positions(constraint: FixConstraint) -> bool:
    """Whether a constraint of ASE is one that `mobile_of` knows."""
    return isinstance(constraint, _FIXING)


def movable_components(directions: np.ndarray) -> np.ndarray:
    """[3] which of x, y and z may change for an atom that moves along these directions, [n, 3].

    Raises:
        ValueError: if these are not all motions that the components allow, as along a skew vector.
    """
    size = np.linalg.norm(directions, axis=1, keepdims=True)
    directions = directions[size[:, 0] > _NOTHING] / size[size[:, 0] > _NOTHING]
    movable = np.any(np.abs(directions) > _NOTHING, axis=0)
    rank = int(np.linalg.matrix_rank(directions, tol=_NOTHING)) if len(directions) else 0
    if rank != movable.sum():
        raise ValueError(
            f"atoms may move along {np.round(directions, 4).tolist()} only, which is not some of x, y and z: what is fixed "
            "has to be components. Hold these atoms fixed altogether, or turn the cell so that they move along an axis."
        )
    return movable


def set_mobile(atoms: Atoms, mobile: np.ndarray) -> None:
    """Let constraints of ASE hold fixed what is false, and nothing else; constraints of other kinds stay.

    Args:
        atoms: their positions and momenta are not changed.
        mobile: [n_atoms, 3].
    """
    constraints: list[FixConstraint] = [one for one in atoms.constraints if not fixes_positions(one)]
    for kind in np.unique(mobile[~mobile.all(axis=1)], axis=0):
        members = np.flatnonzero((mobile == kind).all(axis=1))
        constraints.append(FixCartesian(members, mask=~kind) if kind.any() else FixAtoms(members))
    atoms.set_constraint(constraints)


def forces_held(forces: np.ndarray, mobile: np.ndarray) -> np.ndarray:
    """[n_atoms, 3] false for fixed components if all of their forces are exactly zero: their program masked them.

    Args:
        forces: [n_frames, n_atoms, 3] along a trajectory.
        mobile: [n_atoms, 3] false for what is fixed.
    """
    masked = not mobile.all() and not any(np.any(frame[~mobile]) for frame in forces)
    return mobile if masked else np.ones_like(mobile)


def index_ranges(indices: Sequence[int] | np.ndarray) -> str:
    """Indices in short, as `FixedSelection` reads them: ``0-3,7``."""
    runs = [
        [index for _, index in run]
        for _, run in groupby(enumerate(sorted(map(int, indices))), key=lambda pair: pair[1] - pair[0])
    ]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


_TERM = re.compile(r"(\d+)(?:-(\d+))?(?::([xyz]{1,3}))?")
_BELOW = re.compile(r"([xyz])\s*<\s*(\S+)")


class FixedSelection:
    """What ``--fixed`` names.

    ``0-35,40`` are atoms, counted from 0, ``0-35:z`` components of them, ``z<3.5`` atoms below a height (Å) in the first
    frame; ``none`` fixes nothing, whatever the files say.

    Raises:
        ValueError: if it is none of these.
    """

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self._below = _BELOW.fullmatch(self.text)
        self._terms = [_TERM.fullmatch(term.strip()) for term in self.text.split(",")]
        try:
            sound = (
                self.text == "none" or all(self._terms) or np.isfinite(float(self._below[2] if self._below else "x"))
            )
        except ValueError:
            sound = False
        if not sound:
            raise ValueError(
                f"--fixed '{text}' is not understood. Name atoms, counted from 0, as 0-35,40, components of them as 0-35:z, "
                "atoms below a height in Å as 'z<3.5', or none."
            )

    def mobile(self, atoms: Atoms, where: str) -> np.ndarray:
        """[n_atoms, 3] false for what is fixed.

        Args:
            atoms: first frame of a trajectory.
            where: its name, for error messages.

        Raises:
            ValueError: if there is no such atom, or a height below which there is none.
        """
        mobile = np.ones((len(atoms), 3), dtype=bool)
        if self._below:
            below = atoms.positions[:, "xyz".index(self._below[1])] < float(self._below[2])
            if not below.any():
                raise ValueError(
                    f"--fixed '{self.text}': in {where} no atom lies there; see where atoms are, e.g. in ase gui."
                )
            mobile[below] = False
        elif self.text != "none":
            for first, last, components in (term.groups() for term in self._terms if term):
                end = int(last or first)
                if not int(first) <= end < len(atoms):
                    raise ValueError(
                        f"--fixed '{self.text}': {where} has the atoms 0 to {len(atoms) - 1}, not {first} to {end}."
                    )
                which = ["xyz".index(name) for name in components or "xyz"]
                mobile[int(first) : end + 1, which] = False
        return mobile
