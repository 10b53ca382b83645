"""How long simulations of runs last: certificates (`spkdt certify`) from starts that nobody trained on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import ase.db

from benchmarks.study.arms import ARMS
from benchmarks.study.rows import Row, by_arm, grouped
from benchmarks.study.train import Study, train
from spk_dt.certificate.survival import failure_share_bound

__all__ = ["lasting", "lasting_command", "lasting_table", "of_run"]


def lasting(study: Study, row: Row) -> Row:
    """Train one arm, unless that is done, and certify it.

    Args:
        study: the study.
        row: model, arm, seed; picoseconds and number of simulations, temperature (K) of a thermostat or None.

    Returns:
        the row, with what `of_run` says.

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
    return row | of_run(run, out)


def of_run(run: Path, certificate: Path) -> Row:
    """What a row says of a run and the folder of its certificate.

    Returns:
        ``failures`` (times in ps) and ``reasons``; ``largest``, what judged states of the simulations that pass come to, of
        the limits of energy and force; ``half_limits``, how many fail with limits half as wide; ``certificate_labels`` and
        ``training_labels``; the ``statement``.
    """
    (found,) = json.loads((certificate / "certificate.json").read_text())["models"].values()
    failed = [one for one in found["outcomes"] if one["failed_ps"] is not None]
    passed = [one for one in found["outcomes"] if one["failed_ps"] is None]
    judged = [deviation for one in passed for deviation in one["deviations"].values()]
    return {
        "failures": sorted(one["failed_ps"] for one in failed),
        "reasons": sorted(one["reason"] for one in failed),
        "largest": [max(one) for one in zip(*judged, strict=True)],
        "half_limits": found["failures_with_other_limits"]["0.5"],
        "certificate_labels": found["labels"],
        "training_labels": sum(ase.db.connect(path).count() for path in run.glob("*/round_*.db")),
        "statement": found["statement"],
    }


def lasting_table(rows: list[Row]) -> str:
    """How many simulations fail, by model, arm and version, of all seeds together."""
    lines = [
        "| model | arm | seeds | labels in training | simulations that fail | by seed | with 95 % confidence at most "
        "| half of them have failed by, ps | energy and force, of the limits, of those that pass "
        "| fail with limits half as wide |",
        "|---" * 10 + "|",
    ]
    of_versions = [{"commit": "", **row} for row in rows]  # without one it is of the present version
    for model, of_model in grouped(of_versions, "model").items():
        versions = [
            (arm, *one) for arm, of_arm in by_arm(of_model).items() for one in grouped(of_arm, "commit").items()
        ]
        for arm, commit, same in versions:
            number = sum(row["number"] for row in same)
            failures = sorted(time for row in same for time in row["failures"])
            half = f"{failures[(number - 1) // 2]:.3g}" if 2 * len(failures) >= number else "-"
            cells = [
                *(model, ARMS[arm].title + (f" (commit {commit})" if commit else ""), str(len(same))),
                ", ".join(str(row["training_labels"]) for row in same),
                f"{len(failures)} of {number}",
                ", ".join(str(len(row["failures"])) for row in same),
                f"{100.0 * failure_share_bound(len(failures), number):.0f} %",
                half,
                "; ".join(", ".join(f"{x:.2f}" for x in row.get("largest", ())) or "-" for row in same),
                ", ".join(str(row.get("half_limits", "-")) for row in same),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def lasting_command(rows: list[Row]) -> str:
    """What makes these rows."""
    first = rows[0]
    words = ["python -m benchmarks.study last", *([f"--seconds {first['budget']:g}"] if first["budget"] else [])]
    words += [f"--temperature {first['temperature']:g}"] if first["temperature"] is not None else []
    words += [f"--picoseconds {first['picoseconds']:g} --number {first['number']}"]
    words += [
        f"--{key} {value}" for key in ("model", "seed", "arm") for value in dict.fromkeys(row[key] for row in rows)
    ]
    return " ".join(words)
