"""The commands that bring models to simulation engines."""

from pathlib import Path
from typing import Annotated

import typer

from spk_dt.cli.app import app


@app.command(no_args_is_help=True)
def export(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL... OUT",
            help="Files 'best_model' of spktrain, or folders of runs; several are a committee. Then the file to write, .pt "
            "for engines, or .safetensors.",
        ),
    ],
    precision: Annotated[
        int | None, typer.Option(help="Bits of the numbers in the networks of a file for engines, 32 (default) or 64.")
    ] = None,
    energy_unit: Annotated[
        str | None,
        typer.Option(help="Unit of the models' energies; without it, that of the config.yaml of their runs."),
    ] = None,
    position_unit: Annotated[str | None, typer.Option(help="Unit of length of the models, likewise.")] = None,
    elements: Annotated[
        str,
        typer.Option(
            metavar="H,C,...", help="Elements that it may be used for; without it, those of the training data."
        ),
    ] = "",
    name: Annotated[str, typer.Option(help="Of the potential; without it, that of the run folder.")] = "",
    author: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    description: Annotated[str, typer.Option(help="In words.")] = "",
    certificate: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Folder of spkdt certify; may be repeated.")
    ] = None,
) -> None:
    """Write a potential as one file, for engines (.pt) or for others who use spk_dt (.safetensors).

    OUT.pt is run by ASE, i-PI, LAMMPS, torch-sim and other engines, by metatomic. It has energies in eV and lengths in Å,
    which engines convert. Energies are summed in double precision. A committee also gives 'energy_ensemble' and
    'energy_uncertainty'. Needs the extra 'export' of spk_dt.

    OUT.safetensors holds one model, with its units, elements, time step and certificates. Unlike 'best_model' it runs no
    code when it is loaded, and gives the same numbers to the last bit; all commands take it where they take a model.
    """
    if len(models) < 2:
        raise ValueError("name at least one model, and then the file to write: spkdt export runs/x potential.pt")
    from spk_dt.export.stored import About

    symbols = _symbols(elements)
    told = About(name, author or (), description, certificate or ())
    if models[-1].endswith(".safetensors"):
        from spk_dt.export.plain import export_plain

        if len(models) > 2 or precision is not None:
            raise ValueError(
                f"'{models[-1]}' holds one model with its numbers as they are; a committee, or another precision, is for "
                f"engines: {models[-1].removesuffix('.safetensors')}.pt"
            )
        export_plain(models[0], models[-1], energy_unit, position_unit, symbols, told)
        typer.echo(models[-1])
        return
    try:
        from spk_dt.export.write import export_model
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("metatomic", "metatensor"):
            raise
        raise ImportError(f"spkdt export needs metatomic ({error}): pip install 'spk_dt[export]'") from error

    metadata = export_model(models[:-1], models[-1], precision or 32, energy_unit, position_unit, symbols, told)
    typer.echo(str(metadata))
    typer.echo(models[-1])


@app.command(no_args_is_help=True)
def about(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="Model, checkpoint, trajectory database, certificate, or folder of a run."),
    ],
) -> None:
    """Say what a file holds: units, elements, time step, certificates. Nothing of the file is run."""
    from spk_dt.export.about import about as tell

    typer.echo(tell(file), nl=False)


@app.command(no_args_is_help=True)
def deploy(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="File 'best_model' of spktrain, or the folder of its run.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write.")],
    types: Annotated[
        str,
        typer.Option(
            metavar="H,C,...",
            help="Element of each atom type of the input, in order; without it, those of the training data by number.",
        ),
    ] = "",
    units: Annotated[str, typer.Option(help="Of the input, 'metal' or 'real'.")] = "metal",
    precision: Annotated[int, typer.Option(help="Bits of the numbers in the networks, 32 or 64.")] = 32,
    energy_unit: Annotated[
        str | None, typer.Option(help="Unit of the model's energies; without it, that of the config.yaml of its run.")
    ] = None,
    position_unit: Annotated[str | None, typer.Option(help="Unit of length of the model, likewise.")] = None,
) -> None:
    """Write a model for 'pair_style schnetpack', and print the lines of the LAMMPS input.

    That pair style has to be compiled, runs in one process and has no virial; 'spkdt lammps' and 'spkdt export' do more. The
    offsets of the energy are left out, and shown.
    """
    from spk_dt.export.deploy import deploy_model

    typer.echo(deploy_model(model, out, _symbols(types), units, precision, energy_unit, position_unit).input_lines())


@app.command(no_args_is_help=True)
def lammps(
    script: Annotated[Path, typer.Argument(metavar="IN", help="Input of LAMMPS, without a pair style.")],
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="File 'best_model' of spktrain, or the folder of its run.")
    ],
    types: Annotated[str, typer.Option(metavar="H,C,...", help="Element of each atom type of the input, in order.")],
    precision: Annotated[int, typer.Option(help="Bits of the numbers in the model, 32 or 64.")] = 64,
    compile: Annotated[bool, typer.Option("--compile/--no-compile", help="Compile the model.")] = True,
    var: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Variable of the input; may be repeated.")
    ] = None,
    log: Annotated[Path, typer.Option(metavar="FILE", help="Log of LAMMPS.")] = Path("log.lammps"),
    energy_unit: Annotated[
        str | None, typer.Option(help="Unit of the model's energies; without it, that of the config.yaml of its run.")
    ] = None,
    position_unit: Annotated[str | None, typer.Option(help="Unit of length of the model, likewise.")] = None,
) -> None:
    """Run an input of LAMMPS with a stored model, in one process; nothing has to be compiled or exported.

    Energy, forces and virial go to LAMMPS by 'fix external', before the first fix or run of the input. Units metal or
    real. Needs the extra 'lammps' of spk_dt.
    """
    from spk_dt.export.lammps import run_lammps

    given = [one.partition("=") for one in var or ()]
    if wrong := [name for name, equal, _ in given if not (name and equal)]:
        raise ValueError(f"--var {wrong[0]}: write it as --var NAME=VALUE.")
    variables = {name: value for name, _, value in given}
    run_lammps(script, model, _symbols(types), precision, compile, variables, log, energy_unit, position_unit).close()
    typer.echo(f"{log}")


def _symbols(text: str) -> list[str]:
    return [symbol.strip() for symbol in text.split(",") if symbol.strip()]
