"""Which signs tell where the simulations of a certificate are wrong.

    python -m benchmarks.novelty MODEL DATA.db CERTIFICATE

MODEL is that of the certificate. Prints Spearman's correlation of signs that need no reference method with the error of the
force on an atom, over the states that the reference method has judged; and for each simulation that fails the novelty of
its first wrong state, its largest one from there on, and the largest one in simulations that do not fail. Signs chose some
of the judged states, so that a correlation is not that of states drawn at random.
"""

import json
from pathlib import Path
from typing import Annotated

import ase.io
import numpy as np
import typer
from scipy.stats import spearmanr

from spk_dt.certificate.engines import ModelEngine
from spk_dt.certificate.novelty import N_KNOWN, NOVELTY
from spk_dt.certificate.verdict import closest_contact
from spk_dt.data.start_frames import spread_frames
from spk_dt.evaluation.certificates import FILE
from spk_dt.training.pretrained import model_path


def main(
    model: Annotated[Path, typer.Argument(help="Run, or stored model.")],
    data: Annotated[Path, typer.Argument(help="Its data.")],
    certificate: Annotated[Path, typer.Argument(help="Folder of spkdt certify, of this model.")],
) -> None:
    """Compare signs."""
    ((name, record),) = json.loads((certificate / FILE).read_text())["models"].items()
    outcomes = record["outcomes"]
    engine = ModelEngine(model_path(model), compile=False, known=spread_frames(data, N_KNOWN))
    states = {}
    for batch in (certificate / name).glob("batch_*"):
        for k, file in enumerate(sorted(batch.glob("*.traj"))):
            states |= {(one.info["simulation"], k): one for one in engine.evaluated(ase.io.read(file, ":"))}
    novelty = {key: one.info[NOVELTY] for key, one in states.items()}
    signs = {
        "novelty": novelty.get,
        "largest force": lambda key: np.linalg.norm(states[key].get_forces(apply_constraint=False), axis=1).max(),
        "closest contact": lambda key: -closest_contact(states[key]),
    }
    errors = {(i, int(k)): one[1] for i, of in enumerate(outcomes) for k, one in of["deviations"].items()}
    for sign, value in signs.items():
        found = spearmanr([value(key) for key in errors], list(errors.values())).statistic
        print(f"{sign:16s} correlation with the force error of {len(errors)} states: {found:5.2f}")
    right = max(value for (i, _), value in novelty.items() if outcomes[i]["failed_ps"] is None)
    for i, one in enumerate(outcomes):
        if one["state"] is not None:
            later = max(value for (j, k), value in novelty.items() if j == i and k >= one["state"])
            first = novelty[i, one["state"]]
            print(
                f"simulation {i} fails at {one['failed_ps']:g} ps ({one['reason']}): novelty {first:.1f}, "
                f"from there on up to {later:.1f}; in simulations that do not fail up to {right:.1f}"
            )


if __name__ == "__main__":
    typer.run(main)
