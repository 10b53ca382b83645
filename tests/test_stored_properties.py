"""What frames have beside energy, forces and velocities goes through the database into the windows, or is named."""

import logging

import ase.io
import ase.units
import numpy as np
import pytest
import schnetpack.properties as p
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from helpers.stress_differences import stress_by_differences
from schnetpack.data import ASEAtomsData

from spk_dt import properties
from spk_dt.data import TrajectoryWindows, TrajectoryWriter, load_frames
from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.inputs import Reading
from spk_dt.trajectories.part_file import PartFile


@pytest.fixture
def frames(crystal):
    """Frames of a crystal whose stress has six different numbers, with charges, dipole, moments, charge and spin."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(3):
        atoms = crystal.copy()
        atoms.positions += rng.normal(scale=0.1, size=(len(atoms), 3))
        atoms.set_velocities(rng.normal(scale=0.01, size=(len(atoms), 3)))
        bare = atoms.copy()
        bare.calc = EMT()
        results = {"energy": bare.get_potential_energy(), "forces": bare.get_forces(), "stress": bare.get_stress()}
        results |= {"charges": rng.normal(size=len(atoms)), "dipole": rng.normal(size=3)}
        results |= {"magmoms": rng.normal(size=len(atoms))}
        atoms.calc = SinglePointCalculator(atoms, **results)
        atoms.info = {"charge": i - 1, "spin": 2}
        found.append(atoms)
    return found


def written(path, *trajectories):
    with TrajectoryWriter(path) as writer:
        for i, frames in enumerate(trajectories):
            writer.add(f"run_{i}", frames, 1.0)
    return path


def without(frames, name):
    """The frames, the last of which has no `name` among the results."""
    del frames[-1].calc.results[name]
    return frames


def test_from_the_calculator_to_the_windows(tmp_path, frames):
    dataset = ASEAtomsData(str(written(tmp_path / "a.db", frames)))
    assert dataset.units[p.stress] == "eV/Ang/Ang/Ang"
    assert dataset.units[p.total_charge] == dataset.units[p.partial_charges] == "e"
    stock = [dataset[i] for i in range(3)]
    windows = TrajectoryWindows(load_frames(dataset), np.array([0]), 3)
    window = windows[0]
    for i, atoms in enumerate(frames):
        results = atoms.calc.results
        expected = {
            p.stress: stress_by_differences(atoms)[None],
            p.partial_charges: results["charges"],
            p.dipole_moment: results["dipole"][None],
            properties.magnetic_moments: results["magmoms"],
            p.total_charge: [i - 1.0],
            p.spin_multiplicity: [2.0],
        }
        voigt = results["stress"]
        assert len(set(np.abs(voigt).round(5))) == 6  # so that no two components can be taken for each other
        assert np.abs(voigt).min() > 1e-4
        for key, value in expected.items():
            assert stock[i][key].shape == np.shape(value)
            np.testing.assert_allclose(stock[i][key], value, atol=1e-6)
            np.testing.assert_allclose(window[properties.window(key)][:, i], value, atol=1e-6)
    assert window[p.total_charge].tolist() == [-1.0]


def test_units_are_converted(tmp_path, frames):
    path = written(tmp_path / "a.db", frames)
    dataset = ASEAtomsData(str(path), property_units={"stress": "kcal/mol/Ang/Ang/Ang"})
    expected = frames[0].get_stress(voigt=False) / (ase.units.kcal / ase.units.mol)
    np.testing.assert_allclose(load_frames(dataset).values["stress"][0], expected)


def test_what_a_trajectory_lacks_is_left_out_with_one_warning(tmp_path, frames, caplog):
    lacking = [atoms.copy() for atoms in frames]
    for atoms, original in zip(lacking, frames, strict=True):
        some = {key: original.calc.results[key] for key in ("energy", "forces", "charges", "dipole", "magmoms")}
        atoms.calc = SinglePointCalculator(atoms, **some)
    for i, parts in enumerate([(frames, lacking), (lacking, frames), (frames, frames)]):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "spk_dt"):
            dataset = ASEAtomsData(str(written(tmp_path / f"{i}.db", *parts)))
        assert ("stress" in dataset.available_properties) == (i == 2)
        assert "dipole_moment" in dataset.available_properties
        assert ("stress" in load_frames(dataset).values) == (i == 2)
        messages = [record.getMessage() for record in caplog.records]
        assert len(messages) == (0 if i == 2 else 1)
        if messages:
            assert "without stress, since frames of 1 of 2 trajectories lack it" in messages[0]
            assert f"('run_{1 - i}')" in messages[0]


def test_a_later_frame_that_lacks_a_property_is_named(tmp_path, frames, caplog):
    path = written(tmp_path / "a.db", without(frames, "stress"))
    assert "stress" not in ASEAtomsData(str(path)).available_properties
    assert "'run_0'" in caplog.text


def test_contradictions_are_refused(tmp_path, frames):
    frames[1].info["total_charge"] = 3
    with pytest.raises(ValueError, match=r"frame 1 of trajectory 'run_0'.*names of the same"):
        written(tmp_path / "a.db", frames)
    del frames[1].info["total_charge"]
    frames[2].calc.results["dipole"] = np.zeros(4)
    with pytest.raises(ValueError, match=r"frame 2 of trajectory 'run_0': its dipole has the shape"):
        written(tmp_path / "a.db", frames)


@pytest.mark.parametrize("lacking", ["first", "second"])
def test_a_resumed_writer_knows_what_was_found(tmp_path, frames, caplog, lacking):
    """The first trajectory is not read again, yet its properties count."""
    parts = {"a": frames, "b": [atoms.copy() for atoms in frames]}
    for atoms, original in zip(parts["b"], frames, strict=True):
        atoms.calc = SinglePointCalculator(atoms, **original.calc.results)
    without(parts["a" if lacking == "first" else "b"], "stress")
    path = tmp_path / "a.db"
    writer = TrajectoryWriter(path, resume=True)
    writer.__enter__()
    writer.add("a", parts["a"], 1.0)
    writer.add("b", parts["b"][:1], 1.0)
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    with TrajectoryWriter(path, resume=True) as writer:
        writer.add("a", (pytest.fail("is read again") for _ in range(3)), 1.0)
        writer.add("b", parts["b"], 1.0)
    dataset = ASEAtomsData(str(path))
    assert len(dataset) == 6
    assert "stress" not in dataset.available_properties
    assert "partial_charges" in dataset.available_properties
    assert f"('{'a' if lacking == 'first' else 'b'}')" in caplog.text
    assert set(dataset.metadata) == {
        *("_property_unit_dict", "_distance_unit", "atomrefs", "trajectories", "groups_ids"),
    }


def test_a_part_of_an_earlier_version_is_begun_anew(tmp_path, frames):
    path = tmp_path / "a.db"
    part = PartFile(path, True, {})
    connect(part.path).metadata = {"begun": [[0, "key"]]}
    with TrajectoryWriter(path, resume=True) as writer:
        writer.add("a", frames, 1.0)
    assert "stress" in ASEAtomsData(str(path)).available_properties


@pytest.mark.parametrize("suffix", [".xyz", ".traj"])
def test_conversion_keeps_them(tmp_path, frames, suffix):
    source = tmp_path / f"run{suffix}"
    if suffix == ".traj":
        for atoms in frames:
            atoms.set_constraint()
    ase.io.write(source, frames, format="extxyz" if suffix == ".xyz" else "traj")
    convert([source], tmp_path / "out.db", Reading(timestep_fs=1.0))
    dataset = ASEAtomsData(str(tmp_path / "out.db"))
    for i, atoms in enumerate(frames):
        sample = dataset[i]
        np.testing.assert_allclose(sample["stress"][0], atoms.get_stress(voigt=False), atol=1e-7)
        np.testing.assert_allclose(sample["stress"][0], stress_by_differences(atoms), atol=1e-6)
        np.testing.assert_allclose(sample["partial_charges"], atoms.calc.results["charges"], atol=1e-7)
        np.testing.assert_allclose(sample["dipole_moment"][0], atoms.calc.results["dipole"], atol=1e-7)
        assert sample["total_charge"].tolist() == [i - 1.0]
        assert sample["spin_multiplicity"].tolist() == [2.0]
