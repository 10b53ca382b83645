"""Is a trajectory what it says it is? Measurements of its frames, and what follows from them for training.

    pieces, survey, sequence, scales, residual, geometry    frames to numbers
    causes, rules_of_frames, rules_of_motion, stress        numbers to findings
    diagnose, printing                                      a trajectory, and all of them as a table

`spkdt check` shows the result, `spk_dt.data.checks` refuses to train on what it refuses.
"""

from spk_dt.trajectories.diagnosis.diagnose import SINGLE_FRAMES, diagnose
from spk_dt.trajectories.diagnosis.finding import SEVERITIES, Diagnosis, Finding

__all__ = ["SEVERITIES", "SINGLE_FRAMES", "Diagnosis", "Finding", "diagnose"]
