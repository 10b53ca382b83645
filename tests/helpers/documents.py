"""The documents that users read: README.md and the pages of docs/, without those that are made of the code."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(file for file in (ROOT / "docs").rglob("*.md") if "generated" not in file.relative_to(ROOT).parts)
TEXT = "\n\n".join(file.read_text(encoding="utf-8") for file in [ROOT / "README.md", *PAGES])
