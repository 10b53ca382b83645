"""``spkdt`` itself: how its commands are run, and how they tell users what is wrong."""

import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from spk_dt.foreign_warnings import silence
from spk_dt.labels.pools import POOL_HELP

__all__ = ["USER_ERRORS", "Pool", "Scratch", "TimeLimit", "app"]

#: what library functions raise for a wrong input, with a message that names the remedy
USER_ERRORS = (ValueError, FileNotFoundError, FileExistsError, ImportError)

#: options of all commands that run the reference method
Scratch = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where each reference calculation has a folder of its own, kept if it fails; without it, that for temporary "
        "files (TMPDIR).",
    ),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help="End a reference calculation, with its programs, that takes longer; it is tried twice."
    ),
]
Pool = Annotated[
    str, typer.Option(metavar="POOL", help=f"Where the processes of the reference method run: {POOL_HELP}")
]


#: panels of ``spkdt --help`` and their commands, in the order of the work
ORDER = {
    "Data": ("convert", "check", "generate", "from-dtegnn"),
    "Training (spktrain) and molecular dynamics (spkmd)": ("plot", "gather", "frames"),
    "How good is the potential?": ("evaluate", "relabel", "certify", "report"),
    "Other engines": ("export", "about", "lammps", "deploy"),
}


class _Commands(typer.core.TyperGroup):
    """Commands whose user errors are one line on stderr and exit code 1, without a traceback."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands in the order of the work."""
        order = [name for names in ORDER.values() for name in names]
        return sorted(super().list_commands(ctx), key=lambda name: order.index(name) if name in order else len(order))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command, which knows its panel of the help."""
        command = super().get_command(ctx, cmd_name)
        panel = next((panel for panel, names in ORDER.items() if cmd_name in names), None)
        if command is not None and panel is not None:
            command.rich_help_panel = panel  # type: ignore[attr-defined]  # of typer's commands
        return command

    def invoke(self, ctx: Any) -> Any:
        """Run the command named on the command line."""
        with warnings.catch_warnings():
            silence()
            try:
                return super().invoke(ctx)
            except USER_ERRORS as error:
                typer.echo(f"spkdt: {error}", err=True)
                raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Commands,
    help="Dynamic Training of machine-learning interatomic potentials. In the order of the work: spkdt convert and check; "
    "spktrain experiment=dt_egnn; spkdt frames and spkmd; spkdt evaluate and certify; spkdt export.",
    no_args_is_help=True,
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
