"""The simulations of a model judged: stability, structure, conservation of energy."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from spk_dt.data.continuation import Continuation
from spk_dt.evaluation.distributions import distance_distribution, radial_distribution
from spk_dt.evaluation.simulation_file import Simulations
from spk_dt.evaluation.stability import stability_metrics

__all__ = ["judge", "mean_distributions"]


def judge(simulations: Simulations, tolerance: float, thermostat: bool = False) -> dict[str, Any]:
    """Stability, structure and conservation of energy of all simulations of a model.

    With a thermostat bonds are those of the start frames, structure is not compared, and of the energy the temperature
    and the largest force remain.

    Args:
        simulations: those of the model, their start frames with the reference trajectories from there on.
        tolerance: deviation from its usual length beyond which a bond is broken, Å.
        thermostat: whether the simulations had one, so that they do not follow the reference.

    Returns:
        ``stability``, ``structure`` and ``conservation``, means over start frames (a mean over those for which a number is
        known; a largest value is None if one is not known), and ``by_start`` with all of
        `spk_dt.evaluation.stability.stability_metrics` for each of them.
    """
    single: dict[int, dict[str, Any]] = {}
    for index, trajectory in simulations:
        one = simulations.starts[index]
        reference = None if thermostat else one.positions
        single[index] = stability_metrics(trajectory, reference, tolerance, None if thermostat else one.time_fs)
    found = [single[index] for index in range(len(simulations.starts))]
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
            "standard_error_of_largest_drift_mev_per_atom_per_ps": _error_of_largest_drift(conservation),
            "largest_drift_over_kinetic_deviation_per_ps": _largest(
                one["drift_over_kinetic_deviation_per_ps"] for one in conservation
            ),
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
    densities: list[np.ndarray] = []
    values: dict[str, list[np.ndarray]] = defaultdict(list)
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
                values[pair].append(curve)
    result: dict[str, Any] = {
        "rdf": {k: {"r": g_r.tolist(), "g": np.mean(v, axis=0).tolist()} for k, v in values.items()}
    }
    if densities:
        result["h_of_r"] = {"r": r.tolist(), "h": np.mean(densities, axis=0).tolist()}
    return result


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _error_of_largest_drift(conservation: Sequence[dict[str, Any]]) -> float | None:
    """Standard error of the drift whose absolute value is largest; None if one is not known."""
    drifts = [one["drift_mev_per_atom_per_ps"] for one in conservation]
    if not drifts or None in drifts:
        return None
    worst: float | None = conservation[int(np.argmax(np.abs(drifts)))]["drift_standard_error_mev_per_atom_per_ps"]
    return worst


def _largest(values: Iterable[float | None]) -> float | None:
    """Largest absolute value; None if one is not known, which is that of the worst simulation."""
    known = list(values)
    return None if None in known else max((abs(value) for value in known if value is not None), default=None)
