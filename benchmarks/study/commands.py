"""The command line of the study."""

import json
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from itertools import product
from math import inf
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.study.arms import ARMS, MODELS
from benchmarks.study.fractions import along_with_fraction
from benchmarks.study.hydrogen import share_of_states
from benchmarks.study.lasting import lasting
from benchmarks.study.measure import STEPS_PER_PS, beside, follow, long_run, simulate, training
from benchmarks.study.rows import Row, read_rows
from benchmarks.study.train import Study, train

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Folder = Annotated[Path, typer.Option(help="Folder of the study.")]
Models = Annotated[list[str], typer.Option(help="Of egnn, painn, schnet; repeatable.")]
Arms = Annotated[list[str], typer.Option(help="Repeatable.")]
Seeds = Annotated[list[int], typer.Option(help="Repeatable.")]
Starts = Annotated[int, typer.Option(help="Starts of them from each of five test trajectories.")]
EveryPs = Annotated[float, typer.Option(help="Time between relabelled geometries.")]
Processes = Annotated[int, typer.Option(help="Runs side by side, each with one thread.")]


@app.command()
def run(
    out: Folder = Path("study"),
    model: Models = ["egnn"],  # noqa: B006
    arm: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(ARMS)}; repeatable; without it all that fit.")
    ] = None,
    seed: Seeds = [0, 1, 2],  # noqa: B006
    seconds: Annotated[float, typer.Option(help="Compute of the first model, and again of each arm.")] = 300.0,
    picoseconds: Annotated[float, typer.Option(help="Length of long simulations; 0 makes none.")] = 10.0,
    starts: Starts = 4,
    every_ps: EveryPs = 0.5,
    processes: Processes = 2,
    windows: Annotated[int | None, typer.Option(help="Train on so few windows only.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train and measure. What is there is not made again; results are appended to OUT/results.jsonl as they come."""
    study = Study(out.resolve(), seconds, windows=windows, device=device)
    arms = arm or [name for name, one in ARMS.items() if study.takes(one)]
    _check(study, model, arms)
    if picoseconds:
        _check_times(picoseconds, every_ps)
    study.prepare()
    settings = {"budget": seconds, "windows": windows, "picoseconds": picoseconds, "starts": starts}
    with _pool(processes) as pool:
        for m in model:
            for begun in [pool.submit(train, study, m, "start", s) for s in seed]:  # the arms begin with it
                begun.result()
            rows = [{"model": m, **settings, "arm": a, "seed": s} for a in arms for s in seed]
            _append(pool, partial(_work, study, every_ps), rows, out / "results.jsonl")


@app.command()
def ensembles(
    out: Folder = Path("study"),
    model: Models = ["egnn"],  # noqa: B006
    arm: Arms = ["control", "visits_hot"],  # noqa: B006
    seed: Seeds = [0],  # noqa: B006
    temperature: Annotated[float | None, typer.Option(help="Of a Langevin thermostat, K; without it NVE.")] = None,
    picoseconds: Annotated[float, typer.Option(help="Length of the simulations.")] = 100.0,
    starts: Starts = 4,
    every_ps: EveryPs = 5.0,
    processes: Processes = 2,
) -> None:
    """Long simulations of models that `run` has trained; results are appended to OUT/ensembles.jsonl as they come."""
    _check_times(picoseconds, every_ps)
    setting = {"picoseconds": picoseconds, "starts": starts, "temperature": temperature, "every_ps": every_ps}
    _measure(_ensemble, out, "ensembles.jsonl", (model, arm, seed), [setting], processes)


@app.command()
def last(
    out: Folder = Path("study"),
    model: Models = ["egnn"],  # noqa: B006
    arm: Arms = ["control", "paper", "full8", "drawn", "hardened"],  # noqa: B006
    seed: Seeds = [0],  # noqa: B006
    seconds: Annotated[float, typer.Option(help="Compute of the first model, and again of each arm.")] = 240.0,
    temperature: Annotated[float | None, typer.Option(help="Of a Langevin thermostat, K; without it NVE.")] = None,
    picoseconds: Annotated[float, typer.Option(help="Length of the simulations.")] = 10.0,
    number: Annotated[int, typer.Option(help="Simulations of each run.")] = 12,
    processes: Processes = 2,
) -> None:
    """Train, and let the reference method certify; results are appended to OUT/lasting.jsonl as they come."""
    study = Study(out.resolve(), seconds)
    _check(study, model, [a for a in arm if a not in ARMS or not ARMS[a].whole])
    study.prepare()
    setting = {"budget": seconds, "picoseconds": picoseconds, "number": number, "temperature": temperature}
    with _pool(processes) as pool:
        if not all(ARMS[a].scratch for a in arm):
            for begun in [pool.submit(train, study, m, "start", s) for s in seed for m in model]:  # arms begin with it
                begun.result()
        rows = [
            {"model": m, **setting, "arm": a, "seed": s} | ({"budget": None} if ARMS[a].whole else {})
            for s, m, a in product(seed, model, arm)
        ]
        _append(pool, partial(lasting, study), rows, out / "lasting.jsonl")


@app.command()
def fractions(
    out: Folder = Path("study"),
    model: Models = ["egnn"],  # noqa: B006
    arm: Arms = ["control"],  # noqa: B006
    seed: Seeds = [0],  # noqa: B006
    fraction: Annotated[list[float], typer.Option(help="Of the error of the model; repeatable.")] = [1.0, 0.5, 0.25],  # noqa: B006
    starts: Annotated[int, typer.Option(help="Starts from each of five test trajectories.")] = 1,
    processes: Processes = 2,
) -> None:
    """What models with a fraction of the error of those that `run` has trained would gain along the reference.

    It takes some 15 minutes for a fraction below one. Results are appended to OUT/fractions.jsonl as they come.
    """
    settings = [{"starts": starts, "fraction": f} for f in fraction]
    _measure(_fraction, out, "fractions.jsonl", (model, arm, seed), settings, processes)


@app.command("beside")
def beside_reference(
    data: Annotated[Path, typer.Argument(help="Trajectories, for example of: spkdt generate", exists=True)],
    out: Folder = Path("study"),
    model: Models = ["egnn"],  # noqa: B006
    arm: Arms = ["control", "visits_hot"],  # noqa: B006
    seed: Seeds = [0, 1, 2],  # noqa: B006
    processes: Processes = 2,
) -> None:
    """Structure and H2 of models that `run` has trained, beside the reference method over longer trajectories.

    Results are appended to OUT/beside.jsonl as they come.
    """
    _measure(partial(_beside, data), out, "beside.jsonl", (model, arm, seed), [{"data": data.name}], processes)


@app.command()
def write(
    out: Folder = Path("study"),
    results: Annotated[Path, typer.Option(help="Markdown file to write; figures go beside it.")] = Path("RESULTS.md"),
    findings: Annotated[bool, typer.Option(help="With findings.md, for the rows in this repository.")] = False,
) -> None:
    """Write tables and figures of what there is. Of the rows in this repository: --out benchmarks/study --findings."""
    from benchmarks.study.write import write_results

    write_results(out, results, findings)


def _one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")


def _pool(processes: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(processes, get_context("spawn"), _one_thread)


def _check(study: Study, models: list[str], arms: list[str]) -> None:
    """Refuse names that are not known."""
    for name, known in [(m, MODELS) for m in models] + [(a, ARMS) for a in arms]:
        if name not in known:
            raise typer.BadParameter(f"'{name}' is not one of {', '.join(known)}")
        if known is ARMS and not study.takes(ARMS[name]):
            raise typer.BadParameter(f"'{name}' does not fit --windows {study.windows} and equal seconds")


def _check_times(picoseconds: float, every_ps: float) -> None:
    """Refuse simulations of which nothing but the beginning would be relabelled."""
    if not 0.0 < every_ps <= picoseconds / 2:
        raise typer.BadParameter(
            f"--every-ps {every_ps:g} does not fit --picoseconds {picoseconds:g}: choose at most half of it"
        )


def _measure(
    work: Callable[[Study, Row], Row],
    out: Path,
    file: str,
    runs: tuple[list[str], list[str], list[int]],
    settings: list[Row],
    processes: int,
) -> None:
    """Measure runs of the study by model, arm and seed in each of some settings, and append what comes of it to a file."""
    study = Study.of(out)
    _check(study, *runs[:2])
    rows = [
        {"model": model, "budget": study.seconds, "windows": study.windows, **setting, "arm": arm, "seed": seed}
        for model, arm, seed in product(*runs)
        for setting in settings
    ]
    with _pool(processes) as pool:
        _append(pool, partial(work, study), rows, out / file)


def _append(pool: ProcessPoolExecutor, work: Callable[[Row], Row], rows: list[Row], file: Path) -> None:
    """Do the work for the rows that are not in a file yet, and append what comes of it."""
    done = {_key(row) for row in read_rows(file)}
    for future in as_completed([pool.submit(work, row) for row in rows if _key(row) not in done]):
        row = future.result()
        with file.open("a") as opened:
            opened.write(json.dumps(row) + "\n")
        typer.echo(f"{row['model']} {row['arm']} {row['seed']}: {_told(row)}")


def _work(study: Study, every_ps: float, row: Row) -> Row:
    """Train one arm and measure it."""
    folder = train(study, row["model"], row["arm"], row["seed"])
    row |= training(folder)
    if not ARMS[row["arm"]].scratch:
        row["along_at_start"] = training(study.run(row["model"], "start", row["seed"]))["along_reference"]
    row["follow"] = follow(study, folder)
    if row["picoseconds"]:
        row["long_run"] = long_run(simulate(study, folder, row["picoseconds"], row["starts"], every_ps))
    return row


def _ensemble(study: Study, row: Row) -> Row:
    """Simulate one arm for long."""
    run = study.run(row["model"], row["arm"], row["seed"])
    folder = simulate(study, run, row["picoseconds"], row["starts"], row["every_ps"], row["temperature"])
    row["long_run"] = long_run(folder)
    lost_fs = [inf if time is None else time for time in row["long_run"]["lost_fs"]]
    row["states"] = share_of_states(folder, run.name, lost_fs, round(row["every_ps"] * STEPS_PER_PS))
    row["conservation"] = json.loads((folder / "metrics.json").read_text())[run.name]["conservation"]
    return row


def _fraction(study: Study, row: Row) -> Row:
    """Follow the reference with a fraction of the error of one arm."""
    run = study.run(row["model"], row["arm"], row["seed"])
    return row | along_with_fraction(study, run, row["fraction"], row["starts"])


def _beside(data: Path, study: Study, row: Row) -> Row:
    """Simulate one arm beside trajectories."""
    return row | beside(study, study.run(row["model"], row["arm"], row["seed"]), data)


def _key(row: Row) -> tuple:
    return tuple(
        row.get(key)
        for key in ("model", "seed", "arm", "picoseconds", "starts", "temperature", "fraction", "data", "number")
    )


def _told(row: dict) -> str:
    told = [f"along reference {row['along_reference']:.3f}"] if "along_reference" in row else []
    told += [f"error of h(r) {row['h_of_r']:.3f}"] if "h_of_r" in row else []
    told += [row["statement"]] if "statement" in row else []
    if "long_run" in row:
        one = row["long_run"]
        told.append(f"true error from 1 ps on {one['mean']:.3f} (median {one['median']:.3f}), {one['lost']:.0%} lost")
    return ", ".join(told)
