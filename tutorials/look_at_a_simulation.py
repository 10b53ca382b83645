# %% [markdown]
# # Look at a simulation
#
# `spkmd` writes positions, velocities and energies to an HDF5 file. This script reads it, says how well the total energy
# is conserved, and draws the change of the total energy and the H-H distance of each molecule (each frame that the
# simulation started from). Run it with the path of the file:
#
#     python look_at_a_simulation.py md/simulation.hdf5

# %%
import sys
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from schnetpack import properties, units
from schnetpack.md.data import HDF5Loader

path = Path(sys.argv[1] if len(sys.argv) > 1 else "md/simulation.hdf5")
data = HDF5Loader(str(path))

# %% [markdown]
# In the file, lengths are in nm, energies in kJ/mol, masses in Dalton, and time in the unit that follows from them. Its
# first entry is the state after the first step.

# %%
EV, ANGSTROM = units.convert_units("kJ/mol", "eV"), 10.0
time_fs = np.arange(1, data.entries + 1) * data.time_step / units.fs
numbers = data.get_property(properties.Z, atomistic=True)
hydrogen = np.flatnonzero(numbers == 1)

figure, (upper, lower) = plt.subplots(2, 1, figsize=(6.0, 5.0), sharex=True, layout="constrained")
for molecule in range(data.n_molecules):
    potential = data.get_potential_energy(mol_idx=molecule) * EV
    kinetic = data.get_kinetic_energy(mol_idx=molecule) * EV
    total = potential + kinetic
    print(
        f"molecule {molecule}: temperature {data.get_temperature(mol_idx=molecule).mean():.0f} K, kinetic energy varies by "
        f"{1e3 * np.ptp(kinetic):.1f} meV, total energy by {1e3 * np.ptp(total):.2f} meV"
    )
    upper.plot(time_fs, 1e3 * (total - total[0]), linewidth=1)
    if len(hydrogen) == 2:
        first, second = ANGSTROM * data.get_positions(mol_idx=molecule)[:, hydrogen].swapaxes(0, 1)
        lower.plot(time_fs, np.linalg.norm(first - second, axis=1), linewidth=1, label=f"molecule {molecule}")

upper.set_ylabel("change of total energy (meV)")
lower.set_ylabel("H-H distance (Å)")
lower.set_xlabel("time (fs)")
lower.legend(frameon=False, fontsize=8, ncols=3)
figure.savefig(path.with_suffix(".png"), dpi=200)
print(path.with_suffix(".png"))
