"""The command ``spkdt``. Commands import what they need when they run, so that ``spkdt --help`` answers at once.

A new command is a function below ``@app.command()``; what its user did wrong it says by raising one of `USER_ERRORS`.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

if TYPE_CHECKING:
    from spk_dt.data.generate import Progress

__all__ = ["USER_ERRORS", "app"]

#: what library functions raise for a wrong input, with a message that names the remedy
USER_ERRORS = (ValueError, FileNotFoundError, FileExistsError, ImportError)


class _Commands(typer.core.TyperGroup):
    """Commands whose user errors are one line on stderr and exit code 1, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command named on the command line."""
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")  # importing SchNetPack says so
        try:
            return super().invoke(ctx)
        except USER_ERRORS as error:
            typer.echo(f"spkdt: {error}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Commands,
    help="Dynamic Training of machine-learning interatomic potentials: trajectories and evaluation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"spk_dt {version('spk_dt')}")
        raise typer.Exit()


@app.callback()
def main(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of ``spkdt`` itself; training is ``spktrain``, simulation ``spkmd``."""


@app.command()
def generate(
    out: Annotated[Path, typer.Argument(metavar="OUT.db", help="Database to create; nothing is overwritten.")],
    trajectories: Annotated[int, typer.Option(min=1, help="Number of trajectories.")] = 19,
    steps: Annotated[int, typer.Option(min=1, help="Steps of 0.5 fs of each trajectory.")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 0,
    reference: Annotated[
        str, typer.Option(help="tblite:METHOD, or package.module:Class of an ASE calculator.")
    ] = "tblite:GFN1-xTB",
) -> None:
    """Make trajectories of H2 on Pd6/graphene, like those that come with the package.

    Takes about an hour on one CPU core with the defaults. If it is interrupted, the same command continues.
    """
    from spk_dt.data.generate import Recipe
    from spk_dt.data.generate import generate as run

    with _trajectory_bars(trajectories) as progress:
        folder = run(out, Recipe(steps=steps), trajectories, seed, reference, progress)
    typer.echo(f"{out}: {trajectories} trajectories of {steps + 1} frames. The folder {folder} is no longer needed.")


@app.command()
def frames(
    out: Annotated[Path, typer.Argument(metavar="OUT.extxyz", help="File to write; .traj keeps all digits.")],
    data: Annotated[
        Path | None, typer.Option(metavar="DATA.db", help="Trajectory database; without it, the embedded data.")
    ] = None,
    split: Annotated[str, typer.Option(help="Partition to take trajectories from.")] = "test",
    number: Annotated[int | None, typer.Option(min=1, help="Number of trajectories; without it, all.")] = None,
    frame: Annotated[int, typer.Option(min=0, help="Which frame of each trajectory.")] = 0,
) -> None:
    """Write frames with velocities, for simulations that start where the trajectories do.

    spkmd system.molecule_file=OUT.extxyz system/initializer=frames ...
    """
    if out.suffix not in (".extxyz", ".xyz", ".traj"):
        raise ValueError(f"'{out}': write .extxyz or .traj; other formats may not keep velocities.")
    if out.exists():
        raise FileExistsError(f"'{out}' exists. Remove it or choose another name.")
    import ase.io

    from spk_dt.data.embedded import unpack
    from spk_dt.data.start_frames import start_frames

    with TemporaryDirectory() as folder:
        if data is None:
            data = Path(folder) / "h2_pd6_graphene.db"
            unpack(data)
        found = start_frames(data, split, number, frame)
    out.parent.mkdir(parents=True, exist_ok=True)
    ase.io.write(out, found, format="traj" if out.suffix == ".traj" else "extxyz")
    typer.echo(f"{out}: frame {frame} of {', '.join(atoms.info['trajectory'] for atoms in found)}")


@app.command()
def plot(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run of spktrain.")],
    out: Annotated[
        Path | None, typer.Option(metavar="NAME", help="Name without ending; without it, RUN/validation.")
    ] = None,
) -> None:
    """Draw the validation error of a training run against the epoch, with the stages of the curriculum marked.

    Writes NAME.png and NAME.pdf, and prints the error at the end of each stage. Drawing again replaces the figure.
    """
    from spk_dt.evaluation.training_curve import plot_training_curve, read_training_curve

    curve = read_training_curve(run)
    out = run / "validation" if out is None else out
    figure = plot_training_curve(curve)
    for suffix in (".png", ".pdf"):
        figure.savefig(out.with_name(out.name + suffix), dpi=200)
    for length, epoch, error in curve.stages():
        typer.echo(f"S = {length}: validation error {error:.4f} after epoch {epoch}")
    typer.echo(f"best: {curve.error.min():.4f} in epoch {curve.epochs[curve.error.argmin()]}")
    typer.echo(f"{out.with_name(out.name + '.png')}, {out.with_name(out.name + '.pdf')}")


@app.command()
def evaluate(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA.db", help="Trajectory database, or the word 'embedded' for the data that come along."
        ),
    ],
    models: Annotated[
        list[str], typer.Argument(metavar="[NAME=]MODEL...", help="Files 'best_model' of spktrain, or folders of runs.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write; it must not exist, or be empty.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of each simulation.")] = 300,
    split: Annotated[str, typer.Option(help="Partition to take trajectories from.")] = "test",
    number: Annotated[int | None, typer.Option(min=1, help="Number of trajectories; without it, all.")] = None,
    starts_per_trajectory: Annotated[
        int, typer.Option(min=1, help="Start frames of each trajectory, evenly spaced; one is its first frame.")
    ] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    energy_unit: Annotated[str, typer.Option(help="Unit of the models' energies, for example 'kcal / mol'.")] = "eV",
    position_unit: Annotated[str, typer.Option(help="Unit of length of the models, for example 'Bohr'.")] = "Angstrom",
    every: Annotated[int, typer.Option(min=1, help="Keep every so many steps; for long simulations.")] = 1,
    tolerance: Annotated[float, typer.Option(help="Deviation at which a bond counts as broken, in Å.")] = 0.5,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="CALCULATOR", help="Relabel visited geometries: tblite:METHOD, or package.module:Class (ASE)."
        ),
    ] = None,
    relabel_every: Annotated[int, typer.Option(min=1, help="Relabel every so many steps.")] = 50,
    processes: Annotated[int, typer.Option(min=1, help="Processes that relabel.")] = 1,
) -> None:
    """Simulate from frames of the data with each model, and compare with the trajectories.

    Works for every SchNetPack model. Writes the simulations (HDF5), the force error along the trajectories and, with
    --reference, at the visited geometries (CSV), metrics.json and figures to DIR. `spkdt report DIR` makes a page of it.
    """
    from spk_dt.evaluation.evaluate import evaluate as run
    from spk_dt.evaluation.evaluate import named_models

    if reference is not None:
        from spk_dt.data.reference import reference_calculator

        reference_calculator(reference)  # a wrong name shall not wait for the simulations
    metrics = run(
        data=data,
        models=named_models(models),
        out=out,
        steps=steps,
        split=split,
        number=number,
        starts_per_trajectory=starts_per_trajectory,
        device=device,
        energy_unit=energy_unit,
        position_unit=position_unit,
        every=every,
        tolerance=tolerance,
        command=sys.argv,
        progress=sys.stderr.isatty(),
    )
    for name, one in metrics.items():
        errors = ", ".join(
            f"{element} {error:.4f}" for element, error in one["along_reference"]["mean_over_steps"].items()
        )
        exploded = f"; {len(one['exploded'])} exploded" if one["exploded"] else ""
        typer.echo(f"{name}: force error along the reference {errors} eV/Å{exploded}")
    if reference is not None:
        relabel(out, reference, relabel_every, processes)
    _draw(out)
    typer.echo(f"{out}")


@app.command()
def relabel(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that spkdt evaluate has written.")],
    reference: Annotated[
        str, typer.Option(metavar="CALCULATOR", help="tblite:METHOD, or package.module:Class of an ASE calculator.")
    ],
    every: Annotated[int, typer.Option(min=1, help="Relabel every so many steps.")] = 50,
    processes: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 1,
) -> None:
    """Compute the true force error: the reference method at the geometries that the models have visited.

    If it is interrupted, the same command continues. `spkdt evaluate --reference` does this at its end.
    """
    from rich.console import Console
    from rich.progress import Progress as Bars

    from spk_dt.evaluation.true_error import true_errors

    with Bars(console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def show(model: str, done: int, total: int) -> None:
            if model not in tasks:
                tasks[model] = bars.add_task(f"relabelling {model}", total=total)
            bars.update(tasks[model], completed=done)

        found = true_errors(directory, reference, every, processes, show)
    for name, one in found.items():
        errors = ", ".join(f"{element} {error:.4f}" for element, error in one["mean_over_time"].items())
        failed = f"; {one['labels']['n_failed']} could not be relabelled" if one["labels"]["n_failed"] else ""
        typer.echo(f"{name}: true force error at visited geometries {errors} eV/Å{failed}")
    _draw(directory)


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that spkdt evaluate has written.")],
) -> None:
    """Make one page of an evaluation: figures, tables, settings, and trajectories to turn and play. Needs no network."""
    from spk_dt.evaluation.report import write_report

    typer.echo(f"{write_report(directory)}")


def _draw(directory: Path) -> None:
    """Figures of an evaluation, as files."""
    from spk_dt.evaluation.report import write_figures
    from spk_dt.evaluation.results import read_results

    write_figures(read_results(directory))


@contextmanager
def _trajectory_bars(total: int) -> "Iterator[Progress]":
    """Progress bars over trajectories, and over the steps of what is being made."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:>12}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeRemainingColumn(),
    )
    bars = Progress(*columns, console=Console(stderr=True))
    trajectories = bars.add_task("trajectories", total=total)
    piece = bars.add_task("", total=1)

    def show(name: str, done: int, steps: int) -> None:
        bars.start()  # once; not before there is something to show, so that an error stands alone
        bars.update(piece, description=name, completed=done, total=steps)
        if name.startswith("traj_"):
            bars.update(trajectories, completed=int(name.removeprefix("traj_")) - 1 + done / steps)

    try:
        yield show
    finally:
        if bars.live.is_started:
            bars.stop()
