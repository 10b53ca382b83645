"""Files that are not read: what they lack, which file of the same program has it, and how to bring it here.

Each way out is a sentence and, where the program has forces of every frame, a script of a few lines, which the message
prints. The tests run every script on files in the program's format.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from spk_dt.trajectories.readers.compressed import damage, plain_name
from spk_dt.trajectories.readers.text import beginning, wide_encoding

__all__ = ["WAYS_OUT", "WayOut", "not_recognised", "plain_xyz"]

_TABLE = """import re, numpy as np; from spk_dt import write_extxyz
symbols = ["O", "H", "H"]  # those of the run, in its order
rows = lambda file, head: [l.split()[-3:] for i, l in enumerate(open(file)) if i % (len(symbols) + head) >= head]
read = lambda file, head: np.array(rows(file, head), float).reshape(-1, len(symbols), 3)  # head: lines before the atoms
"""


@dataclass(frozen=True)
class WayOut:
    """A format that is not read.

    Args:
        name: program and files, for the table in docs/formats.md.
        suffixes: ends of names, in lower case; or whole names.
        says: regular expression that the first lines match; either is enough.
        lacks: what is wrong with the file.
        remedy: what has forces of every frame.
        script: lines that bring it here.
    """

    name: str
    suffixes: tuple[str, ...]
    says: str | None
    lacks: str
    remedy: str
    script: str = ""

    def fits(self, path: Path, lines: list[str]) -> bool:
        """Whether a file, of which the first lines are given, is of this format."""
        name = plain_name(path).name.lower()
        by_name = any(name.endswith(suffix) if suffix.startswith(".") else name == suffix for suffix in self.suffixes)
        return by_name or (self.says is not None and re.search(self.says, "".join(lines)) is not None)

    def message(self, path: Path) -> str:
        """What is said of a file."""
        return f"'{path}' {self.lacks} {self.remedy}" + (f"\n{self.script}" if self.script else "")


_ORCA = WayOut(
    "ORCA, `*_md.xyz`",
    (),
    r"ORCA AIMD (?:Position|Velocity|Force)",
    "is of a simulation by ORCA, which writes positions, velocities and forces to files of their own: a file of positions "
    "has no forces.",
    "Let %md write all of them in each step: Dump Position Stride 1 Filename 'pos.xyz'; Dump Velocity Stride 1 "
    "Filename 'vel.xyz'; Dump Force Stride 1 Filename 'frc.xyz'; then (energies are those of the force file):",
    _TABLE
    + """energies = [float(e) for e in re.findall(r"E_Pot=(\\S+)", open("frc.xyz").read())]
write_extxyz("run.extxyz", symbols, read("pos.xyz", 2), read("frc.xyz", 2), energies, read("vel.xyz", 2),
             energy="Hartree")""",
)
_DFTB = WayOut(
    "DFTB+, `geo_end.xyz`",
    ("geo_end.gen", "detailed.out", "results.tag"),
    r"MD iter:",
    "is of DFTB+, which keeps forces of the last step only: the file has no forces.",
    "Let DFTB+ compute them for the geometries of a run with MDRestartFrequency = 1, with the same settings "
    "(velocities are recovered from the positions):",
    """from ase.io import iread, Trajectory; from ase.calculators.dftb import Dftb
with Trajectory("run.traj", "w") as out:
    for atoms in iread("geo_end.xyz", format="xyz"):
        atoms.calc = Dftb(Hamiltonian_SCC="Yes"); atoms.get_forces(); out.write(atoms)""",
)
_PLAIN = WayOut(
    "plain XYZ",
    (),
    None,
    "is plain XYZ: it has no forces, and no energies that are known as such.",
    "Convert the output of the program that made it, or, if there are files of forces and energies beside it, write "
    "extended XYZ (here Å, eV and eV/Å; length=, energy= and velocity= say other units):",
    _TABLE
    + """energies = np.loadtxt("energies.txt")
write_extxyz("run.extxyz", symbols, read("positions.xyz", 2), read("forces.xyz", 2), energies, energy="eV")""",
)

#: all formats that are not read, most specific first
WAYS_OUT: tuple[WayOut, ...] = (
    _ORCA,
    _DFTB,
    WayOut(
        "Quantum ESPRESSO, `cp.x` (`.pos`, `.for`, `.vel`, `.evp`)",
        (".pos", ".for", ".vel", ".evp"),
        None,
        "is of cp.x, which writes positions, forces, velocities and energies to files of their own.",
        "All have the frames of the same steps (iprint); in atomic units, with the cell of the input (or of .cel):",
        _TABLE
        + """energies = np.loadtxt("cp.evp")[:, 5]
write_extxyz("run.extxyz", symbols, read("cp.pos", 1), read("cp.for", 1), energies, read("cp.vel", 1),
             cell=[20, 20, 20], length="Bohr", energy="Hartree", velocity="Bohr/aut")""",
    ),
    WayOut(
        "CPMD, `TRAJECTORY`, `FTRAJECTORY`",
        ("trajectory", "ftrajectory", "energies", "trajec.xyz"),
        None,
        "is of CPMD, whose FTRAJECTORY (TRAJECTORY FORCES) has positions, velocities and forces, and ENERGIES the "
        "energies.",
        "In atomic units, elements in the order of GEOMETRY.xyz, with the cell of the input:",
        """import numpy as np; from spk_dt import write_extxyz
symbols, e = ["O", "H", "H"], dict(np.loadtxt("ENERGIES", comments="<", usecols=(0, 3)))
t = np.loadtxt("FTRAJECTORY", comments="<").reshape(-1, len(symbols), 10)
write_extxyz("run.extxyz", symbols, t[..., 1:4], t[..., 7:], [e[i] for i in t[:, 0, 0]], t[..., 4:7],
             cell=[20, 20, 20], length="Bohr", energy="Hartree", velocity="Bohr/aut")""",
    ),
    WayOut(
        "NWChem, output",
        (".nwo",),
        r"Northwest Computational Chemistry Package|NWChem",
        "is an output of NWChem, which prints positions and gradients of each step in atomic units.",
        "The forces are minus the gradients:",
        """import re, numpy as np; from spk_dt import write_extxyz
text = open("run.nwo").read(); rows = re.findall(r"^ +\\d+ +([A-Z][a-z]?)((?: +-?\\d+\\.\\d{6}){6})$", text, re.M)
n = 3; t = np.array([row[1].split() for row in rows], float).reshape(-1, n, 6)  # n atoms
energies = [float(e) for e in re.findall(r"Total (?:DFT|SCF) energy *= *(\\S+)", text)]
write_extxyz("run.extxyz", [row[0] for row in rows[:n]], t[..., :3], -t[..., 3:], energies[-len(t):],
             length="Bohr", energy="Hartree")""",
    ),
    WayOut(
        "ORCA, output, `.engrad`",
        (".engrad",),
        r"\* O   R   C   A \*|# The current gradient in Eh/bohr",
        "is an output of ORCA, which has no forces of a molecular dynamics simulation.",
        _ORCA.remedy,
        _ORCA.script,
    ),
    WayOut(
        "GROMACS, `.trr`, `.xtc`, `.gro`, `.edr`, `.tpr`",
        (".trr", ".xtc", ".tpr", ".gro", ".edr"),
        None,
        "is of GROMACS, whose forces and velocities are in the .trr (nstfout, nstvout, nstxout; an .xtc has no "
        "forces) and energies in the .edr (nstenergy, the same).",
        "Write them as text: gmx traj -s md.tpr -f md.trr -fp -ox x.xvg -ov v.xvg -of f.xvg; gmx energy -f md.edr -o "
        "e.xvg (Potential); then, with the elements of the .gro and the box in nm:",
        """import numpy as np; from spk_dt import write_extxyz
symbols = ["O", "H", "H"]; read = lambda file: np.loadtxt(file, comments=("#", "@"))[:, 1:]
x, v, f = (read(file).reshape(-1, len(symbols), 3) for file in ("x.xvg", "v.xvg", "f.xvg"))
write_extxyz("run.extxyz", symbols, x, f, read("e.xvg")[:, 0], v, cell=[2, 2, 2],
             length="nm", energy="kJ/mol", velocity="nm/ps")""",
    ),
    WayOut(
        "Amber, `.nc`, `.mdcrd`, `.mdfrc`, `.mdout`",
        (".nc", ".mdcrd", ".crd", ".mdfrc", ".mdvel", ".mden", ".mdout", ".parm7", ".prmtop"),
        r"Amber \d+ (?:SANDER|PMEMD)",
        "is of Amber, whose NetCDF files have forces in a file of their own (ntwf = ntwx, ioutfm = 1) and whose "
        "output has the energies.",
        "In Å and kcal/mol (ntpr = ntwx; elements in the order of the topology):",
        """import re, numpy as np; from scipy.io import netcdf_file; from spk_dt import write_extxyz
x, f = (netcdf_file(n, mmap=False).variables for n in ("md.nc", "md.mdfrc")); symbols = ["O", "H", "H"]
e = np.array(re.findall(r"EPtot *= *(\\S+)", open("md.out").read().split("A V E R A G E S")[0]), float)
write_extxyz("run.extxyz", symbols, x["coordinates"][:], f["forces"][:], e[-len(x["time"][:]):],
             cell=x["cell_lengths"][:], energy="kcal/mol")""",
    ),
    WayOut(
        "SIESTA, `.ANI`, `.FA`, `.MDE`, `.XV`",
        (".ani", ".fa", ".md_car", ".mde", ".xv"),
        None,
        "is of SIESTA; it has no forces of all frames.",
        "Convert the output of the run instead; it has them with WriteCoorStep T and WriteForces T.",
    ),
    WayOut(
        "CASTEP, `.geom`, `.castep`, `.cell`",
        (".geom", ".castep", ".ts"),
        None,
        "is of CASTEP, and not the trajectory of a molecular dynamics simulation.",
        "That is the .md file of the run, which is read.",
    ),
    WayOut(
        "ABACUS, `running_md.log`, `STRU`",
        ("running_md.log", "running_scf.log", "stru"),
        r"Atomic-orbital Based Ab-initio Computation",
        "is of ABACUS and has no forces of all frames.",
        "Convert MD_dump beside it, which is read with running_md.log (dump_force 1, cal_force 1).",
    ),
    WayOut(
        "VASP, `XDATCAR`",
        ("xdatcar",),
        None,
        "is an XDATCAR: it has no forces and energies.",
        "Convert the vasprun.xml, or the OUTCAR, of the same run.",
    ),
    WayOut(
        "LAMMPS, binary, DCD and H5MD dumps",
        (".dcd", ".h5md", ".dump", ".lammpstrj", ".bin"),
        None,
        "is not a text dump of LAMMPS (a DCD file has no forces).",
        "Of LAMMPS, dumps in text form are read: dump 1 all custom 1 md.dump id element x y z vx vy vz fx fy fz",
    ),
    WayOut(
        "PDB, CIF, POSCAR, `.gen`, `.mol`, `.sdf`, `.xsf`",
        (".pdb", ".cif", ".gen", ".mol", ".sdf", ".mol2", ".xsf", ".axsf", ".cell", "poscar", "contcar"),
        None,
        "has positions only: it has no forces.",
        "Convert the output of the program that made the simulation.",
    ),
)


def plain_xyz(path: Path) -> ValueError:
    """Why an XYZ file without ``Properties=`` is refused."""
    lines = beginning(path)
    return ValueError(next((one for one in (_ORCA, _DFTB) if one.fits(path, lines)), _PLAIN).message(path))


def not_recognised(path: Path) -> ValueError:
    """Why a file is refused, and what to do instead."""
    damaged = damage(path) if path.is_file() else None
    if damaged is not None:
        return damaged
    encoding = wide_encoding(path) if path.is_file() else None
    if encoding is not None:
        return ValueError(
            f"'{path}' is text in {encoding}, as some editors write it. Write it in UTF-8 first: iconv -f {encoding} "
            f"-t UTF-8 {path.name} > utf8_{path.name}"
        )
    lines = beginning(path, 200) if path.is_file() else []
    one = next((one for one in WAYS_OUT if one.fits(path, lines)), None)
    if one is not None:
        return ValueError(one.message(path))
    return ValueError(
        f"the format of '{path}' is not known. Known are those of the table in the documentation of spk_dt "
        "(docs/formats.md). With arrays of positions, forces and energies, write extended XYZ from Python: "
        "from spk_dt import write_extxyz; help(write_extxyz)"
    )
