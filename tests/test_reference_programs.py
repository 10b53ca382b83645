"""Reference methods that are programs: by files, side by side, dying, hanging, not converging, in other versions."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from helpers.reference_programs import FAR

from spk_dt.labels.label_file import geometry_hash
from spk_dt.labels.nested_calculators import put_into
from spk_dt.labels.relabel import relabel

PROGRAMS = "helpers.reference_programs"
ONE_SCRIPT = """
import sys
import ase.io
from spk_dt.labels.relabel import relabel
labels = relabel(ase.io.read("frames.traj", ":"), sys.argv[1], sys.argv[2], int(sys.argv[3]))
print(len(labels.ids), len(labels.failures))
"""


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    moved = []
    for _ in range(12):
        atoms = bulk("Cu", cubic=True)
        atoms.positions += 0.1 * rng.standard_normal((4, 3))
        moved.append(atoms)
    return moved


def right(frames):
    """Forces that no program had a part in."""
    found = []
    for atoms in frames:
        atoms = atoms.copy()
        atoms.calc = EMT()
        found.append(atoms.get_forces())
    return np.array(found)


def programs_of(folder):
    """Commands that run with a file or folder in `folder` open, or as working folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found += [process.name] if str(folder) in os.readlink(process / "cwd") else []
        except OSError:
            continue
    return found


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def gone(pids, seconds=10.0):
    end = time.monotonic() + seconds
    while any(map(is_running, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(map(is_running, pids))


@pytest.mark.parametrize(
    "program",
    ["FileProgram", *(pytest.param(one, marks=pytest.mark.slow) for one in ("WorkingFolderProgram", "unsendable"))],
)
def test_any_number_of_processes_gives_the_same_labels(program, frames, tmp_path, monkeypatch, scratch):
    """Whatever the folder that the calculator believes in; nothing is left there, or in that of the user."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for n_processes in (1, 4):
        labels = relabel(frames, f"{PROGRAMS}:{program}", tmp_path / f"{n_processes}.jsonl", n_processes)
        assert not labels.failures
        np.testing.assert_allclose(labels.forces, right(frames), atol=1e-12)
    assert list(Path().iterdir()) == list(scratch.iterdir()) == []


@pytest.mark.slow
def test_threads_of_a_user(frames, tmp_path, monkeypatch, scratch):
    """Several at once, and the folder of the user's process stays what it is; one file is for one of them."""
    folders, found = set(), {}

    def label(i):
        found[i] = relabel(
            frames[2 * i : 2 * i + 2],
            f"{PROGRAMS}:WorkingFolderProgram",
            tmp_path / f"{i}.jsonl",
            progress=lambda _: folders.add(os.getcwd()),
        )

    monkeypatch.chdir(tmp_path)
    threads = [threading.Thread(target=label, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(np.concatenate([found[i].forces for i in range(4)]), right(frames[:8]), atol=1e-12)
    assert folders == {str(tmp_path)}

    def again(_):
        with pytest.raises(ValueError, match="another thread of this process is at work"):
            relabel(frames, f"{PROGRAMS}:FileProgram", tmp_path / "one.jsonl")

    relabel(frames[:1], f"{PROGRAMS}:FileProgram", tmp_path / "one.jsonl", progress=again)


@pytest.mark.slow
def test_commands_side_by_side_one_of_them_killed(frames, tmp_path):
    """Scripts without a main guard, with a factory in their folder; a killed one leaves no program, and goes on."""
    import ase.io

    ase.io.write(tmp_path / "frames.traj", frames * 4)
    (tmp_path / "label.py").write_text(ONE_SCRIPT)
    (tmp_path / "mine.py").write_text(
        "from helper import FileProgram\n\ndef make():\n    calculator = FileProgram()\n"
        "    calculator.hook = lambda: 0\n    return calculator\n"
    )
    helpers = Path(__file__).parent / "helpers"
    (tmp_path / "helper.py").write_text((helpers / "reference_programs.py").read_text())
    (tmp_path / "scratch").mkdir()
    environment = os.environ | {"TMPDIR": str(tmp_path / "scratch"), "PYTHONPATH": os.pathsep.join(sys.path[1:])}

    def start(name):
        command = [sys.executable, "label.py", "mine:make", f"{name}.jsonl", "2"]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)

    one, killed = start("a"), start("b")
    file = tmp_path / "b.jsonl"
    while not file.exists() or file.read_text().count("\n") < 4:
        assert killed.poll() is None
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    again = start("b")
    for process in (one, again):
        assert process.communicate()[0].split() == ["48", "0"]
    expected = {str(i): forces for i, forces in enumerate([*right(frames)] * 4)}
    for name in "ab":
        records = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()[1:]]
        assert sorted(record["id"] for record in records) == sorted(expected)
        for record in records:
            np.testing.assert_allclose(record["forces"], expected[record["id"]], atol=1e-12)
    deadline = time.monotonic() + 10.0
    while (programs_of(tmp_path) or list((tmp_path / "scratch").iterdir())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert programs_of(tmp_path) == []
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_program_that_hangs_is_ended_with_its_children(frames, tmp_path, monkeypatch, scratch):
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    frames[1].positions[0, 0] = 2 * FAR
    labels = relabel(frames[:3], f"{PROGRAMS}:HangingProgram", tmp_path / "a.jsonl", time_limit=4.0)
    assert labels.failures.keys() == {"1"}
    assert "did not finish within 4 s, see --time-limit (its files are in '" in labels.failures["1"]
    np.testing.assert_allclose(labels.forces[::2], right(frames[:3:2]), atol=1e-12)
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2
    assert gone(pids)
    with pytest.raises(ValueError, match="time_limit=0 s"):
        relabel(frames, f"{PROGRAMS}:HangingProgram", tmp_path / "a.jsonl", time_limit=0)


def test_a_user_who_interrupts(frames, tmp_path, monkeypatch, scratch):
    """Does not wait for a program that hangs, which is ended, and whose folder is removed."""
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    frames[1].positions[0, 0] = 2 * FAR

    def interrupt(done):
        if done == 3:
            while not (tmp_path / "pids").exists():
                time.sleep(0.02)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        relabel(frames, f"{PROGRAMS}:HangingProgram", tmp_path / "a.jsonl", 2, progress=interrupt)
    assert gone((tmp_path / "pids").read_text().split())
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("death", "message", "tries"),
    [
        ("segmentation fault", "died of SIGSEGV", 2),
        ("killed", "died of SIGKILL", 2),
        ("exit", "ended with exit code 3", 2),
        ("sys.exit", "SystemExit: the program gives up", 1),
    ],
)
def test_a_process_that_dies_costs_its_geometry(death, message, tries, frames, tmp_path, monkeypatch, scratch):
    """It is tried twice; where the reference must succeed nothing is recorded."""
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    monkeypatch.setenv("DEATH", death)
    frames[2].positions[0, 0] = 2 * FAR
    labels = relabel(frames[:5], f"{PROGRAMS}:DyingEMT", tmp_path / "a.jsonl", 2)
    assert labels.failures.keys() == {"2"}
    assert message in labels.failures["2"]
    assert (tmp_path / "count").read_text().count("dying") == tries
    others = [0, 1, 3, 4]
    np.testing.assert_allclose([labels.forces[i] for i in others], right([frames[i] for i in others]), atol=1e-12)
    (kept,) = scratch.iterdir()
    assert f"its files are in '{kept}'" in labels.failures["2"]
    if death == "exit":
        with pytest.raises(ValueError, match=r"fails at the sound geometry '2': .*exit code 3"):
            relabel(frames[:5], f"{PROGRAMS}:DyingEMT", tmp_path / "b.jsonl", sound={"2"})
        assert '"2"' not in (tmp_path / "b.jsonl").read_text()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("attribute", "UnconvergedEMT says that it has not converged"),
        ("result", "UnconvergedEMT says that it has not converged"),
        (" *** SCF run NOT converged ***\n", "CP2K says 'SCF run NOT converged' in run.out"),
        (" convergence NOT achieved after 100 iterations: stopping", "Quantum ESPRESSO says"),
        ("SCC is NOT converged", "DFTB+ says"),
    ],
    ids=["attribute", "result", "CP2K", "QE", "DFTB+"],
)
def test_what_has_not_converged_is_no_label(how, message, frames, tmp_path, monkeypatch, scratch):
    monkeypatch.setenv("UNCONVERGED", how)
    frames[1].positions[0, 0] = 2 * FAR
    labels = relabel(frames[:2], f"{PROGRAMS}:UnconvergedEMT", tmp_path / "a.jsonl")
    assert labels.failures.keys() == {"1"}
    assert message in labels.failures["1"]
    np.testing.assert_allclose(labels.forces[0], right(frames[:1])[0], atol=1e-12)


def test_a_folder_is_kept_where_a_program_fails(frames, tmp_path, monkeypatch):
    """With the input, what was printed, and the traceback; in the folder that was asked for."""
    monkeypatch.setenv("UNCONVERGED", "SCF_NOT_CONV")
    frames[1].positions[0, 0] = 2 * FAR
    place = tmp_path / "fast" / "disk"
    labels = relabel(frames[:3], f"{PROGRAMS}:UnconvergedEMT", tmp_path / "a.jsonl", 2, scratch=place)
    (kept,) = place.iterdir()
    assert labels.failures["1"].endswith(f"(its files are in '{kept}')")
    assert "SCF_NOT_CONV" in (kept / "run.out").read_text()
    assert "Traceback" in (kept / "spk_dt.log").read_text()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"no scratch folder can be made in .*file.* --scratch"):
        relabel(frames, f"{PROGRAMS}:FileProgram", tmp_path / "b.jsonl", scratch=tmp_path / "file")


def test_what_programs_print_and_read_disturbs_nothing(frames, tmp_path, scratch, capfd):
    labels = relabel(frames[:3], f"{PROGRAMS}:ChattingEMT", tmp_path / "a.jsonl", 2)
    np.testing.assert_allclose(labels.forces, right(frames[:3]), atol=1e-12)
    assert capfd.readouterr() == ("", "")


def test_a_factory_finds_modules_of_the_current_folder(frames, tmp_path, monkeypatch, scratch):
    (tmp_path / "only_here.py").write_text("from ase.calculators.emt import EMT\ndef make():\n    return EMT()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, ""])
    assert not relabel(frames[:2], "only_here:make", "a.jsonl", 2).failures
    with pytest.raises(ImportError, match=rf"no module 'nowhere_at_all' in '{tmp_path}', on PYTHONPATH"):
        relabel(frames, "nowhere_at_all:make", "b.jsonl")
    with pytest.raises(ValueError, match=r"FileNotFoundError: .*basis.dat.*Path\(__file__\)\.parent"):
        relabel(frames, f"{PROGRAMS}:with_file", "b.jsonl")
    assert not Path("b.jsonl").exists()


@pytest.mark.slow
def test_other_versions_and_settings_are_refused(frames, tmp_path, monkeypatch, scratch):
    """Both values are named; what an older file does not say is not compared."""
    path, method = tmp_path / "a.jsonl", f"{PROGRAMS}:Configured"
    monkeypatch.setenv("VERSION", "7.0.2")
    made_by = relabel(frames[:1], method, path).made_by
    assert made_by["versions"]["ase"]
    assert made_by["programs"] == {f"{PROGRAMS}.Configured": "7.0.2"}
    assert made_by["parameters"] == {"asap_cutoff": False, "charge": 0.0, "where": "."}
    assert json.loads(path.read_text().splitlines()[0]).items() >= made_by.items()
    assert relabel(frames[:2], method, path).n_computed == 1
    content = path.read_bytes()
    monkeypatch.setenv("CHARGE", "1")
    with pytest.raises(
        ValueError, match=r"with parameters.charge=0\.0, not with parameters.charge=1\.0.*begin in another"
    ):
        relabel(frames, method, path)
    monkeypatch.delenv("CHARGE")
    monkeypatch.setenv("VERSION", "7.2")
    with pytest.raises(ValueError, match=r"Configured='7\.0\.2', not with programs\..*Configured='7\.2'"):
        relabel(frames, method, path)
    monkeypatch.setenv("VERSION", "7.0.2")
    lines = content.splitlines(keepends=True)
    header = json.loads(lines[0])
    header["versions"]["ase"] = "3.1"
    path.write_bytes(json.dumps(header).encode() + b"\n" + b"".join(lines[1:]))
    with pytest.raises(ValueError, match=r"versions.ase='3\.1', not with versions.ase='3\.2"):
        relabel(frames, method, path)
    old = {key: header[key] for key in ("format", "reference")}
    path.write_bytes(json.dumps(old).encode() + b"\n" + b"".join(lines[1:]))
    assert relabel(frames[:2], method, path).n_computed == 0
    for version in ("22.0", "22.0"):  # only the output says it
        monkeypatch.setenv("VERSION_IN_OUTPUT", version)
        relabel(frames[:4], method, path)
    monkeypatch.setenv("VERSION_IN_OUTPUT", "23.1")
    with pytest.raises(ValueError, match=r"version 22\.0 of the program, and now it is 23\.1"):
        relabel(frames[:5], method, path)
    assert len(path.read_text().splitlines()) == 5


@pytest.mark.parametrize(("charge", "spin"), [("charge", "spin"), ("total_charge", "spin_multiplicity")])
def test_charge_and_spin_reach_the_calculator(charge, spin, frames, tmp_path, monkeypatch, scratch):
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    atoms, neutral = frames[0].copy(), geometry_hash(frames[0])
    atoms.info |= {charge: 1, spin: np.array([3.0]), "comment": "of the user"}
    path = tmp_path / "a.jsonl"
    relabel([frames[0], atoms], f"{PROGRAMS}:ChargedEMT", path)
    seen = [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]
    assert seen == [[0.0, 0.0, None, None], [1.0, 2.0, 1.0, 3.0]]
    assert len({neutral, geometry_hash(atoms)}) == 2
    atoms.info[charge] = 2
    with pytest.raises(ValueError, match="another geometry under the id '1'"):
        relabel([frames[0], atoms], f"{PROGRAMS}:ChargedEMT", path)
    atoms.set_initial_charges([0.5, -0.5, 0.0, 0.0])
    with pytest.raises(ValueError, match="total charge 2 e, but the sum of its initial charges is 0 e"):
        relabel([atoms], f"{PROGRAMS}:ChargedEMT", tmp_path / "b.jsonl")


def test_a_known_hash():
    """Files that were made before stay valid."""
    atoms = bulk("Cu", cubic=True)
    assert geometry_hash(atoms) == "53cd09f17798130b3f4528e816dda9bb"


def test_calculators_within_calculators_are_put_there(tmp_path):
    from ase.calculators.calculator import Calculator
    from ase.calculators.mixing import SumCalculator

    class Plain(Calculator):
        implemented_properties = ("energy",)

    inner = [Plain(directory="/somewhere"), Plain(directory="low")]
    outer = SumCalculator(inner)
    put_into(outer, tmp_path)
    assert inner[0].directory == str(tmp_path / "1")
    assert Path(inner[0].directory).is_dir()
    assert inner[1].directory == "low"  # in the working folder


def test_each_calculation_is_as_fast_as_the_first(frames, tmp_path, monkeypatch):
    """Scratch folders of calculations before stay out of the places in which modules are searched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATHS", str(tmp_path / "paths"))
    assert not relabel([*frames, *frames], f"{PROGRAMS}:notes_paths", "a.jsonl").failures
    paths = [json.loads(line) for line in (tmp_path / "paths").read_text().splitlines()]
    assert len(paths) > 5
    assert all(one == paths[0] for one in paths)
    assert str(tmp_path) in paths[0]
    assert not [folder for folder in paths[0] if "spk_dt-" in folder]
