"""What a simulated trajectory is worth: how long its bonds hold, what its structure is, whether it conserves energy.

The protocol is that of Fu et al. ("Forces are not enough", TMLR 2023, arXiv 2210.07237): low errors of forces do not make
stable simulations, so simulations are judged themselves. Bonds are treated in `spk_dt.evaluation.bonds`, structure in
`spk_dt.evaluation.distributions`, energy in `spk_dt.evaluation.conservation`.

A broken bond is not a fault as such: a molecule may dissociate. So the reference trajectory goes through the same test, and
bonds that it keeps are reported apart from those that break in it as well.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms

from spk_dt.evaluation.bonds import TOLERANCE_ANG, find_bonds, first_broken, usual_lengths
from spk_dt.evaluation.conservation import energy_conservation
from spk_dt.evaluation.distributions import distance_distribution, distance_mae, radial_distribution, rdf_mae
from spk_dt.evaluation.pair_distances import finite_frames, pair_distances
from spk_dt.evaluation.simulated_trajectory import SimulatedTrajectory

__all__ = ["BrokenBond", "Stability", "bond_stability", "stability_metrics"]


@dataclass(frozen=True)
class BrokenBond:
    """A bond that does not hold.

    Args:
        atoms: indices of its atoms.
        elements: their symbols.
        time_fs: time from the start of the trajectory to the first frame in which it is broken, fs.
        frame: this frame.
        length_ang: its length there, Å; None if a position is not finite.
        usual_length_ang: its usual length, Å.
        kept_by_reference: whether the reference trajectory keeps it throughout; None if there is no reference.
    """

    atoms: tuple[int, int]
    elements: tuple[str, str]
    time_fs: float
    frame: int
    length_ang: float | None
    usual_length_ang: float
    kept_by_reference: bool | None


@dataclass(frozen=True)
class Stability:
    """How long bonds hold.

    Args:
        stable: whether every bond holds and every position is finite, from the first frame to the last.
        stable_fs: time until the first bond is broken, or a position not finite, fs; the whole length if stable.
        simulated_fs: length of the trajectory, fs.
        n_bonds: number of bonds.
        broken_bonds: bonds that break, in order of time.
    """

    stable: bool
    stable_fs: float
    simulated_fs: float
    n_bonds: int
    broken_bonds: tuple[BrokenBond, ...]

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name, for JSON, with the first broken bond beside all of them."""
        values = asdict(self)
        values["broken_bonds"] = list(values["broken_bonds"])
        return {**values, "first_broken_bond": next(iter(values["broken_bonds"]), None)}


def bond_stability(
    positions: np.ndarray,
    time_fs: np.ndarray,
    atoms: Atoms,
    bonds: np.ndarray,
    usual: np.ndarray,
    tolerance: float = TOLERANCE_ANG,
    kept_by_reference: np.ndarray | None = None,
    cell: np.ndarray | None = None,
) -> Stability:
    """How long the bonds of a trajectory hold.

    Args:
        positions: [n_frames, n_atoms, 3] Å, wrapped into the cell or not.
        time_fs: [n_frames] fs.
        atoms: any frame, for elements, cell and periodic directions.
        bonds: [n_bonds, 2] indices of atoms, see `find_bonds`.
        usual: [n_bonds] usual length, Å, see `usual_lengths`.
        tolerance: deviation from the usual length beyond which a bond is broken, Å.
        kept_by_reference: [n_bonds] whether the reference trajectory keeps it, if known.
        cell: [n_frames, 3, 3] Å, where it changes; None for that of `atoms`.
    """
    lengths = pair_distances(positions, bonds, atoms.cell.array if cell is None else cell, atoms.pbc)
    frames = first_broken(lengths, usual, tolerance)
    elapsed = np.asarray(time_fs) - time_fs[0]
    n_frames = len(elapsed)
    broken = [
        BrokenBond(
            atoms=(int(bonds[bond, 0]), int(bonds[bond, 1])),
            elements=(atoms.symbols[bonds[bond, 0]], atoms.symbols[bonds[bond, 1]]),
            time_fs=float(elapsed[frames[bond]]),
            frame=int(frames[bond]),
            length_ang=float(length) if np.isfinite(length := lengths[frames[bond], bond]) else None,
            usual_length_ang=float(usual[bond]),
            kept_by_reference=None if kept_by_reference is None else bool(kept_by_reference[bond]),
        )
        for bond in np.argsort(frames, kind="stable")
        if frames[bond] < n_frames
    ]
    finite = finite_frames(positions)
    end = min(frames.min(initial=n_frames), n_frames if finite.all() else finite.argmin())
    stable = bool(end == n_frames)
    return Stability(
        stable=stable,
        stable_fs=float(elapsed[-1] if stable else elapsed[end]),
        simulated_fs=float(elapsed[-1]),
        n_bonds=len(bonds),
        broken_bonds=tuple(broken),
    )


def stability_metrics(
    trajectory: SimulatedTrajectory,
    reference_positions: np.ndarray | None = None,
    tolerance: float = TOLERANCE_ANG,
    reference_time_fs: np.ndarray | None = None,
    max_frames: int | None = 500,
) -> dict[str, Any]:
    """Stability, structure and conservation of energy of a simulated trajectory, ready for JSON.

    Bonds are those of the first reference frame, and their usual lengths those along the reference; without reference
    both come from the first frame of the trajectory. h(r) and g(r) are compared over the time that trajectory and reference
    have in common, because a molecule that flies on is elsewhere later on. Where the reference is a sample of an
    equilibrium, compare whole trajectories with the functions of `spk_dt.evaluation.distributions`.

    Args:
        trajectory: the simulation.
        reference_positions: [n_reference, n_atoms, 3] Å, reference trajectory from the same start; atoms in the same order,
            and a cell that does not change.
        tolerance: deviation of a bond from its usual length beyond which it is broken, Å.
        reference_time_fs: [n_reference] time of the reference frames, fs; None if they are as far apart as those of the
            trajectory.
        max_frames: frames that h(r) and g(r) are averaged over, at most; None takes all.

    Returns:
        numbers by name

        - ``stability``: `Stability` of the trajectory, all bonds, with ``first_broken_bond``.
        - ``stability_of_kept_bonds``: the same of the bonds that the reference keeps; what breaks here breaks wrongly.
          Absent without reference, like everything below except the last.
        - ``stability_of_reference``: the same of the reference trajectory.
        - ``distances``: ``mae`` of h(r), without unit; ``n_frames``, ``n_reference_frames`` averaged over; ``span_fs``
          compared.
        - ``rdf_mae_ang``: MAE of g(r) per pair of elements, Å; only in a periodic cell.
        - ``conservation``: see `Conservation`.

    Raises:
        ValueError: if the reference has other atoms, or its times do not fit its frames.
    """
    first = trajectory.positions[0] if reference_positions is None else reference_positions[0]
    cells = trajectory.cell if trajectory.cell_changes else None
    atoms = Atoms(
        trajectory.atomic_numbers,
        np.zeros_like(trajectory.positions[0]),
        cell=trajectory.cell if cells is None else cells[0],
        pbc=trajectory.pbc,
    )
    if first.shape != atoms.positions.shape:
        raise ValueError(f"the reference has {len(first)} atoms, the trajectory {len(atoms)}; compare like with like.")
    atoms.positions = first
    bonds = find_bonds(atoms)
    metrics: dict[str, Any] = {}

    if reference_positions is None:
        usual = pair_distances(first[None], bonds, atoms.cell.array, atoms.pbc)[0]
        simulated = bond_stability(trajectory.positions, trajectory.time_fs, atoms, bonds, usual, tolerance, cell=cells)
        metrics["stability"] = simulated.as_dict()
    else:
        times = _reference_times(trajectory, reference_positions, reference_time_fs)
        lengths = pair_distances(reference_positions, bonds, atoms.cell.array, atoms.pbc)
        usual = usual_lengths(lengths, tolerance)
        kept = first_broken(lengths, usual, tolerance) == len(lengths)
        for name, positions, time_fs, which in (
            ("stability", trajectory.positions, trajectory.time_fs, slice(None)),
            ("stability_of_kept_bonds", trajectory.positions, trajectory.time_fs, kept),
            ("stability_of_reference", reference_positions, times, slice(None)),
        ):
            found = bond_stability(positions, time_fs, atoms, bonds[which], usual[which], tolerance, kept[which])
            metrics[name] = found.as_dict()
        metrics |= _structure(trajectory, reference_positions, times, max_frames)

    conserved = energy_conservation(
        trajectory.time_fs,
        trajectory.potential_energy,
        trajectory.velocities,
        trajectory.masses,
        trajectory.forces,
        trajectory.mobile,
    )
    return metrics | {"conservation": conserved.as_dict()}


def _reference_times(
    trajectory: SimulatedTrajectory, reference_positions: np.ndarray, reference_time_fs: np.ndarray | None
) -> np.ndarray:
    """[n_reference] time of each reference frame since the first, fs."""
    n_reference = len(reference_positions)
    if reference_time_fs is not None:
        if np.shape(reference_time_fs) != (n_reference,):
            raise ValueError(
                f"reference_time_fs has shape {np.shape(reference_time_fs)}, but there are {n_reference} reference frames."
            )
        return np.asarray(reference_time_fs) - reference_time_fs[0]
    if len(trajectory.time_fs) < 2:
        raise ValueError("the time between reference frames is not known from a single frame; give reference_time_fs.")
    return np.arange(n_reference) * (trajectory.time_fs[1] - trajectory.time_fs[0])


def _structure(
    trajectory: SimulatedTrajectory, reference_positions: np.ndarray, times: np.ndarray, max_frames: int | None
) -> dict[str, Any]:
    """Errors of h(r) and g(r) over the time that trajectory and reference have in common."""
    elapsed = trajectory.time_fs - trajectory.time_fs[0]
    span = min(elapsed[-1], times[-1])
    ours = trajectory.positions[elapsed <= span * (1.0 + 1e-9)]
    theirs = reference_positions[times <= span * (1.0 + 1e-9)]
    cell, pbc = trajectory.cell, trajectory.pbc
    if len(trajectory.atomic_numbers) < 2 or not finite_frames(ours).any():
        return {}
    h, h_reference = (distance_distribution(x, cell, pbc, max_frames=max_frames) for x in (ours, theirs))
    found: dict[str, Any] = {
        "distances": {
            "mae": distance_mae(h, h_reference),
            "n_frames": h.n_frames,
            "n_reference_frames": h_reference.n_frames,
            "span_fs": float(span),
        }
    }
    if np.any(pbc) and abs(np.linalg.det(cell)) > 0.0:
        numbers = trajectory.atomic_numbers
        g, g_reference = (radial_distribution(x, numbers, cell, pbc, max_frames=max_frames) for x in (ours, theirs))
        found["rdf_mae_ang"] = rdf_mae(g, g_reference)
    return found
