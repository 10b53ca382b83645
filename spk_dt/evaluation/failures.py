"""Which simulations of an evaluation fail, by the criteria of certificates, at the geometries that were relabelled.

A certificate (`spk_dt.certificate`) looks for the first wrong state with labels of its own; here the labels are those of the
true errors, at even distances, and the time of a failure is known to this distance only.
"""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from spk_dt.certificate.criteria import Criteria, Scales
from spk_dt.certificate.scales_of_data import scales_of_data
from spk_dt.certificate.verdict import Label, first_sign
from spk_dt.data.partition import Partition

__all__ = ["failures", "noted_scales", "scales_from"]


def noted_scales(partition: Partition) -> dict[str, Any] | None:
    """What errors are measured by, for ``settings.json``; None where data at rest or without forces say nothing."""
    try:
        scales = scales_of_data(partition)
    except ValueError:
        return None
    return {"temperature_k": scales.temperature, "force_ev_per_ang": {str(z): x for z, x in scales.force.items()}}


def scales_from(settings: Mapping[str, Any]) -> Scales | None:
    """What `noted_scales` has noted in ``settings.json``; None where it is not there."""
    noted = settings.get("thermal")
    if noted is None:
        return None
    return Scales(noted["temperature_k"], {int(z): x for z, x in noted["force_ev_per_ang"].items()})


def failures(
    states: Mapping[int, Sequence[Atoms]],
    labels: Mapping[int, Sequence[Label]],
    temperature: float | None,
    friction: float,
    scales: Scales,
    exploded_fs: Mapping[int, float],
    without_signs: Container[int] = (),
) -> dict[str, Any]:
    """Simulations that fail, for ``metrics.json``.

    Args:
        states: those of each simulation that were relabelled, in order of time from its start on, with energy, forces and
            momenta of the model, and ``time_fs`` and ``time_ps`` in `Atoms.info`.
        labels: of these states.
        temperature: of the thermostat, K; None without one.
        friction: of the thermostat, 1/fs; 0 if it is not known.
        scales: what errors are measured by.
        exploded_fs: time at which a simulation exploded, fs, of those that did.
        without_signs: simulations whose total energy and temperature say nothing, as those of a bead of a ring polymer.

    Returns:
        ``n_failed``; ``by_reason``; ``by_start``, for each simulation ``failed_fs`` (None if it has not failed) and
        ``reason``.
    """
    criteria = Criteria()
    outcomes = []
    for start in sorted(states):
        own = states[start]
        baths = [temperature] * len(own)
        at_start = labels[start][0][0]
        found: list[tuple[float, str]] = []
        for atoms, label in zip(own, labels[start], strict=True):
            deviation = criteria.deviation(atoms, own[0], label, at_start, scales, temperature)
            if deviation.wrong:
                why = "no label" if np.isnan(label[0]) else str(deviation.reason)
                found.append((atoms.info["time_fs"], why))
                break
        sign = None if start in without_signs else first_sign(own, baths, criteria, scales, friction)
        if sign is not None:
            found.append((own[sign[0]].info["time_fs"], sign[1]))
        if start in exploded_fs:
            found.append((exploded_fs[start], "exploded"))
        first = min(found, key=lambda one: one[0], default=(None, None))
        outcomes.append({"start": start, "failed_fs": first[0], "reason": first[1]})
    reasons = Counter(one["reason"] for one in outcomes if one["reason"] is not None)
    return {"n_failed": reasons.total(), "by_reason": dict(sorted(reasons.items())), "by_start": outcomes}
