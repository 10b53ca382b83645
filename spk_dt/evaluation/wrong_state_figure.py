"""Pictures of first wrong states: the structure, seen from where its closest contact is seen, with the contact marked."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors
from ase.neighborlist import natural_cutoffs, neighbor_list
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from spk_dt.certificate.verdict import closest_pair
from spk_dt.evaluation.certificates import WrongState
from spk_dt.evaluation.plot_style import WIDTH, panels

__all__ = ["plot_wrong_states"]

_SIZE = 0.7  # of an atom, in covalent radii
_DIRECTIONS = 24  # from which the contact is looked at
_FARTHEST = 9.0  # Å from the contact; what is farther away is left out
_SIDES = np.array([-1.0, 1.0])
_CONTACT, _FORCE = "#D00000", "#E69F00"


def plot_wrong_states(states: Sequence[WrongState]) -> Figure:
    """A panel for each state, with its model, simulation, time and reason.

    Red is the closest contact: the two atoms whose distance is smallest over the sum of their covalent radii, with both. An
    orange ring is about the atom whose force has the largest error.

    Args:
        states: with their atoms.
    """
    columns = min(3, len(states))
    rows = -(-len(states) // columns)
    figure, grid = panels(rows, columns, (WIDTH * columns / 3.0, 2.45 * rows), len(states))
    figure.get_layout_engine().set(h_pad=0.12)
    for axes, state in zip(grid.flat, states, strict=False):
        assert state.atoms is not None
        _draw(axes, state.atoms)
        axes.set_title(
            f"{state.model}, simulation {state.simulation}\n{state.time_ps:.3g} ps: {state.reason}", fontsize=8
        )
    return figure


def _draw(axes: Axes, atoms: Atoms) -> None:
    """A structure as circles, the nearest on top."""
    i, j, contact, ratio = closest_pair(atoms)
    ends = np.array([atoms.positions[i], atoms.positions[i] + contact])
    centre = ends.mean(axis=0)
    seen = np.flatnonzero(np.linalg.norm(atoms.positions - centre, axis=1) < _FARTHEST)
    turned = _view(atoms.positions[seen] - centre, contact)
    flat = (atoms.positions - centre) @ turned.T
    axes.add_collection(_bonds(atoms, flat, set(seen.tolist())))
    for k in seen[np.argsort(flat[seen, 2])]:
        axes.add_patch(_circle(flat[k], atoms.numbers[k], 2.0 + 1e-3 * flat[k, 2]))
    errors = _force_errors(atoms)
    if errors is not None:
        worst = int(errors.argmax())
        axes.add_patch(
            _circle(flat[worst], atoms.numbers[worst], 5.0, 0.35, fill=False, edgecolor=_FORCE, linewidth=1.5)
        )
    if np.isfinite(ratio):
        (x, y, _), (x2, y2, _) = ends_flat = (ends - centre) @ turned.T
        axes.plot([x, x2], [y, y2], color=_CONTACT, linewidth=2.0, zorder=6.0)
        axes.add_patch(_circle(ends_flat[1], atoms.numbers[j], 1.5))  # which may be an image of the atom
        for end, k in zip(ends_flat, (i, j), strict=True):
            axes.add_patch(_circle(end, atoms.numbers[k], 5.5, 0.1, fill=False, edgecolor=_CONTACT, linewidth=1.2))
        pair = "–".join(chemical_symbols[atoms.numbers[k]] for k in (i, j))
        text = f"{pair} {np.linalg.norm(contact):.2f} Å ({ratio:.2f})"
        axes.text(0.5, -0.02, text, color=_CONTACT, fontsize=8, ha="center", va="top", transform=axes.transAxes)
    low, high = flat[seen, :2].min(axis=0, initial=-1.0), flat[seen, :2].max(axis=0, initial=1.0)
    middle, half = 0.5 * (low + high), 0.5 * (high - low).max() + 1.2
    axes.set(xlim=middle[0] + half * _SIDES, ylim=middle[1] + half * _SIDES, aspect="equal")
    axes.set_axis_off()


def _view(positions: np.ndarray, contact: np.ndarray) -> np.ndarray:
    """[3, 3] rotation that shows the contact from the side, from the direction in which least is before it.

    The structure is seen with the first axis along the contact; of the directions perpendicular to it that one is taken
    before which the atoms near the line of sight are fewest, and then that from which the structure looks widest.
    """
    along = contact / np.linalg.norm(contact) if contact.any() else np.array([1.0, 0.0, 0.0])
    other = np.eye(3)[np.abs(along).argmin()]
    first = np.cross(along, other)
    first /= np.linalg.norm(first)
    second = np.cross(along, first)

    def rotation(angle: float) -> np.ndarray:
        towards = np.cos(angle) * first + np.sin(angle) * second
        return np.array([along, np.cross(towards, along), towards])

    def cost(turned: np.ndarray) -> tuple[int, float]:
        x, y, z = turned @ positions.T
        near = (np.abs(x) < 0.5 * np.linalg.norm(contact) + 1.0) & (np.abs(y) < 1.0)
        return int((near & (z > 0.3)).sum()), -float(np.ptp(y))

    angles = np.linspace(0.0, 2.0 * np.pi, _DIRECTIONS, endpoint=False)
    return min(map(rotation, angles), key=cost)


def _bonds(atoms: Atoms, flat: np.ndarray, seen: set[int]) -> LineCollection:
    """Lines between bonded atoms of the same cell."""
    i, j, shift = neighbor_list("ijS", atoms, natural_cutoffs(atoms, mult=1.15))
    pairs = [(a, b) for a, b, s in zip(i, j, shift, strict=True) if a < b and not s.any() and {a, b} <= seen]
    lines = [flat[[a, b], :2] for a, b in pairs]
    return LineCollection(lines, colors="0.55", linewidths=1.0, zorder=1.0)


def _circle(at: np.ndarray, number: int, zorder: float, wider: float = 0.0, **look: object) -> Circle:
    """An atom, or a ring about it that is wider by so many Å."""
    look = look or {"facecolor": jmol_colors[number], "edgecolor": "0.25", "linewidth": 0.5}
    return Circle((at[0], at[1]), _SIZE * covalent_radii[number] + wider, zorder=zorder, **look)


def _force_errors(atoms: Atoms) -> np.ndarray | None:
    """[n_atoms] error of the force on each atom, eV/Å; None if the reference method did not compute the state."""
    forces = atoms.info.get("reference_forces")
    if forces is None or not np.isfinite(forces).all():
        return None
    return np.linalg.norm(atoms.get_forces(apply_constraint=False) - forces, axis=1)
