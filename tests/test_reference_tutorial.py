"""The worked factories of `tutorials/reference_programs.py`: ASE takes their arguments, and one program really runs."""

import importlib
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

from spk_dt.labels.provenance import provenance
from spk_dt.labels.relabel import relabel

TUTORIALS = Path(__file__).parents[1] / "tutorials"

#: what each factory looks for, and a sentence that its input must then have
PROGRAMS = {
    "orca": ("ORCA", "EnGrad"),
    "vasp": ("ASE_VASP_COMMAND", "ENCUT = 400"),
    "cp2k": ("ASE_CP2K_COMMAND", None),
    "dftb": ("ASE_DFTB_COMMAND", "SCCTolerance = 1e-06"),
    "nwchem": ("ASE_NWCHEM_COMMAND", "xc pbe96"),
    "mopac": ("ASE_MOPAC_COMMAND", "PM7 1SCF GRADIENTS"),
    "xtb": ("ASE_XTB_COMMAND", "0"),
}

#: answers as the shell of CP2K does; no other program is run
CP2K_SHELL = """#!/bin/sh
echo '* READY'
while read line; do
    case $line in EXIT) exit 0;; VERSION) echo 'CP2K Shell Version: 7.0';; esac
    echo '* READY'
done
"""


@pytest.fixture
def factories(monkeypatch):
    monkeypatch.syspath_prepend(str(TUTORIALS))
    return importlib.import_module("reference_programs")


def water(n):
    rng, frames = np.random.default_rng(0), []
    for _ in range(n):
        atoms = molecule("H2O", vacuum=4.0)
        atoms.positions += 0.05 * rng.standard_normal((3, 3))
        frames.append(atoms)
    return frames


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_factory_is_accepted_by_ase(name, factories, tmp_path, monkeypatch):
    """Made, and its input written, with a program that does nothing."""
    program = tmp_path / "program"
    program.write_text(CP2K_SHELL)
    program.chmod(0o755)
    variable, sentence = PROGRAMS[name]
    monkeypatch.setenv(variable, str(program))
    monkeypatch.setenv("VASP_PP_PATH", str(tmp_path / "pp"))
    for element in "HO":
        folder = tmp_path / "pp" / "potpaw_PBE" / element
        folder.mkdir(parents=True)
        (folder / "POTCAR").write_text(f"VRHFIN ={element}:\n")
    monkeypatch.chdir(tmp_path)
    calculator, atoms = getattr(factories, name)(), water(1)[0]
    assert provenance(calculator, tmp_path)["versions"]["ase"]
    if sentence is None:
        calculator.close()
        return
    folder = tmp_path / "run"
    calculator.directory = folder
    if name == "orca":
        calculator.write_inputfiles(atoms, ["energy", "forces"])
    else:
        if name == "vasp":
            folder.mkdir()
            calculator.initialize(atoms)
        calculator.write_input(atoms, ["energy", "forces"], [])
    assert any(sentence in file.read_text() for file in folder.iterdir() if file.is_file())


def test_every_factory_of_the_tutorial_is_tested(factories):
    made = [name for name, value in vars(factories).items() if getattr(value, "__module__", "") == factories.__name__]
    assert set(made) == {*PROGRAMS, "XTB"}


@pytest.mark.slow
@pytest.mark.parametrize(("program", "error"), [("mopac", 1e-4), ("xtb", 1e-6)])
def test_a_real_program(program, error, tmp_path, monkeypatch, scratch):
    """With four processes as with one, for a folder of the command in which nothing is left; a cation is one."""
    if shutil.which(program) is None:
        pytest.skip(f"there is no program '{program}'; Debian has it: apt-get install {program}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(TUTORIALS)])
    frames, name = water(24), f"reference_programs:{program}"
    frames += [atoms.copy() for atoms in frames[:2]]
    for atoms in frames[-2:]:
        atoms.info["charge"] = 1
        atoms.info["spin"] = 2
        if program == "xtb":
            atoms.set_initial_magnetic_moments([0.0, 0.0, 0.0])
    one = relabel(frames, name, tmp_path / "one.jsonl")
    four = relabel(frames, name, tmp_path / "four.jsonl", 4)
    assert not one.failures
    assert not four.failures
    assert np.array_equal(np.array(one.forces), np.array(four.forces))
    assert np.array_equal(one.energy, four.energy)
    assert (one.energy[-2:] - one.energy[:2] > 5.0).all()  # eV, to ionise water
    assert sorted(os.listdir(tmp_path)) == ["four.jsonl", "one.jsonl", "scratch"]
    assert list(scratch.iterdir()) == []
    step, atoms = 1e-3, frames[0].copy()  # its forces are the gradient of its energy
    moved = [atoms.copy(), atoms.copy()]
    for sign, other in zip((1, -1), moved, strict=True):
        other.positions[0, 2] += sign * step
    energies = relabel(moved, name, tmp_path / "moved.jsonl").energy
    slope = -(energies[0] - energies[1]) / (2 * step)
    assert one.forces[0][0, 2] == pytest.approx(slope, abs=100 * error + 1e-3)


@pytest.mark.slow
def test_a_real_program_that_does_not_converge(tmp_path, monkeypatch, scratch):
    """MOPAC with one cycle; ASE finds no energy, and the message says why."""
    if shutil.which("mopac") is None:
        pytest.skip("there is no program 'mopac'; Debian has it: apt-get install mopac")
    (tmp_path / "few_cycles.py").write_text(
        "from ase.calculators.mopac import MOPAC\n\n"
        "def make():\n    return MOPAC(command='mopac PREFIX.mop', method='PM7', task='1SCF GRADIENTS ITRY=1')\n"
    )
    monkeypatch.chdir(tmp_path)
    labels = relabel(water(2), "few_cycles:make", tmp_path / "a.jsonl")
    assert labels.failures.keys() == {"0", "1"}
    assert all("MOPAC says 'UNABLE TO ACHIEVE SELF-CONSISTENCE'" in message for message in labels.failures.values())
