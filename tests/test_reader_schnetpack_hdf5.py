"""HDF5 files of SchNetPack's simulations: values, the unit of the forces, explosions, and what is refused."""

import json
import random
from collections import Counter

import ase.units
import h5py
import numpy as np
import pytest
import torch
from helpers.pair_potential import pair_model, pair_trajectory, tetrahedron
from helpers.simulation_files import verlet_miss
from schnetpack.data import ASEAtomsData
from schnetpack.md import Simulator, System
from schnetpack.md.calculators import SchNetPackCalculator
from schnetpack.md.integrators import VelocityVerlet
from schnetpack.md.neighborlist_md import NeighborListMD
from schnetpack.md.simulation_hooks import FileLogger, PropertyStream
from schnetpack.transform import ASENeighborList

from spk_dt.data import load_frames
from spk_dt.data.checks import check_frames
from spk_dt.data.continuation import Continuation
from spk_dt.evaluation.simulate import Protocol, group_starts, simulate
from spk_dt.md import FramesInit, ModelCalculator, MoleculeStream
from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.readers import schnetpack_hdf5

KJ_PER_MOL = 1000.0 / 6.02214076e23 / 1.602176634e-19  # eV
PS = 1e3 * ase.units.fs
#: factor from eV/Å to the units that models have
FORCE_UNITS = {
    "eV/Ang": 1.0,
    "kcal/mol/Ang": 1.0 / (4.184 * KJ_PER_MOL),
    "kJ/mol/nm": 10.0 / KJ_PER_MOL,
    "Hartree/Bohr": 0.529177210903 / 27.211386245988,
    "eV/Bohr": 0.529177210903,
}


def write(path, trajectories, every=1, velocities=True, precision="f8", force_unit="eV/Ang", length=None, **change):
    """A file as FileLogger with MoleculeStream and PropertyStream lays it out: one trajectory for each molecule."""
    first = [frames[0] for frames in trajectories]
    n, total, cells = len(trajectories[0]), sum(map(len, first)), all(atoms.cell.rank == 3 for atoms in first)

    def row(at):
        atoms = [frames[at] for frames in trajectories]
        parts = [[a.get_potential_energy() / KJ_PER_MOL for a in atoms], *(a.positions.ravel() / 10.0 for a in atoms)]
        if velocities:
            parts += [a.get_velocities().ravel() * PS / 10.0 for a in atoms]
        if cells:
            parts += [*(a.cell.array.ravel() / 10.0 for a in atoms), np.zeros(9 * len(atoms))]
        return np.concatenate(parts)

    molecules = np.array([row(at) for at in range(n)])[:, None]
    forces = np.array([np.concatenate([frames[at].get_forces().ravel() for frames in trajectories]) for at in range(n)])
    energies = molecules[:, 0, : len(first)]
    stored = np.concatenate([energies, forces * FORCE_UNITS[force_unit]], axis=1)[:, None]
    shapes = {"energy": [len(first), 1], "forces": [total, 3]}
    positions = {"energy": [0, len(first)], "forces": [len(first), len(first) + 3 * total]}
    attributes = {
        "n_replicas": 1, "n_molecules": len(first), "total_n_atoms": total, "n_atoms": [len(a) for a in first],
        "atom_types": np.concatenate([a.numbers for a in first]),
        "masses": np.concatenate([a.get_masses() for a in first]), "pbc": [a.pbc for a in first], "has_cells": cells,
        "has_velocities": velocities, "time_step": 0.5e-3 * every, "every_n_steps": every, "entries": n,
    }  # fmt: skip
    with h5py.File(path, "w", libver="latest") as file:
        for name, values in (("molecules", molecules), ("properties", stored)):
            spare = np.zeros((length or 0, *values.shape[1:]))  # rows that are reserved for steps not yet made
            file.create_dataset(name, data=np.concatenate([values, spare]), dtype=precision)
        file["molecules"].attrs.update({**attributes, **change})
        file["properties"].attrs.update(
            {"entries": n, "shapes": json.dumps(shapes), "positions": json.dumps(positions)}
        )
    return path


def check(found, frames, digits):
    for atoms, expected in zip(found, frames, strict=True):
        np.testing.assert_array_equal(atoms.numbers, expected.numbers)
        np.testing.assert_allclose(atoms.positions, expected.positions, rtol=digits, atol=digits)
        np.testing.assert_allclose(atoms.get_velocities(), expected.get_velocities(), rtol=digits, atol=digits)
        np.testing.assert_allclose(atoms.get_forces(), expected.get_forces(), rtol=digits, atol=10 * digits)
        np.testing.assert_allclose(atoms.cell, expected.cell, atol=10 * digits)
        assert atoms.get_potential_energy() == pytest.approx(expected.get_potential_energy(), rel=digits, abs=digits)


@pytest.fixture(scope="module")
def frames(cluster, make_trajectory):
    return make_trajectory(cluster, 40, 0.5, 1)


@pytest.mark.parametrize("unit", FORCE_UNITS)
@pytest.mark.parametrize("precision", ["f8", "f4"])
def test_values_units_and_physics(tmp_path, frames, unit, precision):
    path = write(tmp_path / "simulation.hdf5", [frames], precision=precision, force_unit=unit)
    assert schnetpack_hdf5.recognises(path)
    (raw,) = schnetpack_hdf5.read(path)
    assert (raw.name, raw.timestep_fs, raw.n_frames, raw.inner_steps) == ("simulation", 0.5, 41, 1)
    digits = 1e-7 if precision == "f8" else 1e-6
    for _ in range(2):
        found = list(raw.frames())
        check(found, frames, digits)
    assert verlet_miss(found) < digits
    wrong = [atoms.copy() for atoms in found]
    for atoms, right in zip(wrong, found, strict=True):
        atoms.calc = right.calc
        atoms.set_velocities(right.get_velocities() / 1.1)
    assert verlet_miss(wrong) > 100 * digits


def test_molecules_cells_and_blocks(tmp_path, crystal, make_trajectory, monkeypatch):
    trajectories = [make_trajectory(atoms, 20, 0.5, i) for i, atoms in enumerate((crystal, crystal.repeat((2, 1, 1))))]
    path = write(tmp_path / "a.hdf5", trajectories, length=50)
    for block in (1, 5000, 2**24):
        monkeypatch.setattr(schnetpack_hdf5, "_BLOCK", block)
        raws = schnetpack_hdf5.read(path)
        assert [raw.name for raw in raws] == ["a_0", "a_1"]
        for raw, expected in zip(raws, trajectories, strict=True):
            assert raw.n_frames == 21
            found = list(raw.frames())
            check(found, expected, 1e-7)
            assert found[0].pbc.all()
            assert verlet_miss(found) < 1e-8


def test_every_few_steps_and_without_velocities(tmp_path, frames):
    path = write(tmp_path / "a.hdf5", [frames[::4]], every=4, velocities=False)
    (raw,) = schnetpack_hdf5.read(path)
    assert (raw.timestep_fs, raw.inner_steps) == (2.0, 4)
    for atoms, expected in zip(raw.frames(), frames[::4], strict=True):
        assert not atoms.has("momenta")
        np.testing.assert_allclose(atoms.get_forces(), expected.get_forces(), atol=1e-6)


def test_masses_that_are_not_the_usual_ones(tmp_path, frames, cluster, make_trajectory):
    heavy = cluster.copy()
    heavy.set_masses([106.42] * 4 + [2.014, 1.008])
    path = write(tmp_path / "a.hdf5", [make_trajectory(heavy, 10, 0.5, 0)])
    assert next(schnetpack_hdf5.read(path)[0].frames()).get_masses()[4] == 2.014
    path = write(tmp_path / "b.hdf5", [frames])
    assert not next(schnetpack_hdf5.read(path)[0].frames()).has("masses")


def simulation(folder, energy_name="eV", length_name="Ang", store=("energy", "forces"), **units):
    """A simulation of two molecules by SchNetPack, and its start."""
    model = pair_model(folder / "model", **units)  # in eV and Å, or in these
    neighbors = NeighborListMD(6.0, 0.3, ASENeighborList)
    calculator = SchNetPackCalculator(str(model), "forces", energy_name, length_name, neighbors, energy_key="energy")
    starts = [pair_trajectory(tetrahedron(), 1, 0.5, seed)[0] for seed in (0, 1)]
    system = System()
    system.load_molecules(starts)
    ase.io.write(folder / "start.traj", starts)
    FramesInit(folder / "start.traj").initialize_system(system)
    streams = [MoleculeStream(store_velocities=True), PropertyStream(list(store))]
    logger = FileLogger(str(folder / "simulation.hdf5"), 7, streams, precision=64)
    Simulator(system, VelocityVerlet(0.5), calculator, [logger]).to(torch.float64).simulate(30)
    return folder / "simulation.hdf5"


@pytest.mark.parametrize(
    ("energy_name", "length_name", "units"),
    [
        ("eV", "Ang", {}),
        ("kcal/mol", "Ang", {"energy_unit": 4.184 * KJ_PER_MOL}),
        ("Hartree", "Bohr", {"energy_unit": 27.211386, "length_unit": 0.52917721}),
    ],
)
def test_a_simulation_of_schnetpack(tmp_path, energy_name, length_name, units):
    """Whatever the unit of the model, the trajectory is that of the same potential with ASE."""
    raws = schnetpack_hdf5.read(simulation(tmp_path, energy_name, length_name, **units))
    assert [(raw.name, raw.n_frames) for raw in raws] == [("simulation_0", 30), ("simulation_1", 30)]
    for seed, raw in enumerate(raws):
        check(raw.frames(), pair_trajectory(tetrahedron(), 30, 0.5, seed)[1:], 2e-6)


def test_a_simulation_in_which_the_wrong_unit_was_given(tmp_path):
    """calculator.energy_unit is silent when it is wrong; the forces are in the unit that moved the atoms."""
    (raw, _) = schnetpack_hdf5.read(simulation(tmp_path, "kcal/mol", "Ang"))
    found = list(raw.frames())
    assert verlet_miss(found) < 1e-8
    expected = pair_trajectory(tetrahedron(), 1, 0.5)[1].get_forces() * 4.184 * KJ_PER_MOL
    np.testing.assert_allclose(found[0].get_forces(), expected, rtol=0.05, atol=1e-3)


def test_forces_that_were_not_stored(tmp_path):
    path = simulation(tmp_path, store=["energy"])
    with pytest.raises(ValueError, match=r"no forces among its properties \(energy\).*calculator\.force_key"):
        schnetpack_hdf5.read(path)
    with h5py.File(path, "a") as file:
        del file["properties"]
    with pytest.raises(ValueError, match=r"simulation\.hdf5' has no forces: .*calculator\.required_properties"):
        schnetpack_hdf5.read(path)


def test_an_evaluation_in_which_a_molecule_explodes(tmp_path):
    model = pair_model(tmp_path / "model", breaks_beyond=2.9)
    starts = []
    for seed in range(3):
        frames = pair_trajectory(tetrahedron(), 1, 0.5, seed)
        values = [
            np.array([getattr(a, f"get_{k}")() for a in frames]) for k in ("positions", "potential_energy", "forces")
        ]
        starts.append(Continuation("t", 0, 0.5, frames[0], *values, following=1))
    (group,) = group_starts(starts)
    exploded, _ = simulate(ModelCalculator(model, "eV", "Ang"), starts, group, tmp_path / "a.hdf5", Protocol(120))
    assert (exploded > 3).any()
    raws = schnetpack_hdf5.read(tmp_path / "a.hdf5")
    assert [raw.n_frames for raw in raws] == [120 if step < 0 else step - 1 for step in exploded]
    for raw in raws:
        found = list(raw.frames())
        assert len(found) == raw.n_frames
        assert verlet_miss(found) < 1e-6


def test_a_simulation_that_was_killed(tmp_path, frames, caplog):
    path = write(tmp_path / "a.hdf5", [frames], length=100, entries=30)
    (raw,) = schnetpack_hdf5.read(path)
    assert raw.n_frames == len(list(raw.frames())) == 30
    assert "cut short" in caplog.text
    path = write(tmp_path / "b.hdf5", [frames], entries=0)
    with pytest.raises(ValueError, match=r"has 0 entries\. .*buffer_size"):
        schnetpack_hdf5.read(path)


def test_a_simulation_that_still_runs(tmp_path, frames):
    """A file that its writer has not closed."""
    path = write(tmp_path / "a.hdf5", [frames])
    with h5py.File(path, "a", libver="latest") as file:
        file.swmr_mode = True
        copy = tmp_path / "copy.hdf5"
        copy.write_bytes(path.read_bytes())
        with pytest.raises(OSError, match="open for write"):
            h5py.File(copy, "r")
        check(schnetpack_hdf5.read(copy)[0].frames(), frames, 1e-7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_atoms": [5]}, "do not have the shape"),
        ({"total_n_atoms": 7, "n_atoms": [7]}, "do not have the shape"),
        ({"has_velocities": False}, "do not have the shape"),
        ({"time_step": 0.0}, "time step 0.0"),
        ({"time_step": 1e-3}, r"unit of the forces .* is not known: by the motion it is 241"),
        ({"pbc": [[True, True, True]]}, "is periodic, but holds no cells"),
        ({"n_molecules": "many"}, "is damaged, cut off"),
    ],
)
def test_attributes_that_do_not_fit(tmp_path, frames, change, message):
    path = write(tmp_path / "a.hdf5", [frames], **change)
    with pytest.raises(ValueError, match=rf"a\.hdf5'.*{message}|{message}"):
        schnetpack_hdf5.read(path)


def edit(path, change):
    with h5py.File(path, "a") as file:
        change(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f["molecules"].__setitem__((5, 0, 3), np.nan), r"positions of entry 5 of '.*' are not finite"),
        (lambda f: f["properties"].__setitem__((6, 0, 3), np.inf), r"forces of entry 6 of '.*' are not finite"),
        (lambda f: f["molecules"].__setitem__((slice(None), 0, 0), 0.0), "no energies.*calculator.energy_key"),
        (lambda f: f["properties"].__setitem__((slice(None), 0, slice(1, 19)), 0.0), "do not move the atoms"),
        (lambda f: f["properties"].attrs.__setitem__("shapes", "{"), "is damaged, cut off"),
        (
            lambda f: f["properties"].attrs.__setitem__("shapes", '{"forces": [6, 3], "force2": [6, 3]}'),
            "several properties",
        ),
        (lambda f: f["properties"].attrs.__delitem__("entries"), "is damaged, cut off"),
    ],
)
def test_damaged_files_are_refused(tmp_path, frames, change, message):
    path = write(tmp_path / "a.hdf5", [frames])
    edit(path, change)
    with pytest.raises(ValueError, match=message):
        list(schnetpack_hdf5.read(path)[0].frames())


def test_frames_in_random_order_are_refused(tmp_path, frames):
    order = np.random.default_rng(0).permutation(len(frames))
    with pytest.raises(ValueError, match=r"do not move the atoms|is not known"):
        schnetpack_hdf5.read(write(tmp_path / "a.hdf5", [[frames[i] for i in order]]))


def test_what_is_not_of_schnetpack(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["positions"] = np.zeros(3)
    (tmp_path / "b.hdf5").write_text("molecules")
    for name in ("a.hdf5", "b.hdf5", "missing.hdf5", "."):
        assert not schnetpack_hdf5.recognises(tmp_path / name)


def test_truncation_and_random_damage_give_value_errors_only(tmp_path, frames):
    data = write(tmp_path / "a.hdf5", [frames[:12]]).read_bytes()
    generator = random.Random(0)
    path, outcomes = tmp_path / "b.hdf5", Counter()
    for trial in range(60):
        spoiled = bytearray(data)
        if trial < 20:
            spoiled = spoiled[: 8 + trial * (len(data) - 9) // 20]
        else:
            for _ in range(generator.choice((1, 20, 200))):
                spoiled[generator.randrange(len(data))] = generator.randrange(256)
        path.write_bytes(spoiled)
        if not schnetpack_hdf5.recognises(path):
            continue
        try:
            outcomes["read"] += bool([list(raw.frames()) for raw in schnetpack_hdf5.read(path)])
        except ValueError as error:
            outcomes["refused" if "b.hdf5" in str(error) else "refused without a name"] += 1
            outcomes["refused when cut off"] += trial < 20
    assert outcomes["refused"] > 20
    assert outcomes["refused when cut off"] == 20
    assert outcomes["refused without a name"] == 0


def test_conversion(tmp_path):
    found = convert([simulation(tmp_path)], tmp_path / "a.db")
    assert [(one.trajectory.name, one.trajectory.length) for one in found] == [
        ("simulation_0", 30),
        ("simulation_1", 30),
    ]
    check_frames(load_frames(ASEAtomsData(str(tmp_path / "a.db"))))
