"""Trajectories that other programs made, judged by the figures of `spkdt evaluate`."""

import json

import ase.io
import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import Trajectory
from helpers.hardening import compute_in_this_process
from helpers.ipi_files import write_ipi
from helpers.pair_potential import pair_model, pair_trajectory, tetrahedron
from helpers.pair_reference import Reference
from helpers.simulation_files import write_dump, write_log
from typer.testing import CliRunner

from spk_dt.cli import app
from spk_dt.data import TrajectoryWriter
from spk_dt.evaluation.evaluate_trajectories import evaluate_trajectories
from spk_dt.evaluation.pair_distances import pair_distances
from spk_dt.evaluation.report import write_report
from spk_dt.evaluation.results import read_results
from spk_dt.evaluation.true_error import true_errors
from spk_dt.trajectories.inputs import Reading

STEPS = 80
REFERENCE = "helpers.pair_reference:Reference"


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    compute_in_this_process(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pd2h2.db"
    with TrajectoryWriter(path, splits={"train": ["a"], "test": ["b", "c"]}) as writer:
        for seed, name in enumerate("abc"):
            writer.add(name, pair_trajectory(tetrahedron(), 40, 0.5, seed), timestep_fs=0.5)
    return path


@pytest.fixture(scope="module")
def frames():
    return pair_trajectory(tetrahedron(), STEPS, 0.5, 7)


def wrong(frames, energy=1.0, forces=1.0, drop=()):
    """The frames with energies and forces by a factor off, or without some of what they have."""
    found = []
    for atoms in frames:
        new = atoms.copy()
        results = {"energy": energy * atoms.get_potential_energy(), "forces": forces * atoms.get_forces()}
        new.calc = SinglePointCalculator(new, **{name: value for name, value in results.items() if name not in drop})
        if "velocities" in drop:
            del new.arrays["momenta"]
        found.append(new)
    return found


def traj(path, frames):
    with Trajectory(path, "w") as file:
        for atoms in frames:
            file.write(atoms)
    return path


def lammps(folder, frames, **kwargs):
    dump = write_dump(folder / "run.dump", frames, **kwargs)
    write_log(folder / "log.lammps", [atoms.get_potential_energy() for atoms in frames], len(frames[0]), **kwargs)
    return dump


def written(kind, folder, frames):
    """Files of a kind, and what has to be stated of them."""
    if kind == "ASE":
        return traj(folder / "run.traj", frames), Reading(timestep_fs=0.5)
    if kind == "extended XYZ":
        ase.io.write(folder / "run.extxyz", frames)
        return folder / "run.extxyz", Reading(timestep_fs=0.5)
    if kind == "i-PI":
        return write_ipi(folder, frames), Reading()
    return lammps(folder, frames), Reading(lammps_logs=[folder / "log.lammps"])


def judged(data, path, out, reading=None, **kwargs):
    return evaluate_trajectories(data, {"run": [path]}, out, reading, **kwargs)["run"]


@pytest.fixture(scope="module")
def by_ase(data, frames, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ase")
    path, reading = written("ASE", folder, frames)
    return judged(data, path, folder / "out", reading)


def test_the_figures_are_right(by_ase, data, frames):
    """Computed again here, with nothing but numpy."""
    total = np.array([atoms.get_total_energy() for atoms in frames])
    time_ps = 0.5e-3 * np.arange(len(frames))
    slope = 1e3 * np.polyfit(time_ps, total, 1)[0] / 4
    kelvin = np.mean([atoms.get_temperature() for atoms in frames])
    assert by_ase["conservation"]["largest_drift_mev_per_atom_per_ps"] == pytest.approx(abs(slope), rel=1e-6)
    assert by_ase["conservation"]["mean_temperature_k"] == pytest.approx(kelvin, rel=1e-6)
    assert by_ase["stability"]["part_stable"] == 1.0
    assert by_ase["by_start"][0]["stability"]["simulated_fs"] == 0.5 * STEPS
    assert by_ase["exploded"] == []
    assert by_ase["not_known"] == {}
    pairs = np.array([(i, j) for i in range(4) for j in range(i)])
    bins = np.arange(0.0, 20.0001, 0.05)
    sample = [atoms for seed in (1, 2) for atoms in pair_trajectory(tetrahedron(), 40, 0.5, seed)]
    h = [
        np.histogram(pair_distances(np.array([a.positions for a in own]), pairs, np.zeros((3, 3)), [False] * 3), bins)[
            0
        ]
        for own in (frames, sample)
    ]
    assert by_ase["structure"]["mae_of_h_of_r"] == pytest.approx(np.abs(h[0] / h[0].sum() - h[1] / h[1].sum()).sum())


@pytest.mark.parametrize("kind", ["extended XYZ", "LAMMPS", "i-PI"])
def test_every_format_gives_the_same_figures(data, frames, tmp_path, by_ase, kind):
    path, reading = written(kind, tmp_path, frames)
    found = judged(data, path, tmp_path / "out", reading)
    for group in ("stability", "structure", "conservation"):
        for key, value in by_ase[group].items():
            assert found[group][key] == pytest.approx(value, rel=2e-2, abs=1e-3), key
    assert found["not_known"] == {}


def test_what_spkmd_simulated_has_the_figures_of_the_evaluation_that_simulated_it(data, tmp_path):
    """The simulation of a model is judged beside the reference, and again from its HDF5 file, as of another program."""
    model = pair_model(tmp_path / "off" / "best_model", depth=1.2)
    command = ["evaluate", str(data), str(model), "--steps", "40", "--number", "1", "--out", str(tmp_path / "one")]
    assert CliRunner().invoke(app, command).exit_code == 0
    own = json.loads((tmp_path / "one" / "metrics.json").read_text())["off"]["by_start"][0]["conservation"]
    path = tmp_path / "one" / "off" / "simulation_0.hdf5"
    found = judged(data, path, tmp_path / "two")["by_start"][0]["conservation"]
    for key in ("mean_temperature_k", "drift_mev_per_atom_per_ps", "largest_force_ev_per_ang"):
        assert found[key] == pytest.approx(own[key], rel=0.05), key  # the file lacks the first frame
    errors = {}
    for name in ("one", "two"):
        errors[name] = next(iter(true_errors(tmp_path / name, REFERENCE, 10).values()))
    assert errors["two"]["at_last_time"]["H"] == pytest.approx(errors["one"]["at_last_time"]["H"], rel=0.2)
    assert errors["one"]["at_last_time"]["H"] > 1e-3  # the control: this model is not the reference


@pytest.mark.parametrize(("factor", "share"), [(1.0, 0.0), (1.3, 0.3)])
def test_true_errors_are_those_of_the_forces_in_the_file(data, frames, tmp_path, factor, share):
    path = traj(tmp_path / "run.traj", wrong(frames, factor, factor)[::20])
    reading = Reading(timestep_fs=0.5, save_every=20, units=None)
    judged(data, path, tmp_path / "out", reading, temperature=300.0)
    found = true_errors(tmp_path / "out", REFERENCE, 40)["run"]
    visited = frames[::40]
    expected = np.mean([np.abs(share * atoms.get_forces()[atoms.numbers == 1]).mean() for atoms in visited])
    assert found["mean_over_time"]["H"] == pytest.approx(expected, abs=1e-7)
    changes = [share * (atoms.get_potential_energy() - frames[0].get_potential_energy()) / 4 for atoms in visited[1:]]
    assert found["energy"]["largest_mev_per_atom"] == pytest.approx(1e3 * np.abs(changes).max(), abs=1e-5)
    assert found["failures"]["n_failed"] == 0
    assert found["n_geometries"] == 3


def test_a_wrong_time_step_unit_or_order_of_types_is_refused_where_motion_tells(data, frames, tmp_path):
    path = traj(tmp_path / "run.traj", frames)
    with pytest.raises(ValueError, match=r"says 0.25 fs between frames, but they are 0.5 fs apart"):
        judged(data, path, tmp_path / "out", Reading(timestep_fs=0.25))
    with pytest.raises(ValueError, match=r"does not say the time step.*--timestep-fs"):
        judged(data, path, tmp_path / "out")
    with pytest.raises(ValueError, match=r"its motion contradicts"):
        judged(
            data,
            path,
            tmp_path / "out",
            Reading(timestep_fs=0.5, units={"forces": "kcal/mol/Ang", "energy": "kcal/mol"}),
        )
    dump = write_dump(tmp_path / "run.dump", frames, columns="id type x y z vx vy vz fx fy fz")
    log = write_log(tmp_path / "log.lammps", [atoms.get_potential_energy() for atoms in frames], 4)
    with pytest.raises(ValueError, match=r"its motion contradicts"):
        judged(data, dump, tmp_path / "out", Reading(lammps_logs=[log], lammps_elements=["H", "Pd"]))
    with pytest.raises(ValueError, match=r"has atoms of C, of which"):
        judged(data, dump, tmp_path / "out", Reading(lammps_logs=[log], lammps_elements=["C", "H"]))
    assert not (tmp_path / "out" / "metrics.json").exists()
    judged(data, dump, tmp_path / "out", Reading(lammps_logs=[log], lammps_elements=["Pd", "H"]))


def test_a_time_step_that_nothing_tells_changes_the_figures(data, frames, tmp_path):
    """Without velocities and forces nothing contradicts a wrong time step: every time is then wrong by its factor."""
    path = traj(tmp_path / "run.traj", wrong(frames, drop=("velocities", "forces")))
    one, two = (judged(data, path, tmp_path / f"out_{h}", Reading(timestep_fs=h)) for h in (0.5, 1.0))
    assert two["by_start"][0]["stability"]["simulated_fs"] == 2.0 * one["by_start"][0]["stability"]["simulated_fs"]
    assert one["structure"]["mae_of_h_of_r"] == two["structure"]["mae_of_h_of_r"]


def test_what_is_not_known_is_said(data, frames, tmp_path):
    for name, path, reading, missing in (
        (
            "positions",
            traj(tmp_path / "x.traj", wrong(frames, drop=("energy", "forces", "velocities"))),
            Reading(0.5),
            4,
        ),
        ("dump", write_dump(tmp_path / "run.dump", frames), Reading(0.0005e3, lammps_units="metal"), 2),
    ):
        found = judged(data, path, tmp_path / name, reading)
        assert len(found["not_known"]) == missing
        assert found["not_known"]["conservation of energy"].startswith("the files have no energies")
        assert found["structure"]["mae_of_h_of_r"] is not None
        assert "largest_drift_mev_per_atom_per_ps" not in found["conservation"]
    assert found["conservation"]["mean_temperature_k"] > 0.0
    text = write_report(tmp_path / "positions").read_text()
    assert "conservation of energy of run" in text
    assert read_results(tmp_path / "positions").true_errors == {}
    found = true_errors(tmp_path / "positions", REFERENCE)["run"]
    assert "neither forces nor energies" in found["reason"]
    found = true_errors(tmp_path / "dump", REFERENCE, 40)["run"]
    assert found["mean_over_time"]["H"] < 1e-6
    assert found["energy"]["mae_mev_per_atom"] is None
    assert "failures" not in found


def test_the_order_of_atoms_does_not_matter_and_other_atoms_have_no_structure_to_compare(
    data, frames, tmp_path, by_ase
):
    order = [3, 1, 0, 2]
    turned = [atoms[order] for atoms in wrong(frames)]
    for new, old in zip(turned, frames, strict=True):
        new.calc = SinglePointCalculator(new, energy=old.get_potential_energy(), forces=old.get_forces()[order])
    found = judged(data, traj(tmp_path / "a.traj", turned), tmp_path / "a", Reading(0.5))
    assert found["structure"]["mae_of_h_of_r"] == pytest.approx(by_ase["structure"]["mae_of_h_of_r"], abs=1e-12)
    more = pair_trajectory(tetrahedron("PdH3"), 10, 0.5)
    found = judged(data, traj(tmp_path / "b.traj", more), tmp_path / "b", Reading(0.5))
    assert found["structure"]["mae_of_h_of_r"] is None
    assert "no frames of the same atoms" in found["not_known"]["structure beside that of the data"]


def test_a_cell_that_changes_is_that_of_each_frame(tmp_path):
    """A gas in a cell that grows: distances across its boundary, and states that are relabelled, are in the cell of then."""
    rng, cells = np.random.default_rng(0), [8.0 + 0.1 * k for k in range(11)]
    scaled = rng.random((6, 3))
    frames = []
    for a in cells:
        atoms = Atoms("Pd3H3", scaled_positions=scaled, cell=[a, a, a], pbc=True)
        atoms.calc = Reference()
        atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
        atoms.set_velocities(np.full((6, 3), 1e-3))
        frames.append(atoms)
    with TrajectoryWriter(tmp_path / "data.db") as writer:
        writer.add("a", frames, timestep_fs=0.5)
    path = traj(tmp_path / "run.traj", frames)
    found = judged(tmp_path / "data.db", path, tmp_path / "out", Reading(10.0))
    assert found["structure"]["mae_of_h_of_r"] == pytest.approx(0.0, abs=1e-12)
    assert max(found["structure"]["rdf_mae_ang"].values()) == pytest.approx(0.0, abs=1e-9)
    assert "the cell changes" in found["not_known"]["conservation of energy"]
    errors = true_errors(tmp_path / "out", REFERENCE, 5)["run"]
    assert errors["mean_over_time"]["H"] < 1e-9
    (_, trajectory), *_ = read_results(tmp_path / "out").simulations("run")
    assert trajectory.cell.shape == (11, 3, 3)
    pairs = np.array([(i, j) for i in range(6) for j in range(i)])
    right = np.array([[frame.get_distance(i, j, mic=True) for i, j in pairs] for frame in frames])
    np.testing.assert_allclose(pair_distances(trajectory.positions, pairs, trajectory.cell, trajectory.pbc), right)
    first = pair_distances(trajectory.positions, pairs, trajectory.cell[0], trajectory.pbc)
    assert np.abs(first - right).max() > 0.1  # the control


def test_a_simulation_that_breaks_down_is_judged_until_then(data, frames, tmp_path):
    ase.io.write(tmp_path / "run.extxyz", frames[:40])
    lines = (tmp_path / "run.extxyz").read_text().split("\n")
    words = lines[6 * 30 + 3].split()
    lines[6 * 30 + 3] = " ".join([words[0], "nan", *words[2:]])
    (tmp_path / "run.extxyz").write_text("\n".join(lines))
    found = judged(data, tmp_path / "run.extxyz", tmp_path / "out", Reading(0.5))
    assert [(one["step"], one["time_fs"]) for one in found["exploded"]] == [(30, 15.0)]
    assert found["stability"]["mean_stable_fs"] == 15.0
    assert found["stability"]["part_stable"] == 0.0
    assert found["conservation"]["mean_temperature_k"] > 0.0
    failed = true_errors(tmp_path / "out", REFERENCE, 10)["run"]["failures"]
    assert failed["by_reason"] == {"exploded": 1}


def test_beads_of_a_path_integral_are_trajectories_of_one_name(data, frames, tmp_path):
    for bead in range(3):
        path = write_ipi(tmp_path, pair_trajectory(tetrahedron(), 20, 0.5, bead), bead=bead)
    (tmp_path / "run.out").unlink()
    found = judged(data, path, tmp_path / "out", Reading(0.5), temperature=300.0)
    assert len(found["by_start"]) == 3
    assert "one of 3 beads" in found["not_known"]["temperature"]
    assert found["conservation"]["mean_temperature_k"] is None
    assert found["structure"]["mae_of_h_of_r"] is not None
    with pytest.raises(ValueError, match="brings all beads"):
        evaluate_trajectories(
            data,
            {"a": [tmp_path / "run.pos_0.xyz"], "b": [tmp_path / "run.pos_1.xyz"]},
            tmp_path / "twice",
            Reading(0.5),
        )


def test_the_command_and_its_page(data, frames, tmp_path):
    one = traj(tmp_path / "one.traj", frames)
    two = traj(tmp_path / "two.traj", wrong(frames[:41], 1.0, 1.4))
    model = pair_model(tmp_path / "exact" / "best_model")

    def spkdt(*arguments):
        return CliRunner().invoke(app, ["evaluate", str(data), *map(str, arguments)])

    out = tmp_path / "out"
    for arguments, words in (
        ((f"a={one}", model, "--timestep-fs", 0.5), "make an evaluation of each"),
        ((f"a={one}", "--timestep-fs", 0.5, "--steps", 100), "--steps is for models"),
        ((model, "--timestep-fs", 0.5), "--timestep-fs is for trajectories"),
        ((f"a={one}", "--timestep-fs", -1.0), "a time step is positive"),
        ((f"a={one}", "--timestep-fs", 0.5, "--lammps-units", "metal"), "no input is of this format"),
        ((f"figures={one}", "--timestep-fs", 0.5), "cannot be the name"),
        ((f"a={tmp_path / 'none.traj'}", "--timestep-fs", 0.5), "there is no"),
    ):
        refused = spkdt(*arguments, "--out", out)
        assert refused.exit_code == 1
        assert words in refused.stderr.replace("\n", " "), refused.stderr
        assert not out.exists() or not (out / "settings.json").exists()
    (tmp_path / "notes.txt").write_text("nothing that anybody knows\n")
    assert "is not known" in spkdt(f"a={tmp_path / 'notes.txt'}", "--out", out).stderr

    again = traj(tmp_path / "again.traj", frames[20:])
    arguments = [f"a={one}", f"b={two}", f"b={again}", "--timestep-fs", 0.5, "--out", out]
    refused = spkdt(*arguments)
    assert "two.traj': its motion contradicts" in refused.stderr
    two = traj(tmp_path / "two.traj", wrong(frames[:41], 1.0, 1.4, drop=("velocities", "energy")))
    done = spkdt(*arguments, "--temperature", 300, "--reference", REFERENCE, "--relabel-every", 20)
    assert done.exit_code == 0, done.stderr
    for words in ("b: true error at visited geometries", "b: note: ", "exploded: 0"):
        assert words in done.stdout
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["a"]["true_error"]["mean_over_time"]["H"] < 1e-9
    assert metrics["b"]["true_error"]["mean_over_time"]["H"] > 1e-3
    assert [one["start"] for one in metrics["a"]["true_error"]["failures"]["by_start"]] == [0]
    text = write_report(out).read_text()
    for words in (
        "made elsewhere: 3 trajectories",
        str(one),
        "keep the bonds of their first frame",
        "Distances between atoms",
    ):
        assert words in text
    assert "says how fast trajectories part" not in text
    assert "error_along_reference" not in text
