"""Numbers of the page on exploding simulations, from the kept rows of the study."""

import json
from pathlib import Path
from statistics import fmean

ROWS = Path(__file__).parents[2] / "benchmarks" / "study"
#: arm -> what it is called on the page
NAMES = {
    "control": "conventional training",
    "visits_hot": "with labels of its own simulations",
    "paper": "rollouts, as in the paper",
    "drawn": "with labels of states drawn at random",
    "hardened": "hardened",
}


def rows(name: str) -> list[dict]:
    """Of EGNN, 240 s, 10 ps at constant energy."""
    every = [json.loads(line) for line in (ROWS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    usual = {"model": "egnn", "budget": 240.0, "picoseconds": 10.0}
    found = [row for row in every if all(row.get(key) == value for key, value in usual.items())]
    return [row for row in found if row.get("temperature") is None and row["arm"] in NAMES]


def errors() -> str:
    """Error on snapshots and true error, means over the seeds."""
    lines = [
        "| training | error on snapshots, eV/Å | true error from 1 ps to 10 ps, eV/Å | simulations lost |",
        "|---|---|---|---|",
    ]
    for arm in ("control", "visits_hot"):
        same = [row for row in rows("results") if row["arm"] == arm]
        snapshots, true = fmean(row["snapshots"] for row in same), fmean(row["long_run"]["mean"] for row in same)
        lost = [time for row in same for time in row["long_run"]["lost_fs"]]
        share = f"{sum(time is not None for time in lost)} of {len(lost)}"
        lines.append(f"| {NAMES[arm]} ({len(same)} seeds) | {snapshots:.2f} | {true:.2f} | {share} |")
    return "\n".join([*lines, "", "Force errors are summed over H, C and Pd; a simulation is lost beyond 2 eV/Å.", ""])


def statements() -> str:
    """What certificates say."""
    lines = ["```text"]
    lines += [f"{NAMES[row['arm']]}, seed {row['seed']}: {row['statement']}" for row in rows("lasting")]
    return "\n".join([*lines, "```", ""])


def pages() -> dict[str, str]:
    """Both parts of the page."""
    return {"explosion_errors.txt": errors(), "explosion_statements.txt": statements()}
