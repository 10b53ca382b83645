"""Is a trajectory what it says it is? Measurements of its frames, and what follows from them for training.

    reader, survey, sequence, scales, kicks, geometry    frames to numbers
    causes, rules_of_frames, rules_of_motion             numbers to findings
    diagnose, report                                     a trajectory, and all of them as a table

`spkdt check` shows the result, `spk_dt.data.checks` refuses to train on what it refuses.
"""

from spk_dt.data.diagnosis.diagnose import diagnose
from spk_dt.data.diagnosis.finding import SEVERITIES, Diagnosis, Finding

__all__ = ["SEVERITIES", "Diagnosis", "Finding", "diagnose"]
