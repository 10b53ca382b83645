"""The file of a model's simulations: units, the start frames, and what is known of an explosion."""

from types import SimpleNamespace

import ase.units
import h5py
import numpy as np
import pytest
from helpers.pair_potential import pair_model, pair_trajectory, tetrahedron
from helpers.pair_reference import Reference

from spk_dt.data import TrajectoryWriter
from spk_dt.data.continuation import spread_continuations
from spk_dt.data.partition import ALL, read_partition
from spk_dt.evaluation.plot_style import legend, panels, styles
from spk_dt.evaluation.simulate import Protocol, group_starts, simulate
from spk_dt.evaluation.simulation_file import SimulationFile, Simulations
from spk_dt.md import ModelCalculator

STEPS, EVERY, UNITS = 22, 3, ("kcal/mol", "Bohr")
OF_FRAMES = ("positions", "velocities", "forces", "potential_energy", "total_energy")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Simulations by the reference potential in other units, from two starts, and what they should follow."""
    folder = tmp_path_factory.mktemp("file")
    with TrajectoryWriter(folder / "data.db") as writer:
        for seed in range(2):
            writer.add(f"run_{seed}", pair_trajectory(tetrahedron(), STEPS, 0.5, seed), timestep_fs=0.5)
    kcal_per_mol = ase.units.kcal / ase.units.mol
    model = pair_model(folder / "model", energy_unit=kcal_per_mol, length_unit=ase.units.Bohr)
    starts = spread_continuations(read_partition(folder / "data.db", ALL))
    (group,) = group_starts(starts)
    file = SimulationFile.of(folder, 0, *UNITS)
    done = []
    protocol = Protocol(STEPS, EVERY)
    exploded, speed = simulate(ModelCalculator(model, *UNITS), starts, group, file.path, protocol, done.append)
    assert done == [*range(1, STEPS + 1)]
    assert speed.as_dict()["ns_per_day"] > 0.0
    assert exploded.tolist() == [
        -1,
        -1,
    ]
    return SimpleNamespace(starts=starts, file=file, simulations=Simulations(starts, [group.members], [file]))


def test_in_our_units(made):
    """Positions are those of ASE with the same potential; energies and forces are those that it gives there."""
    atoms = tetrahedron()
    atoms.calc = Reference()
    for index, trajectory in made.simulations:
        start = made.starts[index]
        assert trajectory.step.tolist() == [0, *range(1, STEPS + 1, EVERY)]
        np.testing.assert_array_equal(trajectory.time_fs, 0.5 * trajectory.step)
        np.testing.assert_allclose(trajectory.positions, start.positions[trajectory.step], atol=1e-6)
        np.testing.assert_allclose(trajectory.forces, start.forces[trajectory.step], atol=1e-5)
        for x, energy in zip(trajectory.positions, trajectory.potential_energy, strict=True):
            atoms.positions = x
            assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-7)
        assert np.ptp(trajectory.total_energy) < 0.1 * np.ptp(trajectory.potential_energy)  # velocities are right too
        assert trajectory.intact.all()


def test_units_are_not_guessed(made):
    """The control: with other units energies are others."""
    file = SimulationFile(made.file.path, "eV", "Ang")
    (wrong,), (right,) = (list(one.read({0: made.starts[0]})) for one in (file, made.file))
    np.testing.assert_array_equal(wrong.positions, right.positions)
    assert wrong.potential_energy[0] == pytest.approx(right.potential_energy[0] * ase.units.mol / ase.units.kcal)


@pytest.mark.parametrize("exploded", [1, 8, 10, 11])
def test_nothing_is_known_from_an_explosion_on(made, exploded, tmp_path):
    """Of the molecule that exploded, and from the first state on that it has not reached."""
    path = tmp_path / "simulation_0.hdf5"
    path.write_bytes(made.file.path.read_bytes())
    with h5py.File(path, "a") as file:
        file.attrs["exploded_step"] = [-1, exploded]
    other, one = SimulationFile(path, *UNITS).read(dict(enumerate(made.starts)))
    whole, before = made.file.read(dict(enumerate(made.starts)))
    assert one.intact.tolist() == [step < exploded for step in before.step]
    for name in OF_FRAMES:
        np.testing.assert_array_equal(getattr(other, name), getattr(whole, name))
        found, expected = getattr(one, name), getattr(before, name)
        np.testing.assert_array_equal(found[one.intact], expected[one.intact])
        assert np.isnan(found[~one.intact]).all()
        np.testing.assert_array_equal(getattr(one[one.intact], name), expected[before.step < exploded])


def test_an_explosion_is_written(made, tmp_path, monkeypatch):
    """By the integrator, for each molecule on its own, the start frame always being there."""
    monkeypatch.setattr("spk_dt.md.freezing.FreezingVerlet.__init__.__defaults__", (1e-4,))
    model = pair_model(tmp_path / "model")
    file = SimulationFile.of(tmp_path, 0, "eV", "Ang")
    (group,) = group_starts(made.starts)
    exploded, _ = simulate(ModelCalculator(model, "eV", "Ang"), made.starts, group, file.path, Protocol(4))
    assert exploded.tolist() == [1, 1]
    for start, trajectory in zip(made.starts, file.read(dict(enumerate(made.starts))), strict=True):
        assert trajectory.intact.tolist() == [True, False, False, False, False]
        np.testing.assert_allclose(trajectory.forces[0], start.forces[0], atol=1e-5)


def test_no_two_of_many_lines_look_alike():
    for markers in (True, False):
        found = styles(map(str, range(49)), markers)
        assert len({(look["color"], str(look["linestyle"])) for look in found.values()}) == 49
    assert {"marker" in look for look in found.values()} == {False}


def test_each_name_is_in_the_legend_once():
    """Also one that the first panel does not have, in the order that is asked for."""
    figure, grid = panels(2, 2, (6.0, 4.0), used=3)
    for axes, names in zip(figure.axes, ("b", "ba", "c"), strict=True):
        for name in names:
            axes.plot([0, 1], label=name)
    legend(figure, "abc")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c"]
    assert grid.shape == (2, 2)
