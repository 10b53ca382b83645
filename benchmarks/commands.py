"""The command line."""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks import loading, memory, report_page, scaling, simulation, training_step, validation
from benchmarks.models import MODELS
from benchmarks.settings import Settings, prepare

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _common(
    context: typer.Context,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="Threads of torch; with one, CPU time is measured.")] = 1,
    override: Annotated[
        list[str] | None, typer.Option(help="Hydra override of the training config; repeatable.")
    ] = None,
    reference: Annotated[Path | None, typer.Option(help="Clone of the code released with the paper.")] = None,
    quick: Annotated[bool, typer.Option(help="One round of everything.")] = False,
    repetitions: Annotated[int | None, typer.Option(help="Rounds of measurements.")] = None,
    systems: Annotated[int, typer.Option(help="Systems in a batch.")] = 8,
) -> None:
    """Time and memory, as Markdown tables.

    Contenders are measured in turn and compared by the ratio within each round: medians, with quartiles in brackets. The
    reference is the code released with the paper (github.com/IZugec/DTEGNN), which needs torch_geometric and pymatgen.
    """
    prepare(threads)
    context.obj = Settings(device, tuple(override or ()), reference, quick, repetitions, systems)


Lengths = Annotated[list[int], typer.Option("--length", help="S; repeatable.")]
Numbers = Annotated[list[int], typer.Option("--number", help="Systems side by side; repeatable.")]


@app.command("training-step", help=training_step.__doc__)
def _training_step(
    context: typer.Context,
    length: Lengths = [1, 5, 20],  # noqa: B006 - Typer's way
    model: Annotated[list[str], typer.Option(help="Of EGNN, PaiNN, SchNet; repeatable.")] = list(MODELS),  # noqa: B006
    mode: Annotated[list[str], typer.Option(help="Gradient mode; repeatable.")] = list(training_step.MODES),  # noqa: B006
    also: Annotated[list[str] | None, typer.Option(help="Overrides of one more EGNN; repeatable.")] = None,
) -> None:
    typer.echo(training_step.run(context.obj, length, model, mode, also or ()))


@app.command("validation", help=validation.__doc__)
def _validation(
    context: typer.Context,
    number: Numbers = [8, 32],  # noqa: B006
    steps: Annotated[int, typer.Option(help="Steps of a rollout.")] = 60,
) -> None:
    typer.echo(validation.run(context.obj, number, steps))


@app.command("md", help=simulation.__doc__)
def _md(
    context: typer.Context,
    number: Numbers = [1, 20, 100],  # noqa: B006
    steps: Annotated[int | None, typer.Option(help="Steps of a round.")] = None,
) -> None:
    typer.echo(simulation.run(context.obj, number, steps))


@app.command("scaling", help=scaling.__doc__)
def _scaling(
    context: typer.Context,
    atoms: Annotated[int, typer.Option(help="Largest number of atoms.")] = 10_000,
) -> None:
    typer.echo(scaling.run(context.obj, [(a, b) for a, b in scaling.REPEATS if 39 * a * b <= atoms]))


@app.command("memory", help=memory.__doc__)
def _memory(context: typer.Context, length: Lengths = [1, 5, 20]) -> None:  # noqa: B006
    typer.echo(memory.run(context.obj, length))


@app.command("loading", help=loading.__doc__)
def _loading(context: typer.Context, length: Lengths = [1, 20]) -> None:  # noqa: B006
    typer.echo(loading.run(context.obj, length))


@app.command("all", help=report_page.__doc__)
def _all(context: typer.Context, out: Annotated[Path, typer.Option(help="Markdown file to write.")]) -> None:
    report_page.run(context.obj, out)
