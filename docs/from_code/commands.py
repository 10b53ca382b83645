"""The command ``spkdt``, from its help texts."""

import re
from typing import Any

from typer.main import get_command

from spk_dt.cli import app

from .markdown import cell, escaped


def _paragraphs(text: str) -> list[str]:
    return [escaped(" ".join(one.split())) for one in re.split(r"\n\s*\n", text.strip())]


def _command(name: str, command: Any, context: Any) -> list[str]:
    lines = [f"## spkdt {name}", ""]
    for paragraph in _paragraphs(command.help or ""):
        lines += [paragraph, ""]
    arguments = [one for one in command.params if not one.opts[0].startswith("-")]
    options = [one for one in command.params if one.opts[0].startswith("-") and not getattr(one, "hidden", False)]
    words = " ".join(str(one.metavar or one.name.upper()) for one in arguments)
    lines += ["```text", f"spkdt {name} {'[OPTIONS] ' if options else ''}{words}".rstrip(), "```", ""]
    rows = []
    for one in (*arguments, *options):
        record = one.get_help_record(context)
        if record is None:
            continue
        shown = record[0] if one in options else str(one.metavar or one.name.upper())
        default = one.default
        plain = default is not None and not callable(default) and default not in ("", [], ()) and default is not False
        rows.append(f"| `{shown}` | {cell(one.help or '')} | {f'`{default}`' if plain and not one.required else ''} |")
    return [*lines, "| | | default |", "|---|---|---|", *rows, ""]


def page() -> str:
    """All commands, in the order of ``spkdt --help``."""
    program = get_command(app)
    context = program.make_context("spkdt", ["--help"], resilient_parsing=True)
    lines = ["# Command line", "", "Training is `spktrain`, simulation `spkmd`, with [these](settings_spktrain.md) and"]
    lines += [
        "[these](settings_spkmd.md) settings. All else is `spkdt`: 0 is the exit code of success, 1 of a refusal, whose"
    ]
    lines += ["message names what to do; `check` and `certify` say below what theirs are.", ""]
    for name, command in program.commands.items():
        lines += _command(name, command, context)
    return "\n".join(lines)


def pages() -> dict[str, str]:
    """The page of the command line."""
    return {"commands.md": page()}
