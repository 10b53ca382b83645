"""Commands that look at models: training curves, simulations, reports."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spk_dt.cli.app import Pool, Scratch, TimeLimit, app
from spk_dt.cli.browser import open_in_browser
from spk_dt.cli.made_elsewhere import refuse_without_effect, tell
from spk_dt.cli.progress import progress_bar
from spk_dt.cli.reading import OfFiles, stating

if TYPE_CHECKING:
    from spk_dt.trajectories.inputs import Reading


AnotherReference = Annotated[
    bool, typer.Option("--another-reference", help="Take a CALCULATOR that is not the method of the data.")
]


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
@stating(OfFiles)
def evaluate(
    ctx: typer.Context,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA.db", help="Trajectory database, or the word 'embedded' for the data that come along."
        ),
    ],
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]MODEL_OR_TRAJECTORY...",
            help="Files 'best_model' of spktrain, or folders of runs; or trajectories of other programs.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write; it must not exist, or be empty.")],
    reading: "Reading",
    steps: Annotated[int, typer.Option(min=1, help="Steps of each simulation.")] = 300,
    split: Annotated[
        str | None,
        typer.Option(
            help="Partition to take trajectories from, of DATA.db or of the models' runs: test unless another is named; "
            "'all' takes all."
        ),
    ] = None,
    number: Annotated[int | None, typer.Option(min=1, help="Number of trajectories; without it, all.")] = None,
    starts_per_trajectory: Annotated[
        int, typer.Option(min=1, help="Start frames of each trajectory, evenly spaced; one is its first frame.")
    ] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    energy_unit: Annotated[str, typer.Option(help="Unit of the models' energies, for example 'kcal / mol'.")] = "eV",
    position_unit: Annotated[str, typer.Option(help="Unit of length of the models, for example 'Bohr'.")] = "Angstrom",
    every: Annotated[int, typer.Option(min=1, help="Keep every so many steps; for long simulations.")] = 1,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="Of a Langevin thermostat, in K; without it the energy is constant. Trajectories: of their thermostat."
        ),
    ] = None,
    friction: Annotated[float, typer.Option(help="Of the thermostat, in 1/fs.")] = 0.01,
    seed: Annotated[int, typer.Option(help="Of the random forces of the thermostat.")] = 0,
    precision: Annotated[
        int, typer.Option(help="Bits of the numbers in simulations: 64, or 32 for half the time.")
    ] = 64,
    compile: Annotated[bool, typer.Option("--compile", help="Compile the models; for long simulations.")] = False,
    tolerance: Annotated[float, typer.Option(help="Deviation at which a bond counts as broken, in Å.")] = 0.5,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="CALCULATOR", help="Relabel visited geometries: tblite:METHOD, or package.module:Class (ASE)."
        ),
    ] = None,
    relabel_every: Annotated[int, typer.Option(min=1, help="Relabel every so many steps.")] = 50,
    processes: Annotated[int, typer.Option(min=1, help="Processes that relabel.")] = 1,
    another_reference: AnotherReference = False,
    scratch: Scratch = None,
    time_limit: TimeLimit = None,
    pool: Pool = "processes",
) -> None:
    """Simulate from frames of the data with each model, and compare; or judge trajectories that were made elsewhere.

    Works for every SchNetPack model. Writes the simulations (HDF5), the force error along the trajectories and, with
    --reference, at the visited geometries (CSV), metrics.json and figures to DIR. `spkdt report DIR` makes a page of it.

    Trajectories of LAMMPS, i-PI, ASE, spkmd and all else that `spkdt convert` reads are judged by the same figures, as far
    as their files have energies, forces and velocities; what is not known is said. What files leave open is stated as for
    `spkdt convert`. A NAME may be given several times; models and trajectories are evaluated apart.
    """
    from spk_dt.evaluation.evaluate import evaluate as run
    from spk_dt.evaluation.evaluate_trajectories import evaluate_trajectories
    from spk_dt.evaluation.named_models import named_inputs
    from spk_dt.evaluation.reference import ByReference
    from spk_dt.evaluation.simulate import Protocol

    named, trajectories = named_inputs(models)
    refuse_without_effect(ctx, bool(trajectories))
    if reference is not None:
        from spk_dt.labels.pools import check_pool
        from spk_dt.labels.reference_process import reference_provenance

        check_pool(pool)
        reference_provenance(reference, scratch, time_limit)  # a wrong name shall not wait for the simulations
    by = ByReference(reference=reference, another_reference=another_reference, scratch=scratch, time_limit=time_limit)
    if trajectories:
        judged = (data, trajectories, out, reading, split, number, temperature, tolerance, sys.argv)
        tell(evaluate_trajectories(*judged, **by), out)
    else:
        with progress_bar() as progress:
            metrics = run(
                data=data,
                models=named,
                out=out,
                protocol=Protocol(steps, every, temperature, friction, seed, device, precision, compile),
                split=split,
                number=number,
                starts_per_trajectory=starts_per_trajectory,
                energy_unit=energy_unit,
                position_unit=position_unit,
                tolerance=tolerance,
                command=sys.argv,
                progress=progress,
                **by,
            )
        _tell_of_models(metrics, "along the reference" if temperature is None else "at the start frames")
    if reference is not None:
        relabel(out, reference, relabel_every, processes, another_reference, scratch, time_limit, pool)
    _draw(out)
    typer.echo(f"{out}")


def _tell_of_models(metrics: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """What was found of models, in lines; `where` forces were compared."""
    for name, one in metrics.items():
        errors = ", ".join(
            f"{element} {error:.4f}" for element, error in one["along_reference"]["mean_over_steps"].items()
        )
        exploded = f"; {len(one['exploded'])} exploded and are left out from then on" if one["exploded"] else ""
        typer.echo(f"{name}: force error {where} {errors} eV/Å{exploded}")
        if "stress" in one:
            stress = one["stress"]
            typer.echo(
                f"{name}: stress error at {stress['n_frames']} frames of the data {stress['mae_gpa']:.3f} GPa, of "
                f"{stress['mean_absolute_gpa']:.3f} GPa; the mean pressure is off by "
                f"{stress['mean_pressure_error_gpa']:+.3f} GPa"
            )


@app.command()
def relabel(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that spkdt evaluate has written.")],
    reference: Annotated[
        str, typer.Option(metavar="CALCULATOR", help="tblite:METHOD, or package.module:Class of an ASE calculator.")
    ],
    every: Annotated[int, typer.Option(min=1, help="Relabel every so many steps.")] = 50,
    processes: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 1,
    another_reference: AnotherReference = False,
    scratch: Scratch = None,
    time_limit: TimeLimit = None,
    pool: Pool = "processes",
) -> None:
    """Compute the true errors of forces and energies: the reference method at the geometries that the models have visited.

    If it is interrupted, the same command continues. `spkdt evaluate --reference` does this at its end.
    """
    from spk_dt.evaluation.tables import format_number
    from spk_dt.evaluation.true_error import true_errors
    from spk_dt.folders.hold import LOCK, hold

    busy = f"is at work in '{directory}'; wait for it."
    with hold(directory / LOCK, busy), progress_bar() as show:
        found = true_errors(directory, reference, every, processes, show, another_reference, scratch, time_limit, pool)
    for name, one in found.items():
        if "reason" in one:
            typer.echo(f"{name}: no true error: {one['reason']}")
            continue
        errors = ", ".join(f"{element} {error:.4f}" for element, error in one["mean_over_time"].items())
        failures = list(one["labels"]["failures"].values())
        failed = f"; {len(failures)} could not be relabelled, the first: {failures[0]}" if failures else ""
        energy = ", at most ".join(map(format_number, one["energy"].values()))
        forces = f"forces {errors} eV/Å" if errors else "forces not known"
        typer.echo(f"{name}: true error at visited geometries: {forces}, energy {energy} meV/atom{failed}")
    typer.echo("reference: " + next(iter(found.values()))["reference_check"]["message"])
    _draw(directory)


@app.command()
def report(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder that spkdt evaluate or spkdt certify has written.")
    ],
    certificate: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder that spkdt certify has written; may be repeated. Those in DIR called certificate* are found.",
        ),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Show the page in a browser.")] = False,
) -> None:
    """Make one page of an evaluation, of certificates, or of both: how long the models last, tables, figures, trajectories.

    Certificates and survival stand first. The page needs no network.
    """
    from spk_dt.evaluation.report import write_report

    page = write_report(directory, certificate or ())
    typer.echo(f"{page}")
    if open_page and not open_in_browser(page):
        typer.echo("spkdt: no browser could be started here; copy the page to where there is one.", err=True)


def _draw(directory: Path) -> None:
    """Figures of an evaluation, as files."""
    from spk_dt.evaluation.report_figures import write_figures
    from spk_dt.evaluation.results import read_results

    write_figures(read_results(directory))
