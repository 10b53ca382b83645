"""The command line of the study."""

import json
import os
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.study.arms import ARMS, MODELS
from benchmarks.study.measure import long_run, simulate, training
from benchmarks.study.train import Study, train

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Folder = Annotated[Path, typer.Option(help="Folder of the study.")]


@app.command()
def run(
    out: Folder = Path("study"),
    model: Annotated[list[str], typer.Option(help="Of egnn, painn, schnet; repeatable.")] = ["egnn"],  # noqa: B006
    arm: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(ARMS)}; repeatable; default all that fit.")
    ] = None,
    seed: Annotated[list[int], typer.Option(help="Repeatable.")] = [0, 1, 2],  # noqa: B006
    seconds: Annotated[float, typer.Option(help="Compute of the first model, and again of each arm.")] = 300.0,
    picoseconds: Annotated[float, typer.Option(help="Length of long simulations; 0 makes none.")] = 10.0,
    starts: Annotated[int, typer.Option(help="Starts of them from each of five test trajectories.")] = 4,
    every_ps: Annotated[float, typer.Option(help="Time between relabelled geometries.")] = 0.5,
    processes: Annotated[int, typer.Option(help="Runs side by side, each with one thread.")] = 2,
    windows: Annotated[int | None, typer.Option(help="Train on so few windows only.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train and measure. What is there is not made again; results are appended to OUT/results.jsonl as they come."""
    study = Study(out.resolve(), seconds, windows=windows, device=device)
    arms = arm or [name for name, one in ARMS.items() if study.takes(one)]
    for name, known in [(m, MODELS) for m in model] + [(a, ARMS) for a in arms]:
        if name not in known:
            raise typer.BadParameter(f"'{name}' is not one of {', '.join(known)}")
        if known is ARMS and not study.takes(ARMS[name]):
            raise typer.BadParameter(f"'{name}' does not fit --windows {windows}")
    study.prepare()
    results = out / "results.jsonl"
    done = {_key(json.loads(line)) for line in results.read_text().splitlines()} if results.exists() else set()

    def todo(m: str) -> list[dict[str, Any]]:
        settings = {"model": m, "budget": seconds, "windows": windows, "picoseconds": picoseconds, "starts": starts}
        rows = [{**settings, "arm": a, "seed": s} for a in arms for s in seed]
        return [row for row in rows if _key(row) not in done]

    with ProcessPoolExecutor(processes, get_context("spawn"), _one_thread) as pool:
        for m in model:
            for begun in [pool.submit(train, study, m, "start", s) for s in seed]:  # the arms begin with it
                begun.result()
            futures = [pool.submit(_work, study, row, every_ps) for row in todo(m)]
            for future in as_completed(futures):
                row = future.result()
                with results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                typer.echo(f"{row['model']} {row['arm']} {row['seed']}: {_told(row)}")


@app.command()
def write(
    out: Folder = Path("study"),
    results: Annotated[Path, typer.Option(help="Markdown file to write; figures go beside it.")] = Path("RESULTS.md"),
    findings: Annotated[bool, typer.Option(help="With findings.md, for the rows in this repository.")] = False,
) -> None:
    """Write tables and figures of what there is. Of the rows in this repository: --out benchmarks/study --findings."""
    from benchmarks.study.write import write_results

    write_results(out / "results.jsonl", results, findings)


def _one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")


def _work(study: Study, row: dict[str, Any], every_ps: float) -> dict[str, Any]:
    """Train one arm and measure it."""
    folder = train(study, row["model"], row["arm"], row["seed"])
    row |= training(folder)
    if row["picoseconds"]:
        row["long_run"] = long_run(simulate(study, folder, row["picoseconds"], row["starts"], every_ps))
    return row


def _key(row: dict) -> tuple:
    return tuple(row[key] for key in ("model", "seed", "arm", "picoseconds", "starts"))


def _told(row: dict) -> str:
    told = f"along reference {row['along_reference']:.3f}"
    if "long_run" not in row:
        return told
    one = row["long_run"]
    return f"{told}, true error from 1 ps on {one['mean']:.3f} (median {one['median']:.3f}), {one['lost']:.0%} lost"
