"""What comments of configs offer: values of the key beside them, overrides, and names in backticks."""

import re
from pathlib import Path

_VALUE = r"[\w./:{}<>-]+"
_LIST = re.compile(rf"(?:(?:also|or|scheme|of the data|molecule): |or: )?({_VALUE}(?:(?:, or |, | or ){_VALUE})+)$")


def offers(file: Path) -> set[tuple[str, str]]:
    """Pairs of a key, empty for a comment of its own line, and what its comment offers.

    That is ``null``, ``true`` or ``false``; what follows ``or:``, ``such as`` and ``e.g.``; lists of words as ``3, 5 or 7``;
    ``key=value``; what stands in backticks; and, with or without a comment, the other value of what is true or false.
    """
    found = set()
    for line in file.read_text().splitlines():
        code, mark, comment = line.partition("#") if line.lstrip().startswith("#") else line.partition(" #")
        match = re.match(r"\s*(?:- )?(\w+):\s*(\w*)", code)
        key = "" if match is None else match[1]
        if match is not None and match[2] in ("true", "false"):
            found.add((key, "true" if match[2] == "false" else "false"))
        if not mark or "@package" in comment:
            continue
        comment = comment.strip()
        said = re.findall(r"\b(?:null|true|false)\b", comment) + re.findall(r"`([^`]+)`", comment)
        said += [one.rstrip(".:") for one in re.findall(r"'?\+?[a-z][a-z_./]*=[^\s;)`]+", comment)]
        said += [one.rstrip(".") for one in re.findall(r"(?:such as|e\.g\.) ([^\s,]+)", comment) if "=" not in one]
        for part in re.split(r"[;,] (?=if )|; ", comment):
            if (listed := re.search(r"\bor:? ([^;(]+)$", part)) and part.startswith("or"):
                said += re.split(r", | or ", listed[1])
            elif listed := _LIST.search(part if key else ""):
                words = re.split(r", or |, | or ", listed[1])
                said += words if len(listed[0]) == len(part) or ": " in listed[0] or part.endswith(listed[0]) else []
        found |= {(key, one.rstrip(",")) for one in said}
    return found
