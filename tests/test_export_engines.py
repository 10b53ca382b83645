"""i-PI and torch-sim run the files that `spkdt export` writes."""

import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from helpers.models import crystal, potential
from schnetpack.interfaces import SpkCalculator
from schnetpack.transform import AddOffsets, CastTo64, MatScipyNeighborList

pytest.importorskip("metatomic.torch", reason="needs the extra export")
from spk_dt.export.write import export_model

INPUT = """<simulation verbosity='low' threading='False'>
  <output prefix='out'>
    <properties filename='txt'> [ step, conserved{{electronvolt}}, potential{{electronvolt}} ] </properties>
    <trajectory filename='pos' format='ase' bead='{last}'> positions </trajectory>
    <trajectory filename='for' format='ase' bead='{last}'> forces </trajectory>
  </output>
  <total_steps>{steps}</total_steps>
  <prng><seed>3</seed></prng>
  <ffdirect name='driver'>
    <pes>metatomic</pes>
    <parameters>{{ template: start.xyz, model: potential.pt, device: cpu }}</parameters>
  </ffdirect>
  <system>
    <initialize nbeads='{beads}'>
      <file mode='ase' units='ase'> start.xyz </file>
      <velocities mode='thermal' units='kelvin'> 50 </velocities>
    </initialize>
    <forces><force forcefield='driver'/></forces>
    <ensemble><temperature units='kelvin'>50</temperature></ensemble>
    <motion mode='dynamics'><dynamics mode='nve'><timestep units='femtosecond'>0.25</timestep></dynamics></motion>
  </system>
</simulation>
"""


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    offsets = AddOffsets("energy", add_mean=True, property_mean=torch.tensor([-65.0]))
    torch.save(potential(postprocessors=[CastTo64(), offsets]), tmp_path / "best_model")
    units = {"energy_unit": "eV", "position_unit": "Ang", "elements": ["H", "C", "Pd"]}
    export_model([tmp_path / "best_model"], tmp_path / "potential.pt", 64, **units)
    return tmp_path


def calculator(folder):
    pairs = MatScipyNeighborList(cutoff=4.0)
    return SpkCalculator(
        str(folder / "best_model"), pairs, energy_key="energy", force_key="forces", energy_unit="eV", position_unit="Ang",
        dtype=torch.float64,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("beads", [1, 4])
def test_ipi_conserves_energy_with_our_forces(beads, folder):
    pytest.importorskip("ipi", reason="needs i-PI")
    start = crystal(2)
    ase.io.write(folder / "start.xyz", start, format="extxyz")
    (folder / "input.xml").write_text(INPUT.format(beads=beads, last=beads - 1, steps=40))
    program = Path(sys.executable).with_name("i-pi")
    done = subprocess.run([program, "input.xml"], cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert (folder / "out.txt").exists(), done.stdout[-1000:] + done.stderr[-1000:]
    _, conserved, potential_energy = np.loadtxt(folder / "out.txt").T
    assert len(conserved) == 41
    assert np.ptp(conserved) < 1e-3
    assert np.ptp(potential_energy) > 1e-3
    states, forces = (ase.io.read(folder / f"out.{what}_{beads - 1}.extxyz", "-1") for what in ("pos", "for"))
    states.calc = calculator(folder)
    found = forces.get_forces()
    np.testing.assert_allclose(found, states.get_forces(), atol=1e-5)
    assert np.abs(found).max() > 1e-3


@pytest.mark.slow
def test_torch_sim_runs_systems_side_by_side(folder):
    torch_sim = pytest.importorskip("torch_sim", reason="needs metatomic-torchsim")
    engine = pytest.importorskip("metatomic_torchsim", reason="needs metatomic-torchsim")
    model = engine.MetatomicModel(str(folder / "potential.pt"), device="cpu")
    frames = [crystal(seed) for seed in range(3)]
    state = torch_sim.io.atoms_to_state(frames, torch.device("cpu"), torch.float64)
    found = model(state)
    ends = np.cumsum([len(atoms) for atoms in frames])[:-1]
    for atoms, energy, forces in zip(
        frames, found["energy"], np.split(found["forces"].detach().numpy(), ends), strict=True
    ):
        atoms.calc = calculator(folder)
        assert float(energy) == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
        np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-5)
