"""`FramesInit`: a system starts from exactly the frames of a file."""

import logging

import ase.io
import ase.units
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.constraints import FixAtoms, FixBondLengths
from schnetpack import units as spk_units
from schnetpack.md import System, UniformInit

from spk_dt.md import FramesInit


def molecule(symbols: str = "OH2", seed: int = 0, cell: float | None = None) -> Atoms:
    """Atoms with coordinates that 32-bit numbers cannot hold, and with velocities."""
    rng = np.random.default_rng(seed)
    atoms = Atoms(symbols)
    atoms.positions = 3.0 * rng.standard_normal((len(atoms), 3)) + 1.0 / 3.0
    atoms.set_momenta(rng.standard_normal((len(atoms), 3)))
    if cell is not None:
        atoms.cell = cell * (np.eye(3) + 0.1 * rng.standard_normal((3, 3)))
        atoms.pbc = True
    return atoms


@pytest.fixture
def write(tmp_path):
    def write(frames, name="start.traj"):
        path = tmp_path / name
        ase.io.write(path, frames)
        return path

    return write


def load(frames, n_replicas=1, **units) -> System:
    system = System()
    system.load_molecules(frames, n_replicas=n_replicas, **units)
    return system


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().numpy()


@pytest.mark.parametrize("n_replicas", [1, 3])
def test_system_is_exactly_the_frames(write, n_replicas):
    frames = [molecule("OH2", 0, cell=7.0), molecule("Ar4", 1, cell=9.0)]
    system = load(frames, n_replicas)
    rounded = as_numpy(system.positions)
    FramesInit(write(frames)).initialize_system(system)

    positions = np.concatenate([atoms.positions for atoms in frames]) / 10.0  # nm
    velocities = np.concatenate([atoms.get_velocities() for atoms in frames]) * ase.units.fs / 10.0  # nm/fs
    for replica in range(n_replicas):
        np.testing.assert_allclose(system.positions[replica], positions, rtol=1e-15)
        np.testing.assert_allclose(system.velocities[replica] * spk_units.fs, velocities, rtol=1e-12)
        np.testing.assert_allclose(system.cells[replica], [atoms.cell / 10.0 for atoms in frames], rtol=1e-15)
    np.testing.assert_allclose(
        system.masses[0, :, 0], np.concatenate([atoms.get_masses() for atoms in frames]), rtol=1e-15
    )
    for name in ("positions", "momenta", "masses", "cells"):
        assert getattr(system, name).dtype == torch.float64
    assert np.abs(rounded - positions).max() > 1e-10  # what SchNetPack alone would have started from


def test_kinetic_energy_is_that_of_ase(write):
    frames = [molecule("OH2", 0), molecule("Ar4", 1)]
    system = load(frames)
    FramesInit(write(frames)).initialize_system(system)
    expected = [atoms.get_kinetic_energy() * ase.units.mol / ase.units.kJ for atoms in frames]  # kJ/mol
    np.testing.assert_allclose(system.kinetic_energy[0, :, 0], expected, rtol=1e-12)


def test_units_of_the_file(write):
    atoms = molecule(cell=8.0)
    units = {"position_unit_input": "Bohr", "mass_unit_input": 2.0}
    system = load([atoms], **units)
    FramesInit(write(atoms), **units).initialize_system(system)
    bohr = ase.units.Bohr / ase.units.nm
    np.testing.assert_allclose(system.positions[0], atoms.positions * bohr, rtol=1e-14)
    np.testing.assert_allclose(system.cells[0, 0], atoms.cell * bohr, rtol=1e-14)
    np.testing.assert_allclose(system.masses[0, :, 0], atoms.get_masses() * 2.0, rtol=1e-14)
    np.testing.assert_allclose(
        system.velocities[0] * spk_units.fs, atoms.get_velocities() * bohr * ase.units.fs, rtol=1e-12
    )


@pytest.mark.parametrize("name", ["start.traj", "start.xyz", "start.db"])
def test_formats_that_keep_momenta(write, name):
    atoms = molecule()
    path = write(atoms, name)
    system = load(ase.io.read(path, index=":"))
    FramesInit(path).initialize_system(system)
    np.testing.assert_allclose(
        system.velocities[0] * spk_units.fs, atoms.get_velocities() * ase.units.fs / 10.0, atol=1e-8
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_buffers_survive_precision_and_checkpoint(write, dtype):
    """`spkmd` casts the system after the initializer, and a checkpoint restores it."""
    atoms = molecule(cell=8.0)
    system = load([atoms], n_replicas=2)
    FramesInit(write(atoms)).initialize_system(system)
    momenta = system.momenta.clone()
    system = system.to(dtype)
    assert system.momenta.dtype == system.positions.dtype == system.masses.dtype == system.cells.dtype == dtype
    assert dict(system.named_buffers()).keys() >= {"positions", "momenta", "masses", "cells"}

    restored = System()
    restored.load_system_state(system.state_dict())
    torch.testing.assert_close(
        restored.momenta.double(), momenta, rtol=1e-6 if dtype == torch.float32 else 0.0, atol=0.0
    )


def test_nothing_is_removed_unless_asked_for(write):
    atoms = molecule("C2H6", cell=8.0)
    atoms.positions += 20.0
    path = write(atoms)

    def start(**options):
        system = load([atoms])
        FramesInit(path, **options).initialize_system(system)
        return system

    def angular_momentum(system):
        return torch.linalg.cross(system.positions, system.momenta).sum(1)

    plain = start()
    assert plain.momenta.sum(1).abs().max() > 1e-3
    assert start(remove_translation=True).momenta.sum(1).abs().max() < 1e-12
    assert plain.center_of_mass.abs().max() > 1.0
    assert start(remove_center_of_mass=True).center_of_mass.abs().max() < 1e-12
    centred = {"remove_center_of_mass": True, "remove_translation": True}
    assert angular_momentum(start(**centred)).abs().max() > 1e-3
    assert angular_momentum(start(**centred, remove_rotation=True)).abs().max() < 1e-10
    wrapped = start(wrap_positions=True).positions[0].numpy() @ np.linalg.inv(atoms.cell.array / 10.0)
    assert wrapped.min() > -1e-5
    assert wrapped.max() < 1.0


def test_uniform_start_differs(write):
    """Negative control: SchNetPack's default draws other velocities, and moves the molecule."""
    atoms = molecule()
    frames, uniform = load([atoms]), load([atoms])
    FramesInit(write(atoms)).initialize_system(frames)
    UniformInit(300.0).initialize_system(uniform)
    assert (frames.momenta - uniform.momenta).abs().max() > 0.1
    assert (frames.positions - uniform.positions).abs().max() > 0.01


def test_frame_without_momenta(write):
    moving, still = molecule(seed=0), molecule(seed=1)
    del still.arrays["momenta"]
    path = write([moving, still])
    with pytest.raises(
        ValueError, match=r"start\.traj' has no momenta in 1 of its 2 frames .*frame 1.*maxwell_boltzmann"
    ):
        FramesInit(path).initialize_system(load([moving, still]))


@pytest.mark.parametrize(
    "others",
    [[molecule("OH2"), molecule("OH2")], [molecule("OH3")], [molecule("H2O")], [molecule("OHF")]],
    ids=["number of molecules", "number of atoms", "order of atoms", "element"],
)
def test_other_molecules_than_the_system(write, others):
    path = write(others)
    with pytest.raises(ValueError, match=r"start\.traj' holds .*loaded with 1 molecules \(OH2\).*the same file"):
        FramesInit(path).initialize_system(load([molecule("OH2")]))


def test_constraints_that_fix_no_positions_are_reported(write, caplog):
    atoms = molecule()
    atoms.set_constraint([FixAtoms([0]), FixBondLengths([(1, 2)])])
    path = write(atoms)
    with caplog.at_level(logging.WARNING, logger="spk_dt"):
        FramesInit(path).initialize_system(load([atoms]))
    assert "FixBondLengths" in caplog.text
    assert "FixAtoms" not in caplog.text
