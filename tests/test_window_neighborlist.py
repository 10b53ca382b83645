"""The pairs of a window serve a whole rollout: none is missing at any step, and none has to be found anew."""

import numpy as np
import pytest
import torch
from schnetpack import properties as p
from schnetpack.data import ASEAtomsData
from schnetpack.data.loader import _atoms_collate_fn
from schnetpack.transform import CastTo32, MatScipyNeighborList

from spk_dt import properties
from spk_dt.data import TrajectoryWindows, WindowNeighborList, load_frames
from spk_dt.dynamics import VerletList

CUTOFF = 4.0


@pytest.fixture(scope="module")
def frames(embedded):
    return load_frames(ASEAtomsData(str(embedded)))


def follow(frames, neighbors, length, starts=(0, 700, 5000)):
    """Pairs at each step while atoms move as in the reference, the list that gave them, and the batch."""
    windows = TrajectoryWindows(frames, np.array(starts), length)
    windows.transforms = [neighbors, CastTo32()]
    batch = _atoms_collate_fn(list(windows))
    verlet = VerletList(CUTOFF, 0.5)
    verlet.adopt(batch, batch.get(properties.pair_skin, 0.0))
    found = []
    for step in range(length):
        positions = np.concatenate([frames.window(p.R, start + step, 1)[0] for start in starts])
        batch[p.R] = torch.tensor(positions, dtype=torch.float32)
        found.append({key: value.clone() for key, value in verlet.pairs(batch).items()})
    return found, verlet, batch


def test_no_pair_is_missing_and_no_list_is_renewed(frames):
    found, verlet, batch = follow(frames, WindowNeighborList(CUTOFF), 20)
    assert verlet.n_builds == 0
    assert (batch[properties.pair_skin] > 0.0).all()
    assert len(batch[p.idx_i]) < 1.35 * len(found[0][p.idx_i])  # most atoms have a small skin
    expected, renewed, _ = follow(frames, MatScipyNeighborList(CUTOFF), 20)
    assert renewed.n_builds > 0
    for one, other in zip(found, expected, strict=True):
        pairs = [
            {(int(i), int(j), *np.round(o, 2)) for i, j, o in zip(s[p.idx_i], s[p.idx_j], s[p.offsets].numpy())}  # noqa: B905
            for s in (one, other)
        ]
        assert pairs[0] == pairs[1]


def test_without_the_skin_pairs_would_be_missing(frames):
    """The control: pairs of the first frame are not those of the last."""
    found, _, _ = follow(frames, WindowNeighborList(CUTOFF), 20)
    assert any(len(one[p.idx_i]) != len(found[0][p.idx_i]) for one in found)


def test_the_skin_is_what_atoms_move(frames):
    skin = [follow(frames, WindowNeighborList(CUTOFF), n)[2][properties.pair_skin] for n in (1, 5, 20)]
    assert (skin[0] == 0.0).all()
    assert (skin[2] >= skin[1]).all()
    moved = np.linalg.norm(frames.window(p.R, 0, 20) - frames.window(p.R, 0, 1), axis=-1).max(axis=0)
    np.testing.assert_allclose(skin[2][:39], np.minimum(1.25 * moved + 0.02, 1.0), rtol=1e-5)


def test_the_skin_is_limited_and_lists_are_renewed_then(frames):
    found, verlet, batch = follow(frames, WindowNeighborList(CUTOFF, max_skin=0.05), 40)
    assert batch[properties.pair_skin].max() < 0.051
    assert verlet.n_builds > 0
    expected, _, _ = follow(frames, MatScipyNeighborList(CUTOFF), 40)
    assert [len(one[p.idx_i]) for one in found] == [len(one[p.idx_i]) for one in expected]


def test_single_frames_get_pairs_within_the_cutoff(frames):
    windows = TrajectoryWindows(frames, np.array([0]), 1)
    sample = windows[0]
    del sample[properties.window_motion]
    plain = MatScipyNeighborList(CUTOFF)(dict(sample))
    ours = WindowNeighborList(CUTOFF)(dict(sample))
    assert torch.equal(ours[p.idx_i], plain[p.idx_i])
