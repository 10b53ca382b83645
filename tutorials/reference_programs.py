# %% [markdown]
# # Reference methods that are programs
#
# Whatever asks for a reference method takes the name of a function that makes an ASE calculator. Copy this file to
# the folder in which you work, set what is in capitals, and keep the functions that you need:
#
#     spkdt relabel evaluation --reference reference_programs:orca --processes 4 --scratch /scratch/$USER --time-limit 1800
#     spktrain experiment=dt_on_policy ... callbacks.on_policy.labels.reference=reference_programs:orca
#
# The function is called anew for each geometry, in a process whose working folder is a scratch folder of this one
# calculation; the calculator is told to write there, too. So name files from "/" on (`HERE / "basis"`), and leave
# `directory` and `label` alone. The folder is removed if the calculation succeeds, and kept if it fails; the message
# says where it is.
#
# **Cores.** `--processes 4` runs four calculations at once. Each program then takes the cores that its own command
# and input say: for 16 cores, four processes with `mpirun -n 4`, or 16 with one core each, which is faster for small
# systems. Set `OMP_NUM_THREADS` before the command if a program shall have threads; if it is not set, each of several
# processes has one thread, and a single one what the program takes. With more threads last digits may change.
#
# **Commands** stand in this file, or in the environment (`ASE_VASP_COMMAND`, `ASE_NWCHEM_COMMAND`, ...), or in the
# file of settings of ASE (`~/.config/ase/config.ini`); all three reach the processes. The first calculation of a
# batch job may need `module load ...` before the command.
#
# **Convergence.** A calculation whose calculator or program says that the self-consistent field was not found gives
# no label.

# %%
import os
from pathlib import Path

from ase.calculators.calculator import FileIOCalculator
from ase.calculators.cp2k import CP2K
from ase.calculators.dftb import Dftb
from ase.calculators.mopac import MOPAC
from ase.calculators.nwchem import NWChem
from ase.calculators.orca import ORCA, OrcaProfile
from ase.calculators.vasp import Vasp
from ase.io import read

HERE = Path(__file__).parent

# %% [markdown]
# ORCA starts its MPI processes itself, and wants to be called by its whole path. `EnGrad` gives the forces.


# %%
def orca():
    command = os.environ.get("ORCA", "/opt/orca/orca")
    return ORCA(
        profile=OrcaProfile(command=command),
        charge=0,
        mult=1,
        orcasimpleinput="PBE def2-SVP TightSCF EnGrad",
        orcablocks="%pal nprocs 4 end",
    )


# %% [markdown]
# VASP: `VASP_PP_PATH` is the folder above `potpaw_PBE`. No relaxation (`nsw=0`), no wave functions on disk
# (`lwave=False`).


# %%
def vasp():
    command = os.environ.get("ASE_VASP_COMMAND", "mpirun -n 4 vasp_std")
    return Vasp(command=command, xc="PBE", encut=400, ediff=1e-6, nsw=0, kpts=(1, 1, 1), lwave=False, lcharg=False)


# %% [markdown]
# CP2K: its shell (`-s`) is started in the scratch folder. `CP2K_DATA_DIR` says where the basis sets are.


# %%
def cp2k():
    command = os.environ.get("ASE_CP2K_COMMAND", "mpirun -n 4 cp2k_shell.psmp")
    return CP2K(
        command=command,
        xc="PBE",
        cutoff=5442.0,  # eV, 400 Ry
        basis_set="DZVP-MOLOPT-SR-GTH",
        pseudo_potential="GTH-PBE",
        inp="&FORCE_EVAL\n&DFT\n&SCF\nEPS_SCF 1.0E-6\n&END SCF\n&END DFT\n&END FORCE_EVAL",
    )


# %% [markdown]
# DFTB+: the folder with the Slater-Koster files ends in "/". `Hamiltonian_='xTB'` with
# `Hamiltonian_Method='GFN2-xTB'` needs none.


# %%
def dftb():
    return Dftb(
        command=os.environ.get("ASE_DFTB_COMMAND", "dftb+ > PREFIX.out"),
        slako_dir=f"{HERE / '3ob-3-1'}/",
        Hamiltonian_SCC="Yes",
        Hamiltonian_SCCTolerance=1e-6,
        Hamiltonian_MaxAngularMomentum_H="s",
        Hamiltonian_MaxAngularMomentum_O="p",
    )


# %% [markdown]
# NWChem: `PREFIX` is replaced by ASE. Quotes keep the shell from taking `>` for `mpirun`.


# %%
def nwchem():
    command = os.environ.get("ASE_NWCHEM_COMMAND", "mpirun -n 4 nwchem PREFIX.nwi > PREFIX.nwo")
    return NWChem(command=command, theory="dft", dft={"xc": "pbe96", "convergence": {"energy": 1e-8}}, basis="def2-svp")


# %% [markdown]
# MOPAC: `1SCF` keeps the geometry. Its text has forces to seven digits; `RELSCF` makes them that good.


# %%
def mopac():
    command = os.environ.get("ASE_MOPAC_COMMAND", "mopac PREFIX.mop 2> /dev/null")
    return MOPAC(command=command, method="PM7", task="1SCF GRADIENTS", relscf=0.01)


# %% [markdown]
# GFN-xTB is built in as `tblite:GFN2-xTB`, without files, with the settings of the embedded data. For the program
# `xtb` ASE has no calculator; this is one. It takes the total charge of the frames.


# %%
class XTB(FileIOCalculator):
    implemented_properties = ("energy", "forces")

    def write_input(self, atoms, properties=None, system_changes=None):
        super().write_input(atoms, properties, system_changes)
        atoms.write(Path(self.directory) / "xtb.xyz", format="xyz", fmt="%20.14f")
        charge = round(atoms.get_initial_charges().sum())
        (Path(self.directory) / ".CHRG").write_text(f"{charge}\n")

    def read_results(self):
        self.results = read(Path(self.directory) / "gradient", format="turbomole-gradient").calc.results


def xtb():
    return XTB(label="xtb", command=os.environ.get("ASE_XTB_COMMAND", "xtb xtb.xyz --gfn 2 --grad > xtb.out"))
