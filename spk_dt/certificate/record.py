"""What ``certificate.json`` says of a model."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from ase import Atoms

from spk_dt.certificate.conditions import Conditions
from spk_dt.certificate.criteria import Criteria, Scales
from spk_dt.certificate.statement import statement
from spk_dt.certificate.survival import failure_rate_bound, failure_share_bound, survival
from spk_dt.certificate.verdict import Outcome

__all__ = ["model_record", "sign_record"]

#: verdicts are repeated with limits multiplied by these
_FACTORS = (0.5, 1.0, 2.0)


def model_record(
    conditions: Conditions, criteria: Criteria, scales: Scales, outcomes: Mapping[int, Outcome], n_labels: int
) -> dict[str, Any]:
    """All that is said of a model, beside its signs.

    Args:
        conditions: of the simulations.
        criteria: when a state is wrong.
        scales: what errors are measured by.
        outcomes: of each simulation.
        n_labels: reference calculations of the certificate.
    """
    ordered = [outcomes[i] for i in sorted(outcomes)]
    failed_ps, simulated_ps = [one.failed_ps for one in ordered], [one.simulated_ps for one in ordered]
    failures = [time for time in failed_ps if time is not None]
    total = sum(length if time is None else time for time, length in zip(failed_ps, simulated_ps, strict=True))
    share = failure_share_bound(len(failures), len(ordered))
    forces = scales.forces(np.array(list(scales.force)), conditions.temperature)
    record = {
        "simulations": len(ordered),
        "failures": len(failures),
        "first_failure_ps": min(failures, default=None),
        "share_failing_at_most": share,
        "failures_per_ns_at_most": failure_rate_bound(len(failures), total) if total > 0.0 else None,
        "confidence": 0.95,
        "limits": {
            "energy_ev": scales.energy(1, conditions.temperature) * criteria.energy,
            "energy": "times the square root of the number of atoms",
            "force_ev_per_ang": {
                z: criteria.force * float(value) for z, value in zip(scales.force, forces, strict=True)
            },
            "temperature_of_data_k": scales.temperature,
            **asdict(criteria),
        },
        "failures_with_other_limits": {
            f"{factor:g}": sum(_fails(one, factor) for one in ordered) for factor in _FACTORS
        },
        "labels": n_labels,
        "survival": survival(failed_ps, simulated_ps).as_dict(),
        "outcomes": [one.as_dict() for one in ordered],
    }
    return {"statement": statement(conditions, record), **record}


def sign_record(sign: str, states: Mapping[int, Sequence[Atoms]], outcomes: Mapping[int, Outcome]) -> dict[str, Any]:
    """What a sign in `Atoms.info` was, where the reference method has said what is right.

    Args:
        sign: ``uncertainty`` or ``novelty``.
        states: of each simulation.
        outcomes: of each simulation.

    Returns:
        ``largest``, of all states; ``largest_of_right_states`` and ``smallest_of_wrong_states``, None without such states: a
        limit between the two tells them apart.
    """
    told = {(i, k): float(atoms.info[sign]) for i, own in states.items() for k, atoms in enumerate(own)}
    of = {key: value for key, value in told.items() if np.isfinite(value)}
    known = ((i, k, one) for i, outcome in outcomes.items() for k, one in outcome.deviations.items() if (i, k) in of)
    judged = [(of[i, k], one.wrong) for i, k, one in known]
    return {
        "largest": max(of.values(), default=None),
        "largest_of_right_states": max((value for value, wrong in judged if not wrong), default=None),
        "smallest_of_wrong_states": min((value for value, wrong in judged if wrong), default=None),
    }


def _fails(outcome: Outcome, factor: float) -> bool:
    """Whether a simulation fails with limits that are multiplied, of the states that the reference method has computed."""
    by_sign = outcome.state is not None and outcome.state not in outcome.deviations
    return by_sign or any(not max(one) <= factor for one in outcome.deviations.values())
