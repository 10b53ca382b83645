"""The Verlet list against all pairs of all images, while atoms move."""

import itertools

import numpy as np
import pytest
import torch
from helpers.models import batch_of, crystal, molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from schnetpack import properties
from schnetpack.transform import MatScipyNeighborList

from spk_dt.dynamics import VerletList

PAIRS = (properties.idx_i, properties.idx_j, properties.offsets)


def brute_force(batch, cutoff):
    """Sorted pairs as tuples (i, j, rounded vector) over all images that can be near."""
    found = []
    first = 0
    for system, n in enumerate(batch[properties.n_atoms].tolist()):
        x = batch[properties.R][first : first + n].detach().numpy()
        cell = batch[properties.cell].view(-1, 3, 3)[system].numpy()
        pbc = batch[properties.pbc].view(-1, 3)[system].numpy()
        reach = np.ptp(x, axis=0).max() * 2 + cutoff
        images = [(0,)] * 3
        for axis in np.flatnonzero(pbc):
            height = abs(np.linalg.det(cell)) / np.linalg.norm(np.cross(cell[axis - 2], cell[axis - 1]))
            images[axis] = range(-int(reach / height) - 1, int(reach / height) + 2)
        for shift in itertools.product(*images):
            vectors = x[None, :] - x[:, None] + np.array(shift) @ cell
            near = np.linalg.norm(vectors, axis=2) <= cutoff
            if shift == (0, 0, 0):
                near &= ~np.eye(n, dtype=bool)
            found += [(first + i, first + j, *np.round(vectors[i, j], 6) + 0.0) for i, j in np.argwhere(near)]
        first += n
    return sorted(found)


def listed(batch, pairs):
    x = batch[properties.R].detach()
    i, j, offset = (pairs[key] for key in PAIRS)
    vectors = np.round((x[j] - x[i] + offset).numpy(), 6) + 0.0
    return sorted((int(a), int(b), *v) for a, b, v in zip(i, j, vectors, strict=True))


def walk(batch, generator, length):
    batch[properties.R] = batch[properties.R] + length * torch.randn(
        batch[properties.R].shape, generator=generator, dtype=torch.float64
    )


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    cutoff=st.floats(1.0, 5.0),
    skin=st.floats(0.0, 1.5),
    step=st.floats(0.0, 0.4),
    adopt=st.booleans(),
)
def test_never_misses_a_pair(seed, pbc, cutoff, skin, step, adopt):
    """Molecule, crystal with any mix of periodic directions, atom alone: random walks, also out of the cell."""
    batch = batch_of(molecule(seed), crystal(seed, pbc=pbc), molecule(seed, n_atoms=1), radius=cutoff + 0.3)
    neighbors = VerletList(cutoff, skin)
    if adopt:
        neighbors.adopt(batch, 0.15)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(6):
        assert listed(batch, neighbors.pairs(batch)) == brute_force(batch, cutoff)
        walk(batch, generator, step)


def test_the_test_would_notice():
    batch = batch_of(molecule(), crystal(), radius=4.0)
    neighbors = VerletList(4.0, 0.5)
    neighbors.adopt(batch, 1e6)  # claims to be complete for ever
    generator = torch.Generator().manual_seed(0)
    walk(batch, generator, 0.5)
    assert listed(batch, neighbors.pairs(batch)) != brute_force(batch, 4.0)


def test_only_systems_that_moved_are_renewed():
    batch = batch_of(molecule(0), molecule(1), crystal(2))
    neighbors = VerletList(4.0, 1.0)
    neighbors.pairs(batch)
    assert neighbors.n_builds == 3
    neighbors.pairs(batch)
    assert neighbors.n_builds == 3
    moved = batch[properties.R].clone()
    moved[7, 1] += 0.6
    batch[properties.R] = moved
    neighbors.pairs(batch)
    assert neighbors.n_builds == 4
    batch[properties.R] = moved + 0.45  # the second system is measured from where it was renewed
    neighbors.pairs(batch)
    assert neighbors.n_builds == 7
    assert listed(batch, neighbors.pairs(batch)) == brute_force(batch, 4.0)


def test_slow_drift_of_one_system_beside_a_fast_one():
    """SchNetPack's own list forgets the drift of the slow system whenever the fast one is renewed."""
    batch = batch_of(crystal(0), crystal(1))
    neighbors = VerletList(4.0, 0.4)
    n = int(batch[properties.n_atoms][0])
    for _ in range(20):
        x = batch[properties.R].clone()
        x[:n] += 0.3  # fast: renewed at each step
        x[n] += torch.tensor([0.05, 0.0, 0.0])  # slow, one atom only
        batch[properties.R] = x
        assert listed(batch, neighbors.pairs(batch)) == brute_force(batch, 4.0)


def test_changed_cell_is_noticed():
    batch = batch_of(crystal(0), molecule(0))
    neighbors = VerletList(4.0, 1.0)
    neighbors.pairs(batch)
    cell = batch[properties.cell].clone()
    cell[0] *= 0.9
    batch[properties.cell] = cell
    assert listed(batch, neighbors.pairs(batch)) == brute_force(batch, 4.0)
    assert neighbors.n_builds == 3


def test_not_finite():
    batch = batch_of(molecule(), crystal())
    neighbors = VerletList(4.0, 1.0)
    neighbors.pairs(batch)
    x = batch[properties.R].clone()
    x[8, 0] = float("nan")
    batch[properties.R] = x
    with pytest.raises(ValueError, match=r"system 1 .* not finite"):
        neighbors.pairs(batch)


def test_bad_arguments():
    with pytest.raises(ValueError, match="cutoff=0"):
        VerletList(0.0, 1.0)
    with pytest.raises(ValueError, match="skin=-1"):
        VerletList(4.0, -1.0)


def test_other_base_list():
    from schnetpack.transform import ASENeighborList

    batch = batch_of(crystal())
    assert listed(batch, VerletList(4.0, 0.5, ASENeighborList).pairs(batch)) == brute_force(batch, 4.0)
    assert MatScipyNeighborList is not ASENeighborList
