"""`spkmd` holds fixed what constraints of ASE fix, to the last bit: with every thermostat that can, and restarted."""

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms, FixCartesian, FixedLine
from helpers.programs import spkmd
from schnetpack import units as spk_units
from schnetpack.md import System

from spk_dt.md import FixedSystem, FramesInit, hold_fixed

pytestmark = pytest.mark.usefixtures("quiet_hydra")

LJ = ("calculator=lj", "calculator/neighbor_list=matscipy", "calculator.neighbor_list.cutoff=5.0")
FRAMES = ("system/initializer=frames",)
RPMD = ("dynamics/integrator=rpmd", "system.n_replicas=2")
HELD, SLIDING = [0, 1, 6], 3
MOBILE = np.ones((8, 3), dtype=bool)
MOBILE[HELD] = False
MOBILE[SLIDING, 2] = False


def argon(constraints: bool = True) -> Atoms:
    atoms = bulk("Ar", cubic=True, a=5.3) * (1, 1, 2)
    atoms.positions += 0.05 * np.random.default_rng(1).standard_normal((8, 3))
    atoms.positions[1] += atoms.cell[2]  # a fixed atom outside of the cell
    if constraints:
        atoms.set_constraint([FixAtoms(HELD), FixCartesian([SLIDING], mask=(False, False, True))])
    atoms.set_velocities(np.random.default_rng(0).normal(scale=0.02, size=(8, 3)))
    return atoms


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ase.io.write("start.traj", argon())
    ase.io.write("free.traj", argon(constraints=False))
    for name, heads in (
        ("matrices", [""]),
        ("piglet", ["# Matrix for normal mode 0\n", "# Matrix for normal mode 1\n"]),
    ):
        blocks = {
            "# A MATRIX: (picoseconds^-1)\n": " 10.0 0.5\n -0.5 20.0\n",
            "# C MATRIX: (K)\n": f" {300 * len(heads)} 0.0\n 0.0 {300 * len(heads)}\n",
        }
        (tmp_path / name).write_text(
            "".join(t + "".join(head + block for head in heads) for t, block in blocks.items())
        )
    return tmp_path


def start(dtype=torch.float64):
    return (torch.from_numpy(argon().positions) * 0.1).to(dtype)


def held(system, dtype=torch.float64):
    """Whether all that is fixed, and nothing else, is where it was, to the last bit, and at rest."""
    before, positions, momenta = start(dtype), system["positions"], system["momenta"]
    assert positions.dtype == dtype
    for beads, p in zip(positions, momenta, strict=True):
        assert beads[~MOBILE].numpy().tobytes() == before[~MOBILE].numpy().tobytes()
        assert not p[~MOBILE].any()
    assert (positions[0] != before)[MOBILE].all()
    return bool(positions.isfinite().all()) and bool(momenta.isfinite().all())


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("+dynamics/thermostat=berendsen",),
        ("+dynamics/thermostat=langevin",),
        ("+dynamics/thermostat=nhc", "dynamics.thermostat.massive=true"),
        ("+dynamics/thermostat=gle", "dynamics.thermostat.gle_file={folder}/matrices"),
        RPMD,
        (*RPMD, "+dynamics/thermostat=pile_local"),
        (*RPMD, "+dynamics/thermostat=trpmd"),
        (*RPMD, "+dynamics/thermostat=pi_nhc_local"),
        (*RPMD, "+dynamics/thermostat=pi_gle", "dynamics.thermostat.gle_file={folder}/matrices"),
        (*RPMD, "+dynamics/thermostat=piglet", "dynamics.thermostat.gle_file={folder}/piglet"),
    ],
    ids=lambda settings: " ".join(one.rpartition("=")[2] for one in settings) or "NVE",
)
def test_every_thermostat(settings, folder):
    assert held(spkmd(*LJ, *FRAMES, *(one.format(folder=folder) for one in settings), steps=30))


def test_without_constraints_they_move():
    system = spkmd(*LJ, *FRAMES, "system.molecule_file=free.traj", steps=30)
    assert (system["positions"][0] != start())[~MOBILE].all()


@pytest.mark.parametrize("precision", [32, 64])
def test_not_a_bit_in_a_thousand_steps_and_a_restart(precision, folder):
    """With a thermostat, positions that are wrapped each step, and a hook that removes the motion of the centre of mass."""
    hooks = (
        "dynamics.simulation_hooks=[{_target_:schnetpack.md.simulation_hooks.WrapPositions,every_n_steps:1},"
        "{_target_:schnetpack.md.simulation_hooks.RemoveCOMMotion,every_n_steps:1,remove_rotation:true}]"
    )
    settings = (*LJ, *FRAMES, "+dynamics/thermostat=langevin", hooks, f"precision={precision}")
    dtype = getattr(torch, f"float{precision}")
    assert held(spkmd(*settings, steps=500), dtype)
    assert held(spkmd(*settings, f"restart={folder}/out/checkpoint.chk", steps=500), dtype)


def test_hooks_do_not_shift_what_moves_against_what_is_fixed():
    plain = spkmd(*LJ, *FRAMES, steps=10)
    hook = "dynamics.simulation_hooks=[{_target_:schnetpack.md.simulation_hooks.RemoveCOMMotion,every_n_steps:2,"
    other = spkmd(*LJ, *FRAMES, hook + "remove_rotation:true}]", "simulation_dir=hook", steps=10)
    assert torch.equal(plain["positions"], other["positions"])
    assert torch.equal(plain["momenta"], other["momenta"])


def test_restart_goes_on_as_if_it_had_not_been_interrupted(folder):
    whole = spkmd(*LJ, *FRAMES, "simulation_dir=whole", steps=20)
    spkmd(*LJ, *FRAMES, steps=10)
    parts = spkmd(*LJ, *FRAMES, f"restart={folder}/out/checkpoint.chk", steps=10)
    torch.testing.assert_close(whole["positions"], parts["positions"], rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("initializer", ["maxwell_boltzmann", "uniform"])
def test_random_velocities(initializer):
    """SchNetPack's initializers leave fixed atoms at rest, and nothing is moved to a centre of mass."""
    system = spkmd(*LJ, f"system/initializer={initializer}", "dynamics.n_steps=1", "system.n_replicas=200", steps=1)
    assert (system["positions"][:, ~MOBILE] == start(torch.float32).double()[~MOBILE]).all()
    kinetic = 0.5 * (system["momenta"] ** 2 / system["masses"]).sum(dim=(1, 2))
    kelvin = 2.0 * kinetic / (MOBILE.sum() * spk_units.kB)
    assert float(kelvin.mean()) == pytest.approx(300.0, rel=0.1)
    if initializer == "uniform":  # scaled to the temperature
        assert float(kelvin.std()) < 10.0


@pytest.mark.parametrize("thermostat", ["berendsen", "langevin"])
def test_temperature_of_what_moves(thermostat):
    """Mean of many replicas; with the degrees of freedom of all atoms, Berendsen's would be at 1.7 times the temperature."""
    settings = (f"+dynamics/thermostat={thermostat}", "dynamics.thermostat.time_constant=10", "system.n_replicas=60")
    system = spkmd(*LJ, *FRAMES, *settings, "dynamics.thermostat.temperature_bath=50", steps=150)
    kinetic = 0.5 * (system["momenta"] ** 2 / system["masses"]).sum(dim=(1, 2)).mean()
    assert float(2.0 * kinetic / (MOBILE.sum() * spk_units.kB)) == pytest.approx(50.0, rel=0.1)


# --- what cannot be is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("+dynamics/thermostat=nhc",), "dynamics.thermostat.massive=true"),
        ((*RPMD, "+dynamics/thermostat=pile_global"), "+dynamics/thermostat=pile_local"),
        ((*RPMD, "+dynamics/thermostat=pi_nhc_global"), "dynamics.thermostat.local=true"),
        (("+dynamics/barostat=nhc_iso",), "dynamics.barostat=null"),
        ((*RPMD, "+dynamics/barostat=pile_rpmd"), "dynamics.barostat=null"),
        (("system.initializer=null",), "system/initializer=frames"),
        (("system.initializer._target_=schnetpack.md.UniformInit",), "system/initializer=frames"),
    ],
)
def test_refused(settings, message, capsys):
    with pytest.raises(SystemExit) as error:
        spkmd(*LJ, *FRAMES, *settings)
    assert message in str(error.value)
    assert "holds 4 atoms fixed" in str(error.value)


def test_settings_of_another_run_are_looked_at(folder):
    (folder / "other.yaml").write_text(
        "dynamics:\n  thermostat:\n    _target_: schnetpack.md.simulation_hooks.NHCThermostat\n"
        "    temperature_bath: 300.0\n    time_constant: 100.0\n"
    )
    with pytest.raises(SystemExit, match="NHCThermostat counts"):
        spkmd(*LJ, *FRAMES, "load_config=other.yaml")


def test_restarts_of_other_runs_are_refused(folder):
    spkmd(*LJ, *FRAMES, "simulation_dir=held")
    spkmd(*LJ, *FRAMES, "simulation_dir=free", "system.molecule_file=free.traj")
    with pytest.raises(SystemExit, match=r"fixes none: they would move"):
        spkmd(*LJ, *FRAMES, f"restart={folder}/held/checkpoint.chk", "system.molecule_file=free.traj")
    with pytest.raises(ValueError, match=r"other atoms were fixed, or none"):
        spkmd(*LJ, *FRAMES, f"restart={folder}/free/checkpoint.chk", "simulation_dir=more")
    with pytest.raises(SystemExit, match="Continue it with restart="):
        spkmd(*LJ, f"system.load_system_state={folder}/held/checkpoint.chk", "simulation_dir=state")


def test_a_cell_that_changes_is_refused():
    """Also where no settings are looked at."""
    system = System()
    system.load_molecules([argon()])
    hold_fixed(system, [argon()])
    system.cells = system.cells.clone()
    with pytest.raises(ValueError, match="barostat"):
        system.cells = 1.001 * system.cells


def test_what_is_fixed_has_to_be_components():
    atoms = argon()
    atoms.set_constraint(FixedLine([2], (1, 1, 0)))
    system = System()
    system.load_molecules([atoms])
    with pytest.raises(ValueError, match="some of x, y and z"):
        hold_fixed(system, [atoms])


# --- the system


def test_molecules_without_fixed_atoms_lose_their_motion(tmp_path):
    frames = [argon(), argon(constraints=False)]
    ase.io.write("two.traj", frames)
    system = System()
    system.load_molecules(frames)
    FramesInit("two.traj").initialize_system(system)
    assert isinstance(system, FixedSystem)
    before = system.positions.clone()
    system.remove_center_of_mass()
    system.remove_translation()
    assert torch.equal(system.positions[0, :8], before[0, :8])
    assert system.center_of_mass[0, 1].abs().max() < 1e-6 < system.center_of_mass[0, 0].abs().max()
    first, second = system.momenta[0].split(8)
    assert second.sum(dim=0).abs().max() < 1e-6 < 1e-3 < first.sum(dim=0).abs().max()


def test_free_systems_stay_what_they_are():
    system = System()
    atoms = argon(constraints=False)
    system.load_molecules([atoms])
    hold_fixed(system, [atoms])
    assert type(system) is System


def test_a_push_on_a_fixed_atom_is_no_explosion(tmp_path):
    """Forces on fixed atoms may be as large as they are."""
    limit = "callbacks.stop_exploded.max_displacement=0.03"
    atoms = argon()
    atoms.set_constraint(FixAtoms(range(8)))
    atoms.positions[1] = atoms.positions[0] + [1.8, 0.0, 0.0]  # a wall
    ase.io.write("wall.traj", atoms)
    spkmd(*LJ, *FRAMES, "system.molecule_file=wall.traj", limit, callbacks="[checkpoint,stop_exploded]", steps=3)
    atoms.set_constraint()
    ase.io.write("wall.traj", atoms)
    with pytest.raises(RuntimeError, match="exploded"):
        spkmd(*LJ, *FRAMES, "system.molecule_file=wall.traj", limit, "simulation_dir=free", callbacks="[stop_exploded]")
