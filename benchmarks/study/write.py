"""RESULTS.md and its figures, from the rows of a study."""

from pathlib import Path

from benchmarks.study.arms import ARMS, FEW_LABELS, MODELS
from benchmarks.study.figures import plot_along, plot_ensembles, plot_lasting, plot_true_error
from benchmarks.study.lasting import lasting_command, lasting_table
from benchmarks.study.measure import ASTRAY, LOST
from benchmarks.study.rows import Row, by_arm, grouped, longest_of_each, most_starts, present, read_rows
from benchmarks.study.tables import (
    beside_table,
    element_table,
    ensemble_table,
    error_table,
    fraction_table,
    main_table,
    reference_table,
    training_table,
)
from spk_dt.evaluation.plot_style import save_figure

__all__ = ["write_results"]

_FINDINGS = Path(__file__).with_name("findings.md")

_HEAD = f"""# Does dynamic training help?

Models are trained conventionally (S = 1) for a number of seconds of computing, and from there on for as many seconds in
different ways, the arms. All arms share data, loss at S = 1, optimiser, learning rate as a function of the seconds used, and
validation; seconds are those of the processor in training, simulations and reference calculations of an arm included,
validation left out. Data: the embedded trajectories of H2 on Pd6/graphene, 200 fs each.

- *snapshots*: force MAE on frames of unseen trajectories, summed over H, C, Pd.
- *along the reference*: the same, of 40 free simulations of 300 steps (150 fs), against the reference at the same time, mean
  over the steps. It measures how fast trajectories part. *Against the model it began with* is the paper's comparison, an
  easier one than that with the control, which has had the same compute.
- *true error*: NVE simulations from unseen starts; force MAE against the reference method at the geometries that the model
  visits, summed over elements, from 1 ps on. A simulation is *lost* when it exceeds {LOST:g} eV/Å, and no geometry counts
  more than that; *without the cap*, a single lost simulation may decide the mean. It measures the quality of the potential
  where the simulation goes. *Over starting points*: 16th to 84th percentile of the means of single simulations, all seeds.
- *failed by energy*: simulations in which the change of the potential energy since the start, of the model and of the
  reference method at the same geometries, differs by more than {ASTRAY:.0f} meV per atom at some time, the thermal energy at
  300 K. Even with moderate force errors atoms may come to where the reference never lets them. *Energy, median*: this
  difference, meV per atom.
- *beside the reference*: simulations of 150 fs from the beginning and the middle of the unseen trajectories. h(r) is the
  distribution of distances; the phase error is that of the vibration of H2 (period 8 fs), median over molecules that
  do not dissociate; the same end: H2 is away, sticks or is dissociated where it is so in the reference.

Runs with other seconds or few windows need a folder of their own (`--out`). Numbers are means over seeds, with the
smallest and the largest in brackets. eV/Å throughout.
"""

_ENSEMBLES = f"""## Ensembles

Longer simulations of the same models from unseen starts. A simulation survives as long as no relabelled geometry is off by
{LOST:g} eV/Å; errors are means over seeds. The reference method itself is too slow for trajectories of this length (0.7 s of
one core for a geometry).
"""

_LASTING = """## How long simulations last

Certificates (`spkdt certify`) of the experiments as they are, and of runs of a study of its own: from starts that nobody
trained on, with the limits of the command (three thermal fluctuations of the energy, two thermal forces), stricter than
*lost* and *failed by energy*. All seeds together; the bound is the exact one. Equal seconds include simulations and
reference calculations. Where a commit is named, the rows are of that earlier version, and the command makes them there.
"""

_FRACTIONS = """## What better forces would gain along the reference

Simulations of 150 fs whose forces are those of the reference method and a fraction of the error of a model, at every
geometry that they visit.
"""


_BESIDE = """## Beside the reference method for longer

New trajectories of the reference method, and NVE simulations of the same models from their first frames. The error of h(r)
is that against the reference from the same start; two reference trajectories from different starts differ by {h_of_r:.3f}.
Simulations that exploded are compared until then.
"""


def write_results(folder: Path, out: Path, findings: bool = False) -> None:
    """Write the report.

    Args:
        folder: with ``results.jsonl`` of a study, and ``lasting.jsonl``, ``ensembles.jsonl``, ``fractions.jsonl`` and
            ``beside.jsonl`` if there are any.
        out: Markdown file; the figures ``true_error``, ``along_reference``, ``ensembles`` and, of certificates at
            constant energy, ``lasting_<seconds>s``, ``few_labels_<seconds>s`` and, of the most seconds, ``survival``
            (control and on-policy labels alone) go beside it (PDF, SVG, PNG).
        findings: put ``findings.md`` before the tables, what was concluded from the rows in this repository.

    Raises:
        FileNotFoundError: if there are no results.
    """
    found, fractions, ensembles, besides, lasting = (
        _in_order(read_rows(folder / f"{name}.jsonl"))
        for name in ("results", "fractions", "ensembles", "beside", "lasting")
    )
    if not found:
        raise FileNotFoundError(f"'{folder}' has no results.jsonl; make results with: python -m benchmarks.study run")
    parts = [_HEAD, main_table(found), *((_FINDINGS.read_text(),) if findings else ())]
    out.parent.mkdir(parents=True, exist_ok=True)
    parts += [_LASTING] if lasting else []
    few = {f"{way}_{n}" for way in ("drawn", "hardened") for n in FEW_LABELS}
    for (budget, temperature, ps), same in grouped(lasting, "budget", "temperature", "picoseconds").items():
        how = "at constant energy" if temperature is None else f"at {temperature:g} K"
        parts.append(f"### {f'{budget:g} s and {budget:g} s' if budget else 'One command'}, {ps:g} ps {how}\n")
        parts += [f"```bash\n{lasting_command(same)}\n```\n", lasting_table(same)]
        figures = (
            {"lasting": set(ARMS) - few, "few_labels": {"control", *few}} if budget and temperature is None else {}
        )
        for name, arms in figures.items():
            shown = present(row for row in same if row["arm"] in arms)
            if any(len(by_arm(some)) > 1 for some in grouped(shown, "model").values()):
                save_figure(plot_lasting(shown), out.with_name(f"{name}_{budget:g}s"))
                parts.append(f"![share of the simulations that have not failed]({name}_{budget:g}s.png)\n")
    if free := [row for row in lasting if row["temperature"] is None and row["budget"]]:
        most = max(row["budget"] for row in free)
        # those that soon fail are not simulated for so long
        shown = longest_of_each([row for row in free if row["budget"] == most], "model", "arm")
        save_figure(plot_lasting(shown, ("control", "drawn", "hardened")), out.with_name("survival"))
    for setting, same in grouped(found, "model", "budget", "windows", "picoseconds", "starts").items():
        parts += [_heading(*setting), _command(same), training_table(same), error_table(same), element_table(same)]
        parts.append(beside_table(same))
    if any("long_run" in row for row in found):
        save_figure(plot_true_error(found), out.with_name("true_error"))
        parts.append("![true error against time](true_error.png)\n")
    save_figure(plot_along(found), out.with_name("along_reference"))
    parts.append("![error along the reference](along_reference.png)\n")
    if fractions:
        parts += [_FRACTIONS, _fractions_command(fractions), fraction_table(fractions)]
    if ensembles := most_starts(ensembles):
        save_figure(plot_ensembles(ensembles), out.with_name("ensembles"))
        parts += [_ENSEMBLES, *_ensemble_parts(ensembles), "![survival](ensembles.png)\n"]
    for same in grouped(besides, "budget", "data").values():
        parts += [_BESIDE.format(h_of_r=same[0]["h_of_r_of_others"]), _beside_command(same), reference_table(same)]
    out.write_text("\n".join(parts))


def _in_order(rows: list[Row]) -> list[Row]:
    """By model and training, then with long simulations first, and thermostats by temperature and length."""

    def order(row: Row) -> tuple:
        ensemble = (row["temperature"] or 0.0, row["picoseconds"]) if "temperature" in row else ()
        training = row.get("windows") is not None, row["budget"] or 0.0  # defaults have none
        return [*MODELS].index(row["model"]), training, row.get("picoseconds") == 0, ensemble, row["seed"]

    return sorted(rows, key=order)


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
    words += [f"--arm {arm}" for arm in by_arm(rows)]
    return f"```bash\n{' '.join(words)}\n```\n"


def _fractions_command(rows: list[Row]) -> str:
    words = ["python -m benchmarks.study fractions", f"--starts {rows[0]['starts']}"]
    words += [f"--{key} {value}" for key in ("model", "arm", "seed") for value in sorted({row[key] for row in rows})]
    words += [f"--fraction {fraction:g}" for fraction in sorted({row["fraction"] for row in rows}, reverse=True)]
    return f"```bash\n{' '.join(words)}\n```\n"


def _beside_command(rows: list[Row]) -> str:
    words = [f"python -m benchmarks.study beside {rows[0]['data']}"]
    words += [
        f"--{key} {value}" for key in ("model", "arm", "seed") for value in dict.fromkeys(row[key] for row in rows)
    ]
    return f"```bash\n{' '.join(words)}\n```\n"


def _ensemble_parts(rows: list[Row]) -> list[str]:
    """A heading, the commands and a table for each setting."""
    parts = []
    for (model, _, temperature, picoseconds), same in grouped(
        rows, "model", "budget", "temperature", "picoseconds"
    ).items():
        how = "NVE" if temperature is None else f"Langevin at {temperature:g} K"
        parts.append(f"### {model}, {how}, {picoseconds:g} ps\n")
        commands = "\n".join(_ensembles_command(some) for some in grouped(same, "starts", "every_ps").values())
        parts += [f"```bash\n{commands}\n```\n", ensemble_table(same)]
    return parts


def _ensembles_command(rows: list[Row]) -> str:
    first = rows[0]
    words = ["python -m benchmarks.study ensembles", f"--model {first['model']}"]
    words += [f"--temperature {first['temperature']:g}"] if first["temperature"] is not None else []
    words += [f"--picoseconds {first['picoseconds']:g} --starts {first['starts']} --every-ps {first['every_ps']:g}"]
    words += [f"--seed {seed}" for seed in sorted({row["seed"] for row in rows})]
    words += [f"--arm {arm}" for arm in by_arm(rows)]
    return " ".join(words)
