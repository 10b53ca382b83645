"""Trajectories at constant pressure: their frames are read, checked and trained on one by one; no rollout follows them."""

import ase.units
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.nose_hoover_chain import MTKNPT
from helpers.program_files import write_siesta
from helpers.short_training import short_data, short_task, short_trainer
from helpers.simulated import warm
from helpers.simulation_files import changed, verlet_miss, write_vasprun
from schnetpack import properties as spk
from schnetpack.data import ASEAtomsData

from spk_dt.data.continuation import spread_continuations
from spk_dt.data.load import load_frames
from spk_dt.data.partition import read_partition
from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.diagnosis import diagnose
from spk_dt.trajectories.inputs import Reading
from spk_dt.trajectories.moves import cell_strain, moves
from spk_dt.trajectories.velocities import recover_velocities

STEP, FRAMES = 2.0, 80
WARNED = ["cell_changes"]


@pytest.fixture(scope="module")
def npt():
    """An alloy that shears and expands: EMT, 2 fs, the barostat of Martyna, Tobias and Klein."""
    atoms = bulk("Cu", cubic=True).repeat((2, 2, 2))
    atoms.symbols[::5] = "Pd"
    atoms.rattle(0.05, seed=1)
    atoms.set_cell(atoms.cell.array @ [[1.03, 0.0, 0.0], [0.01, 1.02, 0.0], [0.0, -0.02, 1.01]], scale_atoms=True)
    atoms.calc = EMT()
    warm(atoms, 600.0, 0)
    dynamics = MTKNPT(
        atoms,
        timestep=STEP * ase.units.fs,
        temperature_K=400.0,
        pressure_au=ase.units.GPa,
        tdamp=100.0 * ase.units.fs,
        pdamp=200.0 * ase.units.fs,
    )
    frames = []
    for step in range(FRAMES):
        dynamics.run(int(step > 0))
        frame = atoms.copy()
        results = {name: getattr(atoms, f"get_{name}")() for name in ("potential_energy", "forces", "stress")}
        frame.calc = SinglePointCalculator(frame, energy=results.pop("potential_energy"), **results)
        frames.append(frame)
    cells = np.array([frame.cell.array for frame in frames])
    assert np.abs(cells - cells[0]).max() > 0.1
    return frames


def with_results(frames, **factors):
    """Frames with results times factors; None leaves one out."""
    out = []
    for frame in frames:
        copy = frame.copy()
        kept = {key: value * factors.get(key, 1.0) for key, value in frame.calc.results.items() if key not in factors}
        kept |= {key: frame.calc.results[key] * factor for key, factor in factors.items() if factor is not None}
        copy.calc = SinglePointCalculator(copy, **kept)
        out.append(copy)
    return out


def written(tmp_path, frames, name="run", **options):
    """A database of frames, by way of a file."""
    ase.io.write(tmp_path / f"{name}.traj", frames)
    options = {"timestep_fs": STEP} | options
    convert([tmp_path / f"{name}.traj"], tmp_path / f"{name}.db", Reading(**options))
    return tmp_path / f"{name}.db"


def check(path):
    return diagnose(load_frames(ASEAtomsData(str(path))), 0)


def keys(diagnosis):
    return [finding.key for finding in diagnosis.findings]


def test_what_is_kept_of_each_frame(tmp_path, npt):
    """Atoms that are moved back into a cell that changes are moved out again by the lattice vectors of their frame."""
    path = written(tmp_path, changed(npt, lambda atoms: atoms.wrap()))
    frames = load_frames(ASEAtomsData(str(path)))
    np.testing.assert_allclose(frames.cell, [atoms.cell.array for atoms in npt], rtol=1e-12)
    shift = npt[0].positions - frames.window(spk.R, 0, 1)[0]
    for i, atoms in enumerate(npt):
        whole = (atoms.positions - frames.window(spk.R, i, 1)[0]) @ np.linalg.inv(atoms.cell.array)
        np.testing.assert_allclose(whole, shift @ np.linalg.inv(npt[0].cell.array), atol=1e-9)
        np.testing.assert_allclose(frames.window(spk.forces, i, 1)[0], atoms.get_forces(), rtol=1e-12)
        np.testing.assert_allclose(frames.window("stress", i, 1)[0, 0], atoms.get_stress(voigt=False), rtol=1e-12)


def test_a_rollout_would_miss_the_trajectory(npt, make_trajectory):
    """Why it is refused: the true forces at a fixed cell do not lead from frame to frame."""
    assert verlet_miss(npt, STEP) > 0.01
    assert verlet_miss(make_trajectory(npt[0], FRAMES, STEP), STEP) < 1e-8


@pytest.mark.parametrize("stress", [1.0, None])
def test_a_sound_trajectory_is_warned_of_only(tmp_path, npt, stress):
    found = check(written(tmp_path, with_results(npt, stress=stress)))
    assert keys(found) == WARNED
    assert found.verdict == "warning"
    assert "data.val_window=1" in found.findings[0].remedy
    if stress is None:  # its work is part of what changes the energy
        assert found.energy_slope is None
    else:
        assert found.energy_slope == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("factor", "said", "stated"),
    [
        (-1.0, "opposite sign", "-1"),
        (1.0 / ase.units.GPa, "in GPa", "GPa"),
        (-10.0 / ase.units.GPa, "opposite sign, that of a pressure and it is in kbar", "-kbar"),
        (1.7, "another unit", None),
    ],
)
def test_a_stress_of_another_unit_or_sign(tmp_path, npt, factor, said, stated):
    path = written(tmp_path, with_results(npt, stress=factor))
    found = check(path)
    assert keys(found) == ["stress"]
    assert found.verdict == "refused"
    assert said in found.findings[0].text
    assert found.findings[0].values["ratio"] == pytest.approx(1.0 / factor, rel=0.01)
    assert found.remedies == ([{"units": {"stress": stated}}] if stated else [])
    if stated:
        convert([path], tmp_path / "right.db", Reading(**found.remedies[0]))
        assert keys(check(tmp_path / "right.db")) == WARNED


def test_what_is_wrong_besides_is_still_found(tmp_path, npt):
    hartree = with_results(npt, energy=1 / 27.2114, forces=1 / 27.2114, stress=None)
    heavier = changed(npt, lambda atoms: atoms.set_masses(np.where(atoms.numbers == 29, 2.0, 1.0) * atoms.get_masses()))
    for atoms, frame in zip(heavier, npt, strict=True):
        atoms.set_velocities(frame.get_velocities())
    for name, frames, options, key in (
        ("hartree", hartree, {}, "energy_and_force_unit"),
        ("step", npt, {"timestep_fs": 2.0 * STEP}, "time_step"),
        ("missing", [*npt[:30], *npt[31:]], {}, "dropped_frames"),
        ("masses", heavier, {}, "masses"),
    ):
        assert keys(check(written(tmp_path, frames, name, **options))) == [key]


def test_velocities_are_recovered_without_what_the_cell_carries_along(npt):
    def without(atoms):
        del atoms.arrays["momenta"]

    found = np.array([a.get_velocities() for a in recover_velocities(changed(npt, without), STEP)])[1:-1]
    true = np.array([atoms.get_velocities() for atoms in npt])[1:-1]
    x = np.array([atoms.positions for atoms in npt])
    plain = (x[2:] - x[:-2]) / (2.0 * STEP * ase.units.fs)
    assert np.abs(found - true).max() < 0.02 * np.abs(true).max()
    assert np.abs(plain - true).max() > 0.2 * np.abs(true).max()


def test_moves_and_strain():
    """An affine deformation moves nothing; what atoms do beside it is seen, also along directions that are not periodic."""
    rng = np.random.default_rng(0)
    cells = np.array([np.diag([5.0, 6.0, 7.0]), np.diag([5.0, 6.0, 7.0]) @ (np.eye(3) + 0.01 * rng.random((3, 3)))])
    fractional, step = rng.random((4, 3)), 0.01 * rng.random((4, 3))
    positions = np.array([fractional @ cells[0], (fractional + step + [2.0, 0.0, -1.0]) @ cells[1]])
    np.testing.assert_allclose(moves(positions, cells, np.ones(3))[0], step @ cells.mean(axis=0), atol=1e-12)
    slab = np.array([[[4.0, 0, 0], [0, 4.0, 0], [0, 0, 0]], [[4.4, 0, 0], [0, 4.0, 0], [0, 0, 0]]])
    moved = moves(np.array([[[2.0, 1.0, 9.0]], [[2.2, 1.1, 9.5]]]), slab, np.array([True, True, False]))
    np.testing.assert_allclose(moved, [[[0.0, 0.1, 0.5]]], atol=1e-12)
    np.testing.assert_allclose(
        cell_strain(np.array([np.eye(3), np.diag([1.02, 1.0, 0.98])])).trace(axis1=1, axis2=2), 0.0, atol=1e-3
    )


def test_vasp_writes_the_cell_of_each_frame(tmp_path, npt):
    path = write_vasprun(tmp_path / "vasprun.xml", npt, STEP)
    convert([path], tmp_path / "out.db")
    assert keys(check(tmp_path / "out.db")) == WARNED
    np.testing.assert_allclose(
        load_frames(ASEAtomsData(str(tmp_path / "out.db"))).cell, [atoms.cell.array for atoms in npt], atol=1e-7
    )


@pytest.mark.parametrize(
    ("sizes", "windows"),
    [((1, 1), {"train_window": 4, "val_window": 1}), ((1, 1), {"train_window": 1, "val_window": 4})],
)
def test_windows_along_a_cell_that_changes_are_refused(tmp_path, npt, sizes, windows):
    ase.io.write(tmp_path / "a.traj", npt[:40])
    ase.io.write(tmp_path / "b.traj", npt[40:])
    convert([tmp_path / "a.traj", tmp_path / "b.traj"], tmp_path / "out.db", Reading(timestep_fs=STEP))
    options = {"num_train": sizes[0], "num_val": sizes[1], "num_test": 0}
    name = max(windows, key=windows.get)
    with pytest.raises(
        ValueError, match=rf"data\.{name}=4: the cell changes .* trajectory '[ab]' .*max_rollout_length=1"
    ):
        short_data(tmp_path / "out.db", **options, **windows).setup()


def test_training_on_single_frames(tmp_path, npt, make_trajectory):
    """With a trajectory at constant cell beside it, along which rollouts are validated."""
    ase.io.write(tmp_path / "npt.traj", npt)
    ase.io.write(tmp_path / "nve.traj", make_trajectory(npt[0], 20, STEP))
    convert([tmp_path / "npt.traj", tmp_path / "nve.traj"], tmp_path / "out.db", Reading(timestep_fs=STEP))
    np.savez(tmp_path / "split.npz", train_idx=range(FRAMES), val_idx=range(FRAMES, FRAMES + 21), test_idx=[])
    data = short_data(
        tmp_path / "out.db", train_window=1, val_window=6, split_file=str(tmp_path / "split.npz"), max_train_windows=16
    )
    trainer = short_trainer(tmp_path, limit_val_batches=1)
    trainer.fit(short_task(), datamodule=data)
    assert np.isfinite(trainer.callback_metrics["val_loss"])
    frame = int(data._train_dataset.starts[3])
    np.testing.assert_allclose(data._train_dataset[3][spk.cell][0], npt[frame].cell.array, rtol=1e-12)


def test_the_reference_is_followed_as_long_as_its_cell_stays(tmp_path, npt, make_trajectory):
    still = make_trajectory(npt[0], 5, STEP)
    path = written(tmp_path, [*still, *with_results(npt[1:5], stress=None)])
    starts = spread_continuations(read_partition(path, "all"), steps=50)
    assert [(len(one.forces), one.following) for one in starts] == [(6, 5)]
    path = written(tmp_path, npt, "npt")
    assert spread_continuations(read_partition(path, "all"))[0].steps == 0


def test_siesta_must_print_the_cell_that_it_changes(tmp_path, npt):
    """In each step, before its forces."""
    path = tmp_path / "run.out"
    write_siesta(path, npt)
    text = path.read_text().replace(
        "redata: Length",
        "redata: Dynamics option                       = Nose-Parrinello-Rahman MD run\nredata: Length",
    )
    path.write_text(text)
    convert([path], tmp_path / "out.db")
    cells = load_frames(ASEAtomsData(str(tmp_path / "out.db"))).cell
    np.testing.assert_allclose(cells, [atoms.cell.array for atoms in npt], atol=1e-5)
    first, *steps = text.split("outcell:")
    path.write_text(f"{first}outcell:{steps[0]}outcell:" + "".join(step.replace("outcell:", "") for step in steps[1:]))
    with pytest.raises(ValueError, match=r"step 3: the run changes the cell \(Parrinello-Rahman\).*LongOutput T"):
        convert([path], tmp_path / "other.db")
