"""The house: imports point one way, also those inside of functions, and what needs no torch does not load it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import schnetpack.properties
import schnetpack.units

import spk_dt
from spk_dt import properties, units

PACKAGE = Path(spk_dt.__file__).parent

#: from the ground up; packages on one floor do not know each other
FLOORS = (
    ("properties", "units", "duration", "foreign_warnings", "folders", "imports", "processes"),
    ("representation", "dynamics", "trajectories"),
    ("data", "models"),
    ("labels",),
    ("md",),
    ("certificate",),
    ("training", "evaluation"),
    ("export",),
    ("cli",),
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}

#: a file beyond this holds more than one idea
LONGEST = 360


def imported(file: Path) -> set[str]:
    """Packages of spk_dt that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "spk_dt":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("spk_dt."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("spk_dt.")}
    return found


def arrows_up(files: dict[str, set[str]]) -> list[str]:
    """Imports of a floor that is not below, from files by package."""
    return [
        f"{package} -> {other}"
        for package, others in files.items()
        for other in sorted(others - {package})
        if FLOOR[other] >= FLOOR[package]
    ]


def test_imports_point_one_way():
    known: dict[str, set[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        if parts == ("__init__",):
            continue
        known.setdefault(parts[0], set()).update(imported(file))
    assert set(known) == set(FLOOR), "a new package needs a floor"
    assert len(known["training"]) >= 5  # the walk has seen something
    assert arrows_up(known) == []


def test_an_arrow_up_would_be_found(tmp_path):
    file = tmp_path / "file.py"
    file.write_text(
        "def f():\n    from spk_dt.training.task import DynamicTrainingTask\n    return DynamicTrainingTask\n"
    )
    assert arrows_up({"evaluation": imported(file)}) == ["evaluation -> training"]
    assert arrows_up({"cli": imported(file)}) == []


@pytest.mark.parametrize(
    "modules",
    [
        "spk_dt.trajectories, spk_dt.trajectories.convert, spk_dt.trajectories.diagnosis.printing",
        "spk_dt.labels.relabel, spk_dt.labels.generate, spk_dt.labels.generate_from, spk_dt.labels.unit_check",
    ],
)
def test_no_torch_where_none_is_needed(modules):
    code = f"import sys, {modules}; sys.exit(sum(name in sys.modules for name in ('torch', 'schnetpack')))"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert subprocess.run([sys.executable, "-c", code.replace(modules, "spk_dt.data")]).returncode == 2


def test_names_taken_from_the_host_are_its_own():
    for name in ("energy", "forces", "R", "cell"):
        assert getattr(properties, name) == getattr(schnetpack.properties, name)


@pytest.mark.parametrize(
    ("source", "target"),
    [("kcal/mol/Ang", "eV/Ang"), ("Hartree / Bohr", "eV/Ang"), ("kJ / mol", "eV"), ("nm", "Bohr"), ("Ang/fs", "nm/fs")],
)
def test_units_are_those_of_the_host(source, target):
    assert units.conversion(source, target, "test") == schnetpack.units.convert_units(source, target)
    assert units.conversion(2.0, target, "test") == schnetpack.units.convert_units(2.0, target)


@pytest.mark.parametrize("unit", ["A", "eV/Angstroem", "arb. unit"])
def test_unknown_units_are_refused(unit):
    with pytest.raises(ValueError, match="unknown unit"):
        units.conversion(unit, "eV", "test")


def test_files_hold_one_idea():
    lengths = {file.name: len(file.read_text().splitlines()) for file in PACKAGE.rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


TESTS = Path(__file__).parent


def modules(file: Path) -> set[str]:
    """Top-level modules that a file imports anywhere."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    names = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return {name.split(".")[0] for name in names}


def imports_of_tests(files: list[Path]) -> dict[str, set[str]]:
    """Test modules that files import, by file; files without any are left out."""
    tests = {file.stem for file in TESTS.rglob("test_*.py")}
    return {file.name: found for file in files if (found := modules(file) & tests)}


def test_tests_import_nothing_from_each_other():
    files = list(TESTS.rglob("*.py"))
    assert sum("helpers" in modules(file) for file in files) > 20  # the walk has seen them
    assert imports_of_tests(files) == {}, "what several tests need belongs in tests/helpers"


@pytest.mark.parametrize(
    "line", ["from test_house import FLOORS", "import test_house as house", "import os, test_house"]
)
def test_an_import_of_a_test_would_be_found(tmp_path, line):
    file = tmp_path / "test_other.py"
    file.write_text(f"def test():\n    {line}\n")
    assert imports_of_tests([file]) == {"test_other.py": {"test_house"}}
    file.write_text("from helpers.models import potential\nimport testing, spk_dt.data\n")
    assert imports_of_tests([file]) == {}
