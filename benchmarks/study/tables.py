"""The tables of RESULTS.md."""

from collections.abc import Callable
from math import inf
from statistics import fmean

import numpy as np

from benchmarks.study.arms import ARMS
from benchmarks.study.hydrogen import STATES
from benchmarks.study.rows import Row, by_arm, grouped, longest

__all__ = [
    "beside_table",
    "element_table",
    "ensemble_table",
    "error_table",
    "fraction_table",
    "main_table",
    "reference_table",
    "training_table",
]

_BEST = "visits_hot"


def main_table(rows: list[Row]) -> str:
    """The control and the best arm for each model, in its longest simulations; empty if there are not both."""
    lines = [
        "| model | seconds | simulations | seeds | true error: control | on-policy labels | change "
        "| seeds below the controls' mean | lost: control | on-policy labels | failed by energy: control | on-policy labels "
        "| along the reference: control | on-policy labels |",
        "|---" * 14 + "|",
    ]
    for (model, budget, windows, ps), same in grouped(
        longest(rows), "model", "budget", "windows", "picoseconds"
    ).items():
        arms = by_arm(same)
        if "control" not in arms or _BEST not in arms:
            continue
        pair = arms["control"], arms[_BEST]
        true, other = (_spread([row["long_run"]["mean"] for row in one], 3) for one in pair)
        lost, fewer, astray, right = (_of_all(one, key) for key in ("lost_fs", "astray_fs") for one in pair)
        along, also = (f"{fmean(row['along_reference'] for row in one):.3f}" for one in pair)
        change, below = _against(pair[1], pair[0])
        name = f"{model}, {windows} windows" if windows else model
        seeds = str(len(pair[1]))
        cells = [name, f"{budget:g}", f"{ps:g} ps", seeds, true, other, change, below, lost, fewer, astray, right]
        lines.append(f"| {' | '.join([*cells, along, also])} |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def training_table(rows: list[Row]) -> str:
    """What the runs have cost."""
    lines = ["| arm | seeds | updates | force evaluations of systems | labels | seconds |", "|---|---|---|---|---|---|"]
    for arm, same in by_arm(rows).items():
        means = (f"{fmean(row[key] for row in same):,.0f}" for key in ("updates", "frames", "labels", "seconds"))
        lines.append(f"| {ARMS[arm].title} | {len(same)} | {' | '.join(means)} |")
    return "\n".join(lines) + "\n"


def error_table(rows: list[Row]) -> str:
    """Errors on snapshots, along the reference and in long simulations."""
    columns: list[tuple[str, Callable[[Row], float]]] = [
        ("snapshots", lambda row: row["snapshots"]),
        ("along the reference", lambda row: row["along_reference"]),
    ]
    long_runs = all("long_run" in row for row in rows)
    if long_runs:
        columns += [
            ("true error, mean", lambda row: row["long_run"]["mean"]),
            ("without the cap", lambda row: row["long_run"]["uncapped"]),
            ("median", lambda row: row["long_run"]["median"]),
            ("lost, %", lambda row: 100.0 * row["long_run"]["lost"]),
            ("failed by energy, %", lambda row: 100.0 * _share(row["long_run"]["astray_fs"])),
            ("energy, median", lambda row: row["long_run"]["energy"]),
        ]
    arms = by_arm(rows)
    compared = long_runs and "control" in arms
    from_start = all("along_at_start" in row or ARMS[row["arm"]].scratch for row in rows)
    names = [name for name, _ in columns]
    if "control" in arms:
        names.insert(2, "against the control")
    if from_start:
        names.insert(2, "against the model it began with")
    names += ["over starting points"] if long_runs else []
    names += ["against the control of the same seeds", "seeds below the mean of the controls"] if compared else []
    lines = [f"| arm | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for arm, same in arms.items():
        cells = [_spread([value(row) for row in same], digits=_digits(name)) for name, value in columns]
        if "control" in arms:
            cells.insert(2, "" if arm == "control" else _change_along(same, arms["control"]))
        if from_start:
            pairs = [(row["along_reference"], row["along_at_start"]) for row in same if "along_at_start" in row]
            cells.insert(2, _change(*(fmean(one) for one in zip(*pairs, strict=True))) if pairs else "")
        if long_runs:
            low, high = np.percentile([value for row in same for value in row["long_run"]["by_start"]], (16, 84))
            cells.append(f"{low:.2f} to {high:.2f}")
        if compared:
            cells += ["", ""] if arm == "control" else _against(same, arms["control"])
        lines.append(f"| {ARMS[arm].title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _against(rows: list[Row], controls: list[Row]) -> tuple[str, str]:
    """Change of the mean against the controls of the same seeds, and how many seeds are below the mean of all controls."""
    means = {row["seed"]: row["long_run"]["mean"] for row in controls}
    control = fmean(means.values())
    errors = [row["long_run"]["mean"] for row in rows]
    of_seeds = fmean(means.get(row["seed"], control) for row in rows)
    return _change(fmean(errors), of_seeds), f"{sum(error < control for error in errors)} of {len(errors)}"


def _change_along(rows: list[Row], controls: list[Row]) -> str:
    """Change along the reference against the controls, of the seeds that both have."""
    known = {row["seed"]: row["along_reference"] for row in controls}
    pairs = [(row["along_reference"], known[row["seed"]]) for row in rows if row["seed"] in known]
    return _change(*(fmean(one) for one in zip(*pairs, strict=True))) if pairs else ""


def _change(value: float, before: float) -> str:
    return f"{100.0 * (value / before - 1.0):+.0f} %"


def _of_all(rows: list[Row], key: str) -> str:
    """How many simulations have a time under a key."""
    times = [time for row in rows for time in row["long_run"][key]]
    return f"{sum(time is not None for time in times)} of {len(times)}"


def _share(times: list[float | None], until: float = inf) -> float:
    """Of the simulations, those with a time up to some time."""
    return fmean(time is not None and time <= until for time in times)


def element_table(rows: list[Row]) -> str:
    """By element: along the reference, and the true error where there is one."""
    lines = ["| arm | along the reference: H, C, Pd | true error from 1 ps on: H, C, Pd |", "|---|---|---|"]
    for arm, same in by_arm(rows).items():
        along = ", ".join(f"{fmean(row['elements'][e] for row in same):.3f}" for e in ("H", "C", "Pd"))
        long_runs = [row["long_run"]["elements"] for row in same if "long_run" in row]
        true = ", ".join(f"{fmean(one[e] for one in long_runs):.3f}" for e in ("H", "C", "Pd")) if long_runs else "-"
        lines.append(f"| {ARMS[arm].title} | {along} | {true} |")
    return "\n".join(lines) + "\n"


def beside_table(rows: list[Row]) -> str:
    """Simulations of 150 fs beside the reference; empty without them."""
    arms = {
        arm: found
        for arm, same in by_arm(rows).items()
        if (found := [row["follow"] for row in same if "follow" in row])
    }
    if not arms:
        return ""
    times = [time for time, _, _ in next(iter(arms.values()))[0]["phase"]]
    lines = [
        "| arm | seeds | true error over 150 fs | error of h(r) | largest drift, meV/atom/ps | phase error of H2, rad, at "
        f"{', '.join(f'{time:g}' for time in times)} fs | the same end, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, found in arms.items():
        cells = [
            _spread([one[key] for one in found], digits)
            for key, digits in (("true_error", 3), ("h_of_r", 3), ("drift", 2))
        ]
        phases = [fmean(one["phase"][i][1] for one in found if len(one["phase"]) > i) for i in range(len(times))]
        cells += [
            ", ".join(f"{phase:.2f}" for phase in phases),
            _spread([100.0 * one["same_state"] for one in found], 0),
        ]
        lines.append(f"| {ARMS[arm].title} | {len(found)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def reference_table(rows: list[Row]) -> str:
    """Structure and H2 beside longer reference trajectories, by model and arm."""
    lines = [
        f"| model | arm | seeds | simulations | exploded | error of h(r) | keep the bonds that the reference keeps, % "
        f"| at the end: {', '.join(STATES)} | of the reference | the same end, % |",
        "|---" * 10 + "|",
    ]
    for model, of_model in grouped(rows, "model").items():
        for arm, same in by_arm(of_model).items():
            ends = [pair for row in same for pair in row["ends"]]
            ours, theirs = (", ".join(str(sum(pair[i] == state for pair in ends)) for state in STATES) for i in (0, 1))
            cells = [
                *(model, ARMS[arm].title, str(len(same)), str(sum(row["simulations"] for row in same))),
                str(sum(row["exploded"] for row in same)),
                _spread([row["h_of_r"] for row in same], 3),
                _spread([100.0 * row["keep_bonds"] for row in same], 0),
                *(ours, theirs),
                _spread([100.0 * fmean(one == other for one, other in row["ends"]) for row in same], 0),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def fraction_table(rows: list[Row]) -> str:
    """Errors along the reference of models with a fraction of their error."""
    lines = [
        "| model | arm | fraction of its error | simulations | start frames | along the reference | change | H, C, Pd |",
        "|---" * 8 + "|",
    ]
    for (model, arm), same in grouped(rows, "model", "arm").items():
        whole = {row["seed"]: row["along_reference"] for row in same if row["fraction"] == 1.0}
        for fraction, some in sorted(grouped(same, "fraction").items(), reverse=True):
            before = [whole[row["seed"]] for row in some if row["seed"] in whole]
            error = fmean(row["along_reference"] for row in some)
            cells = [
                model,
                ARMS[arm].title,
                f"{fraction:g}",
                str(sum(5 * row["starts"] for row in some)),
                f"{fmean(row['snapshots'] for row in some):.3f}",
                f"{error:.3f}",
                _change(error, fmean(before)) if fraction != 1.0 and len(before) == len(some) else "",
                ", ".join(f"{fmean(row['elements'][e] for row in some):.3f}" for e in ("H", "C", "Pd")),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def ensemble_table(rows: list[Row]) -> str:
    """Long simulations of one length and thermostat: survival of all of them, errors as means over seeds."""
    ps = rows[0]["picoseconds"]
    early = ", ".join(f"{share * ps:g}" for share in (0.25, 0.5, 1.0))
    lines = [
        f"| arm | seeds | simulations | survive {early} ps, % | energy right until then, % | true error, mean | median "
        f"| temperature, K | mean drift, meV/atom/ps | survivors at the end: {', '.join(STATES)} |",
        "|---" * 10 + "|",
    ]
    for arm, same in by_arm(rows).items():
        long_runs = [row["long_run"] for row in same]
        sizes = [len(one["by_start"]) for one in long_runs]
        alive = [
            100.0 * fmean((1.0 - _until(one["over_time"], share * 1000.0 * ps) for one in long_runs), sizes)
            for share in (0.25, 0.5, 1.0)
        ]
        right = [
            100.0 * (1.0 - _share([time for one in long_runs for time in one["astray_fs"]], share * 1000.0 * ps + 1.0))
            for share in (0.25, 0.5, 1.0)
        ]
        drifts = [row["conservation"].get("mean_drift_mev_per_atom_per_ps") for row in same]
        cells = [
            str(len(same)),
            str(sum(sizes)),
            ", ".join(f"{value:.0f}" for value in alive),
            ", ".join(f"{value:.0f}" for value in right),
            _spread([one["mean"] for one in long_runs], 3),
            _spread([one["median"] for one in long_runs], 3),
            f"{fmean(row['conservation']['mean_temperature_k'] for row in same):.0f}",
            "-" if None in drifts else f"{fmean(drifts):.2g}",
            ", ".join(str(sum(row["states"][-1][1][state] for row in same)) for state in STATES),
        ]
        lines.append(f"| {ARMS[arm].title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _until(over_time: list, time: float) -> float:
    """Share of the simulations lost until a time."""
    return max(point[3] for point in over_time if point[0] <= time + 1.0)  # states are kept one step later


def _digits(name: str) -> int:
    """Of the numbers in a column."""
    return 0 if "%" in name else 1 if "energy" in name else 3


def _spread(values: list[float], digits: int) -> str:
    mean = f"{fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"
