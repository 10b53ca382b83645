"""The simulations of a model, read back from their files and judged: stability, structure, conservation of energy."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ase.units
import numpy as np
from schnetpack import properties
from schnetpack import units as spk_units
from schnetpack.md.data import HDF5Loader

from spk_dt.data.continuation import Continuation
from spk_dt.evaluation.distributions import distance_distribution, radial_distribution
from spk_dt.evaluation.stability import SimulatedTrajectory, stability_metrics

__all__ = ["judge", "mean_distributions", "simulated_trajectories", "simulated_trajectory"]


def simulated_trajectory(
    loader: HDF5Loader, molecule: int, start: Continuation, energy_unit: float, force_unit: float
) -> tuple[SimulatedTrajectory, np.ndarray]:
    """One molecule of a simulation, from its start frame to its end.

    Args:
        loader: file of `spk_dt.evaluation.simulate`.
        molecule: index of the molecule in the file.
        start: its start frame.
        energy_unit: unit of the energies of the model, in eV.
        force_unit: unit of the forces of the model, in eV/Å.

    Returns:
        the trajectory, NaN from the step on that the molecule could not make because it had exploded; and [n_frames] the
        simulation step of each frame, 0 for the start frame.
    """
    every = int(loader.database["molecules"].attrs["every_n_steps"])
    steps = 1 + every * np.arange(loader.entries)
    exploded = int(loader.database.attrs["exploded_step"][molecule])
    lost = (steps >= exploded) & (exploded >= 0)
    atoms = start.start
    first, last = loader.molecule_range[molecule : molecule + 2]
    to_ang = spk_units.convert_units("nm", "Ang")

    def stored(values: np.ndarray, factor: float) -> np.ndarray:
        values = np.array(values, dtype=float) * factor
        values[lost] = np.nan
        return values

    energy = loader.get_property(properties.energy, atomistic=False, mol_idx=molecule).reshape(-1)
    energy = stored(energy, energy_unit)
    forces = stored(loader.get_property(properties.forces, atomistic=True, mol_idx=molecule), force_unit)
    positions = stored(loader.get_positions(molecule), to_ang)
    velocities = stored(loader.get_velocities(molecule), to_ang * spk_units.fs)
    start_energy = loader.database["start/energy"][molecule].sum() * energy_unit
    start_forces = loader.database["start/forces"][first:last] * force_unit
    steps = np.concatenate([[0], steps])
    return SimulatedTrajectory(
        time_fs=steps * start.timestep_fs,
        positions=np.concatenate([atoms.positions[None], positions]),
        velocities=np.concatenate([atoms.get_velocities()[None] * ase.units.fs, velocities]),
        potential_energy=np.concatenate([[start_energy], energy]),
        forces=np.concatenate([start_forces[None], forces]),
        atomic_numbers=atoms.numbers,
        masses=atoms.get_masses(),
        cell=atoms.cell.array,
        pbc=atoms.pbc,
    ), steps


def simulated_trajectories(
    folder: Path,
    starts: Sequence[Continuation],
    members: Sequence[Sequence[int]],
    energy_unit: float,
    force_unit: float,
) -> Iterator[tuple[int, SimulatedTrajectory, np.ndarray]]:
    """All simulations of a model, one after the other.

    Args:
        folder: its folder with ``simulation_<g>.hdf5``.
        starts: all start frames.
        members: for each file, the start frames of its molecules.
        energy_unit: unit of the energies of the model, in eV.
        force_unit: unit of the forces of the model, in eV/Å.

    Yields:
        index of the start frame, and what `simulated_trajectory` returns.
    """
    for g, indices in enumerate(members):
        loader = HDF5Loader(str(folder / f"simulation_{g}.hdf5"))
        try:
            for molecule, index in enumerate(indices):
                yield index, *simulated_trajectory(loader, molecule, starts[index], energy_unit, force_unit)
        finally:
            loader.database.close()


def judge(
    folder: Path,
    starts: Sequence[Continuation],
    members: Sequence[Sequence[int]],
    energy_unit: float,
    force_unit: float,
    tolerance: float,
    thermostat: bool = False,
) -> dict[str, Any]:
    """Stability, structure and conservation of energy of all simulations of a model.

    With a thermostat bonds are those of the start frames, structure is not compared, and of the energy the temperature
    and the largest force remain.

    Args:
        folder: its folder with ``simulation_<g>.hdf5``.
        starts: all start frames, with the reference trajectories from there on.
        members: for each file, the start frames of its molecules.
        energy_unit: unit of the energies of the model, in eV.
        force_unit: unit of the forces of the model, in eV/Å.
        tolerance: deviation from its usual length beyond which a bond is broken, Å.
        thermostat: whether the simulations had one, so that they do not follow the reference.

    Returns:
        ``stability``, ``structure`` and ``conservation``, means over start frames (a mean over those for which a number is
        known; a largest value is None if one is not known), and ``by_start`` with all of
        `spk_dt.evaluation.stability.stability_metrics` for each of them.
    """
    single: dict[int, dict[str, Any]] = {}
    for index, trajectory, _ in simulated_trajectories(folder, starts, members, energy_unit, force_unit):
        one = starts[index]
        reference = None if thermostat else one.positions
        single[index] = stability_metrics(trajectory, reference, tolerance, None if thermostat else one.time_fs)
    found = [single[index] for index in range(len(starts))]
    conservation = [one["conservation"] for one in found]
    stability = {
        "tolerance_ang": tolerance,
        "mean_stable_fs": _mean(one["stability"]["stable_fs"] for one in found),
        "part_stable": _mean(float(one["stability"]["stable"]) for one in found),
    }
    energy = {
        "mean_temperature_k": _mean(one["mean_temperature_k"] for one in conservation),
        "largest_force_ev_per_ang": _largest(one["largest_force_ev_per_ang"] for one in conservation),
    }
    if thermostat:
        return {"stability": stability, "conservation": energy, "by_start": found}
    kept = [one["stability_of_kept_bonds"] for one in found]
    pairs = sorted({pair for one in found for pair in one.get("rdf_mae_ang", {})})
    return {
        "stability": {
            **stability,
            "mean_stable_fs_of_bonds_that_the_reference_keeps": _mean(one["stable_fs"] for one in kept),
            "part_that_keeps_the_bonds_that_the_reference_keeps": _mean(float(one["stable"]) for one in kept),
            "part_stable_of_the_reference": _mean(float(one["stability_of_reference"]["stable"]) for one in found),
        },
        "structure": {
            "mae_of_h_of_r": _mean(one["distances"]["mae"] for one in found if "distances" in one),
            "rdf_mae_ang": {
                pair: _mean(one["rdf_mae_ang"][pair] for one in found if pair in one.get("rdf_mae_ang", {}))
                for pair in pairs
            },
        },
        "conservation": {
            "mean_drift_mev_per_atom_per_ps": _mean(one["drift_mev_per_atom_per_ps"] for one in conservation),
            "largest_drift_mev_per_atom_per_ps": _largest(one["drift_mev_per_atom_per_ps"] for one in conservation),
            "mean_rms_fluctuation_mev_per_atom": _mean(one["rms_fluctuation_mev_per_atom"] for one in conservation),
            **energy,
        },
        "by_start": found,
    }


def mean_distributions(trajectories: Sequence[tuple[np.ndarray, Continuation]]) -> dict[str, Any]:
    """h(r) and g(r), means over trajectories.

    Args:
        trajectories: for each, positions [n_frames, n_atoms, 3] Å, and the start frame for elements and cell.

    Returns:
        ``h_of_r`` with ``r`` (Å) and ``h`` (1/Å), and ``rdf`` with, for each pair of elements in periodic systems,
        ``r`` (Å) and ``g``.
    """
    densities, values = [], {}
    r = g_r = np.empty(0)
    for positions, one in trajectories:
        cell, pbc = one.start.cell.array, one.start.pbc
        if positions.shape[1] < 2 or not np.isfinite(positions).all(axis=(1, 2)).any():
            continue
        h = distance_distribution(positions, cell, pbc)
        r = 0.5 * (h.edges[1:] + h.edges[:-1])
        densities.append(h.density)
        if pbc.any() and one.start.cell.rank == 3:
            g = radial_distribution(positions, one.start.numbers, cell, pbc)
            g_r = 0.5 * (g.edges[1:] + g.edges[:-1])
            for pair, curve in g.values.items():
                values.setdefault(pair, []).append(curve)
    result: dict[str, Any] = {
        "rdf": {k: {"r": g_r.tolist(), "g": np.mean(v, axis=0).tolist()} for k, v in values.items()}
    }
    if densities:
        result["h_of_r"] = {"r": r.tolist(), "h": np.mean(densities, axis=0).tolist()}
    return result


def _mean(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _largest(values: Iterable[float | None]) -> float | None:
    """Largest absolute value; None if one is not known, which is that of the worst simulation."""
    known = list(values)
    return None if None in known else max((abs(value) for value in known if value is not None), default=None)
