# %% [markdown]
# # Rollouts and their gradients
#
# A rollout is a short simulation that a model runs itself while it is trained. This tutorial makes some with forces that
# can be written in one line, so that all of it can be checked: a harmonic oscillator, then gradients through time, why
# they explode, and what truncation does about it. It takes half a minute and needs nothing but spk_dt.
#
#     python rollouts.py      # SPK_DT_TUTORIAL=short: fewer steps, as in the tests
#
# The figures are written to the current folder.

# %%
import os

import ase.units
import numpy as np
import torch
from matplotlib import pyplot as plt

from spk_dt import Detached, Full, Truncated, rollout

SHORT = os.environ.get("SPK_DT_TUTORIAL") == "short"
torch.set_default_dtype(torch.float64)
fs = ase.units.fs  # time is in the unit that follows from Å, eV and Dalton; so a time in fs is multiplied with this

# %% [markdown]
# ## A harmonic oscillator
#
# The force function may be any function of the positions, [n_atoms, 3]. Here each atom has a spring of its own; the
# stiffness is a tensor, since it is what is going to be trained. `rollout` is a generator: it yields the first frame as
# step 0, then one velocity-Verlet step after the other.


# %%
def springs(stiffness):
    return lambda positions: -stiffness * positions


mass, stiffness = torch.tensor([1.0]), torch.tensor(30.0)  # Dalton; eV/Å², about the bond of H2
start, at_rest = torch.tensor([[0.1, 0.0, 0.0]]), torch.zeros(1, 3)  # Å; Å per unit of time
omega = float((stiffness / mass).sqrt())
print(f"period {2.0 * np.pi / omega / fs:.2f} fs")


def deviation(step_fs, total_fs=40.0):
    """Time in fs, and distance from the exact solution in Å, of a simulation with this time step."""
    with torch.no_grad():
        steps = rollout(springs(stiffness), start, at_rest, mass, step_fs * fs, round(total_fs / step_fs) + 1)
        x = np.array([float(visited.state.positions[0, 0]) for visited in steps])
    time = step_fs * np.arange(len(x))
    return time, np.abs(x - 0.1 * np.cos(omega * time * fs))


step_sizes = [1.0, 0.5, 0.25, 0.125]
worst = [deviation(step)[1].max() for step in step_sizes]
order = np.polyfit(np.log(step_sizes[1:]), np.log(worst[1:]), 1)[0]
print("largest deviation (Å):", ", ".join(f"{step} fs: {d:.1e}" for step, d in zip(step_sizes, worst, strict=True)))
print(f"it goes with the time step to the power of {order:.2f}; 2 is what velocity Verlet promises")

# %% [markdown]
# ## Gradients through time
#
# Now the stiffness is a parameter, 2 % wrong, and the loss of a step is the error of the force there, compared with the
# reference trajectory at the same time. The gradient mode says how far the gradient flows back:
#
# - `Detached()`, as in the paper: the position at each step is taken as given. The gradient asks what the force at *this
#   geometry* should be.
# - `Full()`: the position depends on the parameter, too, through all forces before. The gradient is that of the number
#   that is minimised, as the comparison with finite differences shows.
# - `Truncated(k)`: full within segments of k steps, cut between them.


# %%
def reference(force_fn, x, v, m, step, n_steps):
    with torch.no_grad():
        return [visited.state.forces for visited in rollout(force_fn, x, v, m, step, n_steps)]


def loss(parameter, gradient, n_steps, make=springs, x=start, v=at_rest, m=mass, step=0.5 * fs, true=stiffness):
    """Mean absolute error of the forces, summed over the steps."""
    expected = reference(make(true), x, v, m, step, n_steps)
    visited = rollout(make(parameter), x, v, m, step, n_steps, gradient)
    return sum((one.state.forces - f).abs().mean() for one, f in zip(visited, expected, strict=True))


def slope(gradient, n_steps, **kwargs):
    parameter = (1.02 * kwargs.get("true", stiffness)).clone().requires_grad_()
    return float(torch.autograd.grad(loss(parameter, gradient, n_steps, **kwargs), parameter)[0])


def by_differences(n_steps, h=1e-5):
    wrong = 1.02 * stiffness
    with torch.no_grad():
        return float(loss(wrong + h, Full(), n_steps) - loss(wrong - h, Full(), n_steps)) / (2.0 * h)


for n_steps in (1, 5, 20):
    full, cut, differences = slope(Full(), n_steps), slope(Detached(), n_steps), by_differences(n_steps)
    print(f"S = {n_steps:2}: full {full:.5f}, by finite differences {differences:.5f}, detached {cut:.5f}")
    assert abs(full - differences) < 1e-4 * abs(full)
assert slope(Truncated(1), 20) == slope(Detached(), 20)
assert slope(Truncated(20), 20) == slope(Full(), 20)

# %% [markdown]
# At S = 1 they are one number. Later the oscillator with the wrong stiffness is out of phase, and most of the loss comes
# from that: the full gradient knows it, the detached one does not. That does not make the detached one wrong: it asks
# for the right force where the model *is*, which is what a potential must have in the end.
#
# ## Why gradients explode
#
# The oscillator is as tame as a system can be. In a liquid, or in any molecule that is hot, two simulations that start
# next to each other come apart exponentially, and so does one from itself when a parameter is changed a little. Then the
# gradient of the loss of a late step is exponentially large, whatever the model. The smallest example is one atom in the
# plane with the potential of Hénon and Heiles (Astron. J. 69, 73 (1964), doi 10.1086/109234),
#
# $$V = \tfrac12 (x^2 + y^2) + p\,(x^2 y - \tfrac13 y^3),$$
#
# whose motion is regular at low energies and chaotic at high ones. All of its units are 1, and so is the true p.


# %%
def henon_heiles(p):
    def forces(positions):
        x, y, _ = positions.unbind(-1)
        return -torch.stack([x + 2.0 * p * x * y, y + p * (x**2 - y**2), torch.zeros_like(x)], -1)

    return forces


one, STEP, LONGEST = torch.tensor(1.0), 0.1, 150 if SHORT else 2000
origin = torch.zeros(1, 3)
steps_shown = np.unique(np.geomspace(10, LONGEST, 6 if SHORT else 24).astype(int))


def moving(energy):
    return torch.tensor([[0.6, 0.8, 0.0]]) * float(np.sqrt(2.0 * energy))


def slopes_at(make, x, v, m, step, true):
    """|dL_k/d ln p| of the loss of single steps k, with full gradients and with detached ones."""
    expected = reference(make(true), x, v, m, step, LONGEST + 1)
    found = {}
    for name, gradient in {"full": Full(recompute=False), "detached": Detached()}.items():
        parameter = (1.001 * true).clone().requires_grad_()
        found[name] = []
        for visited in rollout(make(parameter), x, v, m, step, LONGEST + 1, gradient):
            if visited.step in steps_shown:
                error = (visited.state.forces - expected[visited.step]).abs().mean()
                (d,) = torch.autograd.grad(error, parameter, retain_graph=True)
                found[name].append(abs(float(d * true)))
    return found


cases = {
    "oscillator": slopes_at(springs, start, at_rest, mass, 0.2 * fs, stiffness),
    "Hénon-Heiles, energy 0.02": slopes_at(henon_heiles, origin, moving(0.02), mass, STEP, one),
    "Hénon-Heiles, energy 0.16": slopes_at(henon_heiles, origin, moving(0.16), mass, STEP, one),
}
for name, found in cases.items():
    full, cut = (max(found[mode][-3:]) / max(found[mode][:3]) for mode in ("full", "detached"))
    print(f"{name}: over {LONGEST} steps the full gradient grows {full:.2g}-fold, the detached one {cut:.2g}-fold")

figure, axes = plt.subplots(1, 3, figsize=(9.0, 2.8), sharey="row", layout="constrained")
for axis, (name, found) in zip(axes, cases.items(), strict=True):
    for mode, values in found.items():
        axis.loglog(
            steps_shown, np.array(values) / max(found["full"][:3]), marker="o", markersize=3, linewidth=1, label=mode
        )
    axis.set(title=name, xlabel="step k")
axes[0].set_ylabel(r"$|\partial L_k/\partial\,\ln p|$, relative")
axes[0].legend(frameon=False)
figure.savefig("rollout_gradients.png", dpi=90)

# %% [markdown]
# ![gradients against the step](figures/rollout_gradients.png)
#
# Where the motion is regular the full gradient grows in proportion to the time, as the phase does; where it is chaotic,
# by orders of magnitude, as the trajectories come apart. A loss over many steps is then the loss of its last ones, in a
# direction that is another one for each start: clipping keeps such a gradient from doing harm, but does not make it
# useful. This is why detached gradients are the default, and why S of full ones stays below the time in which
# neighbouring trajectories come apart.
#
# ## Truncation
#
# `Truncated(k)` keeps what the last k steps tell, and nothing of what was before. Its gradient can be no larger than
# what grows in k steps.

# %%
n_steps = 100 if SHORT else 1500
lengths = [k for k in (1, 3, 10, 30, 100, 300, 1500) if k <= n_steps]
chaotic = {"make": henon_heiles, "x": origin, "v": moving(0.16), "m": mass, "step": STEP, "true": one}
sizes = [abs(slope(Truncated(k, recompute=False), n_steps, **chaotic)) / n_steps for k in lengths]
for k, size in zip(lengths, sizes, strict=True):
    print(f"Truncated({k}): mean gradient of {n_steps} steps {size:.2e}")

figure, axis = plt.subplots(figsize=(4.5, 3.0), layout="constrained")
axis.loglog(lengths, sizes, marker="o", markersize=4, linewidth=1)
axis.set(
    xlabel="k of Truncated(k)",
    ylabel=r"$|\partial L/\partial\,\ln p|$ / S",
    title=f"Hénon-Heiles, energy 0.16, S = {n_steps}",
)
figure.savefig("rollout_truncated.png", dpi=90)

# %% [markdown]
# ![size of the gradient against the length of a segment](figures/rollout_truncated.png)
#
# The mode of a training is `task/gradient=detached`, `task/gradient=full`, or truncated:
#
#     spktrain experiment=dt_egnn task/gradient=truncated task.gradient.k=5
#
# With a trained model the force function is `spk_dt.ModelForces`, which finds the neighbours as well; all else stays as
# it is here.
