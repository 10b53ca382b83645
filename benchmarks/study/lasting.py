"""How long simulations of runs last: certificates (`spkdt certify`) from starts that nobody trained on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import ase.db

from benchmarks.study.rows import Row
from benchmarks.study.train import Study, train

__all__ = ["lasting"]


def lasting(study: Study, row: Row) -> Row:
    """Train one arm, unless that is done, and certify it.

    Args:
        study: the study.
        row: model, arm, seed; picoseconds and number of simulations, temperature (K) of a thermostat or None.

    Returns:
        the row, with ``failures`` (times in ps), ``reasons``, ``labels`` of the certificate and of the training, and the
        ``statement``.

    Raises:
        RuntimeError: if the certificate could not be made.
    """
    run = train(study, row["model"], row["arm"], row["seed"])
    ensemble = "nve" if row["temperature"] is None else f"{row['temperature']:g}K"
    out = study.folder / "certificates" / f"{run.name}-{row['picoseconds']:g}ps-{ensemble}-{row['number']}"
    out.parent.mkdir(exist_ok=True)
    command = [
        *(str(Path(sys.executable).with_name("spkdt")), "certify", f"{run.name}={run / 'best_model'}"),
        *(str(study.database), "--reference", study.reference, "--out", str(out), "--checks", "2"),
        *("--time", f"{row['picoseconds']:g}", "--number", str(row["number"]), "--batch", str(row["number"])),
        *("--states", "40", "--time-step", "1", "--device", study.device),
        *([] if row["temperature"] is None else ["--temperature", f"{row['temperature']:g}"]),
    ]
    with out.with_suffix(".log").open("a") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
        code = subprocess.run(command, stdout=log, stderr=log, env=environment, check=False).returncode
    if code not in (0, 3):
        raise RuntimeError(f"spkdt certify has ended with {code}, see '{log.name}'")
    found = json.loads((out / "certificate.json").read_text())["models"][run.name]
    failed = [one for one in found["outcomes"] if one["failed_ps"] is not None]
    return row | {
        "failures": sorted(one["failed_ps"] for one in failed),
        "reasons": sorted(one["reason"] for one in failed),
        "certificate_labels": found["labels"],
        "training_labels": sum(ase.db.connect(path).count() for path in run.glob("*/round_*.db")),
        "statement": found["statement"],
    }
