"""The command that looks at many runs at once."""

from pathlib import Path
from typing import Annotated, Any

import typer

from spk_dt.cli.app import app


@app.command()
def gather(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of runs of spktrain, or with runs in them, as of a sweep."),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="TABLE.csv", help="Write the table as CSV, too; nothing is overwritten.")
    ] = None,
    certificate: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder that spkdt certify has written; may be repeated. Those in the runs are found.",
        ),
    ] = None,
) -> None:
    """Gather runs into a table: settings that differ, best validation error, S, epochs, seconds, certificate.

    Seconds are those of callbacks.budget, else of the clock. A run that is broken, or has not ended, is listed as such.
    """
    from spk_dt.evaluation.gather import gather as look
    from spk_dt.evaluation.gather import table_of, write_table

    columns, rows = table_of(look(runs, certificate or ()))
    if out is not None:
        write_table(out, columns, rows)
    _show(columns, rows)
    if out is not None:
        typer.echo(f"{out}")


def _show(columns: list[str], rows: list[list[Any]]) -> None:
    """Print a table, as wide as it has to be where there is no terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("-" if one is None else f"{one:.5g}" if isinstance(one, float) else str(one) for one in row))
    console = Console()
    if not console.is_terminal:
        widest = (max(len(str(cell)) for cell in column) for column in zip(columns, *rows, strict=True))
        console = Console(width=max(console.width, sum(widest) + 4 * len(columns)))
    console.print(table)
