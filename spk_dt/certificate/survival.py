r"""Survival of simulations: Kaplan-Meier estimate with its confidence band, and exact bounds for rates and shares.

E. L. Kaplan, P. Meier, J. Am. Stat. Assoc. 53 (1958) 457: the estimate; its band is that of the log-log transform with
Greenwood's variance (`scipy.stats.ecdf`). It is not defined before the first failure and after the last simulation has
failed; there the band is the exact one of a share, 1 to :math:`(\alpha/2)^{1/n}` and its mirror image for n simulations.
C. J. Clopper, E. S. Pearson, Biometrika 26 (1934) 404: exact bounds of a share. F. Garwood, Biometrika 28 (1936) 437: exact
bounds of the rate of a Poisson process.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

__all__ = ["Survival", "failure_rate_bound", "failure_share_bound", "survival"]

#: of the band, and of the bounds
_CONFIDENCE = 0.95


class Survival(NamedTuple):
    """A survival curve, constant between its times.

    Args:
        time_ps: [n] ps; the first is 0.
        share: [n] share of the simulations that have not failed.
        low: [n] lower edge of its confidence band.
        high: [n] upper edge.
    """

    time_ps: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: values.tolist() for name, values in self._asdict().items()}

    def at(self, time_ps: float) -> tuple[float, float, float]:
        """Share and the edges of its band at a time.

        Args:
            time_ps: time, ps, not negative.
        """
        last = int(np.searchsorted(self.time_ps, time_ps, side="right")) - 1
        return float(self.share[last]), float(self.low[last]), float(self.high[last])


def survival(failed_ps: Sequence[float | None], simulated_ps: Sequence[float]) -> Survival:
    """Kaplan-Meier estimate.

    Args:
        failed_ps: time of failure of each simulation, ps; None if it has not failed.
        simulated_ps: length of each simulation, ps; one that has not failed is censored there.
    """
    failures = [time for time in failed_ps if time is not None]
    censored = [length for time, length in zip(failed_ps, simulated_ps, strict=True) if time is None]
    curve = stats.ecdf(stats.CensoredData(uncensored=failures, right=censored)).sf
    share = np.concatenate([[1.0], curve.probabilities])
    low, high = np.full((2, len(share)), np.nan)
    if failures:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # where nothing has failed yet, or everything has
            band = curve.confidence_interval(_CONFIDENCE, method="log-log")
        low[1:], high[1:] = band.low.probabilities, band.high.probabilities
    farthest = (0.5 * (1.0 - _CONFIDENCE)) ** (1.0 / len(simulated_ps))
    low, high = np.where(share == 1.0, farthest, low), np.where(share == 1.0, 1.0, high)
    low, high = np.where(share == 0.0, 0.0, low), np.where(share == 0.0, 1.0 - farthest, high)
    return Survival(np.concatenate([[0.0], curve.quantiles]), share, low, high)


def failure_share_bound(failures: int, simulations: int) -> float:
    r"""Largest probability that a simulation fails which is compatible with what was seen, one-sided and exact.

    For 0 of n it is :math:`1 - (1 - \gamma)^{1/n}` with the confidence γ = 0.95.

    Args:
        failures: number of simulations that have failed.
        simulations: number of all of them.
    """
    test = stats.binomtest(failures, simulations, alternative="less")
    return float(test.proportion_ci(_CONFIDENCE, "exact").high)


def failure_rate_bound(failures: int, total_ps: float) -> float:
    r"""Largest rate of failures per ns compatible with what was seen, one-sided and exact for a constant rate.

    For no failures it is :math:`-\ln(1 - \gamma)` over the time, with the confidence γ = 0.95.

    Args:
        failures: number of failures.
        total_ps: simulated time until failures, of all simulations together, ps.
    """
    return float(stats.chi2.ppf(_CONFIDENCE, 2 * (failures + 1)) / 2.0 / (1e-3 * total_ps))
