"""Relabelling with a reference calculator: results, resuming, refusals, failures, several processes."""

import json
import os
from importlib.resources import as_file, files

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from spk_dt.evaluation.true_error import true_force_error
from spk_dt.labels.label_file import geometry_hash
from spk_dt.labels.relabel import relabel

REFERENCE = "ase.calculators.emt:EMT"


COUNTED = "helpers.reference_programs:CountedEMT"


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    crystal = bulk("Cu", cubic=True)
    moved = []
    for _ in range(6):
        atoms = crystal.copy()
        atoms.positions += 0.1 * rng.standard_normal((4, 3))
        moved.append(atoms)
    return moved


class Counted:
    """How often the calculator has computed."""

    def __init__(self, file):
        self.file = file

    @property
    def computed(self):
        return len(self.file.read_text().splitlines()) if self.file.exists() else 0


@pytest.fixture
def counted(tmp_path, monkeypatch):
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    return Counted(tmp_path / "count")


def test_labels_are_those_of_the_calculator(frames, tmp_path):
    frames[2].set_constraint(FixAtoms([0, 1]))
    done = []
    labels = relabel(iter(frames), REFERENCE, tmp_path / "sub" / "labels.jsonl", progress=done.append)
    assert labels.ids == ("0", "1", "2", "3", "4", "5")
    assert labels.n_computed == 6
    assert done == [1, 2, 3, 4, 5, 6]
    for atoms, energy, forces in zip(frames, labels.energy, labels.forces, strict=True):
        assert atoms.calc is None
        atoms.calc = EMT()
        assert energy == atoms.get_potential_energy()
        assert np.array_equal(forces, atoms.get_forces(apply_constraint=False))
    assert labels.as_dict() == {"n_frames": 6, "n_computed": 6, "n_failed": 0, "failures": {}}


def test_only_what_is_missing_is_computed(frames, tmp_path, counted):
    path = tmp_path / "labels.jsonl"
    first = relabel(frames[:4], COUNTED, path)
    assert counted.computed == 4
    again = relabel(frames, COUNTED, path)
    assert counted.computed == 6
    assert again.n_computed == 2
    assert np.array_equal(again.energy[:4], first.energy)
    assert np.array_equal(np.array(again.forces[:4]), np.array(first.forces))
    some = relabel([frames[5], frames[1]], COUNTED, path, ids=["5", "1"])
    assert counted.computed == 6
    assert np.array_equal(some.energy, again.energy[[5, 1]])


def test_after_an_interruption(frames, tmp_path, counted):
    path, whole = tmp_path / "labels.jsonl", tmp_path / "whole.jsonl"

    def interrupt(done):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        relabel(frames, COUNTED, path, progress=interrupt)
    assert counted.computed == 3
    labels = relabel(frames, COUNTED, path)
    assert counted.computed == 6
    assert np.array_equal(labels.energy, relabel(frames, COUNTED, whole).energy)
    assert path.read_text() == whole.read_text()


@pytest.mark.parametrize("cut", [1, 30, "line", "header", "all"])
def test_after_a_crash(cut, frames, tmp_path, counted):
    """The end of the file is missing: within the last line, all of it, within the first line."""
    path = tmp_path / "labels.jsonl"
    relabel(frames, COUNTED, path)
    content = path.read_bytes()
    last = len(content) - content[:-1].rfind(b"\n") - 1
    keep = (
        {"line": len(content) - last, "header": 25, "all": 0}.get(cut) if isinstance(cut, str) else len(content) - cut
    )
    path.write_bytes(content[:keep])
    assert relabel(frames, COUNTED, path).n_computed == (6 if keep < 100 else 1)
    assert path.read_bytes() == content


def test_a_damaged_last_line_is_computed_again(frames, tmp_path):
    path = tmp_path / "labels.jsonl"
    relabel(frames, REFERENCE, path)
    content = path.read_bytes()
    path.write_bytes(content[:-40] + b"\x00" * 39 + b"\n")
    assert relabel(frames, REFERENCE, path).n_computed == 1
    assert path.read_bytes() == content
    lines = content.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"{\n", *lines[3:]]))
    with pytest.raises(ValueError, match=r"line 3 of .* is damaged"):
        relabel(frames, REFERENCE, path)


@pytest.mark.slow
def test_what_does_not_belong_together_is_refused(frames, tmp_path, monkeypatch):
    path = tmp_path / "labels.jsonl"
    relabel(frames, REFERENCE, path)
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"made with the reference 'ase.calculators.emt:EMT', not with '.*CountedEMT'"):
        relabel(frames, COUNTED, path)
    frames[3].positions[0, 0] += 1e-6
    with pytest.raises(ValueError, match="another geometry under the id '3'"):
        relabel(frames, REFERENCE, path)
    with pytest.raises(ValueError, match="the id 'a' comes twice"):
        relabel(frames[:2], REFERENCE, tmp_path / "other.jsonl", ids=["a", "a"])
    with pytest.raises(ValueError, match="n_processes=0"):
        relabel(frames, REFERENCE, path, n_processes=0)
    with pytest.raises(ImportError, match="no module 'nowhere'"):
        relabel(frames, "nowhere:EMT", tmp_path / "nothing.jsonl")
    assert not (tmp_path / "nothing.jsonl").exists()
    assert path.read_bytes() == content
    for text in ("important\n", "important, without an end", '{"format": "of someone else"}\n'):
        (tmp_path / "notes.txt").write_text(text)
        with pytest.raises(ValueError, match="choose another name"):
            relabel(frames, REFERENCE, tmp_path / "notes.txt")
        assert (tmp_path / "notes.txt").read_text() == text


def test_other_settings_of_the_same_method_are_refused(frames, tmp_path):
    pytest.importorskip("tblite")
    path = tmp_path / "labels.jsonl"
    relabel(frames[:1], "tblite:GFN1-xTB", path)
    first, label = path.read_text().splitlines()
    header = json.loads(first)
    header["settings"]["accuracy"] = 1.0
    path.write_text(f"{json.dumps(header)}\n{label}\n")
    with pytest.raises(ValueError, match=r"settings\.accuracy=1\.0, not with settings\.accuracy=0\.1"):
        relabel(frames, "tblite:GFN1-xTB", path)
    path.write_text(f"{json.dumps(header)}\n")  # nothing was computed yet
    assert len(relabel(frames[:1], "tblite:GFN1-xTB", path).ids) == 1


def test_failures_are_recorded(frames, tmp_path, counted, monkeypatch, scratch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    path = tmp_path / "labels.jsonl"
    frames[1].positions[0, 0] = 1000.0
    frames[4].positions[2] = np.nan
    labels = relabel(frames, COUNTED, path)
    assert counted.computed == 5  # the calculator is not asked about what is nowhere
    assert labels.failures.keys() == {"1", "4"}
    assert labels.failures["1"].startswith("CalculationFailed: not converged, OMP_NUM_THREADS=1 (its files are in ")
    assert labels.failures["4"] == "ValueError: a position is not finite"
    assert np.isnan(labels.energy).tolist() == [False, True, False, False, True, False]
    assert labels.forces[1].shape == (4, 3)
    assert np.isnan(labels.forces[1]).all()
    assert np.isfinite(labels.forces[2]).all()
    again = relabel(frames, COUNTED, path)
    assert counted.computed == 5
    assert again.failures == labels.failures
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # null, not NaN


@pytest.mark.parametrize("n_processes", [1, 2])
def test_a_program_that_fails_is_no_result(frames, tmp_path, n_processes, counted, scratch):
    """Where the reference method must succeed a failure is raised, and computed when the program is repaired."""
    path = tmp_path / "labels.jsonl"
    good = frames[1].copy()
    frames[1].positions[0, 0] = 1000.0
    with pytest.raises(ValueError, match=r"fails at the sound geometry '1': CalculationFailed: not converged"):
        relabel(frames, COUNTED, path, n_processes, sound={"1"})
    assert '"1"' not in path.read_text()
    frames[1] = good
    assert not relabel(frames, COUNTED, path, sound={"1"}).failures


@pytest.mark.slow
@pytest.mark.parametrize("of_the_user", [None, pytest.param("7", marks=pytest.mark.slow)])
def test_two_processes_find_the_same(frames, tmp_path, monkeypatch, counted, scratch, of_the_user):
    """Also with their number of threads: one each, unless the user says it."""
    if of_the_user is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", of_the_user)
    frames[1].positions[0, 0] = 1000.0
    one = relabel(frames, COUNTED, tmp_path / "one.jsonl")
    path = tmp_path / "two.jsonl"
    relabel(frames[:1], COUNTED, path)
    done = []
    two = relabel(iter(frames), COUNTED, path, n_processes=2, progress=done.append)
    assert two.n_computed == 5
    assert two.ids == one.ids
    assert np.array_equal(two.energy, one.energy, equal_nan=True)
    assert np.array_equal(np.array(two.forces), np.array(one.forces), equal_nan=True)
    assert f"OMP_NUM_THREADS={of_the_user}" in one.failures["1"]
    assert f"OMP_NUM_THREADS={of_the_user or '1'}" in two.failures["1"]  # of each process
    assert os.environ.get("OMP_NUM_THREADS") == of_the_user
    assert done == [1, 2, 3, 4, 5, 6]
    assert len(path.read_text().splitlines()) == 7


def test_hash_of_a_geometry(frames):
    atoms = frames[0]
    same = atoms.copy()
    same.set_constraint(FixAtoms([0]))
    same.set_velocities(np.ones((4, 3)))
    assert geometry_hash(same) == geometry_hash(atoms)
    zero, minus = bulk("Cu"), bulk("Cu")
    minus.positions[:] = -0.0
    assert geometry_hash(zero) == geometry_hash(minus)
    hashes = {geometry_hash(atoms)}
    for change in (
        lambda a: a.positions.__setitem__((0, 0), 0.0),
        lambda a: a.set_atomic_numbers([47, 29, 29, 29]),
        lambda a: a.set_pbc([True, True, False]),
        lambda a: a.set_cell(a.cell * 1.001),
        lambda a: a.set_initial_charges([1.0, 0.0, 0.0, 0.0]),
        lambda a: a.set_initial_magnetic_moments([1.0, 0.0, 0.0, 0.0]),
    ):
        changed = atoms.copy()
        change(changed)
        hashes.add(geometry_hash(changed))
    assert len(hashes) == 7


def test_true_force_error():
    reference = np.zeros((3, 3, 3))
    model = np.zeros((3, 3, 3))
    model[0, 0] = [0.3, 0.0, 0.0]
    model[1, 1:] = -0.2
    error = true_force_error(model, reference, np.array([46, 1, 1]))
    assert error["mae_ev_per_ang"] == {"H": pytest.approx(0.2 / 3), "Pd": pytest.approx(0.3 / 9)}
    assert (error["n_frames"], error["n_left_out"]) == (3, 0)
    reference[1] = np.nan
    model[2, 0, 0] = np.inf
    error = true_force_error(model, reference, np.array([46, 1, 1]))
    assert error == {"mae_ev_per_ang": {"H": 0.0, "Pd": pytest.approx(0.1)}, "n_frames": 1, "n_left_out": 2}
    assert true_force_error(model, reference * np.nan, np.array([46, 1, 1]))["mae_ev_per_ang"] == {
        "H": None,
        "Pd": None,
    }
    with pytest.raises(ValueError, match="shape"):
        true_force_error(model, reference, np.array([46, 1]))


@pytest.mark.slow
def test_the_embedded_data_are_reproduced(tmp_path):
    pytest.importorskip("tblite")
    from spk_dt.data.embedded import _read

    with as_file(files("spk_dt.data") / "h2_pd6_graphene.npz") as path:
        _, frames, _ = next(_read(path))
        first = next(iter(frames))
    energy, forces = first.get_potential_energy(), first.get_forces()
    labels = relabel([first], "tblite:GFN1-xTB", tmp_path / "labels.jsonl")
    assert np.abs(labels.forces[0] - forces).max() < 1e-3
    assert labels.energy[0] == pytest.approx(energy, abs=1e-3)
    error = true_force_error(forces[None], np.array(labels.forces), first.numbers)
    assert max(error["mae_ev_per_ang"].values()) < 1e-3
