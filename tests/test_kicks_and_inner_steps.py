"""Thermostatted and thinned trajectories: with perfect forces a rollout visits their frames, and without the feature not."""

import csv

import ase.units
import numpy as np
import pytest
import torch
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import NoseHooverChainNVT
from ase.md.verlet import VelocityVerlet
from helpers.pair_potential import CUTOFF, pair_model, tetrahedron
from helpers.pair_reference import Reference
from helpers.simulated import recorded, warm
from helpers.training import paper_outputs, task
from schnetpack import properties as p
from schnetpack.data import ASEAtomsData
from schnetpack.data.loader import _atoms_collate_fn
from schnetpack.transform import CastTo64, MatScipyNeighborList

from spk_dt import properties
from spk_dt.data import TrajectoryWindows, TrajectoryWriter, load_frames
from spk_dt.data.continuation import continuation
from spk_dt.data.windows import window_starts
from spk_dt.dynamics import Detached, Full, Kicks, Truncated, rollout
from spk_dt.evaluation.evaluate import evaluate
from spk_dt.evaluation.report import write_report
from spk_dt.evaluation.simulate import Protocol

S = 6


def dynamics(kind, atoms, timestep_fs, seed):
    dt = timestep_fs * ase.units.fs
    if kind == "nve":
        return VelocityVerlet(atoms, dt)
    if kind == "langevin":
        rng = np.random.default_rng(seed)
        return Langevin(atoms, dt, temperature_K=400.0, friction=0.02 / ase.units.fs, rng=rng)
    return NoseHooverChainNVT(atoms, dt, temperature_K=300.0, tdamp=20 * dt)


def trajectory(kind, n_frames=30, every=1, timestep_fs=0.5, seed=0, atoms=None):
    """Frames of the pair potential, of which every n-th is kept."""
    atoms = tetrahedron() if atoms is None else atoms.copy()
    atoms.calc = Reference()
    warm(atoms, 600.0, seed)
    return recorded(dynamics(kind, atoms, timestep_fs, seed), n_frames - 1, every)


def write(path, **trajectories):
    """A database of trajectories, each given by frames, time between them in fs, and inner steps."""
    with TrajectoryWriter(path) as writer:
        for name, (frames, timestep_fs, inner_steps) in trajectories.items():
            writer.add(name, frames, timestep_fs, inner_steps)
    return path


def batch(path, replay_kicks=False):
    """Three windows: the first, the last, and one between."""
    frames = load_frames(ASEAtomsData(str(path)))
    starts = window_starts(frames, range(len(frames)), S, "train")
    windows = TrajectoryWindows(frames, starts[[0, len(starts) // 3, -1]], S, kicks=replay_kicks)
    windows.transforms = [MatScipyNeighborList(CUTOFF), CastTo64()]
    return _atoms_collate_fn(list(windows))


def force_errors(path, tmp_path, replay_kicks=False, **kwargs):
    """Largest force error at each frame, of rollouts with the forces of the reference method, as the task makes them."""
    one = batch(path, replay_kicks)
    model = torch.load(pair_model(tmp_path / "model"), weights_only=False).double()
    dt_task = task(model, paper_outputs(), **kwargs).eval()
    errors = []
    with torch.no_grad():
        for visited in dt_task.rollout(one, S):
            reference = one[properties.window(p.forces)][:, visited.step]
            errors.append(float((visited.state.forces - reference).abs().max()))
    return np.array(errors)


@pytest.mark.parametrize("kind", ["langevin", "nose-hoover"])
def test_with_its_kicks_a_thermostatted_reference_is_a_fixed_point(tmp_path, kind):
    path = write(tmp_path / "a.db", run=(trajectory(kind), 0.5, 1))
    assert force_errors(path, tmp_path, replay_kicks=True).max() < 1e-8
    without = force_errors(path, tmp_path)
    assert without[0] < 1e-8
    assert without[-1] > 1e-5


def test_at_constant_energy_there_are_no_kicks(tmp_path):
    path = write(tmp_path / "a.db", run=(trajectory("nve"), 0.5, 1))
    one = batch(path, replay_kicks=True)
    assert one[properties.position_kicks].shape == (3 * 4, S - 1, 3)
    assert one[properties.position_kicks].abs().max() < 1e-12
    assert one[properties.velocity_kicks].abs().max() < 1e-12
    assert force_errors(path, tmp_path).max() < 1e-8
    assert properties.position_kicks not in batch(path)


def test_kicks_of_wrapped_frames(tmp_path):
    """Positions that were put back into the cell are no kick."""
    atoms = tetrahedron()
    atoms.set_cell(np.diag([14.0, 14.0, 14.0]) + 0.3)
    atoms.pbc = True
    frames = trajectory("langevin", atoms=atoms)
    plain = batch(write(tmp_path / "a.db", run=(frames, 0.5, 1)), replay_kicks=True)
    for atoms in frames:
        atoms.positions -= 0.03  # now atoms cross the faces
        atoms.wrap()
    assert max(np.ptp([a.positions[i, 0] for a in frames]) for i in range(4)) > 10.0
    wrapped = batch(write(tmp_path / "b.db", run=(frames, 0.5, 1)), replay_kicks=True)
    torch.testing.assert_close(wrapped[properties.position_kicks], plain[properties.position_kicks], atol=1e-10, rtol=0)


@pytest.mark.parametrize("every", [2, 5])
def test_thinned_frames_are_met_with_inner_steps(tmp_path, every):
    frames = trajectory("nve", every=every)
    assert force_errors(write(tmp_path / "a.db", run=(frames, 0.5 * every, every)), tmp_path).max() < 1e-8
    in_one_step = force_errors(write(tmp_path / "b.db", run=(frames, 0.5 * every, 1)), tmp_path)
    assert in_one_step[-1] > 1e-5


def test_a_batch_of_different_systems_thinnings_and_time_steps(tmp_path):
    larger = tetrahedron() + tetrahedron("Pd4")
    larger.positions[4:] += 3.2
    path = write(
        tmp_path / "a.db",
        thinned=(trajectory("nve", every=3), 1.5, 3),
        every=(trajectory("nve", seed=1, timestep_fs=0.25, atoms=larger), 0.25, 1),
        other=(trajectory("nve", every=4, seed=2), 2.0, 4),
    )
    one = batch(path)
    assert one[properties.inner_steps].tolist() == [3, 1, 4]
    assert force_errors(path, tmp_path).max() < 1e-8


def test_thinned_trajectories_have_no_kicks_beside_thermostatted_ones(tmp_path):
    path = write(
        tmp_path / "a.db",
        thinned=(trajectory("nve", every=3), 1.5, 3),
        langevin=(trajectory("langevin", seed=1), 0.5, 1),
        nve=(trajectory("nve", seed=2), 0.5, 1),
    )
    assert force_errors(path, tmp_path, replay_kicks=True).max() < 1e-8


# gradients of rollouts with inner steps

K, DT = 2.0, 0.1


def spring_rollout(gradient, inner_steps, calls=None, constant=K):
    """Loss of a rollout of a spring, and its derivative with respect to the constant."""
    constant = torch.tensor(constant, dtype=torch.float64, requires_grad=True)

    def force_fn(x):
        if calls is not None:
            calls.append(torch.is_grad_enabled())
        return -constant * x

    x = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.2, 0.0]], dtype=torch.float64)
    mass = torch.ones(2, dtype=torch.float64)
    visited = rollout(force_fn, x, 0.3 * x.flip(1), mass, DT, 5, gradient, inner_steps=inner_steps)
    loss = sum(v.state.forces.pow(2).sum() for v in visited)
    return float(loss.detach()), float(torch.autograd.grad(loss, constant)[0])


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_full_gradient_goes_through_inner_steps(inner_steps):
    below, above = (spring_rollout(Full(), inner_steps, constant=K + shift)[0] for shift in (-1e-6, 1e-6))
    exact = (above - below) / 2e-6
    for mode in (Full(), Full(recompute=False), Truncated(9)):
        assert spring_rollout(mode, inner_steps)[1] == pytest.approx(exact, rel=1e-6)
    for mode in (Detached(), Truncated(2)):
        assert abs(spring_rollout(mode, inner_steps)[1] - exact) > 1e-2 * abs(exact)


def test_modes_visit_the_same_states_with_inner_steps():
    values = [spring_rollout(mode, 4)[0] for mode in (Detached(), Full(), Truncated(2))]
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    assert values[0] == pytest.approx(values[2], rel=1e-12)


def test_where_the_graph_is_cut_inner_steps_have_none():
    calls = []
    spring_rollout(Detached(), 3, calls=calls)
    assert calls == [True] + 4 * [False, False, True]


def test_kicks_are_added():
    kicks = torch.zeros(2, 2, 4, 3, dtype=torch.float64)
    kicks[0, :, 1] = 0.01  # positions on the way from step 1 to 2
    kicks[1, :, 2] = -0.02

    def states(kicks):
        x = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.2, 0.0]], dtype=torch.float64)
        mass = torch.ones(2, dtype=torch.float64)
        return [v.state for v in rollout(torch.zeros_like, x, x, mass, DT, 5, kicks=kicks)]

    kicked, free = states(Kicks(*kicks)), states(None)
    moved = torch.stack([a.positions - b.positions for a, b in zip(kicked, free, strict=True)])
    expected = torch.tensor([0.0, 0.0, 0.01, 0.01, 0.01 - 0.02 * DT], dtype=torch.float64)
    torch.testing.assert_close(moved[:, 0, 0], expected)


# simulations are compared at the frames that there are


@pytest.fixture
def thinned(tmp_path):
    """The same trajectory in full, and every third frame of it."""
    frames = trajectory("nve", n_frames=31)
    with TrajectoryWriter(tmp_path / "a.db", splits={"train": [], "val": [], "test": ["full", "thinned"]}) as writer:
        writer.add("full", frames, 0.5)
        writer.add("thinned", frames[::3], 1.5, 3)
    return tmp_path / "a.db"


def test_evaluation_of_thinned_trajectories(thinned, tmp_path):
    out = tmp_path / "out"
    model = pair_model(tmp_path / "model", depth=1.02)
    metrics = evaluate(thinned, {"pair": model}, out, Protocol(30))["pair"]
    with (out / "force_error_by_start.csv").open() as file:
        rows = list(csv.DictReader(file))
    full, some = ({int(r["step"]): r for r in rows if r["start"] == s and r["element"] == "H"} for s in "01")
    assert sorted(full) == list(range(31))
    assert sorted(some) == list(range(0, 31, 3))
    for step, row in some.items():
        assert float(row["time_fs"]) == 0.5 * step
        assert float(row["mae"]) == pytest.approx(float(full[step]["mae"]), rel=1e-6)
    assert float(some[30]["mae"]) > float(some[0]["mae"]) > 0.0
    assert metrics["along_reference"]["step_0"]["H"] > 0.0
    write_report(out)
    with pytest.raises(ValueError, match=r"every=3: .*'thinned'.*every=1"):
        evaluate(thinned, {"pair": model}, tmp_path / "other", Protocol(30, every=3))


def test_a_run_is_compared_at_the_frames_that_there_are(thinned):
    one = continuation(thinned, "thinned", 2)
    assert (one.timestep_fs, one.inner_steps, one.steps, one.following) == (0.5, 3, 24, 24)
    np.testing.assert_allclose(one.time_fs, 1.5 * np.arange(9))
    assert continuation(thinned, "thinned", 2, steps=7).steps == 6
