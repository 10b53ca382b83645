"""Distances and radial distribution functions: known answers of dimers, crystals and the ideal gas."""

import numpy as np
import pytest
from ase.build import bulk

from spk_dt.evaluation.distributions import distance_distribution, distance_mae, radial_distribution, rdf_mae
from spk_dt.evaluation.pair_distances import pair_distances

NO_CELL, NO_PBC, PBC = np.zeros((3, 3)), np.zeros(3, dtype=bool), np.ones(3, dtype=bool)


def dimer(lengths):
    """[n_frames, 2, 3] positions of a dimer with these lengths."""
    positions = np.zeros((len(lengths), 2, 3))
    positions[:, 1, 2] = lengths
    return positions


def coordination(g, n_others, volume, inner, outer):
    """Mean number of neighbours in a shell."""
    shells = 4 / 3 * np.pi * np.diff(g.edges**3)
    middle = 0.5 * (g.edges[1:] + g.edges[:-1])
    ((values),) = g.values.values()
    return (values * shells)[(middle > inner) & (middle < outer)].sum() * n_others / volume


def test_h_of_a_dimer():
    h = distance_distribution(dimer([1.02, 1.02, 1.02, 2.01]), NO_CELL, NO_PBC, r_max=3.0, width=0.05)
    assert h.n_frames == 4
    assert h.fraction.sum() == pytest.approx(1.0)
    assert h.density[20] == pytest.approx(0.75 / 0.05)  # 1.00 to 1.05 Å
    assert h.density[40] == pytest.approx(0.25 / 0.05)
    assert np.count_nonzero(h.fraction) == 2


def test_mae_of_h():
    reference = distance_distribution(dimer([1.02, 1.02, 1.02, 1.02]), NO_CELL, NO_PBC)
    same = distance_distribution(dimer([1.03, 1.04]), NO_CELL, NO_PBC)
    quarter = distance_distribution(dimer([1.02, 1.02, 1.02, 1.12]), NO_CELL, NO_PBC)
    shifted = distance_distribution(dimer([1.12] * 4), NO_CELL, NO_PBC)
    beyond = distance_distribution(dimer([25.0] * 4), NO_CELL, NO_PBC)
    assert distance_mae(reference, reference) == 0.0
    assert distance_mae(same, reference) == pytest.approx(0.0)
    assert distance_mae(quarter, reference) == pytest.approx(0.5)  # a quarter is missing here, and too much there
    assert distance_mae(shifted, reference) == pytest.approx(2.0)
    assert distance_mae(beyond, reference) == pytest.approx(2.0)  # also if it leaves the last bin
    with pytest.raises(ValueError, match="use the same r_max and width"):
        distance_mae(reference, distance_distribution(dimer([1.0]), NO_CELL, NO_PBC, width=0.1))


def test_nearest_images():
    cell = np.array([[4.0, 0.0, 0.0], [1.0, 4.0, 0.0], [0.0, 0.5, 4.0]])
    rng = np.random.default_rng(0)
    positions = rng.uniform(-6, 6, (20, 5, 3))
    pairs = np.stack(np.triu_indices(5, 1), axis=1)
    images = np.stack(np.meshgrid(*[np.arange(-5, 6)] * 3), axis=-1).reshape(-1, 3) @ cell
    for pbc, allowed in ((PBC, images), (NO_PBC, np.zeros((1, 3)))):
        vectors = positions[:, pairs[:, 1]] - positions[:, pairs[:, 0]]
        expected = np.linalg.norm(vectors[..., None, :] + allowed, axis=-1).min(axis=-1)
        assert pair_distances(positions, pairs, cell, pbc) == pytest.approx(expected)
        h = distance_distribution(positions, cell, pbc, r_max=30.0, width=0.1)
        assert h.fraction[:-1] == pytest.approx(np.histogram(expected, h.edges)[0] / expected.size)


def test_frames_are_chosen_and_exploded_ones_left_out():
    positions = dimer(np.linspace(1.0, 2.0, 1001))
    assert distance_distribution(positions, NO_CELL, NO_PBC, max_frames=None).n_frames == 1001
    h = distance_distribution(positions, NO_CELL, NO_PBC, max_frames=11)
    assert h.n_frames == 11
    assert h.fraction[20] > 0  # the first frame and the last are in it
    assert h.fraction[40] > 0
    positions[500:, 0, 1] = np.nan
    positions[400:, 0, 1] = 1e9
    assert distance_distribution(positions, NO_CELL, NO_PBC, max_frames=None).n_frames == 400
    with pytest.raises(ValueError, match="no frame"):
        distance_distribution(positions[400:], NO_CELL, NO_PBC)
    with pytest.raises(ValueError, match="two atoms"):
        distance_distribution(positions[:, :1], NO_CELL, NO_PBC)


def test_the_ideal_gas_has_no_structure():
    rng = np.random.default_rng(1)
    cell = np.array([[14.0, 0.0, 0.0], [3.0, 13.0, 0.0], [0.0, 0.0, 12.0]])
    positions = rng.uniform(-1, 2, (40, 200, 3)) @ cell  # in several images
    numbers = np.repeat([1, 8], [50, 150])
    g = radial_distribution(positions, numbers, cell, PBC, r_max=5.0, width=0.5)
    assert set(g.values) == {"H-H", "H-O", "O-O"}
    for pair, (factor, counted) in {
        "H-H": (49 / 50, 49 * 25),
        "H-O": (1, 50 * 150),
        "O-O": (149 / 150, 149 * 75),
    }.items():
        volume = 4 / 3 * np.pi * np.diff(g.edges**3) / np.linalg.det(cell)
        noise = 1.0 / np.sqrt(40 * counted * volume)
        assert (np.abs(g.values[pair] - factor) < 4 * noise).all()  # an atom is not its own neighbour


def test_coordination_in_a_crystal():
    atoms = bulk("Cu", cubic=True)  # the second neighbours are all images of the atom itself
    a, volume = atoms.cell[0, 0], atoms.get_volume()
    g = radial_distribution(atoms.positions[None], atoms.numbers, atoms.cell.array, PBC, r_max=5.0, width=0.02)
    peaks = g.edges[:-1][g.values["Cu-Cu"] > 0]
    expected = a * np.sqrt([0.5, 1.0, 1.5])
    assert len(peaks) == 3
    assert (np.abs(peaks + 0.01 - expected) <= 0.0101).all()
    for distance, neighbours in zip(expected, (12, 6, 24), strict=True):
        assert coordination(g, 4, volume, distance - 0.1, distance + 0.1) == pytest.approx(neighbours)


def test_mae_of_a_shifted_crystal():
    atoms = bulk("Cu", cubic=True)
    wider = atoms.copy()
    wider.set_cell(atoms.cell * 1.01, scale_atoms=True)
    g, shifted = (
        radial_distribution(x.positions[None], x.numbers, x.cell.array, PBC, r_max=3.0, width=0.01)
        for x in (atoms, wider)
    )
    assert rdf_mae(g, g) == {"Cu-Cu": 0.0}
    area = 0.0  # of one peak: V n / (N 4 pi r^2 dr) times dr, for each of both
    for x in (atoms, wider):
        r = x.cell[0, 0] / np.sqrt(2.0)
        inner = np.floor(r / 0.01) * 0.01
        area += 0.01 * x.get_volume() * 12 / 4 / (4 / 3 * np.pi * ((inner + 0.01) ** 3 - inner**3))
    assert rdf_mae(shifted, g)["Cu-Cu"] == pytest.approx(area, rel=1e-6)
    with pytest.raises(ValueError, match="other elements"):
        rdf_mae(g, radial_distribution(atoms.positions[None], [47] * 4, atoms.cell.array, PBC, r_max=3.0, width=0.01))


def test_the_order_of_elements_does_not_matter():
    rng = np.random.default_rng(2)
    positions, cell = rng.uniform(0, 6, (3, 30, 3)), np.diag([6.0, 6.0, 6.0])
    numbers = np.where(rng.random(30) < 0.3, 46, 1)
    order = rng.permutation(30)
    g = radial_distribution(positions, numbers, cell, PBC)
    h = radial_distribution(positions[:, order], numbers[order], cell, PBC)
    assert max(rdf_mae(g, h).values()) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("pbc", [(True, True, False), (True, False, False)])
def test_an_atom_that_has_flown_off_a_slab(pbc):
    cell = np.array([[5.0, 0.0, 0.0], [1.0, 5.0, 0.0], [0.0, 1.0, 20.0]])
    rng = np.random.default_rng(3)
    near = rng.uniform(0, 5, (2, 10, 3))
    far = near.copy()
    far[:, 3] += [0.0, 0.0, 40.0]
    farther = near.copy()
    farther[:, 3] += 1e4 * cell[2]
    pbc = np.array(pbc)
    without = radial_distribution(np.delete(near, 3, axis=1), [1] * 9, cell, pbc)
    for positions in (far, farther):
        g = radial_distribution(positions, [1] * 3 + [2] + [1] * 6, cell, pbc)
        assert g.values["H-H"] == pytest.approx(without.values["H-H"])
        assert not g.values["H-He"].any()
    assert radial_distribution(near, [1] * 3 + [2] + [1] * 6, cell, pbc).values["H-He"].any()


def test_no_volume():
    with pytest.raises(ValueError, match="volume"):
        radial_distribution(dimer([1.0]), [1, 1], NO_CELL, NO_PBC)
