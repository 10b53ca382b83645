"""A reference method is compared with the data before it is used, by evaluations, relabelling and generate."""

import json
import logging

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from helpers.pair_potential import pair_model, pair_trajectory, tetrahedron
from typer.testing import CliRunner

import spk_dt.evaluation.evaluate as evaluation
import spk_dt.labels.relabel as relabelling
from spk_dt.cli import app
from spk_dt.data import TrajectoryWriter
from spk_dt.data.embedded import unpack
from spk_dt.labels.generate import Recipe, generate
from spk_dt.labels.reference_check import check_reference, choose_frames, frames_to_choose_from
from spk_dt.trajectories.database import read_trajectories

RIGHT, EMT_NAME = "helpers.pair_reference:Reference", "ase.calculators.emt:EMT"


DEEPER, OTHER_ZERO = "helpers.pair_reference:Deeper", "helpers.pair_reference:OfAnotherCommonZero"


def spkdt(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    with TrajectoryWriter(folder / "data.db") as writer:
        for seed in range(2):
            writer.add(f"run_{seed}", pair_trajectory(tetrahedron(), 12, 0.5, seed), timestep_fs=0.5)
    pair_model(folder / "model")
    return folder


def evaluate(data, out, reference, *more):
    words = ("evaluate", data / "data.db", f"m={data / 'model'}", "--steps", 4, "--out", out, "--relabel-every", 2)
    return spkdt(*words, *([] if reference is None else ["--reference", reference]), *more)


def metrics(out):
    return json.loads((out / "metrics.json").read_text())["m"]["true_error"]


@pytest.fixture
def evaluated(data, tmp_path):
    """An evaluation without relabelling."""
    assert evaluate(data, tmp_path / "out", None).exit_code == 0
    return tmp_path / "out"


@pytest.mark.parametrize(("other", "reason"), [(EMT_NAME, "another method"), (DEEPER, "which is no unit")])
def test_evaluate_refuses_before_it_simulates(data, tmp_path, monkeypatch, other, reason):
    def never(*_):
        raise AssertionError("simulated")

    monkeypatch.setattr(evaluation, "simulate", never)
    done = evaluate(data, tmp_path / "out", other)
    assert done.exit_code == 1
    assert f"--reference='{other}' is not the method of the data: at frame" in done.stderr
    assert reason in done.stderr
    assert "use this one on purpose with --another-reference" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_evaluate_takes_the_right_one_and_another_on_purpose(data, tmp_path, caplog):
    done = evaluate(data, tmp_path / "right", RIGHT)
    assert done.exit_code == 0, done.stderr
    assert "is the method of the data" in done.stdout
    assert metrics(tmp_path / "right")["reference_check"]["verdict"] == "same method"
    with caplog.at_level(logging.WARNING, "spk_dt"):
        done = evaluate(data, tmp_path / "other", DEEPER, "--another-reference")
    assert done.exit_code == 0, done.stderr
    assert "is not the method of the data" in done.stdout
    assert "It is used on purpose" in caplog.text
    check = metrics(tmp_path / "other")["reference_check"]
    assert check["verdict"] == "another method"
    size = check["forces_of_the_data_ev_per_ang"]
    assert check["force_difference_ev_per_ang"] == pytest.approx(0.05 * size, rel=1e-3)
    page = spkdt("report", tmp_path / "other")
    assert page.exit_code == 0
    assert "another method" in (tmp_path / "other" / "report.html").read_text()


@pytest.mark.slow
def test_relabel(evaluated, monkeypatch):
    done = spkdt("relabel", evaluated, "--reference", DEEPER, "--every", 2)
    assert done.exit_code == 1
    assert "is not the method of the data" in done.stderr
    assert not (evaluated / "m" / "labels.jsonl").exists()
    assert spkdt("relabel", evaluated, "--reference", RIGHT, "--every", 2).exit_code == 0  # nothing stands in the way
    calls = []
    monkeypatch.setattr(relabelling, "_record", lambda *_: calls.append(1))
    assert spkdt("relabel", evaluated, "--reference", RIGHT, "--every", 2).exit_code == 0
    assert not calls  # nor is anything computed twice
    monkeypatch.undo()
    again = spkdt("relabel", evaluated, "--reference", DEEPER, "--every", 2)
    assert "is not the method of the data" in again.stderr


@pytest.mark.slow
def test_relabel_another_method_on_purpose(evaluated):
    words = ("relabel", evaluated, "--reference", DEEPER, "--every", 2)
    assert spkdt(*words, "--another-reference").exit_code == 0
    assert metrics(evaluated)["reference_check"]["verdict"] == "another method"
    assert spkdt(*words).exit_code == 1  # each time on purpose


@pytest.mark.parametrize(
    "state", [*(pytest.param(one, marks=pytest.mark.slow) for one in ("gone", "other data")), "no forces"]
)
def test_relabel_without_the_data(evaluated, tmp_path, state):
    """The start frames hold forces; and where they do not, it is said."""
    settings = json.loads((evaluated / "settings.json").read_text())
    settings["data"] = str(tmp_path / "elsewhere.db")
    (evaluated / "settings.json").write_text(json.dumps(settings))
    if state == "other data":
        with TrajectoryWriter(tmp_path / "elsewhere.db") as writer:
            writer.add("another", pair_trajectory(tetrahedron("Au4"), 2, 0.5), timestep_fs=0.5)
    if state == "no forces":
        frames = ase.io.read(evaluated / "start.traj", ":")
        for atoms in frames:
            atoms.calc = None
        ase.io.write(evaluated / "start.traj", frames)
    done = spkdt("relabel", evaluated, "--reference", EMT_NAME, "--every", 2)
    if state == "no forces":
        assert done.exit_code == 0, done.stderr
        assert "cannot be compared with the data: there are no forces" in done.stdout
        assert metrics(evaluated)["reference_check"]["verdict"] == "not compared"
    else:
        assert done.exit_code == 1
        assert "is not the method of the data" in done.stderr
        assert spkdt("relabel", evaluated, "--reference", RIGHT, "--every", 2).exit_code == 0


def frame(atoms, name, index, calculator=EMT):
    atoms = atoms.copy()
    atoms.calc = calculator()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    atoms.info |= {"trajectory": name, "frame": index}
    return atoms


def test_chosen_frames_cover_elements_and_have_large_forces():
    """Six kinds of systems of which at most four are taken, those with new elements first."""
    frames = []
    for kind, symbols in enumerate(("Cu4", "Cu3Au", "Cu2Au2", "CuAu3", "Pd2H2", "Al3C")):
        for index in range(4):
            atoms = tetrahedron(symbols)
            atoms.rattle(0.02 + 0.1 * (index == 2), rng=np.random.default_rng(kind))
            frames.append(frame(atoms, symbols, index))
    chosen = choose_frames(frames)
    assert len(chosen) == 4
    assert {symbol for atoms in chosen for symbol in atoms.symbols} == {"Cu", "Au", "Pd", "H", "Al", "C"}
    for atoms in chosen:
        same = [one for one in frames if one.info["trajectory"] == atoms.info["trajectory"]]
        assert np.square(atoms.get_forces()).mean() == max(np.square(one.get_forces()).mean() for one in same)
    several = [frame(tetrahedron("Cu4"), f"run_{n}", i) for n in range(3) for i in range(4)]
    assert len({atoms.info["trajectory"] for atoms in choose_frames(several)}) == 3


def test_another_zero_of_energy(data, tmp_path, caplog):
    """Refused where energies are used, said where differences are; known for use."""
    trajectories = read_trajectories(connect(data / "data.db").metadata, "data")
    frames = frames_to_choose_from(data / "data.db", [(one, range(one.length)) for one in trajectories])
    with pytest.raises(
        ValueError, match=r"another zero: those of the data are its energies plus H -7, Pd -7 eV per atom"
    ):
        check_reference(frames, OTHER_ZERO, "data", tmp_path / "labels.jsonl", energies=True)
    assert not (tmp_path / "labels.jsonl").exists()
    with caplog.at_level(logging.WARNING, "spk_dt"):
        check = check_reference(frames, OTHER_ZERO, "data", tmp_path / "labels.jsonl")
    assert check.verdict == "same method"
    assert "another zero" in caplog.text
    assert check.difference.energy.of(frames[0].numbers) == pytest.approx(-28.0)
    with pytest.raises(ValueError, match="two methods do not mix"):  # labels of the one that was taken
        check_reference(frames, RIGHT, "data", tmp_path / "labels.jsonl")


@pytest.mark.slow
def test_generate_does_not_go_on_with_another_method(tmp_path, monkeypatch):
    """The name of the reference is the same, but what stands behind it is not."""
    recipe = Recipe(steps=3, relax_steps=3, equilibration_fs=1.0, start_interval_fs=1.0)
    path = tmp_path / "a.db"
    reference = "helpers.reference_programs:Strong"
    generate(path, recipe, 1, reference=reference)
    path.unlink()
    monkeypatch.setenv("STRENGTH", "1.05")
    with pytest.raises(ValueError, match=r"is not the method of the data: at frame \d of trajectory 'traj_01'"):
        generate(path, recipe, 2, reference=reference)
    monkeypatch.delenv("STRENGTH")
    generate(path, recipe, 2, reference=reference)
    assert len(connect(path)) == 8


def test_gfn1_is_that_of_the_embedded_data_and_gfn2_is_not(tmp_path):
    pytest.importorskip("tblite.ase")
    unpack(tmp_path / "embedded.db")
    (first, *_) = read_trajectories(connect(tmp_path / "embedded.db").metadata, "embedded")
    frames = frames_to_choose_from(tmp_path / "embedded.db", [(first, [200])])
    assert check_reference(frames, "tblite:GFN1-xTB", "embedded").verdict == "same method"
    with pytest.raises(ValueError, match="The forces are off everywhere, by no common factor"):
        check_reference(frames, "tblite:GFN2-xTB", "embedded")


def tight_cation():
    from tblite.ase import TBLite

    return TBLite(method="GFN1-xTB", charge=1, accuracy=0.1, verbosity=0)


def test_charge_of_a_molecule():
    """H3O+ with its charge, also with a loose convergence; without it, the number of electrons is named."""
    pytest.importorskip("tblite.ase")
    hydronium = Atoms("OH3", positions=[[0, 0, 0.1], [0.95, -0.2, -0.1], [-0.3, 0.9, -0.25], [-0.6, -0.7, -0.1]])
    frames = [frame(hydronium, "run", 0, tight_cation)]
    assert check_reference(frames, "helpers.reference_programs:cation", "data").verdict == "same method"
    with pytest.raises(ValueError, match="H3O has an odd number of electrons if it is neutral"):
        check_reference(frames, "tblite:GFN1-xTB", "data")
