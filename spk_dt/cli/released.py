"""The command for those who come from the code released with Dynamic Training."""

from pathlib import Path
from typing import Annotated

import typer

from spk_dt.cli.app import app


@app.command(no_args_is_help=True)
def from_dtegnn(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yml", help="Config of the released code.")],
    weights: Annotated[
        Path | None,
        typer.Argument(metavar="[WEIGHTS]", help="checkpoint-N.pth.tar, or a file with the weights alone."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the converted model, for all that takes a run.")
    ] = None,
) -> None:
    """Take over a config, and a trained model, of the code released with the paper (IZugec/DTEGNN).

    Prints the spktrain command with the same settings and says what has no counterpart. With weights it writes a model with
    the same energies and forces, which spkmd, evaluate, certify and fine-tuning take.
    """
    from spk_dt.training.released_settings import read_released_settings

    settings = read_released_settings(config)
    if weights is not None and out is None:
        raise ValueError("where shall the model go? Name a folder: --out converted")
    if weights is None and out is not None:
        raise ValueError("--out is for a model: give its weights behind the config, too.")
    if weights is not None and out is not None:
        from spk_dt.training.released_weights import convert_weights, read_released_weights, write_converted

        model = convert_weights(read_released_weights(weights), settings)
        file = write_converted(model, settings, out)
        typer.echo(
            f"{file}: the same energies and forces as the released model, and its limits: they jump where a pair crosses "
            f"{float(settings['cutoff']):g} Å, and the energy is not a sum over atoms, so it holds only for systems of "
            f"the size and composition that it was trained on; elements {', '.join(settings.elements)}.\n"
        )
    typer.echo("The same training here, but with a smooth cutoff and an energy of each atom:\n")
    command = ["spktrain experiment=dt_egnn_paper data=trajectory data.datapath=my_aimd.db", *settings.overrides]
    typer.echo(" \\\n    ".join(command))
    typer.echo("\nWithout an override:")
    for key, becomes in settings.left_out.items():
        typer.echo(f"  {key}: {becomes}")
