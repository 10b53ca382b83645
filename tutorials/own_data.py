# %% [markdown]
# # Your own trajectories
#
# From the files of a simulation to data that can be trained on: `convert`, `check` and its verdicts, and how each is
# mended. A slab of copper whose lowest layer is held fixed stands in for an *ab initio* simulation; the effective-medium
# potential of ASE makes its trajectories in seconds, and extended XYZ is what most programs can write. Each step is a
# command, and beside it the same in Python. It takes a minute.
#
#     python own_data.py          # SPK_DT_TUTORIAL=short: shorter trajectories, as in the tests

# %%
import os
import shlex

import ase.io
import ase.units
import numpy as np
from ase.build import add_adsorbate, fcc111
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from matplotlib import pyplot as plt
from schnetpack.data import ASEAtomsData

from spk_dt.cli import app
from spk_dt.data.load import load_frames
from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.diagnosis import diagnose
from spk_dt.trajectories.inputs import Reading

SHORT = os.environ.get("SPK_DT_TUTORIAL") == "short"
STEPS, TIME_STEP = (60, 1.0) if SHORT else (400, 1.0)  # fs


def spkdt(command):
    """The command, as in a shell; its exit code."""
    print(f"\n$ spkdt {command}")
    return app(shlex.split(command), standalone_mode=False)


# %% [markdown]
# ## A simulation
#
# Three trajectories at constant energy, of an oxygen atom on Cu(111). What a program writes for each frame: cell,
# positions, velocities, energy, forces. Not the time step, which extended XYZ has no place for.


# %%
def slab():
    atoms = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    add_adsorbate(atoms, "O", 1.3, "fcc")
    lowest = atoms.positions[:, 2] < atoms.positions[:, 2].min() + 0.1
    atoms.set_constraint(FixAtoms(np.flatnonzero(lowest)))
    return atoms


def simulate(seed, constrained=True):
    atoms = slab()
    atoms.calc = EMT()
    MaxwellBoltzmannDistribution(atoms, temperature_K=600.0, rng=np.random.default_rng(seed))
    dynamics, frames = VelocityVerlet(atoms, TIME_STEP * ase.units.fs), []
    for _ in range(STEPS):
        dynamics.run(1)
        frame = atoms.copy()
        if not constrained:
            frame.set_constraint()
        forces = atoms.get_forces(apply_constraint=False)
        frame.calc = SinglePointCalculator(frame, energy=atoms.get_potential_energy(), forces=forces)
        frames.append(frame)
    return frames


runs = {f"run_{seed}": simulate(seed) for seed in range(3)}
for name, frames in runs.items():
    ase.io.write(f"{name}.extxyz", frames)

# %% [markdown]
# ## Conversion
#
# One trajectory for each file. What a file does not say is asked for: without `--timestep-fs` the conversion is refused,
# with the option that helps.

# %%
code = spkdt("convert run_0.extxyz run_1.extxyz run_2.extxyz slab.db")
assert code == 1
code = spkdt(f"convert run_0.extxyz run_1.extxyz run_2.extxyz slab.db --timestep-fs {TIME_STEP}")
assert not code

# %% [markdown]
# In Python:

# %%
for one in convert(["run_0.extxyz"], "again.db", Reading(timestep_fs=TIME_STEP)):
    print(one.trajectory.name, one.formula, one.trajectory.length, "frames,", one.trajectory.velocities)

# %% [markdown]
# ## Are they sound?
#
# `check` measures the time step, and the units of velocities and forces, from the frames themselves, independently of
# each other. The row of a sound trajectory says `ok`; the fixed atoms are known.

# %%
code = spkdt("check slab.db")
assert not code


def verdicts(database):
    """What `check` finds, in Python: (severity, name of the finding) of all trajectories."""
    frames = load_frames(ASEAtomsData(database))
    found = [diagnose(frames, number) for number in range(len(frames.trajectories))]
    return [(finding.severity, finding.code) for one in found for finding in one.findings]


print(verdicts("slab.db"))
assert not any(severity == "refused" for severity, _ in verdicts("slab.db"))

# %% [markdown]
# ## Verdicts, and how they are mended
#
# **A wrong time step.** The simulation wrote each step, but somebody believes it was 0.5 fs. Nothing in a training would
# say so: the model would learn to be in the wrong place at each step. The check says
#
#     refused: run_0: says 0.5 fs between frames, but they are 1 fs apart. Write the trajectory with timestep_fs=1.
#     remedy: spkdt convert wrong_time.db NEW.db --timestep-fs 1
#
# and the remedy is the command that mends it, from the database itself.

# %%
spkdt(f"convert run_0.extxyz wrong_time.db --timestep-fs {TIME_STEP / 2}")
code = spkdt("check wrong_time.db")
assert code == 1

# %% [markdown]
# **Forces in another unit.** Forces in Hartree/Bohr, say, beside energies in eV. The accelerations tell the factor, and a
# factor that is known tells the unit:
#
#     remedy: spkdt convert wrong_unit.db NEW.db --units forces=Hartree/Bohr

# %%
in_hartree = []
for frame in runs["run_0"]:
    energy, forces = frame.get_potential_energy(), frame.get_forces(apply_constraint=False)
    frame = frame.copy()
    frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces * ase.units.Bohr / ase.units.Hartree)
    in_hartree.append(frame)
ase.io.write("hartree.extxyz", in_hartree)
spkdt(f"convert hartree.extxyz wrong_unit.db --timestep-fs {TIME_STEP}")
code = spkdt("check wrong_unit.db")
assert code == 1
code = spkdt("convert wrong_unit.db mended.db --units forces=Hartree/Bohr")
code = spkdt("check mended.db")
assert not code

# %% [markdown]
# **Dropped frames.** A restart that lost ten frames leaves a jump. The remedy is `--cut` with the frame before it: cut
# there, and there are two trajectories.

# %%
cut = STEPS // 2
ase.io.write("gap.extxyz", [*runs["run_1"][:cut], *runs["run_1"][cut + 10 :]])
spkdt(f"convert gap.extxyz gap.db --timestep-fs {TIME_STEP}")
code = spkdt("check gap.db")
assert code == 1
spkdt(f"convert gap.db cut.db --cut {cut - 1}")
code = spkdt("check cut.db")
assert not code

# %% [markdown]
# **Fixed atoms that the files do not name.** Many formats have no place for them. `check` sees what never moves, and
# names the option; from then on they stay where they are, to the last bit, in rollouts and simulations, and do not count
# as degrees of freedom.

# %%
ase.io.write("unnamed.extxyz", simulate(5, constrained=False))
spkdt(f"convert unnamed.extxyz unnamed.db --timestep-fs {TIME_STEP}")
spkdt("check unnamed.db")
code = spkdt("convert unnamed.db fixed.db --fixed 0-3")
code = spkdt("check fixed.db")
assert not code

# %% [markdown]
# ## What the check measures
#
# For velocity Verlet the positions of three frames tell the acceleration, a(t) = (x(t+dt) - 2 x(t) + x(t-dt)) / dt².
# Against F / m of the files all points must be on the diagonal; the slope tells the factor of a wrong unit, or the square
# of that of a wrong time step.

# %%
figure, axes = plt.subplots(1, 2, figsize=(6.5, 3.0), sharey=True, layout="constrained")
mobile = np.setdiff1d(np.arange(13), range(4))
for axis, (title, frames, step) in zip(
    axes, [("sound", runs["run_0"], TIME_STEP), ("time step half as long", runs["run_0"], TIME_STEP / 2)], strict=True
):
    x = np.array([frame.positions[mobile] for frame in frames])
    f = np.array([frame.get_forces()[mobile] for frame in frames[1:-1]])
    measured = (x[2:] - 2.0 * x[1:-1] + x[:-2]) / (step * ase.units.fs) ** 2
    expected = f / frames[0].get_masses()[mobile, None]
    slope = (measured * expected).sum() / (expected**2).sum()
    print(f"{title}: a = {slope:.4f} F / m")
    axis.plot(expected.ravel()[::7], measured.ravel()[::7], ".", markersize=2)
    axis.axline((0.0, 0.0), slope=1.0, color="black", linewidth=0.8)
    axis.set(title=f"{title}: slope {slope:.2f}", xlabel="F / m of the files (eV/Å/Dalton)")
axes[0].set_ylabel("acceleration (eV/Å/Dalton)")
figure.savefig("own_data.png", dpi=90)

# %% [markdown]
# ![acceleration of the positions against that of the forces](figures/own_data.png)
#
# ## Training
#
# A training runs the same check at its start and refuses what `check` refuses. With few trajectories, blocks of time are
# the partitions, with a gap between them:
#
#     spktrain experiment=dt_egnn data=trajectory data.datapath=slab.db data.num_val=1 data.num_test=0
#     spktrain experiment=dt_egnn data=trajectory data.datapath=slab.db data/splitting=time_block \
#         data.num_train=0.8 data.num_val=0.2 data.num_test=0.0
#
# `+dry_run=true` behind either tells what it would cost. Without trajectories, structures will do: `spkdt generate
# --help`.
