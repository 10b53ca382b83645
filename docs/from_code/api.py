"""The reference of the Python interface: a page for each package, with all its modules and their docstrings."""

import ast
from pathlib import Path

import spk_dt

ROOT = Path(spk_dt.__file__).parent


def summary(file: Path) -> str:
    """First sentence of the docstring of a module."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def packages() -> dict[str, list[str]]:
    """Modules of each package, by its dotted name; packages in packages have their own page."""
    found = {}
    for file in sorted(ROOT.rglob("__init__.py")):
        package = ".".join(("spk_dt", *file.parent.relative_to(ROOT).parts))
        modules = sorted(one.stem for one in file.parent.glob("*.py") if not one.stem.startswith("__"))
        found[package] = [f"{package}.{name}" for name in modules]
    return found


def page_of(package: str, modules: list[str]) -> str:
    """A page in reStructuredText, which docstrings are written in."""
    parts = [package, "=" * len(package), "", f".. automodule:: {package}", ""]
    for module in modules:
        title = module.removeprefix(f"{package}.")
        parts += [title, "-" * len(title), "", f".. automodule:: {module}", "   :members:", "   :show-inheritance:", ""]
    return "\n".join(parts)


def pages() -> dict[str, str]:
    """The pages of all packages, and the list of them."""
    known = packages()
    names = {package: f"api/{package.replace('.', '_')}.rst" for package in known}
    public = ", ".join(f"`{name}`" for name in sorted(spk_dt.__all__))
    lines = [
        "# API",
        "",
        f"`from spk_dt import ...`: {public}.",
        "",
        "Everything else is imported from its module:",
        "",
    ]
    lines += ["| package | what |", "|---|---|"]
    for package, name in names.items():
        file = ROOT.joinpath(*package.split(".")[1:], "__init__.py")
        lines.append(f"| [{package}]({name}) | {summary(file).replace('``', '`')} |")
    lines += ["", "```{toctree}", ":hidden:", "", *(name.removesuffix(".rst") for name in names.values()), "```", ""]
    texts = {name: page_of(package, known[package]) for package, name in names.items()}
    return {"api.md": "\n".join(lines), **texts}
