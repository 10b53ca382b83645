"""The certificate of a model in one sentence."""

from collections.abc import Mapping
from typing import Any

from spk_dt.certificate.conditions import Conditions

__all__ = ["first_failure", "statement"]


def first_failure(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Outcome of the simulation of a model that fails first; None if none does.

    Args:
        record: of a model in ``certificate.json``: ``outcomes``.
    """
    failed = (one for one in record["outcomes"] if one["failed_ps"] is not None)
    return min(failed, key=lambda one: one["failed_ps"], default=None)


def statement(conditions: Conditions, record: Mapping[str, Any]) -> str:
    """What is known of how long a model can be trusted.

    A model is called safe if no simulation has failed and these are enough to say, with 95 % confidence, that most do not:
    five at least.

    Args:
        conditions: of the simulations.
        record: of a model in ``certificate.json``: ``simulations``, ``failures``, ``share_failing_at_most``, ``limits``,
            ``outcomes``.
    """
    n, share = record["simulations"], record["share_failing_at_most"]
    where = f"to {conditions.time_ps:g} ps {conditions.described}"
    if conditions.temperature is None:
        where += f" from {record['limits']['temperature_of_data_k']:.0f} K"
    bound = f"at most {100.0 * share:.1f} %"
    if first := first_failure(record):
        heated = f" and {conditions.thermostat_before(first['state']):.0f} K" if conditions.end_temperature else ""
        seen = f"{record['failures']} of {n} simulations fail, the first at {first['failed_ps']:.3g} ps{heated}"
        rest = f"; with 95 % confidence {bound} do" if share < 1.0 else ""
        return f"not safe {where}: {seen} ({first['reason']}){rest}"
    seen = f"none of {n} did" if n > 1 else "the only one did not"
    claim = "safe" if share < 0.5 else "too few simulations to call it safe"
    return f"{claim} {where} with 95 % confidence: {bound} of simulations fail ({seen})"
