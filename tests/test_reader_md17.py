"""Archives of MD17: values, units, the time step that the data show, missing frames, and what is refused."""

import io
import random
import zipfile
from itertools import pairwise

import ase.units
import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.db import connect
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import NoseHooverChainNVT
from helpers.simulation_files import verlet_miss

from spk_dt import properties
from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.readers import md17_npz
from spk_dt.trajectories.readers.consecutive import measured_time_step, motion, nominal_time_step, unbroken
from spk_dt.trajectories.velocities import recover_velocities

KCAL_PER_MOL = 4184.0 / 6.02214076e23 / 1.602176634e-19  # eV


@pytest.fixture(scope="module")
def frames(cluster, make_trajectory):
    return make_trajectory(cluster, 60, 0.5, 1)


def arrays(frames, energy=KCAL_PER_MOL, length=1.0):
    """The arrays of MD17."""
    return {
        "z": frames[0].numbers.astype(np.uint8),
        "R": np.array([atoms.positions for atoms in frames]) / length,
        "E": np.array([[atoms.get_potential_energy()] for atoms in frames]) / energy,
        "F": np.array([atoms.get_forces() for atoms in frames]) * length / energy,
    }


def write(path, frames, compressed=True, **change):
    (np.savez_compressed if compressed else np.savez)(
        path, **{"name": "pd4h2", "theory": "EMT", "md5": b"0" * 32, **arrays(frames), **change}
    )
    return path


def check(found, frames, digits=1e-9):
    for atoms, expected in zip(found, frames, strict=True):
        np.testing.assert_array_equal(atoms.numbers, expected.numbers)
        np.testing.assert_allclose(atoms.positions, expected.positions, rtol=0, atol=digits)
        np.testing.assert_allclose(atoms.get_forces(), expected.get_forces(), rtol=1e-7, atol=digits)
        assert atoms.get_potential_energy() == pytest.approx(expected.get_potential_energy(), rel=1e-7)
        assert not atoms.has("momenta")


def miss(found, timestep_fs=0.5):
    """Largest miss of the positions from velocity Verlet, with velocities of neighbouring frames, in Å."""
    return verlet_miss(list(recover_velocities(found, timestep_fs))[1:-1], timestep_fs)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("block", [2**22, 24 * 6 * 7, 1])
def test_values_units_and_physics(tmp_path, frames, monkeypatch, compressed, block):
    monkeypatch.setattr(md17_npz, "_BLOCK", block)
    path = write(tmp_path / "md17_pd4h2.npz", frames, compressed)
    assert md17_npz.recognises(path)
    (raw,) = md17_npz.read(path)
    assert (raw.name, raw.timestep_fs, raw.n_frames, raw.inner_steps) == ("md17_pd4h2", 0.5, 61, None)
    for _ in range(2):
        found = list(raw.frames())
        check(found, frames)
    assert miss(found) < 1e-9


def test_forces_in_another_unit_are_refused(tmp_path, frames):
    """Forces in eV/Å that are taken for kcal/mol/Å are 23 times too small: the time step looks wrong."""
    path = write(tmp_path / "a.npz", frames, F=np.array([atoms.get_forces() for atoms in frames]))
    with pytest.raises(ValueError, match=r"look 2\.4 fs apart, but 0\.5 fs was expected"):
        md17_npz.read(path)


@pytest.mark.parametrize(
    ("e_unit", "r_unit", "energy", "length"), [("eV", "Ang", 1, 1), ("Hartree", "Bohr", 27.2113860, 0.52917721)]
)
def test_units_that_the_file_names(tmp_path, frames, e_unit, r_unit, energy, length):
    path = write(tmp_path / "a.npz", frames, e_unit=e_unit, r_unit=r_unit, **arrays(frames, energy, length))
    check(md17_npz.read(path)[0].frames(), frames, 1e-7)


def test_layouts(tmp_path, frames):
    """Energies without a second axis, Fortran order, single precision."""
    data = arrays(frames)
    change = {
        "E": data["E"][:, 0],
        "R": np.asfortranarray(data["R"]),
        "F": np.asfortranarray(data["F"], dtype=np.float32),
    }
    found = list(md17_npz.read(write(tmp_path / "a.npz", frames, **change))[0].frames())
    for atoms, expected in zip(found, frames, strict=True):
        np.testing.assert_allclose(atoms.get_forces(), expected.get_forces(), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(atoms.positions, expected.positions, atol=1e-9)


def test_a_cell(tmp_path, crystal, make_trajectory):
    frames = make_trajectory(crystal, 20, 0.5, 0)
    shift = (
        np.random.default_rng(0).integers(-1, 2, (21, 4, 3)) @ crystal.cell.array
    )  # images differ from frame to frame
    (raw,) = md17_npz.read(
        write(tmp_path / "a.npz", frames, R=arrays(frames)["R"] + shift, lattice=crystal.cell.array.T)
    )
    assert raw.timestep_fs == 0.5
    atoms = next(raw.frames())
    np.testing.assert_allclose(atoms.cell, crystal.cell)
    assert atoms.pbc.all()


@pytest.mark.parametrize("timestep_fs", [0.2, 1.0])
def test_another_time_step_is_found(tmp_path, cluster, make_trajectory, timestep_fs):
    (raw,) = md17_npz.read(write(tmp_path / "a.npz", make_trajectory(cluster, 40, timestep_fs, 0)))
    assert raw.timestep_fs == timestep_fs


def test_the_time_step_is_measured_precisely(frames):
    data = [
        np.array([f(atoms) for atoms in frames]) for f in (type(frames[0]).get_positions, type(frames[0]).get_forces)
    ]
    system = (frames[0].get_masses(), np.zeros((3, 3)), np.zeros(3, bool))
    assert measured_time_step(motion(*data, *system), "it") == pytest.approx(0.5, rel=1e-6)
    noise = np.random.default_rng(0)
    rough = data[0] + 1e-5 * noise.standard_normal(data[0].shape)  # positions of five digits, or a strong thermostat
    assert measured_time_step(motion(rough, data[1], *system), "it") == pytest.approx(0.5, rel=0.03)
    with pytest.raises(ValueError, match="positions are rounded too much"):
        measured_time_step(motion(np.round(data[0], 3), data[1], *system), "it")


@pytest.mark.parametrize("thermostat", ["Langevin", "Nose-Hoover"])
def test_a_thermostat_leaves_the_time_step(cluster, thermostat):
    """MD17 is of simulations at constant temperature. Here the thermostats are strong: 300 fs and 25 fs."""
    atoms, positions, forces = cluster.copy(), [], []
    atoms.calc = EMT()
    generator = np.random.default_rng(0)
    atoms.set_velocities(generator.normal(0.0, np.sqrt(ase.units.kB * 500.0 / atoms.get_masses())[:, None], (6, 3)))
    step = 0.5 * ase.units.fs
    if thermostat == "Langevin":
        dynamics = Langevin(atoms, step, temperature_K=500, friction=0.003 / ase.units.fs, fixcm=False, rng=generator)
    else:
        dynamics = NoseHooverChainNVT(atoms, step, temperature_K=500, tdamp=25 * ase.units.fs)
    for _ in dynamics.irun(600):
        positions.append(atoms.get_positions())
        forces.append(atoms.get_forces())
    data = (np.array(positions), np.array(forces), atoms.get_masses(), np.zeros((3, 3)), np.zeros(3, bool))
    sums = motion(*data)
    assert nominal_time_step(measured_time_step(sums, "it"), 0.5, "it") == 0.5
    assert unbroken(sums, 0.5) == [range(601)]


def test_random_order_is_refused(tmp_path, frames):
    order = np.random.default_rng(0).permutation(len(frames))
    with pytest.raises(ValueError, match=r"a\.npz' are not consecutive: the cosine .* is -0\.\d"):
        md17_npz.read(write(tmp_path / "a.npz", [frames[i] for i in order]))


def test_every_tenth_frame_is_refused(tmp_path, cluster, make_trajectory):
    frames = make_trajectory(cluster, 300, 0.5, 0)[::10]
    with pytest.raises(ValueError, match=r"do not move the atoms|was expected"):
        md17_npz.read(write(tmp_path / "a.npz", frames))


def test_forces_of_other_frames_are_refused(tmp_path, frames):
    change = {"F": arrays(frames)["F"][::-1]}
    with pytest.raises(ValueError, match="do not move the atoms"):
        md17_npz.read(write(tmp_path / "a.npz", frames, **change))


def test_missing_and_repeated_frames_cut_the_trajectory(tmp_path, frames, caplog):
    kept = [*range(20), *range(21, 40), *range(39, 61)]  # 20 is missing, 39 is there twice
    path = write(tmp_path / "a.npz", [frames[i] for i in kept])
    raws = md17_npz.read(path)
    assert [(raw.name, raw.n_frames) for raw in raws] == [("a_0", 20), ("a_1", 19), ("a_2", 22)]
    assert "cut into 3 parts" in caplog.text
    for raw, part in zip(raws, (range(20), range(21, 40), range(39, 61)), strict=True):
        found = list(raw.frames())
        check(found, [frames[i] for i in part])
        assert miss(found) < 1e-9


def test_a_frame_with_wrong_forces_is_left_out(tmp_path, frames):
    data = arrays(frames)
    data["F"][30] *= -1.0
    raws = md17_npz.read(write(tmp_path / "a.npz", frames, **data))
    assert [raw.n_frames for raw in raws] == [30, 30]


def test_unbroken_parts_are_those_that_were_joined():
    """Random cuts of harmonic motion: each part is found, and no link across a cut survives."""
    generator = np.random.default_rng(0)
    h = 0.5 * ase.units.fs
    for _ in range(20):
        w = generator.uniform(0.05, 0.5, 9).reshape(3, 3) / 0.5 / ase.units.fs * 0.5
        h_w = 2.0 / h * np.arcsin(w * h / 2.0)  # frequency of velocity Verlet for a harmonic force -w² x
        lengths = generator.integers(4, 40, generator.integers(1, 6))
        times = np.concatenate([generator.integers(0, 10**6) + np.arange(n) for n in lengths]) * h
        x = np.cos(times[:, None, None] * h_w + generator.uniform(0, 6, (3, 3)))
        sums = motion(x, -(w**2) * x, np.ones(3), np.zeros((3, 3)), np.zeros(3, bool))
        ends = np.cumsum([0, *lengths])
        expected = [range(a, b) for a, b in pairwise(ends)]
        assert unbroken(sums, 0.5) == [part for part in expected if len(part) >= 3]


def test_nominal_time_step():
    assert nominal_time_step(0.508, 0.5, "it") == 0.5
    assert nominal_time_step(0.248, 0.5, "it") == 0.25
    with pytest.raises(ValueError, match=r"look 0\.33 fs apart"):
        nominal_time_step(0.33, 0.5, "it")


def test_the_revised_md17_is_refused(tmp_path, frames):
    data = arrays(frames)
    path = tmp_path / "rmd17_ethanol.npz"
    names = {"nuclear_charges": data["z"], "coords": data["R"], "energies": data["E"][:, 0], "forces": data["F"]}
    np.savez_compressed(path, **names, old_indices=np.arange(61), old_energies=data["E"], old_forces=data["F"])
    assert md17_npz.recognises(path)
    with pytest.raises(
        ValueError, match=r"rmd17_ethanol\.npz' is of the revised MD17.*not consecutive.*md17_trajectory"
    ):
        md17_npz.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": np.array([46, 46, 46, 46, 1])}, r"R of .* has shape \(61, 6, 3\), which does not fit 5 atoms"),
        ({"z": np.array([46, 46, 46, 46, 1, 0])}, "z of .*atomic numbers"),
        ({"E": np.zeros(60)}, r"E of .* has shape \(60,\)"),
        ({"F": np.zeros((60, 6, 3))}, r"F of .* has shape \(60, 6, 3\)"),
        ({"e_unit": "furlong"}, "unknown unit 'furlong'.*e_unit of '.*a.npz'|unknown unit"),
        ({"lattice": np.zeros((3, 3))}, "lattice of .* is not three lattice vectors"),
        ({"R": np.full((61, 6, 3), np.nan)}, r"R of .* is not finite in frame 0"),
        ({"R": np.zeros((61, 6, 3))}, "not consecutive"),
        ({"E": np.array([None] * 61)}, "Python objects"),
        ({"E": np.array(["a"] * 61)}, "does not hold numbers"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, frames, change, message):
    path = write(tmp_path / "a.npz", frames, **change)
    with pytest.raises(ValueError, match=message):
        list(md17_npz.read(path)[0].frames())


def test_a_value_that_is_not_finite_is_named(tmp_path, frames):
    data = arrays(frames)
    data["E"][17] = np.inf
    (raw,) = md17_npz.read(write(tmp_path / "a.npz", frames, **data))
    with pytest.raises(ValueError, match=r"E of '.*a\.npz' is not finite in frame 17"):
        list(raw.frames())


def test_missing_arrays_and_short_files(tmp_path, frames):
    data = arrays(frames)
    np.savez(tmp_path / "a.npz", R=data["R"], F=data["F"], z=data["z"])
    with pytest.raises(ValueError, match="has no E"):
        md17_npz.read(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="fewer than three frames"):
        md17_npz.read(write(tmp_path / "b.npz", frames[:2]))


def test_what_is_not_of_md17(tmp_path, frames):
    np.savez(tmp_path / "other.npz", positions=np.zeros(3))
    (tmp_path / "text.npz").write_text("R")
    write(tmp_path / "a.npz", frames).rename(tmp_path / "a.zip")
    for name in ("other.npz", "text.npz", "a.zip", "missing.npz", "."):
        assert not md17_npz.recognises(tmp_path / name)


def outcome(path):
    """Frames, or the message of a ValueError; nothing else may come."""
    try:
        return [frame for raw in md17_npz.read(path) for frame in raw.frames()]
    except ValueError as error:
        return str(error) if path.name in str(error) else f"no name in: {error}"


@pytest.mark.parametrize("compressed", [True, False])
def test_every_truncation_is_told(tmp_path, frames, compressed):
    data = write(tmp_path / "a.npz", frames, compressed).read_bytes()
    cut = tmp_path / "cut.npz"
    for length in [1, 10, 100, *range(200, len(data), len(data) // 25), len(data) - 1]:
        cut.write_bytes(data[:length])
        assert md17_npz.recognises(cut) == (length >= 100)
        assert "damaged or cut off" in outcome(cut)


def test_a_short_member_is_told(tmp_path, frames):
    """An archive that is whole, with an array that is not."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in arrays(frames).items():
            buffer = io.BytesIO()
            np.save(buffer, value)
            archive.writestr(f"{key}.npy", buffer.getvalue()[: -100 if key == "F" else None])
    assert "F of " in outcome(path)
    assert "cut off after frame" in outcome(path)


def test_random_damage_gives_value_errors_only(tmp_path, frames):
    generator = random.Random(1)
    messages = []
    for compressed in (True, False):
        data = write(tmp_path / "a.npz", frames[:20], compressed).read_bytes()
        for _ in range(150):
            spoiled = bytearray(data)
            for _ in range(generator.choice((1, 4))):
                spoiled[generator.randrange(len(data))] = generator.randrange(256)
            (tmp_path / "a.npz").write_bytes(spoiled)
            assert md17_npz.recognises(tmp_path / "a.npz") in (True, False)
            messages.append(outcome(tmp_path / "a.npz"))
    refusals = [message for message in messages if isinstance(message, str)]
    assert len(refusals) > 150
    assert not [message for message in refusals if message.startswith("no name")]


def test_conversion(tmp_path, frames):
    (found,) = convert([write(tmp_path / "a.npz", frames)], tmp_path / "a.db")
    assert (found.trajectory.timestep_fs, found.trajectory.velocities) == (0.5, "central differences")
    for row, atoms in zip(connect(tmp_path / "a.db").select(sort="id"), frames, strict=True):
        velocities = atoms.get_velocities() * ase.units.fs
        np.testing.assert_allclose(row.data[properties.velocities], velocities, atol=1e-8)
        np.testing.assert_allclose(row.data["energy"], atoms.get_potential_energy(), rtol=1e-7)
