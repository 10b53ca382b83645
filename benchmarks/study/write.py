"""RESULTS.md and its figures, from the rows of a study."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from benchmarks.study.arms import ARMS
from benchmarks.study.hydrogen import STATES
from benchmarks.study.measure import LOST

__all__ = ["write_results"]

Row = dict[str, Any]

_FINDINGS = Path(__file__).with_name("findings.md")

_HEAD = f"""# Does dynamic training help?

Models are trained conventionally (S = 1) for a number of seconds of computing, and from there on for as many seconds in
different ways, the arms. All arms share data, loss at S = 1, optimiser, learning rate as a function of the seconds used, and
validation; seconds are those of the processor in training, simulations and reference calculations of an arm included,
validation left out. Data: the embedded trajectories of H2 on Pd6/graphene, 200 fs each.

- *snapshots*: force MAE on frames of unseen trajectories, summed over H, C, Pd.
- *along the reference*: the same, of 40 free simulations of 300 steps (150 fs), against the reference at the same time, mean
  over the steps. It measures how fast trajectories part.
- *true error*: NVE simulations from unseen starts; force MAE against the reference method at the geometries that the model
  visits, summed over elements, from 1 ps on. A simulation is *lost* when it exceeds {LOST:g} eV/Å, and no geometry counts
  more than that; *without the cap*, a single lost simulation may decide the mean. It measures the quality of the potential
  where the simulation goes. *Over starting points*: 16th to 84th percentile of the means of single simulations, all seeds.
- *beside the reference*: simulations of 150 fs from the beginning and the middle of the unseen trajectories. h(r) is the
  distribution of distances; the phase error is that of the vibration of H2 (period 8 fs), of molecules that do not
  dissociate; the same end: H2 is away, sticks or is dissociated where it is so in the reference.

Numbers are means over seeds, with the smallest and the largest in brackets. eV/Å throughout.
"""

_ENSEMBLES = f"""## Ensembles

Longer simulations of the same models from unseen starts. A simulation survives as long as no relabelled geometry is off by
{LOST:g} eV/Å. The reference method itself is too slow for trajectories of this length (some 0.3 s a step).
"""


def write_results(folder: Path, out: Path, findings: bool = False) -> None:
    """Write the report.

    Args:
        folder: with ``results.jsonl`` of a study, and ``ensembles.jsonl`` if there are any.
        out: Markdown file; the figures ``true_error.png``, ``along_reference.png`` and ``ensembles.png`` go beside it.
        findings: put ``findings.md`` before the tables, what was concluded from the rows in this repository.

    Raises:
        FileNotFoundError: if there are no results.
    """
    if not (folder / "results.jsonl").exists():
        raise FileNotFoundError(f"'{folder}' has no results.jsonl; make results with: python -m benchmarks.study run")
    found = _read(folder / "results.jsonl")
    parts = [_HEAD, *((_FINDINGS.read_text(),) if findings else ())]
    out.parent.mkdir(parents=True, exist_ok=True)
    for setting, same in _grouped(found, "model", "budget", "windows", "picoseconds", "starts").items():
        parts += [_heading(*setting), _command(same), _training_table(same), _error_table(same), _element_table(same)]
        parts.append(_beside_table(same))
    if any("long_run" in row for row in found):
        _save(_plot_true_error(found), out.with_name("true_error.png"))
        parts.append("![true error against time](true_error.png)\n")
    _save(_plot_along(found), out.with_name("along_reference.png"))
    parts.append("![error along the reference](along_reference.png)\n")
    if (folder / "ensembles.jsonl").exists():
        ensembles = _read(folder / "ensembles.jsonl")
        _save(_plot_ensembles(ensembles), out.with_name("ensembles.png"))
        parts += [_ENSEMBLES, *_ensemble_parts(ensembles), "![survival](ensembles.png)\n"]
    out.write_text("\n".join(parts))


def _heading(model: str, budget: float, windows: int | None, picoseconds: float, starts: int) -> str:
    some = f", {windows} windows" if windows else ""
    long = f", {5 * starts} simulations of {picoseconds:g} ps" if picoseconds else ""
    return f"## {model}, {budget:g} s and {budget:g} s{some}{long}\n"


def _command(rows: list[Row]) -> str:
    """What makes these rows."""
    first = rows[0]
    words = ["python -m benchmarks.study run", f"--model {first['model']}", f"--seconds {first['budget']:g}"]
    words += [f"--windows {first['windows']}"] if first["windows"] else []
    words += [f"--picoseconds {first['picoseconds']:g} --starts {first['starts']}"]
    words += [f"--seed {seed}" for seed in sorted({row["seed"] for row in rows})]
    words += [f"--arm {arm}" for arm in _by_arm(rows)]
    return f"```bash\n{' '.join(words)}\n```\n"


def _training_table(rows: list[Row]) -> str:
    lines = ["| arm | seeds | updates | force evaluations of systems | labels | seconds |", "|---|---|---|---|---|---|"]
    for arm, same in _by_arm(rows).items():
        means = (f"{fmean(row[key] for row in same):,.0f}" for key in ("updates", "frames", "labels", "seconds"))
        lines.append(f"| {ARMS[arm].title} | {len(same)} | {' | '.join(means)} |")
    return "\n".join(lines) + "\n"


def _error_table(rows: list[Row]) -> str:
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
        ]
    arms = _by_arm(rows)
    compared = long_runs and "control" in arms
    names = (
        [name for name, _ in columns]
        + ["over starting points"] * long_runs
        + [
            "against the control of the same seeds",
            "seeds below the mean of the controls",
        ]
        * compared
    )
    lines = [f"| arm | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for arm, same in arms.items():
        cells = [_spread([value(row) for row in same], digits=0 if "%" in name else 3) for name, value in columns]
        if long_runs:
            low, high = np.percentile([value for row in same for value in row["long_run"]["by_start"]], (16, 84))
            cells.append(f"{low:.2f} to {high:.2f}")
        if compared:
            controls = {row["seed"]: row["long_run"]["mean"] for row in arms["control"]}
            control = fmean(controls.values())
            errors = [row["long_run"]["mean"] for row in same]
            of_seeds = fmean(controls.get(row["seed"], control) for row in same)
            change = f"{100.0 * (fmean(errors) / of_seeds - 1.0):+.0f} %"
            below = f"{sum(error < control for error in errors)} of {len(errors)}"
            cells += ["", ""] if arm == "control" else [change, below]
        lines.append(f"| {ARMS[arm].title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _element_table(rows: list[Row]) -> str:
    """By element: along the reference, and the true error where there is one."""
    lines = ["| arm | along the reference: H, C, Pd | true error from 1 ps on: H, C, Pd |", "|---|---|---|"]
    for arm, same in _by_arm(rows).items():
        along = ", ".join(f"{fmean(row['elements'][e] for row in same):.3f}" for e in ("H", "C", "Pd"))
        long_runs = [row["long_run"]["elements"] for row in same if "long_run" in row]
        true = ", ".join(f"{fmean(one[e] for one in long_runs):.3f}" for e in ("H", "C", "Pd")) if long_runs else "-"
        lines.append(f"| {ARMS[arm].title} | {along} | {true} |")
    return "\n".join(lines) + "\n"


def _beside_table(rows: list[Row]) -> str:
    """Simulations of 150 fs beside the reference; empty without them."""
    arms = {
        arm: found
        for arm, same in _by_arm(rows).items()
        if (found := [row["follow"] for row in same if "follow" in row])
    }
    if not arms:
        return ""
    times = [time for time, _, _ in next(iter(arms.values()))[0]["phase"]]
    lines = [
        "| arm | true error over 150 fs | error of h(r) | largest drift, meV/atom/ps | phase error of H2, rad, at "
        f"{', '.join(f'{time:g}' for time in times)} fs | the same end, % |",
        "|---|---|---|---|---|---|",
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
        lines.append(f"| {ARMS[arm].title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _ensemble_parts(rows: list[Row]) -> list[str]:
    """A heading, the command and a table for each setting."""
    parts = []
    keys = ("model", "budget", "temperature", "picoseconds", "starts")
    for (model, _, temperature, picoseconds, starts), same in _grouped(rows, *keys).items():
        how = "NVE" if temperature is None else f"Langevin at {temperature:g} K"
        parts.append(f"### {model}, {how}, {5 * starts} simulations of {picoseconds:g} ps\n")
        words = ["python -m benchmarks.study ensembles", f"--model {model}"]
        words += [f"--temperature {temperature:g}"] if temperature is not None else []
        words += [f"--picoseconds {picoseconds:g} --starts {starts}"]
        words += [f"--seed {seed}" for seed in sorted({row["seed"] for row in same})]
        words += [f"--arm {arm}" for arm in _by_arm(same)]
        parts += [f"```bash\n{' '.join(words)}\n```\n", _ensemble_table(same)]
    return parts


def _ensemble_table(rows: list[Row]) -> str:
    ps = rows[0]["picoseconds"]
    early = ", ".join(f"{share * ps:g}" for share in (0.25, 0.5, 1.0))
    lines = [
        f"| arm | seeds | survive {early} ps, % | true error, mean | median | temperature, K | mean drift, meV/atom/ps "
        f"| survivors at the end: {', '.join(STATES)} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm, same in _by_arm(rows).items():
        long_runs = [row["long_run"] for row in same]
        alive = [
            100.0 * fmean(1.0 - _until(one["over_time"], share * 1000.0 * ps) for one in long_runs)
            for share in (0.25, 0.5, 1.0)
        ]
        drifts = [row["conservation"].get("mean_drift_mev_per_atom_per_ps") for row in same]
        cells = [
            str(len(same)),
            ", ".join(f"{value:.0f}" for value in alive),
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


def _plot_ensembles(rows: list[Row]) -> Figure:
    """Survival against time, a panel for each model and temperature."""
    settings = _grouped(rows, "model", "temperature")
    figure, grid = plt.subplots(
        1, len(settings), figsize=(3.4 * len(settings) + 2.4, 3.0), layout="constrained", squeeze=False, sharey=True
    )
    for axes, ((model, temperature), of_setting) in zip(grid[0], settings.items(), strict=True):
        for (arm, same), style in zip(_by_arm(of_setting).items(), _styles(), strict=False):
            curves = [row["long_run"]["over_time"] for row in same]
            times = [point[0] / 1000.0 for point in curves[0]]
            alive = [100.0 * fmean(1.0 - curve[i][3] for curve in curves) for i in range(len(times))]
            axes.step(times, alive, where="post", label=ARMS[arm].title, **style)
        axes.set_title(f"{model}, {'NVE' if temperature is None else f'{temperature:g} K'}")
        axes.set_xlabel("simulated time (ps)")
        axes.set_ylim(-3, 103)
    grid[0, 0].set_ylabel("simulations that survive (%)")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _plot_true_error(rows: list[Row]) -> Figure:
    """True error against simulated time, and how many simulations are lost, a column for each model."""
    models = _grouped([row for row in rows if "long_run" in row], "model")
    figure, grid = plt.subplots(
        2, len(models), figsize=(4.6 * len(models) + 2.4, 5.2), layout="constrained", squeeze=False, sharex="col"
    )
    for column, (model, of_model) in zip(grid.T, models.items(), strict=True):
        for (arm, same), style in zip(_by_arm(of_model).items(), _styles(), strict=False):
            curves = [row["long_run"]["over_time"] for row in same]
            times = [point[0] / 1000.0 for point in curves[0]]
            values = [[curve[i][1] for curve in curves] for i in range(len(times))]
            column[0].plot(times, [fmean(v) for v in values], label=ARMS[arm].title, **style)
            column[0].fill_between(
                times, [*map(min, values)], [*map(max, values)], alpha=0.15, color=style["color"], lw=0
            )
            lost = [100.0 * fmean(curve[i][3] for curve in curves) for i in range(len(times))]
            column[1].plot(times, lost, **style)
        column[0].set_title(model)
        column[0].set_yscale("log")
        column[0].set_yticks([0.1, 0.2, 0.5, 1.0, 2.0], ["0.1", "0.2", "0.5", "1", "2"], minor=False)
        column[0].set_yticks([], minor=True)
        column[0].set_ylim(0.1, LOST)
        column[1].set_xlabel("simulated time (ps)")
        column[1].set_ylim(-3, 103)
    grid[0, 0].set_ylabel(f"true force error (eV/Å,\nat most {LOST:g}), mean over starts")
    grid[1, 0].set_ylabel("simulations lost (%)")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _plot_along(rows: list[Row]) -> Figure:
    """Force error along the reference against the step, a panel for each model."""
    models = _grouped(rows, "model")
    figure, grid = plt.subplots(
        1, len(models), figsize=(4.6 * len(models) + 2.4, 3.2), layout="constrained", squeeze=False
    )
    for axes, (model, of_model) in zip(grid[0], models.items(), strict=True):
        for (arm, same), style in zip(_by_arm(of_model).items(), _styles(), strict=False):
            curves = [row["along_by_step"] for row in same]
            steps = [point[0] for point in curves[0]]
            values = [[curve[i][1] for curve in curves] for i in range(len(steps))]
            axes.plot(steps, [fmean(v) for v in values], label=ARMS[arm].title, **style)
            axes.fill_between(steps, [*map(min, values)], [*map(max, values)], alpha=0.15, color=style["color"], lw=0)
        axes.set_title(model)
        axes.set_xlabel("simulation step")
    grid[0, 0].set_ylabel("force error along\nthe reference (eV/Å)")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _styles() -> list[dict[str, Any]]:
    """The control in black, then the colours of the style."""
    colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    marks = ("-", "--", "-.")
    return [{"color": "black", "ls": "-", "lw": 1.6}] + [
        {"color": colour, "ls": mark, "lw": 1.3} for mark in marks for colour in colours
    ]


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _by_arm(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows of each arm, in the order of `ARMS`."""
    groups = _grouped(rows, "arm")
    return {arm: groups[arm] for arm in ARMS if arm in groups}


def _grouped(rows: Iterable[Row], *keys: str) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[keys[0]] if len(keys) == 1 else tuple(row[key] for key in keys)].append(row)
    return dict(groups)


def _spread(values: list[float], digits: int) -> str:
    mean = f"{fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"
