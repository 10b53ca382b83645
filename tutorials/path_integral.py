# %% [markdown]
# # From data to a path integral
#
# Hydrogen is light: at room temperature the bond of H2 is in its ground state, and its length spreads three times as much as
# classical nuclei would have it. This tutorial goes all the way there. A potential is trained on the embedded trajectories
# of H2 on Pd6/graphene (`spktrain`), becomes one file (`spkdt export`), and i-PI simulates with it, once with classical
# nuclei and once with a ring polymer of 16 beads. The result is the distribution h(r) of the H-H distance.
#
#     pip install 'spk_dt[export]' ipi
#     python path_integral.py      # SPK_DT_TUTORIAL=short: a run in a minute, with results that mean nothing
#
# Models and trajectories are written to the folder `path_integral`, the figure to the current folder. What is there is not
# computed again, so that you can change a later step and run the script anew. It takes some ten minutes of an idle core.
#
# ![h(r) of the H-H distance, with classical nuclei and with 16 beads](figures/path_integral.png)

# %%
import os
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
from ase import units
from matplotlib import pyplot as plt
from schnetpack.interfaces import SpkCalculator
from schnetpack.transform import MatScipyNeighborList

SHORT = os.environ.get("SPK_DT_TUTORIAL") == "short"
FOLDER = Path("path_integral")
FOLDER.mkdir(exist_ok=True)


def run(program, *arguments, folder=FOLDER):
    """One of the programs that are installed with this Python."""
    subprocess.run([Path(sys.executable).with_name(program), *arguments], cwd=folder, check=True)


# %% [markdown]
# ## Training
#
# `dt_egnn` is a small EGNN. Twenty epochs take some five minutes on an idle core, and are enough for this bond; without
# `trainer.max_epochs` the training goes on until it has converged. Labels on demand, which need a reference method, are
# switched off.

# %%
MODEL = FOLDER / "runs" / "h2" / "best_model"
LENGTH = ["trainer.max_epochs=20"]
if SHORT:
    LENGTH = [
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=3",
        "data.max_val_windows=1",
        "data.max_test_windows=1",
    ]
if not MODEL.exists():
    run("spktrain", "experiment=dt_egnn", "run.id=h2", "+seed=0", "~callbacks.on_policy", *LENGTH)

# %% [markdown]
# ## One file for engines
#
# The file has eV and Å; it was compared with the model before it was kept. Simulations start from a frame of a trajectory
# that was not trained on.

# %%
if not (FOLDER / "potential.pt").exists():
    run("spkdt", "export", "runs/h2", "potential.pt")
if not (FOLDER / "start.extxyz").exists():
    run("spkdt", "frames", "start.extxyz", "--run", "runs/h2", "--number", "1")
start = ase.io.read(FOLDER / "start.extxyz")
HYDROGEN = np.flatnonzero(start.numbers == 1)

# %% [markdown]
# ## Two simulations
#
# The inputs differ in the number of beads and the thermostat: Langevin dynamics for classical nuclei, PILE-L for the ring
# polymer (Ceriotti et al., J. Chem. Phys. 133, 124104 (2010), doi 10.1063/1.3489925). Both are at 300 K, with steps of
# 0.25 fs.

# %%
TEMPERATURE, BEADS, STRIDE = 300.0, 4 if SHORT else 16, 2
CLASSICAL_STEPS, QUANTUM_STEPS = (8, 8) if SHORT else (1200, 600)  # of the ring polymer each bead counts
INPUT = """<simulation verbosity='low'>
  <output prefix='out'>
    <properties filename='txt'> [ step, time{{femtosecond}}, temperature{{kelvin}}, conserved{{electronvolt}} ] </properties>
    <trajectory filename='pos' format='ase' stride='{stride}'> positions </trajectory>
  </output>
  <total_steps> {steps} </total_steps>
  <prng> <seed> 1 </seed> </prng>
  <ffdirect name='potential'>
    <pes> metatomic </pes>
    <parameters> {{ template: ../start.extxyz, model: ../potential.pt, device: cpu }} </parameters>
  </ffdirect>
  <system>
    <initialize nbeads='{beads}'>
      <file mode='ase' units='ase'> ../start.extxyz </file>
      <velocities mode='thermal' units='kelvin'> {temperature} </velocities>
    </initialize>
    <forces> <force forcefield='potential'/> </forces>
    <ensemble> <temperature units='kelvin'> {temperature} </temperature> </ensemble>
    <motion mode='dynamics'>
      <dynamics mode='nvt'>
        <timestep units='femtosecond'> 0.25 </timestep>
        <thermostat mode='{thermostat}'> <tau units='femtosecond'> 20 </tau> </thermostat>
      </dynamics>
    </motion>
  </system>
</simulation>
"""


def simulated(name, beads, thermostat, steps):
    """[n_frames, n_beads] H-H distances, Å, after the first quarter of the time."""
    folder = FOLDER / name
    if not (folder / "RESTART").exists():  # i-PI writes it at the end
        folder.mkdir(exist_ok=True)
        settings = {"beads": beads, "thermostat": thermostat, "temperature": TEMPERATURE, "steps": steps}
        (folder / "input.xml").write_text(INPUT.format(stride=STRIDE, **settings))
        run("i-pi", "input.xml", folder=folder)
    files = sorted(folder.glob("out.pos_*.extxyz"))
    found = [[one.get_distance(*HYDROGEN, mic=True) for one in ase.io.iread(file, ":")] for file in files]
    return np.transpose(found)[steps // STRIDE // 4 :]


distances = {
    "classical": simulated("classical", 1, "langevin", CLASSICAL_STEPS),
    f"{BEADS} beads": simulated("quantum", BEADS, "pile_l", QUANTUM_STEPS),
}

# %% [markdown]
# ## What a harmonic oscillator would do
#
# The stiffness k of the bond follows from the energy of the model along it, with all other atoms and the middle of the
# bond where they are. The spread of a harmonic oscillator of the reduced mass μ is, for a ring polymer of P beads,
#
# σ² = kT / μ Σₙ 1 / (ω² + ωₙ²), ωₙ = 2 P kT / ħ sin(π n / P), n = 0 ... P - 1, ω² = k / μ.
#
# P = 1 is the classical one; for many beads it becomes the quantum one, ħ / (2 μ ω) coth(ħ ω / 2 kT).

# %%
CUTOFF = 4.0  # Å, of dt_egnn
pairs, in_ev = MatScipyNeighborList(cutoff=CUTOFF), {"energy_unit": "eV", "position_unit": "Ang"}
calculator = SpkCalculator(str(MODEL), pairs, energy_key="energy", force_key="forces", **in_ev)
stretched, lengths = start.copy(), np.arange(0.66, 0.91, 0.02)
stretched.calc = calculator
energies = []
for length in lengths:
    stretched.positions = start.positions
    stretched.set_distance(*HYDROGEN, length, fix=0.5, mic=True)
    energies.append(stretched.get_potential_energy())
cubic = np.polynomial.Polynomial.fit(lengths, energies, 3)
minimum = max(cubic.deriv().roots().real, key=lambda r: cubic.deriv(2)(r))
stiffness = cubic.deriv(2)(minimum)  # eV/Å²
mass = start.get_masses()[HYDROGEN][0] / 2.0
omega = np.sqrt(max(stiffness, 0.0) / mass)
kT, HBAR = units.kB * TEMPERATURE, units._hbar * units.J * units.second


def harmonic(beads):
    """Standard deviation of the bond length, Å, by the sum over the modes of the ring polymer."""
    modes = 2.0 * beads * kT / HBAR * np.sin(np.pi * np.arange(beads) / beads)
    return np.sqrt(kT / mass * np.sum(1.0 / (omega**2 + modes**2)))


zero_point = np.sqrt(HBAR / (2.0 * mass * omega) / np.tanh(HBAR * omega / (2.0 * kT)))
wavenumber = omega * units.second / (2.0 * np.pi * units._c * 100.0)
print(f"bond {minimum:.3f} Å, {stiffness:.1f} eV/Å², {wavenumber:.0f} cm⁻¹; quantum oscillator: sd {zero_point:.3f} Å")

# %% [markdown]
# ## The distribution of the bond length
#
# Frames of a simulation are correlated. Errors are therefore those of eight blocks of time, by leaving each out in turn
# (jackknife), all beads together.

# %%
BLOCKS = 2 if SHORT else 8
edges = np.linspace(0.5, 1.25, 51)
middle = 0.5 * (edges[1:] + edges[:-1])


def with_error(function, values):
    """A function of the distances, and its standard error."""
    parts = np.array_split(values, BLOCKS)
    left_out = np.array([function(np.concatenate(parts[:i] + parts[i + 1 :])) for i in range(BLOCKS)])
    return function(values), np.sqrt((BLOCKS - 1) * left_out.var(axis=0))


figure, axes = plt.subplots(figsize=(6.0, 3.6), layout="constrained")
spreads = {}
for color, (name, values) in zip(("C0", "C1"), distances.items(), strict=True):
    mean, spread = with_error(np.mean, values), with_error(np.std, values)
    expected = harmonic(values.shape[1])
    spreads[name] = spread[0], expected
    print(
        f"{name}: mean {mean[0]:.3f} ± {mean[1]:.3f} Å, sd {spread[0]:.3f} ± {spread[1]:.3f} Å; "
        f"harmonic sd {expected:.3f} Å"
    )
    density, error = with_error(lambda r: np.histogram(r, edges, density=True)[0], values)
    axes.fill_between(middle, density - error, density + error, color=color, alpha=0.3, linewidth=0)
    axes.plot(middle, density, color=color, label=f"{name}, sd {spread[0]:.3f} ± {spread[1]:.3f} Å")
    gauss = np.exp(-0.5 * ((middle - minimum) / expected) ** 2) / (np.sqrt(2.0 * np.pi) * expected)
    axes.plot(middle, gauss, color=color, linestyle=":", label=f"harmonic, sd {expected:.3f} Å")
axes.set_xlabel("H-H distance (Å)")
axes.set_ylabel("h(r) (1/Å)")
axes.set_ylim(bottom=0.0)
axes.legend(frameon=False, fontsize=8)
figure.savefig("path_integral.png", dpi=100)

# %% [markdown]
# The spreads were 0.031 ± 0.003 Å and 0.092 ± 0.005 Å here. They are above those of the oscillators, 0.025 Å and, with 16
# beads, 0.075 Å (0.083 Å with infinitely many), since the bond becomes softer where it is stretched.
# Each spread has to be near that of its oscillator, and the quantum one much larger than the classical one; otherwise the
# model, or a simulation, is wrong.

# %%
(classical, _), (quantum, _) = spreads.values()
if not SHORT:
    for name, (found, expected) in spreads.items():
        if not 0.7 < found / expected < 1.4:
            raise SystemExit(f"{name}: the spread of {found:.3f} Å is not that of the bond, {expected:.3f} Å")
    if quantum < 2.0 * classical:
        raise SystemExit("the quantum bond is not broader than the classical one")
