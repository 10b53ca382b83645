"""Keys of the released code, from the table with which they are converted."""

from spk_dt.training.released_settings import OVERRIDES, WITHOUT

from .markdown import cell


def pages() -> dict[str, str]:
    """The table, to be included in another page."""
    rows = {key: f"`{ours}`" for key, ours in OVERRIDES.items()} | {key: cell(words) for key, words in WITHOUT.items()}
    lines = ["| released code | here |", "|---|---|", *(f"| `{key}` | {rows[key]} |" for key in sorted(rows))]
    return {"keys_of_dtegnn.txt": "\n".join(lines) + "\n"}
