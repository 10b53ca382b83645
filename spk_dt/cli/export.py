"""The command that writes potentials for simulation engines."""

from pathlib import Path
from typing import Annotated

import typer

from spk_dt.cli.app import app


@app.command(no_args_is_help=True)
def export(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL... OUT.pt",
            help="Files 'best_model' of spktrain, or folders of runs; several are a committee. Then the file to write.",
        ),
    ],
    precision: Annotated[int, typer.Option(help="Bits of the numbers in the networks, 32 or 64.")] = 32,
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
    """Write a potential as one file that ASE, i-PI, LAMMPS, torch-sim and other engines run, by metatomic.

    The file has energies in eV and lengths in Å, which engines convert. Energies are summed in double precision. A committee
    also gives 'energy_ensemble' and 'energy_uncertainty'. Needs: pip install 'spk_dt[export]'.
    """
    try:
        from spk_dt.export.write import About, export_model
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("metatomic", "metatensor"):
            raise
        raise ImportError(f"spkdt export needs metatomic ({error}): pip install 'spk_dt[export]'") from error

    if len(models) < 2:
        raise ValueError("name at least one model, and then the file to write: spkdt export runs/x potential.pt")
    about = About(name, author or (), description, certificate or ())
    symbols = [symbol.strip() for symbol in elements.split(",") if symbol.strip()]
    metadata = export_model(models[:-1], models[-1], precision, energy_unit, position_unit, symbols, about)
    typer.echo(str(metadata))
    typer.echo(models[-1])
