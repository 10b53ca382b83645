"""Frames with which a rollout would be compared with the wrong reference are refused before training.

What is looked at and what is said is `spk_dt.trajectories.diagnosis`; ``spkdt check`` shows the same, with the numbers.
"""

import logging
from collections.abc import Sequence

from spk_dt.trajectories.diagnosis import Diagnosis, diagnose
from spk_dt.trajectories.diagnosis.printing import named_findings
from spk_dt.trajectories.frames import Frames

__all__ = ["check_frames"]

log = logging.getLogger(__name__)


def check_frames(frames: Frames, replay_kicks: bool = False) -> None:
    """Refuse frames that cannot be the reference of a rollout; log what only deserves a warning.

    Args:
        frames: all frames of a database.
        replay_kicks: whether rollouts replay what moves atoms beside the forces, as a thermostat does.

    Raises:
        ValueError: with all that is refused, if anything is.
    """
    diagnoses = [diagnose(frames, trajectory, replay_kicks) for trajectory in range(len(frames.trajectories))]
    for message in _messages(diagnoses, "warning", frames.source):
        log.warning(message)
    refused = _messages(diagnoses, "refused", frames.source)
    if refused:
        message = " ".join(refused)
        raise ValueError(f"{message} 'spkdt check {frames.source}' shows the numbers; data.check_data=false overrides.")


def _messages(diagnoses: Sequence[Diagnosis], severity: str, source: str) -> list[str]:
    """One message for each kind of finding and trajectory, of the first few."""
    messages = []
    for pairs, others in named_findings(diagnoses, severity):
        messages += [f"Trajectory '{trajectory}' of '{source}': {finding}" for trajectory, finding in pairs]
        if others:
            messages.append(f"And the like in {others} more trajectories.")
    return messages
