"""Reference trajectories from structures of the user: physics, fixed atoms, what is kept, refusals."""

import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLength, FixCom, FixedLine, Hookean
from ase.db import connect
from helpers.generation import SPACING, STIFFNESS, Generous, Odd, Sites, columns, compute_here, crystal, name
from helpers.slab import LAYER, SLIDING, slab

from spk_dt.labels.generate_from import Protocol, generate_from
from spk_dt.trajectories.database import read_trajectories

EMT_ = "ase.calculators.emt:EMT"


@pytest.fixture
def here(monkeypatch):
    """The reference computes in this process."""
    compute_here(monkeypatch)


@pytest.mark.parametrize(("friction", "conserved"), [(None, True), (0.1, False)])
def test_constant_energy_is_conserved_and_a_thermostat_does_not(tmp_path, friction, conserved):
    generate_from([slab()], tmp_path / "a.db", 60, Protocol(300.0, 1.0, 1, friction), EMT_)
    found = columns(tmp_path / "a.db")
    masses = slab().get_masses()[:, None]
    kinetic = 0.5 * (masses * (found["velocities"] / ase.units.fs) ** 2).sum((1, 2))
    assert (np.ptp(found["energy"][:, 0] + kinetic) < 0.01) == conserved
    assert np.ptp(kinetic) > 0.02
    for index, axes in ((LAYER, slice(None)), (SLIDING, 2)):
        assert np.array_equal(
            found["positions"][:, index, axes],
            np.broadcast_to(slab().positions[index, axes], found["positions"][:, index, axes].shape),
        )
    atoms = connect(tmp_path / "a.db").get(31).toatoms()
    assert str(atoms.constraints) == str(slab().constraints)
    atoms.calc = EMT()
    np.testing.assert_allclose(found["stress"][30, 0, 2, 2], atoms.get_stress()[2], atol=1e-10)
    np.testing.assert_allclose(found["forces"][30], atoms.get_forces(apply_constraint=False), atol=1e-10)


def kelvin(velocities, masses, degrees_of_freedom):
    """Mean kinetic temperature of frames, and its standard error from blocks."""
    kinetic = 0.5 * (masses[:, None] * (velocities / ase.units.fs) ** 2).sum(axis=(1, 2))
    blocks = np.array([block.mean() for block in np.array_split(kinetic, 14)])
    scale = 2.0 / (degrees_of_freedom * ase.units.kB)
    return scale * blocks.mean(), scale * blocks.std(ddof=1) / np.sqrt(len(blocks))


@pytest.mark.parametrize(("fixed", "mobile", "all_of_them"), [(True, 17, 24), (False, 21, 24)])
def test_langevin_has_its_temperature(here, tmp_path, fixed, mobile, all_of_them):
    """8 atoms: two fixed and one that slides, or, where none is fixed, the centre of mass at rest."""
    atoms = crystal(fixed=fixed)
    generate_from([atoms], tmp_path / "a.db", 500, Protocol(300.0, 5.0, 1, 0.05, 200.0), name(Sites))
    found = columns(tmp_path / "a.db")
    mean, error = kelvin(found["velocities"], atoms.get_masses(), mobile)
    assert error < 18.0
    assert abs(mean - 300.0) < 4.0 * error
    wrong, error = kelvin(found["velocities"], atoms.get_masses(), all_of_them)
    assert abs(wrong - 300.0) > (4.0 if fixed else 2.0) * error
    momentum = np.abs((atoms.get_masses()[:, None] * found["velocities"]).sum(axis=1)).max()
    assert (momentum < 1e-12) != fixed
    if fixed:  # every degree of freedom has as much potential energy
        away = found["positions"] - SPACING * np.round(atoms.positions / SPACING)
        potential = 0.5 * STIFFNESS * (away[:, 3:] ** 2).sum(axis=(1, 2)).mean()
        assert potential == pytest.approx(0.5 * 15 * ase.units.kB * 300.0, rel=0.15)


@pytest.mark.parametrize(("equilibrate", "expected"), [(None, 150.0), (400.0, 300.0)])
def test_constant_energy_begins_in_equilibrium(here, tmp_path, equilibrate, expected):
    """Of a relaxed structure half of the kinetic energy becomes potential energy, unless that has its own."""
    atoms = crystal(fixed=False)
    atoms.positions -= 0.05
    protocol = Protocol(300.0, 5.0, 1, equilibrate_fs=equilibrate)
    generate_from([atoms], tmp_path / "a.db", 40, protocol, name(Sites), n_trajectories=8)
    mean, _ = kelvin(columns(tmp_path / "a.db")["velocities"], atoms.get_masses(), 21)
    error = expected * np.sqrt(2.0 / (21 * 8))
    assert abs(mean - expected) < 2.2 * error < 0.5 * 150.0
    simulation = connect(tmp_path / "a.db").metadata["simulation"]
    assert simulation["ensemble"] == "constant energy"
    assert (simulation["equilibrate_fs"], simulation["temperature_k"]) == (equilibrate, 300.0)


def test_velocities_of_the_structure_and_thinned_frames(here, tmp_path):
    """Every third step of the same trajectory, across the ends of pieces."""
    for every in (1, 3):
        generate_from([slab()], tmp_path / f"{every}.db", 45, Protocol(None, 1.0, every), EMT_)
    dense, thin = columns(tmp_path / "1.db"), columns(tmp_path / "3.db")
    for key, values in thin.items():
        assert np.array_equal(values, dense[key][::3]), key
    np.testing.assert_allclose(dense["velocities"][0], slab().get_velocities() * ase.units.fs, atol=1e-14)
    (record,) = read_trajectories(connect(tmp_path / "3.db").metadata, "3.db")
    assert (record.timestep_fs, record.inner_steps, record.length) == (3.0, 3, 16)


def test_results_that_are_none_are_left_out_and_named(tmp_path, caplog):
    generate_from([crystal()], tmp_path / "a.db", 2, Protocol(300.0), name(Odd))
    assert columns(tmp_path / "a.db").keys() == {"positions", "energy", "forces", "velocities"}
    said = [record.getMessage() for record in caplog.records]
    assert [text.split(" is left out")[0] for text in said] == ["stress", "charges", "magmoms"]
    assert "the shape (5,), not (3, 3)" in said[0]
    assert "not finite" in said[2]


def test_what_the_calculator_gives_is_kept_and_it_is_told_charge_and_spin(here, tmp_path):
    structures = [crystal("Ar4", fixed=False), crystal("Ne4", fixed=False)]
    for atoms, charge in zip(structures, (-1, 2), strict=True):
        atoms.info |= {"charge": charge, "spin": 3, "name": "not for the calculator"}
        atoms.set_masses([2.0] * 4)
    generate_from(structures, tmp_path / "a.db", 2, Protocol(1.0), name(Generous))
    rows = list(connect(tmp_path / "a.db").select(sort="id"))
    for row, charge in ((rows[0], -1.0), (rows[3], 2.0)):
        assert row.data["total_charge"] == charge
        assert row.data["spin_multiplicity"] == 3.0
        np.testing.assert_allclose(row.data["energy"], 100.0 * charge + 2.0 + 0.5 * STIFFNESS * 12 * 0.05**2)
        assert (row.toatoms().get_masses() == 2.0).all()
        np.testing.assert_array_equal(row.data["dipole_moment"][0], row.positions.sum(axis=0))
        np.testing.assert_array_equal(row.data["stress"][0], 0.1 * np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]]))
        np.testing.assert_array_equal(row.data["partial_charges"], [charge / 4] * 4)
        np.testing.assert_array_equal(row.data["magnetic_moments"], np.linspace(0, 1, 4))
    assert "stress" in connect(tmp_path / "a.db").metadata["_property_unit_dict"]


def test_structures_that_do_not_say_their_charge_and_spin_get_the_usual_ones(here, tmp_path, caplog):
    """Neutral and with the lowest multiplicity, unless initial charges and moments say another."""
    says, silent, initial = crystal("H4", fixed=False), crystal("H3", fixed=False), crystal("He4", fixed=False)
    says.info |= {"charge": -1, "spin": 2}
    initial.set_initial_charges([1.0, 0, 0, 1.0])
    initial.set_initial_magnetic_moments([1.0, 1.0, 0, 0])
    generate_from([says, silent, initial], tmp_path / "a.db", 1, Protocol(1.0), name(Generous))
    rows = list(connect(tmp_path / "a.db").select(sort="id"))[::2]
    found = [(float(row.data["total_charge"][0]), float(row.data["spin_multiplicity"][0])) for row in rows]
    assert found == [(-1, 2), (0, 2), (2, 3)]
    at_rest = [0.5 * STIFFNESS * 3 * len(row.numbers) * 0.05**2 for row in rows]
    energies = [float(row.data["energy"][0]) - rest for row, rest in zip(rows, at_rest, strict=True)]
    np.testing.assert_allclose(energies, [-100.0 + 1, 0.0 + 1, 200.0 + 2])
    assert (
        "some structures say their total_charge; the others are taken as usual: 0 for structure 2, 2 for" in caplog.text
    )
    assert "their spin_multiplicity; the others are taken as usual: 2 for structure 2, 3 for structure 3" in caplog.text
    caplog.clear()
    generate_from([silent, initial], tmp_path / "b.db", 1, Protocol(1.0), name(Generous))
    assert caplog.text == ""
    assert "total_charge" not in connect(tmp_path / "b.db").get(1).data


def test_the_same_start_twice_is_refused_unless_velocities_are_drawn(tmp_path):
    with pytest.raises(ValueError, match="structure 3 is the same as structure 1, with the same velocities"):
        generate_from([slab(), slab(1), slab()], tmp_path / "a.db", 1, Protocol(), EMT_)
    assert list(tmp_path.iterdir()) == []


def constrained(constraint):
    atoms = Atoms("Cu3", [[0, 0, 0], [3, 0, 0], [0, 3, 0]], cell=[9, 9, 9])
    atoms.set_constraint(constraint)
    return atoms


@pytest.mark.parametrize(
    ("atoms", "protocol", "number", "message"),
    [
        (Atoms("Cu2", [[0, 0, 0], [0.3, 0, 0]]), Protocol(300.0), 1, "structure 1: atoms 0 and 1 .* overlap"),
        (Atoms("Cu", pbc=True), Protocol(300.0), 1, "structure 1 .* no cell"),
        (Atoms("Cu", cell=[[3, 0, 0], [6, 0, 0], [0, 0, 3]], pbc=True), Protocol(300.0), 1, "no cell"),
        (Atoms("Cu", [[np.nan, 0, 0]]), Protocol(300.0), 1, "positions that are not finite"),
        (Atoms(), Protocol(300.0), 1, "structure 1 has no atoms"),
        (Atoms("X"), Protocol(300.0), 1, "without an element"),
        (Atoms("Cu", masses=[0.0]), Protocol(300.0), 1, "masses that are not positive"),
        (Atoms("Cu"), Protocol(), 1, "no velocities; draw them with --temperature"),
        (slab(), Protocol(), 2, "would all be the same"),
        (constrained(FixCom()), Protocol(300.0), 1, "structure 1 has the constraint FixCom"),
        (constrained(FixBondLength(0, 1)), Protocol(300.0), 1, "the constraint FixBondLengths"),
        (constrained(Hookean(0, 1, rt=1.0, k=5.0)), Protocol(300.0), 1, "the constraint Hookean"),
        (constrained(FixedLine(0, [1, 1, 0])), Protocol(300.0), 1, "structure 1: atoms may move along"),
        (constrained(FixAtoms([0, 1, 2])), Protocol(300.0), 1, "all of its atoms are held fixed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_simulated_is_refused_before_anything_is_made(tmp_path, atoms, protocol, number, message):
    with pytest.raises(ValueError, match=message):
        generate_from([atoms], tmp_path / "a.db", 10, protocol, EMT_, number)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature_k": 0.0}, "larger than zero"),
        ({"timestep_fs": -1.0}, "larger than zero"),
        ({"friction_per_fs": 0.1}, "needs a temperature"),
        ({"equilibrate_fs": 100.0}, "needs a temperature"),
        ({"friction_per_fs": 10.0, "temperature_k": 300.0}, "It is in 1/fs"),
    ],
)
def test_wrong_protocols_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**settings)


@pytest.mark.parametrize(
    ("symbols", "mass", "step", "long"),
    [("H2", None, 1.0, False), ("H2", None, 1.5, True), ("H2", 2.014, 1.4, False), ("Ar2", None, 9.0, False)],
)
def test_a_time_step_that_is_long_for_hydrogen_is_named(tmp_path, caplog, symbols, mass, step, long):
    atoms = crystal(symbols, fixed=False)
    if mass is not None:
        atoms.set_masses([mass] * 2)
    (tmp_path / "a.db").touch()
    with pytest.raises(FileExistsError):  # before anything is computed
        generate_from([atoms], tmp_path / "a.db", 1, Protocol(1.0, step), name(Sites))
    assert ("is long for hydrogen of mass 1.008" in caplog.text) == long
