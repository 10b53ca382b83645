r"""What a trajectory looks like before anything is concluded from it: one number per frame, and per atom.

Central differences of the positions are compared with the velocities, element by element, and the change of energy from
frame to frame with the work of the forces along the path,

.. math::
    c_k = \tfrac12 (x_{k+1} - x_{k-1}), \qquad \beta_Z = \mathrm{median}_k \frac{\langle c_k, T v_k \rangle_Z}{\langle T v_k,
    T v_k \rangle_Z}, \qquad \Delta E_k = E_{k+1} - E_k, \qquad W_k = -\tfrac12 (F_k + F_{k+1}) \cdot (x_{k+1} - x_k)

where the scalar products are weighted with the masses. Where the cell changes, :math:`x_{k+1} - x_k` are the moves without
what it carries along (`spk_dt.trajectories.moves`), and the stress does the work :math:`V \sigma : \varepsilon_k`, with the
strain from cell to cell. The forces of an atom can be followed from frame to frame if they
change little: atoms with :math:`|a_{k+1} - 2 a_k + a_{k-1}|^2 < 0.3\,|a_k|^2` (for a vibration: less than about an eighth
of its period between frames) are those from which time step and units are found.
"""

from dataclasses import dataclass

import ase.units
import numpy as np

from spk_dt.trajectories.diagnosis.geometry import rigid_pairs
from spk_dt.trajectories.diagnosis.pieces import PieceReader
from spk_dt.trajectories.diagnosis.rounding import spacing
from spk_dt.trajectories.moves import cell_strain
from spk_dt.trajectories.stated import UNITS

__all__ = ["Survey", "survey", "weighted_median"]

#: largest squared second difference of an atom's accelerations, in units of their square, that can be followed
_SMOOTH = 0.3
#: places along the trajectory at which three neighbouring frames are looked at for what holds all along it
_PLACES = 64
#: Å from frame to frame; what moves by less is at rest, and what a force moves by more would be seen
_AT_REST, _VISIBLE = 1e-10, 1e-6
#: last digits of printed positions that do not show what moves by less
_DIGITS = 3.0
#: steps within which a force moves what it acts on, before it turns round
_PUSHED_STEPS = 3


@dataclass(frozen=True)
class Survey:
    """Series and masks of one trajectory.

    Args:
        elements: [n_elements] atomic numbers that occur.
        frozen: [n_atoms] is held fixed, or never moves.
        mobile: [n_atoms, 3] components that do move.
        undeclared: [n_atoms, 3] held fixed though the database does not say so: an atom that never moves, or a component
            that does not although forces act on it.
        strays: [n_atoms] largest move from frame to frame of what is said to be fixed, Å.
        rigid: [n_pairs, 2] atoms whose distance is held fixed.
        followed: [n_atoms] moves freely, and its forces change little from frame to frame.
        coverage: part of the squared force (over mass) that acts on `followed` atoms.
        scale: [n_elements] central differences over velocities, beta; NaN if there are no velocities.
        explained: part of the squared central differences that the scaled velocities explain, median over the frames.
        step_size: [n_frames - 1] mass-weighted length of each step, Å sqrt(Dalton).
        energy_change: [n_frames - 1] eV.
        work: [3, n_frames - 1] eV, with the forces of the frame before, of the frame itself, of the frame after; NaN
            where there is none.
        cell_work: [n_frames - 1] eV, of the stress; zero at a constant cell, NaN where it changes and there is no stress.
        energy: [n_frames] eV.
        kinetic: [n_frames] eV.
        momentum: [n_frames, 3] Dalton Å/fs.
        net_force: RMS of the net force, eV/Å.
        force: RMS of the force on an atom, eV/Å.
        wrapped_steps: number of steps in which an atom crosses the cell by a lattice vector.
        wrapped_atoms: number of atoms that do, at any time.
    """

    elements: np.ndarray
    frozen: np.ndarray
    mobile: np.ndarray
    undeclared: np.ndarray
    strays: np.ndarray
    rigid: np.ndarray
    followed: np.ndarray
    coverage: float
    scale: np.ndarray
    explained: float
    step_size: np.ndarray
    energy_change: np.ndarray
    work: np.ndarray
    cell_work: np.ndarray
    energy: np.ndarray
    kinetic: np.ndarray
    momentum: np.ndarray
    net_force: float
    force: float
    wrapped_steps: int
    wrapped_atoms: int

    @property
    def free(self) -> np.ndarray:
        """[n_atoms] whether an atom may move as forces say."""
        free = ~self.frozen & ~self.undeclared.any(axis=1)
        free[self.rigid.reshape(-1)] = False
        return free

    @property
    def degrees_of_freedom(self) -> int:
        """Components of all atoms that move, at least one."""
        return max(int(self.mobile.sum()), 1)


def survey(reader: PieceReader) -> Survey:
    """Look at all frames of a trajectory of at least three frames, whose numbers are finite."""
    n_frames, masses = len(reader), reader.masses
    elements, element_of = np.unique(reader.numbers, return_inverse=True)
    frozen, undeclared, rigid, followed, coverage = _atoms(reader)
    strays = np.zeros(len(masses))
    members = [np.flatnonzero((element_of == z) & ~frozen) for z in range(len(elements))]

    products = np.zeros((3, n_frames, len(elements)))  # cv, vv, cc
    energy, kinetic, momentum = np.empty(n_frames), np.empty(n_frames), np.empty((n_frames, 3))
    step_size = np.empty(n_frames - 1)
    work, cell_work = np.full((3, n_frames - 1), np.nan), np.zeros(n_frames - 1)
    wrapped_steps, wrapped_atoms = 0, np.zeros(len(masses), dtype=bool)
    squared_force = squared_net_force = 0.0
    for first, last in reader.ranges(0, n_frames):
        before, after = min(first, 1), min(n_frames - last, 2)
        piece = reader.read(first - before, last + after)
        own = slice(before, before + last - first)
        steps = slice(before, before + min(last, n_frames - 1) - first)
        force = piece.accelerations * (masses[:, None] / ase.units.fs**2)

        energy[first:last] = piece.energy[own]
        kinetic[first:last] = 0.5 * np.einsum("i,kix,kix->k", masses, piece.velocities[own], piece.velocities[own])
        momentum[first:last] = np.einsum("i,kix->kx", masses, piece.velocities[own])
        squared_force += np.sum(force[own] ** 2)
        squared_net_force += np.sum(force[own].sum(axis=1) ** 2)

        moved = piece.moved[steps]
        strays = np.maximum(strays, np.abs(moved * ~reader.mobile).max(axis=(0, 2), initial=0.0))
        number = len(moved)
        step_size[first : first + number] = np.sqrt(np.einsum("i,kix,kix->k", masses, moved, moved))
        crossed = np.abs(np.diff(piece.positions, axis=0)[steps] - moved).max(axis=2) > 1e-6
        wrapped_steps += int(crossed.any(axis=1).sum())
        wrapped_atoms |= crossed.any(axis=0)
        mean_force = 0.5 * (force[:-1] + force[1:])
        cell_work[first : first + number] = _cell_work(reader, first, first + number)
        for shift in (-1, 0, 1):
            other = np.arange(before, before + number) + shift
            there = (other >= 0) & (other < len(mean_force))
            sums = np.einsum("kix,kix->k", mean_force[other[there]], moved[there])
            work[1 + shift, first : first + number][there] = -sums

        inner = slice(max(first, 1), min(last, n_frames - 1))  # frames with a neighbour on both sides
        local = slice(inner.start - first + before, inner.stop - first + before)
        central = 0.5 * (piece.moved[local] + piece.moved[local.start - 1 : local.stop - 1])
        expected = reader.step_fs * piece.velocities[local]
        for z, atoms in enumerate(members):
            c, v = central[:, atoms], expected[:, atoms]
            for row, (p, q) in enumerate(((c, v), (v, v), (c, c))):
                products[row, inner, z] = np.einsum("i,kix,kix->k", masses[atoms], p, q)

    cv, vv, cc = products[:, 1:-1]
    scale = np.array([weighted_median(cv[:, z], vv[:, z]) for z in range(len(elements))])
    unexplained = cc - 2.0 * scale * cv + scale**2 * vv
    total = cc.sum(axis=1)
    known = total > 0.0
    explained = 1.0 - np.median(np.nansum(unexplained, axis=1)[known] / total[known]) if known.any() else 0.0
    return Survey(
        elements=elements,
        frozen=frozen,
        mobile=reader.mobile & ~undeclared & ~frozen[:, None],
        undeclared=undeclared,
        strays=strays,
        rigid=rigid,
        followed=followed,
        coverage=coverage,
        scale=scale,
        explained=float(explained) if np.isfinite(scale).any() else 0.0,
        step_size=step_size,
        energy_change=np.diff(energy),
        work=work,
        cell_work=cell_work,
        energy=energy,
        kinetic=kinetic / ase.units.fs**2,
        momentum=momentum,
        net_force=float(np.sqrt(squared_net_force / n_frames)),
        force=float(np.sqrt(squared_force / n_frames / len(masses))),
        wrapped_steps=wrapped_steps,
        wrapped_atoms=int(wrapped_atoms.sum()),
    )


def _cell_work(reader: PieceReader, first: int, last: int) -> np.ndarray:
    """Work of the stress in steps `first` to `last`, eV: [n_steps]."""
    if not reader.cell_changes:
        return np.zeros(last - first)
    stress = reader.stress(first, last + 1)
    if stress is None:
        return np.full(last - first, np.nan)
    cells = reader.cells(first, last + 1)
    volume = np.abs(np.linalg.det(cells))
    return np.einsum(
        "k,kij,kij->k", 0.5 * (volume[1:] + volume[:-1]), 0.5 * (stress[1:] + stress[:-1]), cell_strain(cells)
    )


def weighted_median(products: np.ndarray, weights: np.ndarray) -> float:
    """Median of products / weights, weighted; NaN if all weights are zero."""
    used = weights > 0.0
    if not used.any():
        return float("nan")
    ratios, weights = products[used] / weights[used], weights[used]
    order = np.argsort(ratios)
    below = np.cumsum(weights[order])
    return float(ratios[order][np.searchsorted(below, 0.5 * below[-1])])


def _atoms(reader: PieceReader) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
    """Which atoms are frozen, which components undeclared, which atoms held together, and which can be followed.

    The last number is the part of the squared force on atoms that can be followed.
    """
    places = np.unique(np.linspace(1, len(reader) - 2, _PLACES).astype(int))
    sample = [reader.read(place - 1, place + 2) for place in places]
    at_rest = np.all([np.abs(piece.moved).max(axis=0) < _AT_REST for piece in sample], axis=0)
    at_rest &= np.abs(sample[-1].positions[-1] - sample[0].positions[0]) < _AT_REST
    digits = spacing(np.concatenate([piece.positions for piece in sample]), list(UNITS["positions"].values()))
    travelled = np.abs(sample[-1].positions[-1] - sample[0].positions[0])[~at_rest]
    seen = len(travelled) > 0 and np.median(travelled) > _DIGITS * digits
    still = at_rest.all(axis=1) & ~at_rest.all() & seen
    accelerations = np.array([piece.accelerations for piece in sample])
    time = reader.step_fs * min(len(reader) - 1, _PUSHED_STEPS)
    pushed = 0.5 * time**2 * np.abs(accelerations).max(axis=(0, 1)) > max(_VISIBLE, _DIGITS * digits)
    undeclared = reader.mobile & at_rest & seen & (still[:, None] | pushed)
    size = np.median(np.sum(accelerations[:, 1] ** 2, axis=2), axis=0)
    change = accelerations[:, 2] - 2.0 * accelerations[:, 1] + accelerations[:, 0]
    smooth = np.median(np.sum(change**2, axis=2), axis=0) < _SMOOTH * size
    pushes = reader.step_fs**2 * accelerations[:, 1]
    left = np.array([piece.moved[1] - piece.moved[0] for piece in sample]) - pushes
    odd = np.median(np.sum(left**2, axis=2), axis=0) > 0.04 * np.median(np.sum(pushes**2, axis=2), axis=0)
    rigid = rigid_pairs(reader, np.flatnonzero(odd & ~still))
    free = ~still & ~undeclared.any(axis=1)
    free[rigid.reshape(-1)] = False
    if not free.any():
        free = ~still
    followed = smooth & free
    if not followed.any() and reader.inner_steps == 1:
        followed = free  # velocity Verlet leads from frame to frame however fast the forces change
    weights = reader.masses * size * free
    coverage = float(weights[followed].sum() / weights.sum()) if weights.sum() > 0.0 else 0.0
    return still, undeclared, rigid, followed, coverage
