"""Pages of the tutorials: the scripts in ``tutorials/``, text as text and code as code, with the figures of a whole run."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tutorials"
#: from ``docs/generated/tutorials`` to the folder of the scripts
_UP = "../../../tutorials/"


def pages() -> dict[str, str]:
    """Name of each page below ``docs/generated`` and its text."""
    return {f"tutorials/{file.stem}.md": page(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("*.py"))}


def page(script: str) -> str:
    """The text of a page.

    Args:
        script: cells that begin with ``# %% [markdown]``, whose lines are comments, or with ``# %%``.
    """
    parts = []
    for cell in re.split(r"^# %%", script, flags=re.MULTILINE)[1:]:
        kind, _, body = cell.partition("\n")
        if kind.strip() == "[markdown]":
            text = "\n".join(re.sub(r"^# ?", "", line) for line in body.strip("\n").splitlines())
            parts.append(re.sub(r"(!\[[^]]*\]\()(?=figures/)", rf"\1{_UP}", text))
        elif body.strip():
            parts.append(f"```python\n{body.strip()}\n```")
    return "\n\n".join(parts) + "\n"
