"""Reference trajectories from structures of the user: physics, continuing, fixed atoms, refusals."""

import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.db import connect
from helpers.slab import LAYER, SLIDING, slab

from spk_dt.labels.generate_from import Protocol, generate_from
from spk_dt.labels.reference_process import NoLabelError, ReferenceProcess

EMT_ = "ase.calculators.emt:EMT"


def columns(path):
    rows = list(connect(path).select(sort="id"))
    return {
        "positions": np.array([row.positions for row in rows]),
        **{key: np.array([row.data[key] for row in rows]) for key in ("energy", "forces", "velocities", "stress")},
    }


def test_killed_and_continued_is_uninterrupted_and_fixed_atoms_rest(tmp_path, monkeypatch):
    protocol = Protocol(300.0, 1.0, 2, friction_per_fs=0.02)
    arguments = ([slab()], tmp_path / "a.db", 120, protocol, EMT_)
    generate_from(*arguments)
    whole = columns(tmp_path / "a.db")
    assert len(whole["energy"]) == 61
    for index, axes in ((LAYER, slice(None)), (SLIDING, 2)):
        assert np.array_equal(
            whole["positions"][:, index, axes],
            np.broadcast_to(slab().positions[index, axes], whole["positions"][:, index, axes].shape),
        )
    assert np.ptp(whole["positions"][:, -1]) > 0.01

    original, calls = ReferenceProcess.compute, []

    def failing(self, atoms, fresh=True):
        calls.append(1)
        if len(calls) == 80:
            raise NoLabelError("no convergence")
        return original(self, atoms, fresh)

    monkeypatch.setattr(ReferenceProcess, "compute", failing)
    arguments = ([slab()], tmp_path / "b.db", 120, protocol, EMT_)
    with pytest.raises(NoLabelError):
        generate_from(*arguments)
    assert len(list((tmp_path / "b.generate").glob("traj*.traj"))) == 3
    assert not (tmp_path / "b.db").exists()
    monkeypatch.setattr(ReferenceProcess, "compute", original)
    generate_from(*arguments)
    for key, values in columns(tmp_path / "b.db").items():
        assert np.array_equal(values, whole[key]), key


@pytest.mark.parametrize(("friction", "conserved"), [(None, True), (0.1, False)])
def test_constant_energy_is_conserved_and_a_thermostat_does_not(tmp_path, friction, conserved):
    generate_from([slab()], tmp_path / "a.db", 60, Protocol(300.0, 1.0, 1, friction), EMT_)
    found = columns(tmp_path / "a.db")
    masses = slab().get_masses()[:, None]
    kinetic = 0.5 * (masses * (found["velocities"] / ase.units.fs) ** 2).sum((1, 2))
    assert (np.ptp(found["energy"][:, 0] + kinetic) < 0.01) == conserved
    assert np.ptp(kinetic) > 0.02
    atoms = connect(tmp_path / "a.db").get(31).toatoms()
    atoms.calc = EMT()
    np.testing.assert_allclose(found["stress"][30, 0, 2, 2], atoms.get_stress()[2], atol=1e-10)


@pytest.mark.parametrize(
    ("atoms", "protocol", "number", "message"),
    [
        (Atoms("Cu2", [[0, 0, 0], [0.3, 0, 0]]), Protocol(300.0), 1, "atoms 0 and 1 .* overlap"),
        (Atoms("Cu", pbc=True), Protocol(300.0), 1, "no cell"),
        (Atoms("Cu"), Protocol(), 1, "no velocities; draw them with --temperature"),
        (slab(), Protocol(), 2, "would all be the same"),
    ],
)
def test_what_cannot_be_simulated_is_refused_before_anything_is_made(tmp_path, atoms, protocol, number, message):
    with pytest.raises(ValueError, match=message):
        generate_from([atoms], tmp_path / "a.db", 10, protocol, EMT_, number)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("settings", [{"temperature_k": 0.0}, {"timestep_fs": -1.0}, {"friction_per_fs": 0.1}])
def test_wrong_protocols_are_refused(settings):
    with pytest.raises(ValueError, match=r"larger than zero|needs a temperature"):
        Protocol(**settings)
