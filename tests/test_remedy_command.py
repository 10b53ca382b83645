"""The command that ``spkdt check`` prints is run as it stands; units, masses and parts of trajectories as users state."""

import re
import shlex
from dataclasses import replace
from pathlib import Path as File

import ase.db
import ase.io
import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.database_content import content
from helpers.diagnosis_data import Path, simulate
from helpers.programs import spkdt
from helpers.round_trip import frames_of, scaled, write
from helpers.springs import MorseBonds

from spk_dt.data import TrajectoryWriter
from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.diagnosis.remedy import as_arguments, merged, shortest
from spk_dt.trajectories.inputs import Reading
from spk_dt.trajectories.stated import parse_indices, parse_masses, parse_shift, parse_units

HA, BOHR = ase.units.Hartree, ase.units.Bohr


def water(deuterium: bool = False) -> Path:
    atoms = molecule("H2O")
    atoms.set_masses([15.999, 2.014, 2.014] if deuterium else None)
    return simulate(atoms, 60, 0.5, 300.0, 2, equilibrate=20, calculator=MorseBonds(atoms))


@pytest.fixture(scope="module")
def sound() -> Path:
    return water()


def write_xyz(path: Path, file: File, columns: tuple[str, ...] = ("momenta", "forces"), species: str = "OHH") -> File:
    """Extended XYZ as a program writes it, with the numbers as they are."""
    shape = ":".join(f"{name}:R:3" for name in columns)
    lines = []
    for k in range(len(path)):
        lines += [str(len(path.numbers)), f'Properties=species:S:1:pos:R:3:{shape} energy={path.e[k]:.14g} pbc="F F F"']
        values = {"momenta": path.v[k] * path.masses[:, None] / ase.units.fs, "forces": path.f[k]}
        rows = np.hstack([path.x[k], *(values[name] for name in columns)])
        lines += [f"{one} {' '.join(f'{value:.12g}' for value in row)}" for one, row in zip(species, rows, strict=True)]
    file.write_text("\n".join(lines) + "\n")
    return file


def do_what_is_said(database: File, new: File) -> str:
    """Run the command that a check prints; what the check says."""
    code, out, _ = spkdt("check", database)
    assert code == 1
    (command,) = re.findall(r"^remedy: spkdt (.*)$", out, flags=re.M)
    code, _, err = spkdt(*[str(new) if word == "NEW.db" else word for word in shlex.split(command)])
    assert code == 0, err
    return out


def test_a_file_in_atomic_units(tmp_path, sound):
    file = write_xyz(scaled(sound, x=1 / BOHR, e=1 / HA, f=BOHR / HA), tmp_path / "au.extxyz", ("forces",))
    convert([file], tmp_path / "a.db", Reading(timestep_fs=0.5))
    said = do_what_is_said(tmp_path / "a.db", tmp_path / "b.db")
    for word in (
        "positions are in another unit",
        "they seem to be in Bohr",
        "Hartree/Bohr",
        "they seem to be in Hartree.",
    ):
        assert word in said
    assert "bonds show it (H-O 1.8" in said
    found = content(tmp_path / "b.db")
    np.testing.assert_allclose(found.positions, sound.x, rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(found.forces, sound.f, rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(found.energy, sound.e, rtol=0.0, atol=1e-9)
    assert np.linalg.norm(found.positions[:, 1] - found.positions[:, 0], axis=1).mean() == pytest.approx(0.97, abs=0.03)
    assert spkdt("check", tmp_path / "b.db")[0] == 0
    units = parse_units("positions=Bohr,energy=Hartree,forces=Hartree/Bohr")
    convert([file], tmp_path / "c.db", Reading(timestep_fs=0.5, units=units))  # at once
    np.testing.assert_allclose(content(tmp_path / "c.db").velocities, found.velocities, rtol=0.0, atol=1e-12)


def test_heavy_water_that_is_written_as_light(tmp_path):
    """With momenta, and no masses."""
    sound = water(deuterium=True)
    file = write_xyz(sound, tmp_path / "d2o.extxyz")
    convert([file], tmp_path / "a.db", Reading(timestep_fs=0.5))
    said = do_what_is_said(tmp_path / "a.db", tmp_path / "b.db")
    assert "H 2.014 (D) instead of 1.008 Dalton" in said
    convert([file], tmp_path / "c.db", Reading(timestep_fs=0.5, masses=parse_masses("H=2.014")))
    convert([file], tmp_path / "d.db", Reading(timestep_fs=0.5, masses=parse_masses("1-2=2.014")))
    for name in "bcd":
        found = content(tmp_path / f"{name}.db")
        np.testing.assert_allclose(found.masses, [[15.999, 2.014, 2.014]] * len(sound))
        np.testing.assert_allclose(found.velocities, sound.v, rtol=0.0, atol=1e-10)
        assert spkdt("check", tmp_path / f"{name}.db")[0] == 0


def test_deuterium_by_its_own_symbol(tmp_path):
    sound = water(deuterium=True)
    file = write_xyz(sound, tmp_path / "d2o.extxyz", species="ODD")
    convert([file], tmp_path / "a.db", Reading(timestep_fs=0.5))
    np.testing.assert_allclose(content(tmp_path / "a.db").masses[0], [15.999, 2.014102, 2.014102])
    convert([file], tmp_path / "b.db", Reading(timestep_fs=0.5, masses=parse_masses("D=2.014")))
    found = content(tmp_path / "b.db")
    assert found.numbers[0].tolist() == [8, 1, 1]
    np.testing.assert_allclose(found.velocities, sound.v, rtol=0.0, atol=1e-10)


def test_what_stays_where_masses_change(tmp_path, sound):
    """What the file has; or as it is said."""
    momenta = write_xyz(sound, tmp_path / "p.extxyz")
    database = write(sound, tmp_path / "v.db")
    for name, source, keep, factor in (
        ("a", momenta, None, 0.5),
        ("b", momenta, False, 1.0),
        ("c", database, None, 1.0),
        ("d", database, True, 0.5),
    ):
        timestep = {"timestep_fs": 0.5} if source is momenta else {}
        convert([source], tmp_path / f"{name}.db", Reading(**timestep, masses={"H": 2.016}, keep_momenta=keep))
        np.testing.assert_allclose(content(tmp_path / f"{name}.db").velocities[:, 1], factor * sound.v[:, 1], atol=1e-9)


def test_only_those_that_are_wrong_are_mended(tmp_path, sound):
    """And the rest is joined to them."""
    file = tmp_path / "a.db"
    with TrajectoryWriter(file) as writer:
        writer.add("good", frames_of(sound), 0.5)
        for name in ("one", "two"):
            writer.add(name, frames_of(scaled(sound, f=BOHR / HA)), 0.5)
    said = do_what_is_said(file, tmp_path / "b.db")
    assert "--units forces=Hartree/Bohr --take one,two" in said
    convert([file], tmp_path / "c.db", Reading(take=["good"]))
    convert([tmp_path / "b.db", tmp_path / "c.db"], tmp_path / "d.db")
    found = content(tmp_path / "d.db")
    assert [one.name for one in found.trajectories] == ["one", "two", "good"]
    np.testing.assert_allclose(found.forces, np.concatenate([sound.f] * 3), rtol=0.0, atol=1e-9)
    assert spkdt("check", tmp_path / "d.db")[0] == 0


def test_a_database_keeps_all_it_has(tmp_path, sound):
    frames = frames_of(sound)
    for atoms in frames:
        results = {"stress": np.arange(6.0), "dipole": np.ones(3), "charges": [0.4, -0.2, -0.2], **atoms.calc.results}
        atoms.calc = SinglePointCalculator(atoms, **results)
        atoms.info["total_charge"] = 1.0
    with TrajectoryWriter(tmp_path / "a.db") as writer:
        writer.add("run", frames, 0.5, inner_steps=2)
    convert([tmp_path / "a.db"], tmp_path / "b.db")
    old, new = (ase.db.connect(tmp_path / f"{name}.db") for name in "ab")
    assert old.metadata["trajectories"] == new.metadata["trajectories"]
    assert old.metadata["_property_unit_dict"] == new.metadata["_property_unit_dict"]
    for one, other in zip(old.select(), new.select(), strict=True):
        assert set(one.data) == set(other.data)
        for key in one.data:
            np.testing.assert_allclose(one.data[key], other.data[key], rtol=1e-12, err_msg=key)


def refusals(sound: Path, folder: File) -> dict[str, tuple[list, dict]]:
    database = write(sound, folder / "one.db")
    two = folder / "two.db"
    with TrajectoryWriter(two) as writer:
        for name in ("a", "b"):
            writer.add(name, frames_of(sound), 0.5)
    stressed = frames_of(sound)
    for atoms in stressed:
        atoms.calc = SinglePointCalculator(atoms, stress=np.zeros(6), **atoms.calc.results)
    with_stress = folder / "stress.db"
    with TrajectoryWriter(with_stress) as writer:
        writer.add("run", stressed, 0.5)
    xyz = write_xyz(sound, folder / "run.extxyz")
    return {
        "it has a stress.*--units stress=": ([with_stress], {"units": {"forces": "Hartree/Bohr"}}),
        "there is no stress": ([database], {"units": {"stress": "GPa"}}),
        "no atom 'C'": ([database], {"masses": {"C": 13.0}}),
        "no atom '3'": ([database], {"masses": {3: 13.0}}),
        "state H=2.014": ([database], {"masses": {"D": 2.014}}),
        "give both": ([database], {"keep_momenta": True}),
        "no trajectory c": ([two], {"take": ["a", "c"]}),
        "--cut is for one, which --take names": ([two], {"cut": [3]}),
        "frames 0 to 60": ([database], {"leave_out": [61]}),
        "only energy and forces": ([database], {"shift": {"positions": 1}}),
        "--reverse is for trajectory_database only": ([xyz], {"timestep_fs": 0.5, "reverse": True}),
    }


def test_what_cannot_be_done_is_refused(tmp_path, sound):
    for number, (message, (inputs, options)) in enumerate(refusals(sound, tmp_path).items()):
        with pytest.raises(ValueError, match=message):
            convert(inputs, tmp_path / f"{number}.db", Reading(**options))
        assert not (tmp_path / f"{number}.db").exists()


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_units, "positions", "write names and values"),
        (parse_units, "place=Bohr", "'place' is not one of positions, energy"),
        (parse_units, "positions=ell", "one of Ang, Bohr, nm, or a number"),
        (parse_units, "forces=0", "not zero"),
        (parse_units, "forces=nan", "not zero"),
        (parse_units, "forces=-1,forces=2", "twice"),
        (parse_masses, "H", "write names and values"),
        (parse_masses, "H=two", "a positive number"),
        (parse_masses, "Qq=2", "neither an element nor the index"),
        (parse_masses, "3=2,1-4=2", "twice"),
        (lambda text: parse_indices(text, "--cut"), "4-2", "numbers from 0"),
        (parse_shift, "forces=half", "a whole number"),
    ],
)
def test_what_cannot_be_understood_is_refused(parse, text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_options_and_their_words_are_the_same():
    options = {
        "units": {"positions": "Bohr", "forces": "-Hartree/Bohr"},
        "masses": {"H": 2.014, 4: 13.003},
        "cut": (3, 8),
    }
    words = shlex.split(as_arguments(options))
    said = dict(zip(words[::2], words[1::2], strict=True))
    assert parse_units(said["--units"]) == options["units"]
    assert parse_masses(said["--masses"]) == options["masses"]
    assert tuple(parse_indices(said["--cut"], "--cut")) == options["cut"]
    assert as_arguments({"reverse": True, "keep_momenta": False}) == "--reverse --keep-velocities"
    sign, unit = {"units": {"forces": "-1"}}, {"units": {"forces": "kcal/mol/Ang"}}
    assert merged([sign, unit]) == merged([unit, sign]) == {"units": {"forces": "-kcal/mol/Ang"}}
    assert (shortest(0.49999997, 1e-6), shortest(0.48378, 1e-6), shortest(2.0142, 1e-3)) == (0.5, 0.48378, 2.014)


def test_velocities_are_recovered_anew(tmp_path, sound):
    """Those of a database that came from positions follow the time step that is stated."""
    database = write(replace(sound, h=1.0, velocities="central differences"), tmp_path / "a.db")
    convert([database], tmp_path / "b.db", Reading(timestep_fs=0.5))
    np.testing.assert_allclose(content(tmp_path / "b.db").velocities, sound.v, rtol=0.0, atol=1e-9)


def test_units_of_a_cell_and_a_stress(tmp_path):
    atoms = Atoms("Cu", cell=np.eye(3) * 6.8, pbc=True)
    frames = []
    for step in range(4):
        atoms.positions[:] = 0.01 * step
        frame = atoms.copy()
        frame.set_velocities(np.full((1, 3), 0.01))
        frame.calc = SinglePointCalculator(frame, energy=1.0, forces=np.ones((1, 3)), stress=np.arange(6.0))
        frames.append(frame)
    ase.io.write(tmp_path / "a.traj", frames)
    reading = Reading(timestep_fs=1.0, units=parse_units("positions=Bohr,stress=GPa"))
    convert([tmp_path / "a.traj"], tmp_path / "a.db", reading)
    row = ase.db.connect(tmp_path / "a.db").get(1)
    np.testing.assert_allclose(row.cell, np.eye(3) * 6.8 * BOHR)
    assert row.data["stress"][0, 2, 2] == pytest.approx(2.0 * ase.units.GPa)
