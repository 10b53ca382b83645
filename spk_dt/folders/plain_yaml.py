"""YAML of others: plain data alone, and no more of them than a person writes.

`yaml.safe_load` runs no code, but what is a few lines long may unfold to gigabytes (anchors that repeat anchors) or nest
deeper than Python recurses. Neither has a use in the files that are read here, so both are refused before anything is built.
"""

from pathlib import Path
from typing import Any

import yaml

__all__ = ["plain_yaml", "refuse_what_is_not_plain"]

_LONGEST = 2**20  # characters
_DEEPEST = 40
_KINDS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map")}


def refuse_what_is_not_plain(file: Path) -> None:
    """Look at a YAML file before a library loads it, see `plain_yaml`."""
    if (size := file.stat().st_size) > _LONGEST:
        raise ValueError(f"'{file}' has {size} bytes, more than a config has.")
    name = f"'{file}'"
    try:
        _look(file.read_text(encoding="utf-8"), name)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} is not YAML ({' '.join(str(error).split())[:200]}).") from error


def plain_yaml(text: str, name: str) -> Any:
    """What a YAML text says: dictionaries, lists, strings, numbers, true, false and null.

    Args:
        text: the text.
        name: where it is from, for messages.

    Raises:
        ValueError: if it is not YAML, or has tags, anchors, or more than a person writes.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"{name} has {len(text)} characters, more than a config has.")
    try:
        _look(text, name)
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # an int of many digits, a date that is none
        if name in str(error):
            raise
        raise ValueError(f"{name} is not plain YAML ({' '.join(str(error).split())[:200]}).") from error


def _look(text: str, name: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        where = f"line {event.start_mark.line + 1} of {name}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ValueError(f"{where} has an anchor or alias (& or *); write its values out.")
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in _KINDS:
            raise ValueError(f"{where} has the tag '{tag}', which asks for an object; only plain data are read.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError(f"{where} is nested deeper than {_DEEPEST} levels.")
