"""``spkdt generate`` with structures, as a user gives it: files, refusals in one line, what it says, what comes of it."""

import json
import re
import shutil

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLengths
from ase.db import connect
from helpers.generation import Sites, columns, compute_here, crystal, name
from helpers.programs import metrics, spkdt, spktrain
from helpers.slab import LAYER, slab

from spk_dt.cli.progress import Pace, trajectory_bars
from spk_dt.trajectories.database import read_trajectories

EMT_ = "ase.calculators.emt:EMT"
SITES = ("--reference", name(Sites), "--temperature", 300)


@pytest.fixture
def here(monkeypatch, tmp_path):
    """An empty folder, in which the reference computes in this process."""
    monkeypatch.chdir(tmp_path)
    compute_here(monkeypatch)
    return tmp_path


def refused(*arguments):
    code, out, err = spkdt("generate", *arguments)
    assert (code, out) == (1, "")
    assert err.startswith("spkdt: ")
    assert err.count("\n") == 1
    return err


def test_structures_of_two_systems_from_an_empty_folder(tmp_path, monkeypatch):
    """A slab with fixed atoms and a molecule in one file, in two processes, and what `check` says of it."""
    monkeypatch.chdir(tmp_path)
    water = Atoms("OH2", [[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]])
    surface = slab()
    del surface.arrays["momenta"]
    ase.io.write("starts.xyz", [surface, water], columns=["symbols", "positions", "move_mask"])
    given = ("generate", "starts.xyz", "out.db", "--reference", EMT_, "--temperature", 300, "--steps", 30)
    code, out, err = spkdt(*given, "--processes", 2, "--trajectories", 2, "--equilibrate", 10)
    assert (code, err) == (0, "")
    assert out == (
        "out.db: 4 trajectories of 31 frames. The folder out.generate is no longer needed.\n"
        "Next, see whether they are sound: spkdt check out.db\n"
    )
    trajectories = read_trajectories(connect("out.db").metadata, "out.db")
    assert [one.name for one in trajectories] == ["traj_01_01", "traj_02_01", "traj_01_02", "traj_02_02"]
    for one in trajectories:
        rows = [connect("out.db").get(i + 1) for i in one.frames]
        periodic = one.name.startswith("traj_01")
        assert {(len(row.numbers), bool(row.pbc.all())) for row in rows} == {(13, True) if periodic else (3, False)}
        atoms = rows[-1].toatoms()
        assert any(isinstance(c, FixAtoms) and list(c.index) == LAYER for c in atoms.constraints) == periodic
        atoms.calc = EMT()
        np.testing.assert_allclose(rows[-1].data["forces"], atoms.get_forces(apply_constraint=False), atol=1e-9)
        if periodic:
            assert np.array_equal(rows[-1].positions[LAYER], ase.io.read("starts.xyz", 0).positions[LAYER])
    code, out, err = spkdt("check", "out.db")
    assert code == 0, out
    assert "out.db: 4 trajectories, 124 frames: ok" in out


def test_langevin_data_are_what_check_says_they_are(here, caplog):
    ase.io.write("start.traj", crystal(fixed=False))
    given = ("start.traj", "a.db", *SITES, "--friction", 0.02, "--timestep-fs", 2, "--steps", 300)
    code, out, err = spkdt("generate", *given)
    assert (code, err) == (0, "")
    assert (
        "train with data.replay_kicks=true, which replays them, and check with spkdt check a.db --replay-kicks" in out
    )
    simulation = connect("a.db").metadata["simulation"]
    assert (simulation["ensemble"], simulation["friction_per_fs"], simulation["temperature_k"]) == (
        "Langevin",
        0.02,
        300,
    )
    code, out, _ = spkdt("check", "a.db", "--replay-kicks")
    assert code == 0, out
    measured = float(re.search(r"Langevin\s+thermostat\s+of\s+friction\s+([\d.]+)", out)[1])
    assert measured == pytest.approx(20.0, rel=0.2)  # 1/ps
    assert "made with Langevin dynamics of 300 K and friction 20 /ps" in out
    code, out, _ = spkdt("check", "a.db", "--json")
    assert code == 1  # without replayed kicks
    assert json.loads(out)["simulation"] == simulation
    assert caplog.text == ""
    spkdt("generate", "start.traj", "b.db", *SITES, "--friction", 0.02, "--save-every", 2, "--steps", 2)
    assert "cannot be trained on with data.replay_kicks=true" in caplog.text


def test_which_structures_of_a_file(here):
    frames = [crystal("Ar8"), crystal("Ne8"), crystal("He8")]
    ase.io.write("run.traj", frames)
    for which, formulas in (
        ("run.traj", ["Ar8", "Ne8", "He8"]),
        ("run.traj@-1", ["He8"]),
        ("run.traj@::2", ["Ar8", "He8"]),
    ):
        assert spkdt("generate", which, "a.db", *SITES, "--steps", 1)[0] == 0
        rows = list(connect("a.db").select(sort="id"))[::2]
        assert [row.toatoms().get_chemical_formula() for row in rows] == formulas
        (here / "a.db").unlink()
        shutil.rmtree("a.generate")


def test_charge_and_spin_by_option_and_by_file(here):
    ase.io.write("plain.xyz", crystal("H8", fixed=False), format="xyz")
    assert spkdt("generate", "plain.xyz", "a.db", *SITES, "--steps", 1, "--charge", -1, "--spin", 2)[0] == 0
    charged = crystal("H8", fixed=False)
    charged.info |= {"total_charge": -1, "spin_multiplicity": 2}
    ase.io.write("charged.xyz", charged)
    assert spkdt("generate", "charged.xyz", "b.db", *SITES, "--steps", 1)[0] == 0
    for path in ("a.db", "b.db"):
        found = columns(path)
        assert (found["total_charge"] == -1).all()
        assert (found["spin_multiplicity"] == 2).all()
    assert "it has total_charge=-1, but 1 is stated" in refused("charged.xyz", "c.db", *SITES, "--charge", 1)


def test_what_cannot_be_read_is_refused_in_one_line(here):
    ase.io.write("start.traj", crystal())
    assert spkdt("generate", "start.traj", "data.db", *SITES, "--steps", 1)[0] == 0
    (here / "empty.xyz").touch()
    (here / "words.xyz").write_text("these are\nno atoms\n")
    (here / "strange.dat").write_text("1 2 3\n")
    (here / "isotope.xyz").write_text("1\n\nD 0 0 0\n")
    atoms = crystal("Ar8", fixed=False)
    atoms.set_constraint(FixBondLengths([(0, 1)]))
    ase.io.write("bonds.traj", atoms)
    for file, message in (
        ("missing.xyz", "there is no file 'missing.xyz' with structures to start from"),
        ("missing.xyz@3", "there is no file 'missing.xyz'"),
        (".", "there is no file '.'"),
        ("empty.xyz", "'empty.xyz' "),
        ("words.xyz", "'words.xyz' cannot be read as structures ("),
        ("strange.dat", "'strange.dat' cannot be read as structures ("),
        ("isotope.xyz", "'isotope.xyz' has an element 'D', which ASE does not know"),
        ("data.db", "'data.db' is a data set of SchNetPack"),
        ("data.db@-1", "spkdt frames starts.traj --data data.db"),
        ("bonds.traj", "'bonds.traj' has the constraint FixBondLengths"),
        ("bonds.traj@7", "'bonds.traj' has no structure @7; the first is @0"),
    ):
        assert message in refused(file, "a.db", *SITES)
    assert not list(here.glob("a.*"))


def test_options_that_make_no_sense_are_refused_in_one_line(here):
    ase.io.write("start.traj", crystal())
    for arguments, message in (
        (("a.db", "--temperature", 300, "--charge", 1), "--temperature, --charge: only with files of structures"),
        (("start.traj",), "'start.traj': the name of a trajectory database ends in .db"),
        (("start.traj", "a.db"), "'start.traj' has no velocities; draw them with --temperature"),
        (("start.traj", "a.db", *SITES, "--steps", 5, "--save-every", 2), "steps=5, save_every=2"),
        (("start.traj", "a.db", *SITES, "--friction", 0), "friction_per_fs=0.0: must be larger than zero"),
    ):
        assert message in refused(*arguments)
    assert [file.name for file in here.iterdir()] == ["start.traj"]


def test_a_database_that_exists_is_refused_and_kept(here):
    ase.io.write("start.traj", crystal())
    (here / "a.db").write_text("mine")
    assert "'a.db' exists" in refused("start.traj", "a.db", *SITES)
    assert (here / "a.db").read_text() == "mine"
    assert not (here / "a.generate").exists()


def test_energy_that_is_not_conserved_is_said_in_one_line(here, caplog):
    ase.io.write("start.traj", crystal("H8", fixed=False))
    err = refused("start.traj", "a.db", *SITES, "--timestep-fs", 15)
    assert "1 of 1 trajectories could not be completed: traj_01_01 at step" in err
    assert caplog.messages[0].startswith("a time step of 15 fs is long for hydrogen of mass 1.008")


def test_pace_counts_what_was_computed_only():
    now = 0.0
    pace = Pace(4, lambda: now)
    assert pace.left() == ""
    for done in (20, 40):  # there from an earlier run
        pace.report("traj_01_01", done, 100)
    assert (pace.done, pace.left()) == (0.4, "")
    for step in range(41, 101):
        now += 10.0
        pace.report("traj_01_01", step, 100)
        pace.report("start_02", step, 100)
    assert pace.done == 1.0
    assert pace.left() == "about 50 min left"  # 300 steps of 10 s
    now += 100 * 3600.0
    assert pace.left() == "about 21 days left"
    for number in (2, 3, 4):
        pace.report(f"traj_0{number}_01", 100, 100)
    assert pace.left() == ""


def test_progress_in_a_log_is_a_line_from_time_to_time(capsys):
    with trajectory_bars(2, every_s=0.0) as progress:
        progress("traj_01_01", 1, 4)
    assert re.fullmatch(
        r"traj_01_01: step 1 of 4; 0.12 of 2 trajectories, about \d+ s left\n|.*0.25 of 2.*\n", capsys.readouterr().err
    )
    with trajectory_bars(2) as progress:
        progress("traj_01_01", 1, 4)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("thermostat", [False, True])
def test_what_is_generated_trains(here, monkeypatch, thermostat):
    ase.io.write("start.traj", [slab(), slab(1)])
    arguments = ("--friction", 0.01) if thermostat else ()
    given = ("--reference", EMT_, "--temperature", 300, "--steps", 60, "--trajectories", 2, *arguments)
    assert spkdt("generate", "start.traj", "a.db", *given)[0] == 0
    spktrain(
        here,
        monkeypatch,
        *("experiment=dt_egnn", "data=trajectory", f"data.datapath={here / 'a.db'}", "trainer.max_epochs=1"),
        *("data.num_train=2", "data.num_val=1", "data.num_test=1", f"data.replay_kicks={str(thermostat).lower()}"),
        "model.representation.n_atom_basis=8",
    )
    assert any(np.isfinite(row["val_loss"]) for row in metrics(here) if "val_loss" in row)
