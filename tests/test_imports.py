"""Modules that users name are found in the current folder, by programs that are installed and by workers."""

import subprocess
import sys

import pytest

from spk_dt.imports import import_named, look_into_current_folder
from spk_dt.labels.calculator import reference_calculator


@pytest.fixture(autouse=True)
def path_of_a_program(monkeypatch, tmp_path):
    """Like an installed program: the current folder is not on the path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])


def test_a_calculator_in_the_current_folder_is_found(tmp_path):
    (tmp_path / "my_own_calculator.py").write_text("from ase.calculators.emt import EMT as Mine\n")
    assert type(reference_calculator("my_own_calculator:Mine")).__name__ == "EMT"
    assert sys.path[-1] == str(tmp_path)  # at the end: a file of the name of a package hides nothing


def test_files_with_names_of_packages_hide_nothing(tmp_path):
    (tmp_path / "colorsys.py").write_text("raise SystemExit('hidden')\n")
    sys.modules.pop("colorsys", None)
    assert hasattr(import_named("colorsys", "test"), "rgb_to_hsv")


def test_the_path_does_not_grow():
    look_into_current_folder()
    before = list(sys.path)
    look_into_current_folder()
    assert sys.path == before


def test_a_module_that_is_not_there_names_folder_and_pythonpath(tmp_path):
    with pytest.raises(
        ImportError, match=r"'absent_module:Class': there is no module 'absent_module'.*PYTHONPATH"
    ) as error:
        reference_calculator("absent_module:Class")
    assert str(tmp_path) in str(error.value)


def test_a_module_that_lacks_another_names_that(tmp_path):
    (tmp_path / "needs_another.py").write_text("import absent_package\n")
    with pytest.raises(ImportError, match="no module 'absent_package'"):
        reference_calculator("needs_another:Class")


def test_spktrain_finds_a_class_in_the_current_folder(tmp_path):
    """The plugin runs in each Hydra program of SchNetPack; an installed one has its own folder in front, not this one."""
    (tmp_path / "my_own_module.py").write_text("class Mine:\n    pass\n")
    code = (
        "import sys; sys.path = [p for p in sys.path if p not in ('', sys.argv[1])]\n"
        "from hydra import compose, initialize_config_module\n"
        "from hydra.utils import get_class\n"
        "with initialize_config_module('schnetpack.configs', version_base='1.2'):\n"
        "    print(get_class('my_own_module.Mine').__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.stdout.strip() == "Mine", done.stderr
