# %% [markdown]
# # Molecular dynamics in three programs, and judging it
#
# One small model simulates in SchNetPack's `spkmd`, in ASE and in LAMMPS, from the same frame with the same velocities. We
# look at how far the three agree, and let `spkdt evaluate` judge what they wrote, with the reference method of the data,
# GFN1-xTB. Four minutes of an idle core.
#
#     pip install 'spk_dt[export,lammps,reference]' metatomic-ase
#     python molecular_dynamics.py      # SPK_DT_TUTORIAL=short: a few steps, as in the tests

# %%
import os
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
from ase import units
from ase.geometry import find_mic
from ase.md.verlet import VelocityVerlet
from matplotlib import pyplot as plt
from metatomic_ase import MetatomicCalculator

from spk_dt.evaluation.evaluate_trajectories import evaluate_trajectories
from spk_dt.trajectories.inputs import Reading

SHORT = os.environ.get("SPK_DT_TUTORIAL") == "short"
STEPS, TIME_STEP = (20 if SHORT else 600), 0.5  # fs


def run(*command, makes):
    """A program of this environment, as in a shell, unless what it makes is there: so the script can be run again."""
    print("\n$", *command, flush=True)
    if not Path(makes).exists():
        subprocess.run([Path(sys.executable).with_name(command[0]), *command[1:]], check=True)


# %% [markdown]
# ## A model and a frame to start from
#
# Six epochs of conventional training, which is too few for long simulations. `spkdt frames` writes the first frame of a
# trajectory that was not trained on, with its velocities; `.traj` keeps all digits.

# %%
training = [
    "experiment=static_egnn",
    "run.id=md",
    "+seed=0",
    "print_config=false",
    "+trainer.enable_progress_bar=false",
]
training += ["trainer.max_epochs=1" if SHORT else "trainer.max_epochs=6"]
if SHORT:
    training += ["trainer.limit_train_batches=3", "data.max_val_windows=1", "data.max_test_windows=1"]
    training += ["model.representation.n_atom_basis=4"]
run("spktrain", *training, makes="runs/md/best_model")
run("spkdt", "frames", "start.traj", "--run", "runs/md", "--number", "1", makes="start.traj")
start = ase.io.read("start.traj")
print(f"{start.get_chemical_formula()}, {start.get_temperature():.0f} K")

# %% [markdown]
# ## spkmd
#
# It takes the model as it is. `simulation.hdf5` has positions, velocities and energies, and forces if they are asked for.
# [Look at a simulation](look_at_a_simulation.md) reads it; here that is left to `spkdt evaluate`.

# %%
run(
    "spkmd", "calculator.model_file=runs/md/best_model", "system.molecule_file=start.traj", "system/initializer=frames",
    "calculator.required_properties=[forces]", f"dynamics.n_steps={STEPS}",
    f"dynamics.integrator.time_step={TIME_STEP}", "simulation_dir=md",
    makes="md/simulation.hdf5",
)  # fmt: skip

# %% [markdown]
# ## ASE
#
# `spkdt export` writes one file for ASE, i-PI, torch-sim and LAMMPS with metatomic, in eV and Å, and compares it with the
# model before it keeps it. Its network has single precision unless `--precision 64` is asked for, as here, because we
# want to compare digits.

# %%
run("spkdt", "export", "runs/md", "potential.pt", "--precision", "64", makes="potential.pt")
atoms = start.copy()
atoms.calc = MetatomicCalculator("potential.pt", device="cpu")
with VelocityVerlet(atoms, TIME_STEP * units.fs, trajectory="ase.traj", loginterval=1) as verlet:
    verlet.run(STEPS)

# %% [markdown]
# ## LAMMPS
#
# `spkdt lammps` runs an ordinary input with the LAMMPS of PyPI, which must not have a pair style. The elements of the
# atom types are named by `--types`; their masses are compared with it. The dump gets enough digits to be compared, and
# the log is written at each step, because it is where the energies are.

# %%
species = {"specorder": ["H", "C", "Pd"], "masses": True, "velocities": True}
ase.io.write("start.data", start, format="lammps-data", units="metal", **species)
Path("in.nve").write_text(f"""units       metal
atom_style  atomic
boundary    p p p
read_data   start.data
fix         1 all nve
timestep    {TIME_STEP / 1000.0}
thermo      1
thermo_style custom step temp pe ke etotal
thermo_modify format float %.10f
dump        1 all custom 1 dump.lammpstrj id type xu yu zu vx vy vz fx fy fz
dump_modify 1 sort id format float %.10f
run         {STEPS}
""")
run("spkdt", "lammps", "in.nve", "runs/md", "--types", "H,C,Pd", "--no-compile", makes="log.lammps")

# %% [markdown]
# ## Judging it
#
# Each file is read as `spkdt convert` would. What it does not say is stated, here the time step, which neither `.traj` nor
# a dump knows; where a file has velocities and forces, the motion itself must agree with it. `--reference` computes true
# errors: of the energies and forces in the files, at the geometries that were visited.

# %%
files = {"spkmd": "md/simulation.hdf5", "ase": "ase.traj", "lammps": "dump.lammpstrj"}
stated = {"--timestep-fs": f"{TIME_STEP}", "--lammps-log": "log.lammps", "--lammps-elements": "H,C,Pd"}
run(
    "spkdt", "evaluate", "embedded", *(f"{name}={file}" for name, file in files.items()),
    *(word for option in stated.items() for word in option), "--reference", "tblite:GFN1-xTB",
    "--relabel-every", f"{STEPS // 2 if SHORT else STEPS // 6}", "--out", "evaluation",
    makes="evaluation/true_error.csv",
)  # fmt: skip
run("spkdt", "report", "evaluation", makes="evaluation/report.html")

# %% [markdown]
# `evaluation/report.html` has all figures and the trajectories in 3D. Here are two of them: how well each program keeps the
# total energy, and how far the positions in ASE and LAMMPS are from those of `spkmd`. The reader of each format makes
# `ase.Atoms` of its frames, in the same units.

# %%
reading = Reading(timestep_fs=TIME_STEP, lammps_logs=("log.lammps",), lammps_elements=("H", "C", "Pd"))
found = zip(files, reading.jobs(list(files.values())), strict=True)
frames = {name: list(job.raw.frames()) for name, job in found}
steps = {name: np.arange(len(one)) + (name == "spkmd") for name, one in frames.items()}  # it begins after a step

colors = dict(zip(frames, ("C0", "C1", "C2"), strict=True))
figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.0), layout="constrained")
for name, one in frames.items():
    total, kinetic = np.array([[atoms.get_total_energy(), atoms.get_kinetic_energy()] for atoms in one]).T
    print(
        f"{name}: kinetic energy varies by {1e3 * np.ptp(kinetic):.0f} meV, total energy by {1e3 * np.ptp(total):.1f} meV"
    )
    left.plot(TIME_STEP * steps[name], 1e3 * (total - total[0]), linewidth=1, color=colors[name], label=name)
for name in ("ase", "lammps"):
    pairs = zip(frames["spkmd"], frames[name][1:], strict=True)
    apart = [find_mic(a.positions - b.positions, start.cell, start.pbc)[1].max() for a, b in pairs]
    print(f"{name}: {apart[0]:.1e} Å from spkmd after a step, {apart[-1]:.1e} Å after {STEPS * TIME_STEP:g} fs")
    right.semilogy(TIME_STEP * steps["spkmd"], apart, linewidth=1, color=colors[name], label=name)
left.set(xlabel="time (fs)", ylabel="change of total energy (meV)")
right.set(xlabel="time (fs)", ylabel="largest distance from spkmd (Å)")
for axis in (left, right):
    axis.legend(frameon=False)
figure.savefig("molecular_dynamics.png", dpi=90)

# %% [markdown]
# ![total energy of the three simulations, and how far apart they are](figures/molecular_dynamics.png)
#
# The total energy varied by 7 meV, the kinetic energy by 830 meV, in all three. After 300 fs ASE was 1e-11 Å away from
# `spkmd`, and LAMMPS, which has read its start from a file and has constants of its own, 3e-5 Å. So it is one potential
# in all of them, and what is wrong with it is wrong in all of them: `spkdt evaluate` found true errors of the forces of
# 0.15 to 0.19 eV/Å for H, 0.23 for C and 0.10 for Pd, and energies that are off by 11 meV an atom. How long such a
# potential lasts is found out by a certificate: [labels where the model goes](labels_and_certificate.md).
#
# The same in Python, without the labels; `Reading` has what is stated.

# %%
metrics = evaluate_trajectories("embedded", {name: [file] for name, file in files.items()}, "again", reading)
for name, found in metrics.items():
    print(f"{name}: drift {found['conservation']['mean_drift_mev_per_atom_per_ps']:.3f} meV per atom and ps")
