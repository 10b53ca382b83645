"""The simulations of a model judged: stability, structure, conservation of energy."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from spk_dt.evaluation.sample import Sample
from spk_dt.evaluation.simulated_trajectory import SimulatedTrajectory
from spk_dt.evaluation.simulation_file import Simulations
from spk_dt.evaluation.stability import stability_metrics

__all__ = ["curves_by_name", "judge", "judge_alone", "mean_distributions"]


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
    found = [single[index] for index in sorted(single)]
    judged = {"stability": _stability(found, tolerance), "conservation": _heat(found)}
    if thermostat:
        return {**judged, "by_start": found}
    kept = [one["stability_of_kept_bonds"] for one in found]
    return {
        "stability": {
            **judged["stability"],
            "mean_stable_fs_of_bonds_that_the_reference_keeps": _mean(one["stable_fs"] for one in kept),
            "part_that_keeps_the_bonds_that_the_reference_keeps": _mean(float(one["stable"]) for one in kept),
            "part_stable_of_the_reference": _mean(float(one["stability_of_reference"]["stable"]) for one in found),
        },
        "structure": _structure(found),
        "conservation": _conserved(found) | judged["conservation"],
        "by_start": found,
    }


def judge_alone(
    trajectories: Sequence[SimulatedTrajectory],
    samples: Sequence[Sample | None],
    conserving: Sequence[bool],
    tolerance: float,
) -> dict[str, Any]:
    """The same of trajectories that follow no reference: bonds are those of their first frames.

    Args:
        trajectories: as files of other programs have them.
        samples: for each, frames of the data of the same atoms, with which its structure is compared over its whole length;
            None where there are none.
        conserving: of each, whether its total energy should be constant.
        tolerance: deviation from its usual length beyond which a bond is broken, Å.

    Returns:
        as `judge`; of the energy, drift and fluctuation of those that should conserve it.
    """
    found = [
        stability_metrics(one, None, tolerance) | ({} if sample is None else sample.compare(one))
        for one, sample in zip(trajectories, samples, strict=True)
    ]
    conserved = [one for one, whether in zip(found, conserving, strict=True) if whether]
    noise = _mean(sample.noise for sample in samples if sample is not None)
    return {
        "stability": _stability(found, tolerance),
        "structure": _structure(found) | {"mae_of_h_of_r_between_halves_of_the_data": noise},
        "conservation": (_conserved(conserved) if conserved else {}) | _heat(found),
        "by_start": found,
    }


def _stability(found: Sequence[dict[str, Any]], tolerance: float) -> dict[str, Any]:
    """How long bonds hold."""
    return {
        "tolerance_ang": tolerance,
        "mean_stable_fs": _mean(one["stability"]["stable_fs"] for one in found),
        "part_stable": _mean(float(one["stability"]["stable"]) for one in found),
    }


def _structure(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Errors of h(r) and g(r), of those of which they are known."""
    pairs = sorted({pair for one in found for pair in one.get("rdf_mae_ang", {})})
    return {
        "mae_of_h_of_r": _mean(one["distances"]["mae"] for one in found if "distances" in one),
        "rdf_mae_ang": {
            pair: _mean(one["rdf_mae_ang"][pair] for one in found if pair in one.get("rdf_mae_ang", {}))
            for pair in pairs
        },
    }


def _heat(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Temperature and largest force."""
    conservation = [one["conservation"] for one in found]
    return {
        "mean_temperature_k": _mean(one["mean_temperature_k"] for one in conservation),
        "largest_force_ev_per_ang": _largest(one["largest_force_ev_per_ang"] for one in conservation),
    }


def _conserved(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Drift and fluctuation of the total energy."""
    conservation = [one["conservation"] for one in found]
    return {
        "mean_drift_mev_per_atom_per_ps": _mean(one["drift_mev_per_atom_per_ps"] for one in conservation),
        "largest_drift_mev_per_atom_per_ps": _largest(one["drift_mev_per_atom_per_ps"] for one in conservation),
        "standard_error_of_largest_drift_mev_per_atom_per_ps": _error_of_largest_drift(conservation),
        "largest_drift_over_kinetic_deviation_per_ps": _largest(
            one["drift_over_kinetic_deviation_per_ps"] for one in conservation
        ),
        "mean_rms_fluctuation_mev_per_atom": _mean(one["rms_fluctuation_mev_per_atom"] for one in conservation),
    }


def mean_distributions(samples: Sequence[Sample]) -> dict[str, Any]:
    """h(r) and g(r), means over trajectories.

    Args:
        samples: one for each trajectory.

    Returns:
        ``h_of_r`` with ``r`` (Å) and ``h`` (1/Å), and ``rdf`` with, for each pair of elements in periodic systems,
        ``r`` (Å) and ``g``.
    """
    densities: list[np.ndarray] = []
    values: dict[str, list[np.ndarray]] = defaultdict(list)
    r = g_r = np.empty(0)
    for one in samples:
        if one.distances is not None:
            r = 0.5 * (one.distances.edges[1:] + one.distances.edges[:-1])
            densities.append(one.distances.density)
        if one.radial is not None:
            g_r = 0.5 * (one.radial.edges[1:] + one.radial.edges[:-1])
            for pair, curve in one.radial.values.items():
                values[pair].append(curve)
    result: dict[str, Any] = {
        "rdf": {k: {"r": g_r.tolist(), "g": np.mean(v, axis=0).tolist()} for k, v in values.items()}
    }
    if densities:
        result["h_of_r"] = {"r": r.tolist(), "h": np.mean(densities, axis=0).tolist()}
    return result


def curves_by_name(curves: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """h(r) and g(r) of several models, by pair of elements and by name, for ``distributions.json``."""
    pairs = dict.fromkeys(pair for curve in curves.values() for pair in curve["rdf"])
    return {
        "h_of_r": {name: curve["h_of_r"] for name, curve in curves.items() if "h_of_r" in curve},
        "rdf": {
            pair: {name: curve["rdf"][pair] for name, curve in curves.items() if pair in curve["rdf"]} for pair in pairs
        },
    }


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
