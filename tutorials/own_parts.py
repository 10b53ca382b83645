# %% [markdown]
# # Your own architecture, loss or integrator
#
# What trains a potential is a handful of exchangeable objects. Here are three of your own, each some ten lines, each
# with a test that would fail if it were wrong, and then a training with two of them. One file holds the classes,
# `my_parts.py` in the folder in which you work, which `spktrain` finds by itself. Two minutes on a laptop.
#
#     python own_parts.py          # SPK_DT_TUTORIAL=short: fewer steps, as in the tests

# %%
import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from matplotlib import pyplot as plt
from schnetpack.atomistic import Atomwise, Forces, PairwiseDistances
from schnetpack.interfaces import AtomsConverter
from schnetpack.model import NeuralNetworkPotential
from schnetpack.nn import CosineCutoff, GaussianRBF
from schnetpack.transform import MatScipyNeighborList

from spk_dt import rollout

SHORT = os.environ.get("SPK_DT_TUTORIAL") == "short"

# %% [markdown]
# ## The file
#
# **An architecture** is a module whose `forward` adds `scalar_representation`, [n_atoms, n_atom_basis], to its inputs. All
# else, pair vectors, energy, forces, comes from SchNetPack's modules around it. It has to go to zero smoothly at the
# cutoff, be twice differentiable, and keep the systems of a batch apart: a sum over the neighbours of each atom does.
#
# **A loss** is a `ModelOutput` with a `calculate_loss` of its own. This one does not let single large errors lead.
#
# **An integrator** has a displacement and, once the forces there are known, the velocities. This one is velocity Verlet
# with friction γ, which brings a structure to rest:
#
# $$x_{k+1} = x_k + v_k\,\Delta t + \frac{F_k}{2m}\,\Delta t^2, \qquad
# v_{k+1} = e^{-\gamma\Delta t} \left( v_k + \frac{F_k + F_{k+1}}{2m}\,\Delta t \right).$$

# %%
Path("my_parts.py").write_text('''"""An architecture, a loss and an integrator."""

import math
from dataclasses import dataclass

import torch
from schnetpack import properties
from schnetpack.nn import scatter_add
from schnetpack.task import ModelOutput
from torch import nn


class PairNetwork(nn.Module):
    """Atoms sum messages from their neighbours, which depend on both atoms and their distance."""

    def __init__(self, n_atom_basis, n_interactions, radial_basis, cutoff_fn):
        super().__init__()
        self.n_atom_basis, self.radial_basis, self.cutoff_fn = n_atom_basis, radial_basis, cutoff_fn
        self.cutoff = cutoff_fn.cutoff
        self.embedding = nn.Embedding(100, n_atom_basis)
        width = 2 * n_atom_basis + radial_basis.n_rbf
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, n_atom_basis), nn.SiLU(), nn.Linear(n_atom_basis, n_atom_basis))
            for _ in range(n_interactions)
        )

    def forward(self, inputs):
        i, j, distances = inputs[properties.idx_i], inputs[properties.idx_j], inputs[properties.Rij].norm(dim=-1)
        radial, envelope = self.radial_basis(distances), self.cutoff_fn(distances)[:, None]
        x = self.embedding(inputs[properties.Z])
        for layer in self.layers:
            messages = layer(torch.cat([x[i], x[j], radial], -1)) * envelope
            x = x + scatter_add(messages, i, dim_size=len(x))
        inputs["scalar_representation"] = x
        return inputs


class LogCosh(ModelOutput):
    """Mean of log cosh of the error over a width: quadratic for small errors, linear for large ones."""

    def __init__(self, width=0.1, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def calculate_loss(self, pred, target):
        if self.loss_weight == 0:
            return pred[self.name].new_zeros(())
        x = (pred[self.name] - target[self.target_property]) / self.width
        return self.loss_weight * self.width * (x + nn.functional.softplus(-2.0 * x) - math.log(2.0)).mean()


@dataclass
class Damped:
    """Velocity Verlet with friction, per unit of time."""

    friction: float

    def check(self, gradient, kicks):
        if kicks is not None:
            raise ValueError("what a thermostat did cannot be replayed with friction: leave out the kicks.")

    def displacement(self, state):
        move = state.velocities * state.time_step + state.forces / (2.0 * state.masses) * state.time_step**2
        return move, state.velocities

    def velocities(self, state, carried, new_forces):
        new = carried + (state.forces + new_forces) / (2.0 * state.masses) * state.time_step
        return new * math.exp(-self.friction * state.time_step)
''')
sys.path.insert(0, os.getcwd())
importlib.invalidate_caches()
my_parts = importlib.import_module("my_parts")

# %% [markdown]
# ## Is it right?
#
# **The architecture**: rotating a structure rotates its forces, the order of its atoms does not matter, forces are the
# derivative of the energy, and nothing jumps when an atom crosses the cutoff.

# %%
CUTOFF = 4.0
torch.manual_seed(0)
network = my_parts.PairNetwork(16, 2, GaussianRBF(12, CUTOFF), CosineCutoff(CUTOFF))
model = NeuralNetworkPotential(
    network, [PairwiseDistances()], [Atomwise(16, output_key="energy"), Forces()]
).double().eval()  # fmt: skip
convert = AtomsConverter(MatScipyNeighborList(CUTOFF), dtype=torch.float64)


def evaluate(atoms):
    out = model(convert(atoms))
    return float(out["energy"]), out["forces"].detach().numpy()


rng = np.random.default_rng(0)
atoms = Atoms(
    "Pd4H2", positions=2.6 * rng.permutation(np.indices((2, 3, 1)).reshape(3, -1).T) + rng.normal(0, 0.2, (6, 3))
)
energy, forces = evaluate(atoms)

turned = atoms.copy()
rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
turned.positions = atoms.positions @ rotation
assert np.allclose(evaluate(turned)[1], forces @ rotation, atol=1e-9)
order = rng.permutation(6)
assert np.allclose(evaluate(atoms[order])[1], forces[order], atol=1e-9)
moved, h = atoms.copy(), 1e-5
moved.positions[0, 0] += h
assert abs((evaluate(moved)[0] - energy) / h + forces[0, 0]) < 1e-3

pair = [evaluate(Atoms("PdH", positions=[[0, 0, 0], [CUTOFF + d, 0, 0]])) for d in (-1e-6, 1e-6)]
assert abs(pair[0][0] - pair[1][0]) < 1e-9
print("rotation, order of atoms, derivative and cutoff are as they must be")

# %% [markdown]
# **The loss**: half the square over the width for small errors, the absolute error less a constant for large ones.

# %%
output = my_parts.LogCosh(width=0.1, name="forces", loss_fn=None, loss_weight=1.0, metrics={})
errors = np.logspace(-3, 0.5, 60)
values = [
    float(output.calculate_loss({"forces": torch.tensor([error])}, {"forces": torch.zeros(1, dtype=torch.float64)}))
    for error in errors
]
assert np.isclose(values[0], errors[0] ** 2 / 0.2, rtol=1e-3)
assert np.isclose(values[-1], errors[-1] - 0.1 * np.log(2.0), rtol=1e-3)

# %% [markdown]
# **The integrator**: a harmonic oscillator with little friction loses its amplitude as exp(-γt/2). Without friction it
# must be velocity Verlet, to the last bit.

# %%
mass, x, v = (
    torch.ones(1, dtype=torch.float64),
    torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64),
    torch.zeros(1, 3).double(),
)
steps, step, friction = (400 if SHORT else 2000), 0.05, 0.02


def oscillate(integrator):
    with torch.no_grad():
        visited = rollout(lambda r: -r, x, v, mass, step, steps, integrator=integrator)
        return np.array([float((one.state.positions**2 + one.state.velocities**2).sum()) ** 0.5 for one in visited])


amplitude, time = oscillate(my_parts.Damped(friction)), step * np.arange(steps)
rate = -np.polyfit(time, np.log(amplitude), 1)[0]
print(f"amplitude falls with {rate:.5f} per unit of time; half the friction is {friction / 2:.5f}")
assert abs(rate / (friction / 2) - 1.0) < 0.02
assert (oscillate(my_parts.Damped(0.0)) == oscillate(None)).all()

figure, axes = plt.subplots(1, 2, figsize=(7.0, 2.8), layout="constrained")
axes[0].loglog(errors, values, label="LogCosh")
axes[0].loglog(errors, errors, "--", linewidth=0.8, label="absolute error")
axes[0].set(xlabel="error (eV/Å)", ylabel="loss", title="loss")
axes[0].legend(frameon=False)
axes[1].plot(time, amplitude, label="Damped")
axes[1].plot(time, np.exp(-friction / 2 * time), "--", linewidth=1, label=r"exp(-$\gamma$t/2)")
axes[1].set(xlabel="time", ylabel="amplitude", title="integrator")
axes[1].legend(frameon=False)
figure.savefig("own_parts.png", dpi=90)

# %% [markdown]
# ![the loss against the error, and the amplitude of a damped oscillator](figures/own_parts.png)
#
# ## In a training
#
# A config names the class and its arguments. Files in `configs` of the current folder are found like those of the
# package; `model/representation` then takes its name. The loss is `_target_` of an output.

# %%
config = Path("configs/model/representation/pairs.yaml")
config.parent.mkdir(parents=True, exist_ok=True)
config.write_text("""defaults:
  - radial_basis: gaussian
  - _self_
_target_: my_parts.PairNetwork
n_atom_basis: 32
n_interactions: 2
cutoff_fn:
  _target_: schnetpack.nn.CosineCutoff
  cutoff: ${globals.cutoff}
""")
command = [
    Path(sys.executable).with_name("spktrain"), "experiment=dt_egnn", f"model/representation={config.stem}",
    "~callbacks.on_policy", "task.outputs.0._target_=my_parts.LogCosh", "+task.outputs.0.width=0.05", "print_config=false",
]  # fmt: skip
subprocess.run([*command, "+dry_run=true"], check=True)

# %% [markdown]
# Without `+dry_run=true` this trains, with rollouts and all that belongs to it:
#
#     spktrain experiment=dt_egnn model/representation=pairs task.outputs.0._target_=my_parts.LogCosh \
#         +task.outputs.0.width=0.05
#
# The integrator is an argument of `spk_dt.rollout`, as above, and of `DynamicTrainingTask.rollout`. Something of general
# use is welcome in the package: what it then needs is in [CONTRIBUTING](../../contributing.md).
