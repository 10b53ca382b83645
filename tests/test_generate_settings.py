"""Reference trajectories that go on: what differs from the earlier run is named, and nothing is mixed."""

import numpy as np
import pytest
from ase.constraints import FixAtoms
from ase.db import connect
from helpers.generation import Pushed, Sites, compute_here, crystal, name

from spk_dt.labels.generate import Recipe, generate
from spk_dt.labels.generate_from import Protocol, generate_from


@pytest.fixture
def here(monkeypatch):
    """The reference computes in this process."""
    compute_here(monkeypatch)


def changed(what):
    atoms = crystal("H8")
    atoms.info["charge"] = 0
    if what == "masses":
        atoms.set_masses([1.008] * 5 + [2.014] * 3)
    elif what == "constraint":
        atoms.set_constraint(FixAtoms([0, 1]))
    elif what == "pbc":
        atoms.pbc = (True, True, False)
    elif what == "cell":
        atoms.cell[2, 2] += 1.0
    elif what == "charge":
        atoms.info["charge"] = 1
    elif what == "spin":
        atoms.info["spin"] = 2
    elif what == "positions":
        atoms.positions[7, 0] += 1e-13
    elif what == "order":
        atoms = crystal("LiH7")
        atoms.info["charge"] = 0
    elif what == "magmoms":
        atoms.set_initial_magnetic_moments([0.0] * 7 + [1.0])
    return atoms


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("masses", r"masses of atom 5 \(from 0\) of structure 1=1.008, but now .*=2.014"),
        ("constraint", r"fixed components of atom 2 .*=\[False, False, True\], but now .*=\[False, False, False\]"),
        ("pbc", r"pbc of structure 1=\[True, True, True\], but now .*=\[True, True, False\]"),
        ("cell", r"cell of structure 1=.*7.0"),
        ("charge", r"total_charge of structure 1=0.0, but now .*=1.0"),
        ("spin", r"spin_multiplicity of structure 1=None, but now .*=2.0"),
        ("positions", r"positions of atom 7 .*=\[3.05, .*but now .*=\[3.05000000000009"),
        ("order", r"formula of structure 1=H8, but now .*=H7Li"),
        ("magmoms", r"initial magnetic moments of atom 7"),
    ],
)
def test_another_structure_is_refused(here, folder_of_hydrogen, what, message):
    path, protocol = folder_of_hydrogen
    with pytest.raises(ValueError, match=message) as refused:
        generate_from([changed(what)], path, 2, protocol, name(Sites))
    assert len(str(refused.value)) < 900
    assert not path.exists()


@pytest.mark.parametrize(
    ("protocol", "seed", "reference", "message"),
    [
        (Protocol(310.0, 0.5), 0, Sites, r"made with temperature_k=300.0, but now temperature_k=310.0"),
        (Protocol(300.0, 0.5, 1, 0.01), 0, Sites, r"friction_per_fs=None, but now friction_per_fs=0.01"),
        (Protocol(300.0, 0.5, 1, None, 10.0), 0, Sites, r"equilibrate_fs=None, but now equilibrate_fs=10.0"),
        (Protocol(300.0, 0.25), 1, Sites, r"timestep_fs=0.5, seed=0, but now timestep_fs=0.25, seed=1"),
        (Protocol(300.0, 0.5), 0, Pushed, r"reference=.*:Sites.*, but now reference=.*:Pushed"),
    ],
)
def test_other_settings_are_refused(here, folder_of_hydrogen, protocol, seed, reference, message):
    path, _ = folder_of_hydrogen
    with pytest.raises(ValueError, match=message):
        generate_from([changed("nothing")], path, 2, protocol, name(reference), seed=seed)


@pytest.fixture
def folder_of_hydrogen(here, tmp_path):
    """A database that is gone, with its pieces, and the protocol."""
    path, protocol = tmp_path / "a.db", Protocol(300.0, 0.5)
    generate_from([changed("nothing")], path, 2, protocol, name(Sites))
    path.unlink()
    return path, protocol


def test_pieces_of_unknown_origin_are_not_taken(folder_of_hydrogen):
    path, protocol = folder_of_hydrogen
    arguments = ([changed("nothing")], path, 2, protocol, name(Sites))
    recipe, piece = path.parent / "a.generate" / "recipe.json", path.parent / "a.generate" / "traj_01_01.00000.traj"
    recorded = recipe.read_text()
    recipe.write_text(recorded[:-9])
    with pytest.raises(ValueError, match=r"recipe.json' is damaged .*Remove the folder"):
        generate_from(*arguments)
    recipe.unlink()
    with pytest.raises(ValueError, match=r"holds pieces, but no 'recipe.json' that says how"):
        generate_from(*arguments)
    recipe.write_text(recorded)
    whole = piece.read_bytes()
    piece.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match=r"00000.traj' is damaged .*Remove this file, and it is made again"):
        generate_from(*arguments)
    assert not path.exists()
    piece.unlink()
    generate_from(*arguments)


def test_momenta_count_where_velocities_are_not_drawn(here, tmp_path):
    atoms = crystal()
    atoms.set_momenta(np.ones((8, 3)))
    generate_from([atoms], tmp_path / "a.db", 2, Protocol(None, 1.0), name(Sites))
    (tmp_path / "a.db").unlink()
    atoms.set_momenta(2.0 * np.ones((8, 3)))
    with pytest.raises(ValueError, match=r"momenta of atom 2 .*=\[1.0, 1.0, 0.0\], but now .*=\[2.0, 2.0, 0.0\]"):
        generate_from([atoms], tmp_path / "a.db", 2, Protocol(None, 1.0), name(Sites))


def test_the_recipe_and_structures_do_not_share_a_folder(here, tmp_path):
    tiny = Recipe(relax_steps=1, equilibration_fs=0.5, start_interval_fs=0.5, steps=1)
    emt = "ase.calculators.emt:EMT"
    generate(tmp_path / "a.db", tiny, 1, reference=emt)
    rows = list(connect(tmp_path / "a.db").select())
    assert {key for row in rows for key in row.data} == {"energy", "forces", "velocities"}
    assert connect(tmp_path / "a.db").metadata.keys() >= {"reference"}
    assert "simulation" not in connect(tmp_path / "a.db").metadata
    (tmp_path / "a.db").unlink()
    with pytest.raises(ValueError, match=r"simulates=H2 on Pd6/graphene \(no START\), but now simulates=structures"):
        generate_from([crystal("H8")], tmp_path / "a.db", 2, Protocol(300.0), emt)
    generate_from([crystal("H8")], tmp_path / "b.db", 2, Protocol(300.0), emt)
    (tmp_path / "b.db").unlink()
    with pytest.raises(ValueError, match=r"simulates=structures, but now simulates=H2 on Pd6/graphene"):
        generate(tmp_path / "b.db", tiny, 1, reference=emt)


def test_another_method_of_the_same_name_is_found_also_if_all_is_made(here, tmp_path, monkeypatch):
    monkeypatch.setenv("PUSH", "0.0")
    generate_from([crystal()], tmp_path / "a.db", 2, Protocol(300.0), name(Pushed))
    (tmp_path / "a.db").unlink()
    monkeypatch.setenv("PUSH", "5.0")
    with pytest.raises(
        ValueError, match=r"is not the method of the data: at frame \d of trajectory 'traj_01_01.00000'"
    ):
        generate_from([crystal()], tmp_path / "a.db", 2, Protocol(300.0), name(Pushed))
    assert not (tmp_path / "a.db").exists()
    monkeypatch.setenv("PUSH", "0.0")
    generate_from([crystal()], tmp_path / "a.db", 2, Protocol(300.0), name(Pushed))
