"""Plain text as Markdown."""

import re

__all__ = ["cell", "escaped"]


def escaped(text: str) -> str:
    """Text in which nothing is markup."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return escaped(" ".join(text.split()))
