"""Logs of LAMMPS in all styles of thermodynamic output, and the masses that they say."""

import numpy as np
import pytest
from helpers.simulation_files import write_dump, write_log

from spk_dt.trajectories.readers import lammps
from spk_dt.trajectories.readers.lammps_log import read_lammps_log

N_FRAMES = 4
HEADER = "LAMMPS (2 Aug 2023)\nunits           metal\n  Unit style    : metal\n  Time step     : 0.0005\n"
END = "Loop time of 0.1 on 1 procs for 3 steps with 4 atoms\n"


@pytest.fixture(scope="module")
def frames(crystal, make_trajectory):
    return make_trajectory(crystal, N_FRAMES - 1, 0.5, 7)


@pytest.fixture
def energies(frames):
    return [atoms.get_potential_energy() for atoms in frames]


def multi(energies, first=0):
    """``thermo_style multi``: several lines a step, three terms in each."""
    text = HEADER
    for step, energy in enumerate(energies, start=first):
        text += f"------------ Step {step:14d} ----- CPU =  {0.01 * step:11.5g} (sec) -------------\n"
        text += f"TotEng   = {energy + 1.0:14.10f} KinEng   = {1.0:14.4f} Temp     = {300.0:14.4f} \n"
        text += f"PotEng   = {energy:.12f} E_bond   = {0.0:14.4f} E_angle  = {0.0:14.4f} \n"
        text += f"E_coul   = {0.0:14.4f} E_long   = {0.0:14.4f} Press    = {12.5:14.4f} \n"
        if step == 1:
            text += "WARNING: a line between the lines (src/thermo.cpp:1)\n"
    return text + END


def yaml(energies, first=0):
    """``thermo_style yaml``, or ``thermo_modify line yaml``."""
    text = HEADER + "---\nkeywords: ['Step', 'Temp', 'E_pair', 'E_mol', 'TotEng', 'Press', ]\ndata:\n"
    for step, energy in enumerate(energies, start=first):
        text += f"  - [{step}, 300.0, {energy - 0.25:.12f}, 0.25, {energy + 1.0:.12f}, 12.5, ]\n"
        if step == 1:
            text += "WARNING: a line between the lines (src/thermo.cpp:1)\n"
    return text + "...\n" + END


STYLES = {"multi": multi, "yaml": yaml}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("again", [False, True])
def test_energies_of_each_style(tmp_path, frames, energies, style, again):
    """Also of two runs, the second of which begins with the last step of the first."""
    path = tmp_path / "log.lammps"
    text = STYLES[style](energies[:3]) + STYLES[style](energies[2:], 2) if again else STYLES[style](energies)
    path.write_text(text)
    log = read_lammps_log(path)
    assert (log.units, log.timestep, log.n_atoms) == ("metal", 0.0005, 4)
    assert log.steps.tolist() == ([0, 1, 2, 2, 3] if again else [0, 1, 2, 3])
    dump = write_dump(tmp_path / "dump", frames)
    (raw,) = lammps.read(dump, lammps_log=path)
    found = list(raw.frames())
    assert raw.timestep_fs == 0.5
    np.testing.assert_allclose([atoms.get_potential_energy() for atoms in found], energies, rtol=1e-11)


@pytest.mark.parametrize("style", STYLES)
def test_a_log_that_is_cut_off_has_whole_steps_only(tmp_path, energies, style):
    text = STYLES[style](energies)
    path = tmp_path / "log.lammps"
    lengths = set()
    for cut in range(len(text) // 2, len(text), 7):
        path.write_text(text[:cut])
        log = read_lammps_log(path)
        lengths.add(len(log.steps))
        np.testing.assert_allclose(log.energies, energies[: len(log.steps)], rtol=1e-11)
    assert len(lengths) > 2


@pytest.mark.parametrize("style", STYLES)
def test_a_log_without_potential_energies(tmp_path, energies, style):
    path = tmp_path / "log.lammps"
    path.write_text(STYLES[style](energies).replace("PotEng", "Enthalpy").replace("E_pair", "E_vdwl"))
    with pytest.raises(ValueError, match="no potential energies"):
        read_lammps_log(path)


def test_masses_of_the_log(tmp_path, frames, energies):
    """Those of a column of the dump come first; without types they cannot be assigned."""
    path = tmp_path / "log.lammps"
    write_log(path, energies, 4)
    path.write_text("mass            1 65.0\nmass 2 1.0\n" + path.read_text())
    for columns, mass in (
        ("id type element x y z fx fy fz", 65.0),
        ("id type element mass x y z fx fy fz", 63.546),
        ("id element x y z fx fy fz", 63.546),
    ):
        (raw,) = lammps.read(write_dump(tmp_path / "dump", frames, columns=columns), lammps_log=path)
        np.testing.assert_allclose(next(raw.frames()).get_masses(), mass)


def test_forces_with_noise_are_known_by_the_runs_of_their_fix(tmp_path):
    """Equilibrated with a thermostat that adds random forces, then without it."""
    end = "Loop time of 0.1 on 1 procs for 10 steps with 4 atoms"
    text = [
        "units metal",
        "fix 1 all nve",
        "fix heat all langevin 300 300 0.1 3",
        "Step PotEng",
        "0 -1.0",
        "10 -1.1",
        end,
    ]
    text += ["unfix heat", "Step PotEng", "20 -1.2", "30 -1.3", end]
    text += ["fix 2 all nvt temp 300 300 0.1", "Step PotEng", "40 -1.2"]
    (tmp_path / "log.lammps").write_text("\n".join(text) + "\n")
    log = read_lammps_log(tmp_path / "log.lammps")
    assert log.noisy == {0: "langevin", 10: "langevin"}
    assert log.steps.tolist() == [0, 10, 20, 30, 40]
