"""How a trial in training is judged with labels of the reference method, as a certificate judges its simulations."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms

from spk_dt.certificate.committee import too_uncertain
from spk_dt.certificate.criteria import Criteria
from spk_dt.certificate.engines import Engine
from spk_dt.certificate.verdict import Label, Outcome, judge_all
from spk_dt.labels.reference_process import ReferenceProcess
from spk_dt.labels.relabel import relabel
from spk_dt.training.labelling import EnergyRanges, Labelling
from spk_dt.training.trials import Trial

__all__ = ["JudgedTrial", "TrialJudge"]

log = logging.getLogger(__name__)


class JudgedTrial(NamedTuple):
    """What has come of a trial.

    Args:
        ps: its length.
        failed_ps: time of the first failure, ps; None if there is none that was judged.
        reason: of this, and the ensemble of its simulation.
        labelled: states with finite labels of the reference method.
        n_labels: labels that were computed.
        n_failed: simulations that do not pass.
    """

    ps: float
    failed_ps: float | None
    reason: str
    labelled: list[Atoms]
    n_labels: int
    n_failed: int

    @property
    def passed_ps(self) -> float:
        """Time of the first failure, or else of the end, ps."""
        return self.ps if self.failed_ps is None else self.failed_ps

    @property
    def told(self) -> str:
        """How many fail, and the first failure, in words."""
        if not self.n_failed:
            return "all of which pass"
        return f"{self.n_failed} of which do not pass, the first at {self.passed_ps:.3g} ps ({self.reason})"


@dataclass
class TrialJudge:
    """Runs trials of a model, and judges them.

    Args:
        engine: runs the simulations.
        labels: reference method; `n_labels` states before the first wrong ones are labelled beside those of the verdict.
        processes: of the reference method.
        stress: whether labels have it.
        criteria: when a state is wrong.
        ranges: energies of the data.
        until_ps: length beyond which trials are not lengthened, ps.
        made_by: the reference method with its versions and settings, once there are labels.
    """

    engine: Engine
    labels: Labelling
    processes: Sequence[ReferenceProcess]
    stress: bool
    criteria: Criteria
    ranges: EnergyRanges
    until_ps: float
    made_by: dict[str, Any] = field(default_factory=dict)

    def judge(
        self, trial: Trial, ps: float, max_labels: float, progress: Callable[[], None] = lambda: None
    ) -> JudgedTrial:
        """Simulate and judge; as long as all simulations pass, go on to twice the time.

        Args:
            trial: the simulations.
            ps: their length at first, ps.
            max_labels: labels that may be computed, at most.
            progress: called again and again during the simulations.
        """
        known = {} if self.labels.another_reference else {(i, 0): label for i, label in enumerate(trial.known)}
        new: dict[tuple[int, int], Label] = {}

        def label(pairs: list[tuple[int, int]]) -> dict[tuple[int, int], Label]:
            left = max_labels - len(new)
            wanted = [pair for pair in dict.fromkeys(pairs) if pair not in known and pair not in new]
            new.update(self._label(trial, wanted[: int(min(left, len(wanted)))]))
            return {pair: found for pair in pairs if (found := known.get(pair) or new.get(pair)) is not None}

        while True:
            trial.run(self.engine, ps, progress)
            outcomes, _ = judge_all(trial.judges(self.criteria), label)
            failed = {i: one for i, one in outcomes.items() if one.failed_ps is not None}
            n_failed = len(failed) + len(trial.states) - len(outcomes)  # without an outcome for want of labels
            if n_failed or ps >= self.until_ps:
                break
            ps = min(2.0 * ps, self.until_ps)
        if useless := too_uncertain([states[0] for states in trial.states.values()], self.criteria.uncertainty):
            log.warning("callbacks.on_policy.criteria.uncertainty: %s", useless)
        if failed:  # an explosion is known without a label of its state
            label([(i, one.state) for i, one in failed.items() if one.state is not None] + self._drawn(trial, outcomes))
        first = min(failed, key=lambda i: failed[i].failed_ps or 0.0, default=None)
        failed_ps = None if first is None else failed[first].failed_ps
        unknown = "not judged, for want of labels"
        reason = unknown if first is None else f"{failed[first].reason}; {trial.ensembles[first]}"
        finite = {(i, k): found for (i, k), found in new.items() if np.isfinite(found[1]).all()}
        labelled = [
            trial.labelled(i, k, found)
            for (i, k), found in finite.items()
            if self.ranges.possible(trial.states[i][k].numbers, found[0])
        ]
        if impossible := len(finite) - len(labelled):
            log.warning("hardening: %d labels with an impossible energy are left out", impossible)
        return JudgedTrial(ps, failed_ps, reason, labelled, len(new), n_failed)

    def _label(self, trial: Trial, pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Label]:
        """Compute states, given by simulation and number, or read them from the file where they are kept."""
        if not pairs:
            return {}
        found = relabel(
            [trial.states[i][k] for i, k in pairs],
            self.labels.reference,
            trial.folder / "labels.jsonl",
            ids=[f"{i}:{k}" for i, k in pairs],
            stress=self.stress,
            processes=self.processes,
        )
        self.made_by = found.made_by
        if self.stress:
            trial.stress.update(zip(pairs, found.stress, strict=True))
        return dict(zip(pairs, zip(map(float, found.energy), found.forces, strict=True), strict=True))

    def _drawn(self, trial: Trial, outcomes: Mapping[int, Outcome]) -> list[tuple[int, int]]:
        """States drawn at random from those before the first wrong ones."""
        ends = {i: one.state if one.state is not None else len(trial.states[i]) for i, one in outcomes.items()}
        pairs = [(i, k) for i, end in ends.items() for k in range(1, end)]
        rng = np.random.default_rng(len(pairs))
        return [pairs[int(n)] for n in rng.permutation(len(pairs))[: self.labels.n_labels]]
