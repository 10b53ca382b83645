"""What the package imports is declared, and both lists of versions are within the declared bounds."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def named(requirements):
    return {canonicalize_name(one.name): one for one in map(Requirement, requirements)}


DEPENDENCIES = named(PROJECT["dependencies"])
EXTRAS = {name: named(requirements) for name, requirements in PROJECT["optional-dependencies"].items()}
DECLARED = [*DEPENDENCIES.items(), *(item for extra in EXTRAS.values() for item in extra.items())]


def imported(*folders):
    """Distributions that the files below some folders import, wherever in the file."""
    distributions, modules = packages_distributions(), set()
    distributions |= {"metatensor": ["metatensor-torch"]}  # others have parts of it
    for file in (file for folder in folders for file in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules.add(node.module.split(".")[0])
    modules -= set(sys.stdlib_module_names) | {"spk_dt", "hydra_plugins"}
    return {canonicalize_name(name) for module in modules for name in distributions.get(module, [module])}


def pinned(file):
    lines = [line for line in (ROOT / file).read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in lines)}


def test_imports_of_the_package_are_declared():
    extras = {name for extra in ("reference", "export", "lammps", "cluster") for name in EXTRAS[extra]}
    extras -= {"hydra-submitit-launcher"}  # Hydra finds it itself
    assert imported(ROOT / "spk_dt", ROOT / "hydra_plugins") == {*DEPENDENCIES, *extras}


def test_an_import_that_is_not_declared_would_be_found(tmp_path):
    (tmp_path / "module.py").write_text(
        "def function():\n    from yaml import safe_load\n    import scipy.stats, json\n"
    )
    assert imported(tmp_path) == {"pyyaml", "scipy"}


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-lowest.txt"])
def test_listed_versions_are_within_the_bounds(file):
    versions = pinned(file)
    for name, requirement in DECLARED:
        if name == "uv" and file == "constraints.txt":  # installed before any constraint is read
            continue
        assert requirement.specifier.contains(versions[name]), f"{requirement}: {file} has {versions[name]}"


def test_the_lowest_versions_are_the_lower_bounds():
    """After a change of a bound: make lowest-versions."""
    versions = pinned("constraints-lowest.txt")
    for name, requirement in DECLARED:
        (lower,) = re.findall(r">=([\d.]+)", str(requirement.specifier))
        assert versions[name] == Version(lower), f"{requirement}, but tested with {versions[name]}"
