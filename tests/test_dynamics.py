"""Velocity Verlet and rollouts: closed forms, conservation laws and gradients, each with a negative control."""

import ase.units
import numpy as np
import pytest
import torch
from helpers.models import batch_of, crystal, molecule, positions_to_forces, potential, random_orthogonal, transformed
from schnetpack import properties

from spk_dt import properties as dt_properties
from spk_dt.dynamics import Detached, ExplosionGuard, Full, Truncated, VerletList, rollout
from spk_dt.dynamics import rollout as rollout_function

K, MASS = 2.5, 1.7  # eV/Å^2, Dalton
PERIOD = 2 * np.pi * np.sqrt(MASS / K)  # in the unit of time that follows


def spring(positions):
    return -K * positions


def oscillator(time_step, n_steps, force_fn=spring, velocity=0.3, **kwargs):
    """States of a harmonic oscillator from x = 1 with a velocity along y."""
    positions = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    velocities = torch.tensor([[0.0, velocity, 0.0]], dtype=torch.float64)
    masses = torch.tensor([MASS], dtype=torch.float64)
    return [v.state for v in rollout(force_fn, positions, velocities, masses, time_step, n_steps, **kwargs)]


def energy(state, potential_energy=lambda x: 0.5 * K * (x**2).sum()):
    return float(0.5 * (state.masses * state.velocities**2).sum() + potential_energy(state.positions))


def test_one_step_in_closed_form():
    first, second = oscillator(0.1, 2)
    acceleration = -K / MASS * first.positions
    x = first.positions + 0.1 * first.velocities + 0.005 * acceleration
    v = first.velocities + 0.05 * (acceleration - K / MASS * x)
    torch.testing.assert_close(second.positions, x)
    torch.testing.assert_close(second.velocities, v)
    torch.testing.assert_close(second.forces, -K * x)


def test_units_fit_with_ase():
    """The same step with ASE's integrator: time in ASE's unit, eV, Å, Dalton."""
    from ase.calculators.emt import EMT
    from ase.md.verlet import VelocityVerlet

    atoms = molecule(2)
    atoms.numbers[:] = 46
    atoms.positions *= 2.0
    atoms.calc = EMT()

    def force_fn(positions):
        moved = atoms.copy()
        moved.calc = EMT()
        moved.positions = positions.numpy()
        return torch.tensor(moved.get_forces())

    args = (torch.tensor(a) for a in (atoms.positions.copy(), atoms.get_velocities(), atoms.get_masses()))
    last = list(rollout(force_fn, *args, 1.0 * ase.units.fs, 11))[-1].state
    VelocityVerlet(atoms, 1.0 * ase.units.fs).run(10)
    np.testing.assert_allclose(last.positions.numpy(), atoms.positions, atol=1e-10)
    np.testing.assert_allclose(last.velocities.numpy(), atoms.get_velocities(), atol=1e-10)


def test_period():
    steps = 2000
    x = torch.stack([s.positions[0, 0] for s in oscillator(PERIOD / 200, steps)]).numpy()
    crossings = np.flatnonzero((x[:-1] < 0) & (x[1:] >= 0))
    period = np.diff(crossings).mean() * PERIOD / 200
    assert abs(period / PERIOD - 1) < 1e-3


def order(method):
    """Slope of the error at a fixed time against the time step."""
    errors, steps = [], (50, 100, 200, 400)
    for n in steps:
        last = method(PERIOD / n, n + 1)
        errors.append(np.linalg.norm([last.positions[0, 0] - 1.0, last.positions[0, 1]]))
    return np.polyfit(np.log(1 / np.array(steps)), np.log(errors), 1)[0]


def euler(time_step, n_steps):
    """Without the half step of the new force: first order, the negative control."""
    from dataclasses import replace

    states = oscillator(time_step, 1)
    for _ in range(n_steps - 1):
        s = states[-1]
        x = s.positions + s.velocities * time_step
        v = s.velocities + s.forces / s.masses * time_step
        states.append(replace(s, positions=x, velocities=v, forces=spring(x)))
    return states[-1]


def test_second_order():
    assert abs(order(lambda dt, n: oscillator(dt, n)[-1]) - 2.0) < 0.1
    assert abs(order(euler) - 2.0) > 0.5


def quartic(positions):
    return -positions * (positions**2).sum(dim=1, keepdim=True)


def drift(force_fn, scale=1.0):
    states = oscillator(0.05, 4000, force_fn, velocity=0.3 * scale)
    energies = [energy(s, lambda x: 0.25 * (x**2).sum() ** 2) for s in states]
    return np.ptp(energies) / energies[0]


def test_energy_conservation():
    """Over 200 units of time (2 ps in ASE's), some 30 periods of an anharmonic oscillator."""
    assert drift(quartic) < 2e-3
    assert drift(lambda x: -spring(x) * 0.01 + quartic(x)) > 1e-2  # forces of another energy: the control


def test_time_reversal():
    forward = oscillator(0.05, 200, quartic)[-1]
    args = (forward.positions, -forward.velocities, forward.masses[:, 0], 0.05, 200)
    back = list(rollout(quartic, *args))[-1].state
    torch.testing.assert_close(back.positions, torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64), atol=1e-10, rtol=0)

    def drag(positions):  # depends on the direction of time through its memory: the control
        drag.n += 1
        return quartic(positions) * (1 + 1e-4 * drag.n)

    drag.n = 0
    forward = oscillator(0.05, 200, drag)[-1]
    args = (forward.positions, -forward.velocities, forward.masses[:, 0], 0.05, 200)
    back = list(rollout(drag, *args))[-1].state
    assert (back.positions[0, 0] - 1.0).abs() > 1e-4


@pytest.fixture
def model():
    torch.manual_seed(0)
    return potential().double()


def model_rollout(model, batch, n_steps, gradient=None, **kwargs):
    time_step = batch[dt_properties.time_step][batch[properties.idx_m]] * kwargs.pop("speed_up", 1.0)
    return [
        visited
        for visited in rollout(
            positions_to_forces(model, batch),
            batch[properties.R],
            batch[dt_properties.velocities],
            batch[properties.masses],
            time_step,
            n_steps,
            gradient,
            **kwargs,
        )
    ]


def test_momentum_is_conserved(model):
    batch = batch_of(molecule(), crystal())
    momenta = []
    for visited in model_rollout(model.eval(), batch, 30, Detached()):
        p = visited.state.masses * visited.state.velocities
        momenta.append(torch.zeros(2, 3, dtype=p.dtype).index_add(0, batch[properties.idx_m], p))
    torch.testing.assert_close(momenta[-1], momenta[0], atol=1e-12, rtol=0)
    assert (momenta[0] - momenta[0][0, 0]).abs().max() > 1e-3  # they are not zero


def test_energy_of_a_model_is_conserved(model):
    """100 steps of 0.5 fs; energies are those of the model."""
    batch = batch_of(molecule())
    visited = model_rollout(model.eval(), batch, 100, Detached())
    kinetic = [float(0.5 * (v.state.masses * v.state.velocities**2).sum()) for v in visited]
    total = np.array(kinetic) + np.array([float(v.outputs["energy"].detach()) for v in visited])
    assert np.ptp(kinetic) > 1e-3
    assert np.ptp(total) < 1e-3 * np.ptp(kinetic)


def test_whole_rollout_is_equivariant(model):
    matrix = random_orthogonal(1, -1)
    order = torch.tensor(np.random.default_rng(0).permutation(5))
    atoms = crystal()
    moved = transformed(atoms, matrix, shift=[1.0, 2.0, -0.5])[order.numpy()]
    last = model_rollout(model.eval(), batch_of(atoms), 40, Detached())[-1].state
    new = model_rollout(model.eval(), batch_of(molecule(), moved), 40, Detached())[-1].state  # second of a batch
    shift = torch.tensor([1.0, 2.0, -0.5])
    torch.testing.assert_close(new.positions[6:], (last.positions @ matrix.T + shift)[order], atol=1e-9, rtol=0)
    torch.testing.assert_close(new.velocities[6:], (last.velocities @ matrix.T)[order], atol=1e-9, rtol=0)


# gradients

S = 6


def window_loss(model, batch, gradient, n_steps=S, forces_only_at=None):
    """Sum over steps of a loss of the forces, with targets that are not the model's."""
    loss = 0.0
    for step, state, _ in model_rollout(model.train(), batch, n_steps, gradient, speed_up=6.0):
        if forces_only_at is None or step == forces_only_at:
            loss = loss + ((state.forces - 0.1 * torch.cos(state.positions.detach())) ** 2).mean()
    return loss


def gradients(model, loss):
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


MODES = [
    Detached(),
    Full(recompute=False),
    Full(recompute=True),
    Truncated(1),
    Truncated(3, recompute=True),
    Truncated(3, recompute=False),
    Truncated(S),
]


@pytest.fixture
def of_mode(model):
    batch = batch_of(molecule(), crystal())
    return {
        str(mode): (float(loss), gradients(model, loss)) for mode in MODES for loss in [window_loss(model, batch, mode)]
    }


def test_modes_visit_the_same_states(of_mode):
    values = [loss for loss, _ in of_mode.values()]
    np.testing.assert_allclose(values, values[0], rtol=1e-12)


def test_modes_against_each_other(of_mode):
    def of(mode):
        return of_mode[str(mode)][1]

    same = [
        (Full(recompute=True), Full(recompute=False)),
        (Truncated(S), Full(recompute=False)),
        (Truncated(1), Detached()),
        (Truncated(3, recompute=True), Truncated(3, recompute=False)),
    ]
    for a, b in same:
        torch.testing.assert_close(of(a), of(b))
    different = [(Detached(), Full(recompute=False)), (Truncated(3, recompute=False), Full(recompute=False))]
    for a, b in different:
        assert (of(a) - of(b)).norm() > 1e-3 * of(b).norm()


def test_detached_is_the_sum_over_visited_states(model, of_mode):
    batch = batch_of(molecule(), crystal())
    force_fn = positions_to_forces(model.train(), batch)
    states = [v.state.positions.detach() for v in model_rollout(model, batch, S, Detached(), speed_up=6.0)]
    loss = sum(((force_fn(x)[0] - 0.1 * torch.cos(x)) ** 2).mean() for x in states)
    torch.testing.assert_close(of_mode[str(Detached())][1], gradients(model, loss))


def directional_derivative(model, gradient):
    """Finite difference of the loss along a random direction in parameter space, and the same from the gradient."""
    batch = batch_of(molecule(n_atoms=4), crystal(n_atoms=3))
    parameters = list(model.parameters())

    def loss_of(positions_target):
        total = 0.0
        for _, state, _ in model_rollout(model.train(), batch, S, gradient, speed_up=6.0):
            total = total + ((state.forces - positions_target) ** 2).mean() + (state.positions**2).mean()
        return total

    target = torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None]
    analytic = torch.autograd.grad(loss_of(target), parameters, allow_unused=True)
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    h, values = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p += sign * h * d
        values.append(float(loss_of(target).detach()))
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p -= sign * h * d
    exact = sum((g * d).sum() for g, d in zip(analytic, direction, strict=True) if g is not None)
    return (values[0] - values[1]) / (2 * h), float(exact)


@pytest.mark.parametrize("mode", [Full(recompute=False), Full(recompute=True), Truncated(S)], ids=str)
def test_full_gradient_against_finite_differences(model, mode):
    numeric, analytic = directional_derivative(model, mode)
    assert abs(numeric / analytic - 1) < 1e-5


def test_detached_gradient_is_not_that_of_the_rollout(model):
    numeric, analytic = directional_derivative(model, Detached())
    assert abs(numeric / analytic - 1) > 1e-2


def test_rollout_is_differentiable_in_its_start():
    def last(positions, velocities, spring_constant):
        masses = torch.ones(2, dtype=torch.float64)
        states = rollout(lambda x: -spring_constant * x**3, positions, velocities, masses, 0.1, 5, Full())
        state = list(states)[-1].state
        return state.positions, state.velocities

    generator = torch.Generator().manual_seed(0)
    args = [torch.randn(2, 3, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2)]
    args.append(torch.tensor(0.7, dtype=torch.float64, requires_grad=True))
    assert torch.autograd.gradcheck(last, args)
    assert torch.autograd.gradgradcheck(last, args)


def test_no_gradient_between_systems_of_a_batch(model):
    batch = batch_of(molecule(), crystal())
    batch[dt_properties.velocities].requires_grad_()
    visited = model_rollout(model.train(), batch, S, Full(recompute=False), speed_up=6.0)[-1]
    of_first = visited.state.forces[:6].pow(2).sum()
    (gradient,) = torch.autograd.grad(of_first, batch[dt_properties.velocities])
    assert gradient[:6].abs().min() > 0.0
    assert torch.all(gradient[6:] == 0.0)


def test_arguments_are_not_modified(model):
    batch = batch_of(molecule(), crystal())
    before = {key: value.clone() for key, value in batch.items()}
    window_loss(model, batch, Full()).backward()
    assert not batch[properties.R].requires_grad
    for key, value in before.items():
        torch.testing.assert_close(batch[key], value, rtol=0, atol=0)


def test_bad_arguments():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="n_steps=0"):
        list(rollout(spring, x, x, torch.ones(2), 0.1, 0))
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 3\)"):
        list(rollout(spring, x, torch.zeros(3, 3), torch.ones(2), 0.1, 2))
    with pytest.raises(ValueError, match="masses"):
        list(rollout(spring, x, x, torch.ones(3), 0.1, 2))
    with pytest.raises(ValueError, match="k=0"):
        Truncated(0)


# explosions


def test_guard_freezes_only_the_system_that_explodes():
    idx_m = torch.tensor([0, 0, 1])

    def force_fn(positions):
        forces = -positions
        return forces.index_put((torch.tensor([2]),), 1e30 * positions[2])

    x = torch.ones(3, 3, dtype=torch.float64)
    guard = ExplosionGuard(idx_m, 2, max_displacement=0.5)
    args = (force_fn, x, torch.zeros_like(x), torch.ones(3, dtype=torch.float64), 0.1)
    states = [v.state for v in rollout_function(*args, 50, Detached(), guard)]
    assert guard.exploded.tolist() == [False, True]
    assert all(torch.isfinite(s.positions).all() for s in states)
    torch.testing.assert_close(states[-1].positions[2], x[2])
    free = [v.state for v in rollout(*args, 50, Detached())]
    torch.testing.assert_close(states[-1].positions[:2], free[-1].positions[:2])
    assert free[-1].positions[2].abs().max() > 1e3  # without the guard it goes


def test_guard_stops_what_is_not_finite():
    guard = ExplosionGuard(torch.tensor([0, 1]), 2, 0.5)
    move = guard(torch.tensor([[float("nan"), 0.0, 0.0], [0.1, 0.0, 0.0]]))
    torch.testing.assert_close(move, torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0]]))
    assert guard.exploded.tolist() == [True, False]


def test_verlet_list_is_used_along_the_rollout(model):
    """Far from the start the pairs of the first frame would be wrong."""
    atoms = crystal(3)
    atoms.set_velocities(atoms.get_velocities() * 40)
    batch = batch_of(atoms)
    fresh = model_rollout(model.eval(), batch, 40, Detached())[-1].state
    stale = VerletList(4.0, 0.5)
    stale.adopt(batch, 1e6)  # claims to be complete for ever: never renewed
    force_fn = positions_to_forces(model.eval(), batch)
    force_fn.neighbors = stale
    time_step = batch[dt_properties.time_step][batch[properties.idx_m]]
    args = (batch[properties.R], batch[dt_properties.velocities], batch[properties.masses], time_step)
    wrong = list(rollout(force_fn, *args, 40, Detached()))[-1].state
    assert (fresh.positions - wrong.positions).abs().max() > 1e-3
