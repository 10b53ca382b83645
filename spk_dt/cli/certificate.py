"""The command that certifies potentials."""

from pathlib import Path
from typing import Annotated

import typer

from spk_dt.cli.app import Pool, Scratch, TimeLimit, app

_OF_COMMITTEE = ("largest", "largest_of_right_states", "smallest_of_wrong_states")

#: exit code if simulations have failed; 1 is an error, 2 a wrong command line
FAILED = 3


@app.command(no_args_is_help=True)
def certify(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]MODEL... DATA",
            help="Files 'best_model' of spktrain, or folders of runs, or ase:package.module:Class for an ASE calculator; "
            "then the trajectory database, or the word 'embedded'.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write; the same command goes on there.")],
    reference: Annotated[
        str,
        typer.Option(
            metavar="CALCULATOR",
            help="Reference of the data: tblite:METHOD, or package.module:Class (ASE); 'data': the one that they name.",
        ),
    ] = "data",
    another_reference: Annotated[
        bool,
        typer.Option("--another-reference", help="The reference is on purpose another method than that of the data."),
    ] = False,
    time: Annotated[float, typer.Option(help="Length of each simulation, in ps.")] = 100.0,
    number: Annotated[int, typer.Option(min=1, help="Simulations of each model.")] = 20,
    temperature: Annotated[
        float | None, typer.Option(help="Of a Langevin thermostat, in K; without it the energy is constant.")
    ] = None,
    heat_to: Annotated[
        float | None,
        typer.Option(help="Heat from --temperature to this one, in K: at which do simulations fail first?"),
    ] = None,
    friction: Annotated[float, typer.Option(help="Of the thermostat, in 1/fs.")] = 0.01,
    time_step: Annotated[float | None, typer.Option(help="In fs; without it that of the data.")] = None,
    states: Annotated[
        int, typer.Option(min=1, help="States of each simulation that are kept and can be judged.")
    ] = 100,
    seed: Annotated[int, typer.Option(help="Of the random forces of the thermostat.")] = 0,
    energy_limit: Annotated[
        float, typer.Option(help="Limit of the error of the energy, in thermal fluctuations of the potential energy.")
    ] = 3.0,
    force_limit: Annotated[
        float, typer.Option(help="Limit of the error of the force on an atom, in thermal forces on its element.")
    ] = 2.0,
    committee: Annotated[
        bool,
        typer.Option(
            "--committee", help="Certify the mean of the models as one, as spkdt export puts them in one file."
        ),
    ] = False,
    uncertainty_limit: Annotated[
        float | None,
        typer.Option(
            metavar="EV_PER_ANG",
            help="With --committee: a simulation fails where the force on an atom has a larger standard deviation over the "
            "models, in eV/Å.",
        ),
    ] = None,
    checks: Annotated[
        int,
        typer.Option(
            min=0,
            help="States of each simulation that are judged beside end, closest contact, largest force, newest environment.",
        ),
    ] = 4,
    split: Annotated[
        str | None, typer.Option(help="Partition of the start frames; test unless another is named.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes that simulate and that run the reference.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Simulations side by side in a process.")] = 10,
    precision: Annotated[int, typer.Option(help="Bits of the numbers in simulations, 32 or 64.")] = 32,
    compile: Annotated[bool, typer.Option("--compile/--no-compile", help="Compile the models.")] = True,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    scratch: Scratch = None,
    time_limit: TimeLimit = None,
    pool: Pool = "processes",
    energy_unit: Annotated[str, typer.Option(help="Unit of the models' energies, for example 'kcal / mol'.")] = "eV",
    position_unit: Annotated[str, typer.Option(help="Unit of length of the models, for example 'Bohr'.")] = "Angstrom",
) -> None:
    """Simulate with each model from frames it has not seen, and let the reference method judge where simulations go wrong.

    The reference method computes the end of each simulation, its closest contact, its largest force, the state that is
    newest to the model, and some states between; from a wrong state the first wrong one is found by bisection. Writes
    certificate.json, a figure of the survival, the first wrong state of each failure, and the simulations to DIR. An
    interrupted command is continued by the same one.

    With --committee, several models simulate as one, by their mean. How far their forces on an atom differ is the
    uncertainty of a state; the most uncertain state is judged, too, and what it was in right and wrong states is told.

    Exit code: 0 if no simulation fails, 3 if one does.
    """
    from spk_dt.certificate.certify import Computing
    from spk_dt.certificate.certify import certify as run
    from spk_dt.certificate.conditions import Conditions
    from spk_dt.certificate.criteria import Criteria
    from spk_dt.cli.progress import progress_bar
    from spk_dt.evaluation.certificate_figure import draw_certificate

    if len(models) < 2:
        raise ValueError("name at least one model, and then the data: spkdt certify MODEL DATA.db, or MODEL embedded.")
    with progress_bar() as progress:
        found = run(
            models=_named(models[:-1]),
            data=models[-1],
            out=out,
            reference=reference,
            number=number,
            conditions=Conditions(time, states, temperature, heat_to, friction, time_step, seed),
            criteria=Criteria(energy_limit, force_limit, checks, uncertainty_limit),
            computing=Computing(processes, batch, precision, compile, device, scratch, time_limit, pool),
            split=split,
            energy_unit=energy_unit,
            position_unit=position_unit,
            another_reference=another_reference,
            progress=progress,
            committee=committee,
        )
    draw_certificate(out)
    for name, one in found.items():
        typer.echo(f"{name}: {one['statement']} ({one['labels']} reference calculations)")
        if "committee" in one:
            values = {key: one["committee"][key] for key in _OF_COMMITTEE}
            shown = {key: "none" if value is None else f"{value:.3g} eV/Å" for key, value in values.items()}
            typer.echo(
                f"{name}: uncertainty at most {shown['largest']}; of states that the reference method calls right at "
                f"most {shown['largest_of_right_states']}, of wrong ones at least {shown['smallest_of_wrong_states']}"
            )
    typer.echo(f"{out}")
    if any(one["failures"] for one in found.values()):
        raise typer.Exit(FAILED)


def _named(arguments: list[str]) -> dict[str, str | Path]:
    """Models by name, and calculators in place of models, whose name is that of the class if none is given."""
    from spk_dt.certificate.certify import ASE_PREFIX
    from spk_dt.evaluation.named_models import named_models

    found: dict[str, str | Path] = {}
    for argument in arguments:
        name, _, spec = argument.rpartition("=")
        if spec.startswith(ASE_PREFIX):
            name = name or spec.rpartition(":")[2]
            one: dict[str, str | Path] = {name: spec}
        else:
            one = dict(named_models([argument]))
        if name in found:
            raise ValueError(f"two models are called '{name}': {found[name]} and {spec}. Give names: {name}_2={spec}.")
        found |= one
    return found
