"""Files of earlier versions are still read, and give the numbers that they gave; made by tests/fixtures/make.py."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.kept_files import numbers
from helpers.pair_potential import tetrahedron
from helpers.programs import spkdt

from spk_dt.training.pretrained import describe

FIXTURES = Path(__file__).parent / "fixtures"
VERSIONS = sorted(folder.name for folder in FIXTURES.iterdir() if (folder / "numbers.json").exists())

pytestmark = pytest.mark.filterwarnings("ignore:Model was saved without version")


@pytest.fixture(scope="module", params=VERSIONS)
def kept(request, tmp_path_factory):
    """A copy of the files of a version, and what is found in it now."""
    folder = tmp_path_factory.mktemp("kept") / request.param
    shutil.copytree(FIXTURES / request.param, folder)
    return folder, numbers(folder)


def differing(found, expected, where=""):
    """Where numbers differ by more than rounding, and words at all."""
    if isinstance(expected, dict) and isinstance(found, dict) and set(found) >= set(expected):
        return [one for key in expected for one in differing(found[key], expected[key], f"{where}.{key}")]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return [
            one for i, pair in enumerate(zip(found, expected, strict=True)) for one in differing(*pair, f"{where}[{i}]")
        ]
    if isinstance(expected, float) and isinstance(found, float | int):
        return [] if abs(found - expected) <= 1e-6 * max(1.0, abs(expected)) else [where]
    return [] if found == expected else [where]


def test_there_are_some():
    assert "0.1.0" in VERSIONS


def test_all_numbers_are_those_of_then(kept):
    folder, found = kept
    expected = json.loads((folder / "numbers.json").read_text())
    assert differing(found, expected) == []
    expected["database"]["sums"]["forces"] *= 1.0 + 1e-5  # a control
    assert differing(found, expected) == [".database.sums.forces"]


def test_a_file_without_code_gives_what_the_pickle_gives(kept):
    assert kept[1]["safetensors"] == kept[1]["best_model"]


def test_fine_tuning_can_begin_from_both(kept):
    ours = [describe(kept[0] / name) for name in ("run/best_model", "model.safetensors")]
    for what in ("cutoff", "energy_unit", "distance_unit", "energy_key"):
        assert getattr(ours[0], what) == getattr(ours[1], what)


@pytest.mark.parametrize("name", ["model.safetensors", "run", "run/checkpoints/last.ckpt", "data.db"])
def test_they_can_be_looked_at(kept, name):
    code, told, error = spkdt("about", kept[0] / name)
    assert code == 0, error
    assert "kind:" in told
    if name != "run":
        assert "H" in told
        assert "Pd" in told


def test_the_file_for_engines_still_runs(kept):
    calculator = pytest.importorskip("metatomic_ase").MetatomicCalculator(str(kept[0] / "model.pt"))
    atoms = tetrahedron()
    atoms.calc = calculator
    forces = np.reshape(kept[1]["best_model"]["forces"], (-1, 3))
    np.testing.assert_allclose(atoms.get_forces(), forces, atol=2e-6)
