"""The documentation is whole: every page is reached, links and files exist, every package has its page; short README."""

import re
import sys
from pathlib import Path

import pytest
from helpers.documents import PAGES, ROOT

DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))
import from_code  # noqa: E402 (found by the line above)
from from_code import api  # noqa: E402

#: the README is read in five minutes
LONGEST_README = 900
README = ROOT / "README.md"
LINK = re.compile(r"\]\(([^)\s]+)\)")


def toctrees(text: str) -> list[str]:
    """Pages that the tables of contents of a page name."""
    blocks = re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line and not line.startswith(":")]
    return [re.sub(r".*<(.*)>$", r"\1", line) for line in lines]


def anchors(text: str) -> set[str]:
    """Of the headings of a page, as GitHub and myst-parser make them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", one).lower()).replace(" ", "-") for one in titles
    }


def broken_links(file: Path, text: str, generated: dict[str, str]) -> list[str]:
    """Links to files or headings that are not there; addresses of the web are not looked at."""
    found = []
    for link in LINK.findall(re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (file.parent / path).resolve() if path else file
        inside = target.relative_to(DOCS / "generated").as_posix() if target.is_relative_to(DOCS / "generated") else ""
        there = inside in generated or target.exists()
        if not there or (anchor and anchor not in anchors(generated.get(inside) or target.read_text(encoding="utf-8"))):
            found.append(link)
    return found


@pytest.fixture(scope="module")
def generated():
    return from_code.pages()


def test_every_page_is_in_a_table_of_contents(generated):
    named, todo = {"index"}, ["index"]
    texts = {file.relative_to(DOCS).with_suffix("").as_posix(): file.read_text(encoding="utf-8") for file in PAGES}
    texts |= {
        f"generated/{name.rpartition('.')[0]}": text for name, text in generated.items() if not name.endswith(".txt")
    }
    while todo:
        page = todo.pop()
        folder = page.rpartition("/")[0]
        for name in toctrees(texts[page]):
            full = (f"{folder}/" if folder else "") + name
            assert full in texts, f"{page} names the page {name}, which is not there"
            if full not in named:
                named.add(full)
                todo.append(full)
    assert set(texts) == named
    assert len(PAGES) > 12


@pytest.mark.parametrize("file", [README, ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda file: file.name)
def test_links_and_files_exist(file, generated):
    text = file.read_text(encoding="utf-8")
    assert broken_links(file, text, generated) == []
    for path in re.findall(r"`((?:tutorials|spk_dt|configs|benchmarks|tests|docs)/[^`\s*<]*)`", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"^```\{(?:include|image|figure)\} (\S+)", text, re.MULTILINE):
        assert (file.parent / path).exists() or path.removeprefix("generated/") in generated, path


def test_a_broken_link_would_be_found(generated):
    text = "# A b\n[a](no.md), [b](index.md#no), [c](#a-b), [d](#a), [e](https://x.org/no), [f](generated/api.md)\n"
    assert broken_links(DOCS / "page.md", text.replace("#a-b", "index.md"), generated)[:2] == ["no.md", "index.md#no"]
    assert [one for one in broken_links(README, "[a](docs/generated/api.md#api) [b](docs/x.md)", generated)] == [
        "docs/x.md"
    ]


def test_every_package_has_a_page_with_all_its_modules(generated):
    files = sorted((ROOT / "spk_dt").rglob("*.py"))
    for file in files:
        parts = ("spk_dt", *file.relative_to(ROOT / "spk_dt").with_suffix("").parts)
        if parts[-1].startswith("__"):
            parts = parts[:-1]
        package = parts if file.name == "__init__.py" else parts[:-1]
        assert f".. automodule:: {'.'.join(parts)}\n" in generated[f"api/{'_'.join(package)}.rst"], file
    assert len(api.packages()) >= 15
    assert all(name in generated["api.md"] for name in ("EGNN", "rollout", "spk_dt.trajectories.readers"))


def test_the_readme_is_short():
    text = re.sub(r"!\[[^]]*\]\([^)]*\)", "", README.read_text(encoding="utf-8"))
    assert len(text.split()) <= LONGEST_README
    assert "make demo" in text
    assert "make test" in text
