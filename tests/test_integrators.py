"""Langevin dynamics keeps its temperature and its distribution, fixed atoms stay to the last bit."""

import numpy as np
import pytest
import torch

from spk_dt import Detached, Full, Langevin, Truncated, VelocityVerlet, rollout
from spk_dt.dynamics import Kicks

KT, K, MASS = 0.7, 2.0, 3.0


def spring(positions):
    return -K * positions


def start(n=400):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, dtype=torch.float64, generator=generator) * (KT / K) ** 0.5
    v = torch.randn(n, 3, dtype=torch.float64, generator=generator) * (KT / MASS) ** 0.5
    return x, v, torch.full((n,), MASS, dtype=torch.float64)


def visit(integrator, n_steps=400, time_step=0.3, mobile=None, gradient=None, kicks=None, fn=spring):
    x, v, m = start()
    return rollout(
        fn, x, v, m, time_step, n_steps, gradient or Detached(), kicks=kicks, integrator=integrator, mobile=mobile
    )


def spread(integrator, time_step):
    """Mean kinetic and potential energy of a component, over that of equipartition, and their standard error."""
    kinetic, potential = [], []
    with torch.no_grad():
        for visited in visit(integrator, 600, time_step):
            if visited.step > 100 and visited.step % 10 == 0:
                kinetic.append(float(MASS * (visited.state.velocities**2).mean() / KT))
                potential.append(float(K * (visited.state.positions**2).mean() / KT))
    return np.mean(kinetic), np.mean(potential)


def test_langevin_samples_the_canonical_distribution():
    """BAOAB is exact in the positions of a harmonic oscillator at any stable step; 1,200 x 50 samples: 0.6 % of error."""
    torch.manual_seed(1)
    for time_step in (0.1, 0.8):
        kinetic, potential = spread(Langevin(KT, 0.5), time_step)
        assert potential == pytest.approx(1.0, abs=0.03)
        # of the velocities BAOAB has the error 1 - (w dt)^2 / 4
        assert kinetic == pytest.approx(1.0 - K / MASS * time_step**2 / 4.0, abs=0.03)


@pytest.mark.parametrize("wrong", [1.2, 0.8])
def test_another_temperature_would_be_seen(wrong):
    torch.manual_seed(1)
    _, potential = spread(Langevin(wrong * KT, 0.5), 0.1)
    assert abs(potential - 1.0) > 0.1


def test_langevin_of_little_friction_is_velocity_verlet():
    ends = [list(visit(one, 50))[-1].state for one in (Langevin(KT, 1e-14), VelocityVerlet())]
    assert torch.allclose(ends[0].positions, ends[1].positions, atol=1e-5)
    assert torch.allclose(ends[0].velocities, ends[1].velocities, atol=1e-5)


def test_the_generator_makes_it_reproducible():
    def end(seed):
        return list(visit(Langevin(KT, 0.5, torch.Generator().manual_seed(seed)), 20))[-1].state.positions

    assert torch.equal(end(3), end(3))
    assert not torch.equal(end(3), end(4))


@pytest.mark.parametrize("gradient", [Full(), Truncated(2)])
def test_langevin_refuses_gradients_in_time(gradient):
    with pytest.raises(ValueError, match="Detached"):
        next(visit(Langevin(KT, 0.5), gradient=gradient))


def test_langevin_refuses_a_second_thermostat():
    zeros = torch.zeros(400, 399, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="replayed"):
        next(visit(Langevin(KT, 0.5), kicks=Kicks(zeros, zeros)))


@pytest.mark.parametrize("values", [(-1.0, 1.0), (1.0, 0.0), (float("nan"), 1.0)])
def test_values_that_make_no_sense(values):
    with pytest.raises(ValueError, match="Langevin"):
        Langevin(*values)


@pytest.mark.parametrize(
    ("integrator", "gradient"),
    [*((VelocityVerlet(), mode) for mode in (Detached(), Truncated(3), Full())), (Langevin(KT, 0.5), Detached())],
)
def test_fixed_atoms_stay_to_the_last_bit(integrator, gradient):
    x, _, _ = start()
    mobile = torch.arange(400) % 3 > 0
    for visited in visit(integrator, 1000, mobile=mobile, gradient=gradient):
        state = visited.state
    assert torch.equal(state.positions[~mobile], x[~mobile])
    assert not state.velocities[~mobile].any()
    assert bool((state.positions[mobile] != x[mobile]).any(dim=1).all())  # the others have moved
    assert state.forces[~mobile].any()  # and forces on fixed atoms are there to be compared


def test_fixed_components():
    x, _, _ = start()
    mobile = torch.ones(400, 3, dtype=torch.bool)
    mobile[:, 2] = False
    state = list(visit(VelocityVerlet(), 100, mobile=mobile))[-1].state
    assert torch.equal(state.positions[:, 2], x[:, 2])
    assert bool((state.positions[:, :2] != x[:, :2]).all())


class HalfVerlet(VelocityVerlet):
    """A wrong one: the velocities get the old forces twice."""

    def velocities(self, state, carried, new_forces):
        return super().velocities(state, carried, state.forces)


@pytest.mark.parametrize(("integrator", "conserved"), [(VelocityVerlet(), True), (HalfVerlet(), False)])
def test_energy_of_mobile_atoms_is_conserved(integrator, conserved):
    def energy(state):
        return float(0.5 * MASS * (state.velocities**2).sum() + 0.5 * K * (state.positions**2).sum())

    mobile = torch.arange(400) % 2 == 0
    energies = [energy(visited.state) for visited in visit(integrator, 2000, 0.02, mobile=mobile)]
    assert (np.ptp(energies) / energies[0] < 1e-4) == conserved
    assert conserved or np.ptp(energies) / energies[0] > 1e-2


def test_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="mobile"):
        next(visit(VelocityVerlet(), mobile=torch.ones(399, dtype=torch.bool)))
