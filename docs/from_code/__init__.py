"""Pages of the documentation that are made of the code, by ``conf.py``, into ``docs/generated``."""

from pathlib import Path

from . import api, commands, keys, messages, settings, tutorials

FOLDER = Path(__file__).parents[1] / "generated"


def pages() -> dict[str, str]:
    """Name of each page below ``docs/generated`` and its text."""
    return {
        **api.pages(),
        **settings.pages(),
        **commands.pages(),
        **keys.pages(),
        **messages.pages(),
        **tutorials.pages(),
    }


def write() -> None:
    """Write all pages; those that have not changed are left alone, so that Sphinx does not read them again."""
    for name, text in pages().items():
        file = FOLDER / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
