"""Writers of formats that ASE reads but does not write, from their descriptions; frames changed, and frames judged."""

from collections.abc import Callable, Sequence
from pathlib import Path

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from spk_dt.trajectories.verlet_residual import verlet_residual

KCAL_PER_MOL = ase.units.kcal / ase.units.mol


def changed(frames: Sequence[Atoms], change: Callable[[Atoms], object]) -> list[Atoms]:
    """Copies of frames, changed by a function, with their results as they were."""
    out = []
    for atoms in frames:
        copy = atoms.copy()
        change(copy)
        copy.calc = SinglePointCalculator(copy, **atoms.calc.results)
        out.append(copy)
    return out


def verlet_miss(frames: Sequence[Atoms], timestep_fs: float = 0.5) -> float:
    """Largest miss of the positions from velocity Verlet, in Å."""
    x, v, f = (np.array([getattr(a, f"get_{key}")() for a in frames]) for key in ("positions", "velocities", "forces"))
    first, step = frames[0], timestep_fs * ase.units.fs
    return np.abs(verlet_residual(x, v, f, first.get_masses(), step, first.cell.array, first.pbc)[0]).max()


def species(atoms: Atoms) -> list[str]:
    return list(dict.fromkeys(atoms.get_chemical_symbols()))


def masses_of(atoms: Atoms) -> list[float]:
    symbols = atoms.get_chemical_symbols()
    return [float(atoms.get_masses()[symbols.index(symbol)]) for symbol in species(atoms)]


def _varray(name: str, rows: np.ndarray, indent: str) -> str:
    lines = "".join(f"{indent} <v> {x:15.8f} {y:15.8f} {z:15.8f} </v>\n" for x, y, z in rows)
    return f'{indent}<varray name="{name}" >\n{lines}{indent}</varray>\n'


def write_vasprun(
    path: Path, frames: Sequence[Atoms], potim: float = 0.5, ibrion: int = 0, pstress: float = 0.0
) -> Path:
    """A vasprun.xml of VASP: https://www.vasp.at/wiki/index.php/Vasprun.xml"""
    first = frames[0]
    kinds = species(first)
    text = [
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n <generator>\n'
        '  <i name="program" type="string">vasp </i>\n  <i name="version" type="string">6.4.2  </i>\n </generator>\n'
        f' <incar>\n  <i type="int" name="IBRION">{ibrion:6d}</i>\n  <i name="POTIM">{potim:16.8f}</i>\n </incar>\n'
        ' <kpoints>\n  <varray name="kpointlist" >\n   <v> 0.0 0.0 0.0 </v>\n  </varray>\n'
        '  <varray name="weights" >\n   <v> 1.0 </v>\n  </varray>\n </kpoints>\n'
        ' <parameters>\n  <separator name="ionic" >\n'
        f'   <i type="int" name="NSW">{len(frames):6d}</i>\n   <i type="int" name="IBRION">{ibrion:6d}</i>\n'
        f'   <i name="POTIM">{potim:16.8f}</i>\n   <i name="PSTRESS">{pstress:16.8f}</i>\n'
        "  </separator>\n </parameters>\n"
        f" <atominfo>\n  <atoms>{len(first):6d} </atoms>\n  <types>{len(kinds):6d} </types>\n"
        '  <array name="atoms" >\n   <dimension dim="1">ion</dimension>\n   <field type="string">element</field>\n'
        '   <field type="int">atomtype</field>\n   <set>\n'
    ]
    for symbol in first.get_chemical_symbols():
        text.append(f"    <rc><c>{symbol:2s}</c><c>{kinds.index(symbol) + 1:4d}</c></rc>\n")
    text.append(
        '   </set>\n  </array>\n  <array name="atomtypes" >\n   <dimension dim="1">type</dimension>\n'
        '   <field type="int">atomspertype</field>\n   <field type="string">element</field>\n   <field>mass</field>\n'
        "   <set>\n"
    )
    for symbol, mass in zip(kinds, masses_of(first), strict=True):
        n = first.get_chemical_symbols().count(symbol)
        text.append(f"    <rc><c>{n:4d}</c><c>{symbol:2s}</c><c>{mass:16.8f}</c></rc>\n")
    text.append("   </set>\n  </array>\n </atominfo>\n")

    def structure(atoms: Atoms, name: str = "") -> str:
        scaled = np.linalg.solve(atoms.cell.array.T, atoms.positions.T).T % 1.0
        return (
            f" <structure{name}>\n  <crystal>\n{_varray('basis', atoms.cell.array, '   ')}  </crystal>\n"
            f"{_varray('positions', scaled, '  ')} </structure>\n"
        )

    text.append(structure(first, ' name="initialpos" '))
    for atoms in frames:
        energy = atoms.calc.results["energy"]
        enthalpy = energy + pstress * 0.1 * ase.units.GPa * atoms.get_volume()

        def block(value: float) -> str:
            return (
                f'<energy>\n <i name="e_fr_energy">{value:16.8f} </i>\n <i name="e_wo_entrp">{value + 0.1:16.8f} </i>\n'
                f' <i name="e_0_energy">{value + 0.05:16.8f} </i>\n</energy>\n'
            )

        text.append(f"<calculation>\n<scstep>\n{block(energy)}</scstep>\n{structure(atoms)}")
        text.append(_varray("forces", atoms.calc.results["forces"], "  ") + _varray("stress", np.eye(3), "  "))
        text.append(f"{block(enthalpy)}</calculation>\n")
    text.append(structure(frames[-1], ' name="finalpos" ') + "</modeling>\n")
    path.write_text("".join(text), encoding="latin-1")
    return path


def write_outcar(
    path: Path, frames: Sequence[Atoms], potim: float = 0.5, ibrion: int = 0, finished: bool = True
) -> Path:
    """An OUTCAR of VASP: https://www.vasp.at/wiki/index.php/OUTCAR"""
    first = frames[0]
    kinds = species(first)
    counts = [first.get_chemical_symbols().count(symbol) for symbol in kinds]
    text = [" vasp.6.4.2 20Jul23 (build Oct 2023) complex\n"]
    text += [f" POTCAR:    PAW_PBE {symbol} 05Jan2001\n" for symbol in kinds for _ in range(2)]
    for symbol, mass in zip(kinds, masses_of(first), strict=True):
        text.append(
            f"   VRHFIN ={symbol}: s1p1\n   TITEL  = PAW_PBE {symbol}_pv 05Jan2001\n"
            f"   POMASS = {mass:8.3f}; ZVAL   =   11.000    mass and valenz\n"
        )
    text.append(
        f"   NSW    = {len(frames):6d}    number of steps for IOM\n   IBRION = {ibrion:6d}    ionic relax: 0-MD\n"
        f"   POTIM  = {potim:.4f}    time-step for ionic-motion\n  Mass of Ions in am\n"
        f"   POMASS = {' '.join(f'{mass:6.2f}' for mass in masses_of(first))}\n"
        f"   ions per type =           {' '.join(f'{n:4d}' for n in counts)}\n"
        "  direct lattice vectors                 reciprocal lattice vectors\n\n"
    )
    reciprocal = np.linalg.inv(first.cell.array).T
    for number, atoms in enumerate(frames, start=1):
        energy = atoms.calc.results["energy"]
        text.append(f"----- Iteration {number:6d}(   1)  -----\n  Free energy of the ion-electron system (eV)\n")
        text.append("      direct lattice vectors                 reciprocal lattice vectors\n")
        text += [
            "  " + "".join(f"{value:13.9f}" for value in (*row, *other)) + "\n"
            for row, other in zip(atoms.cell.array, reciprocal, strict=True)
        ]
        text.append("\n POSITION                                       TOTAL-FORCE (eV/Angst)\n " + "-" * 83 + "\n")
        text += [
            "".join(f"{x:13.5f}" for x in position) + "    " + "".join(f"{f:14.6f}" for f in force) + "\n"
            for position, force in zip(atoms.positions, atoms.calc.results["forces"], strict=True)
        ]
        text.append(
            " " + "-" * 83 + "\n  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n  " + "-" * 51 + "\n"
            f"  free  energy   TOTEN  =    {energy:18.8f} eV\n\n"
            f"  energy  without entropy=   {energy + 0.1:18.8f}  energy(sigma->0) = {energy + 0.05:18.8f}\n"
        )
    if finished:
        text.append(" General timing and accounting informations for this job:\n ====\n")
    path.write_text("".join(text))
    return path


def write_dump(
    path: Path,
    frames: Sequence[Atoms],
    *,
    units: str = "metal",
    every: int = 1,
    columns: str = "id type element x y z vx vy vz fx fy fz",
    said: bool = False,
    timestep: float | None = None,
    seed: int = 0,
) -> Path:
    """A text dump of LAMMPS, atoms in random order: https://docs.lammps.org/dump.html"""
    energy, time = {"metal": (1.0, 1000.0), "real": (KCAL_PER_MOL, 1.0)}[units]
    rng = np.random.default_rng(seed)
    kinds = species(frames[0])
    text = [f"ITEM: UNITS\n{units}\n"] if said else []
    for number, atoms in enumerate(frames):
        (xx, _, _), (xy, yy, _), (xz, yz, zz) = atoms.cell.array if atoms.cell.rank == 3 else np.diag([50.0] * 3)
        origin = np.array([0.5, -1.0, 0.25])
        if timestep is not None:
            text.append(f"ITEM: TIME\n{number * every * timestep:.10g}\n")
        text.append(f"ITEM: TIMESTEP\n{number * every}\nITEM: NUMBER OF ATOMS\n{len(atoms)}\n")
        flags = " ".join("pp" if periodic else "ff" for periodic in atoms.pbc)
        text.append(f"ITEM: BOX BOUNDS xy xz yz {flags}\n")
        bounds = (
            (min(0.0, xy, xz, xy + xz), xx + max(0.0, xy, xz, xy + xz), xy),
            (min(0.0, yz), yy + max(0.0, yz), xz),
            (0.0, zz, yz),
        )
        text += [
            f"{low + shift:.16e} {high + shift:.16e} {tilt:.16e}\n"
            for (low, high, tilt), shift in zip(bounds, origin, strict=True)
        ]
        text.append(f"ITEM: ATOMS {columns}\n")
        velocities = atoms.get_velocities() * ase.units.fs * time
        forces = atoms.calc.results["forces"] / energy
        scaled = atoms.get_scaled_positions(wrap=False) if atoms.cell.rank == 3 else None
        for i in rng.permutation(len(atoms)):
            values = {"id": i + 1, "element": atoms.symbols[i], "type": kinds.index(atoms.symbols[i]) + 1}
            values["mass"] = f"{atoms.get_masses()[i]:.10g}"
            for k, axis in enumerate("xyz"):
                for name, value in (
                    (axis, atoms.positions[i, k] + origin[k]),
                    (f"{axis}u", atoms.positions[i, k] + origin[k]),
                    (f"v{axis}", velocities[i, k]),
                    (f"f{axis}", forces[i, k]),
                ):
                    values[name] = f"{value:.15g}"
                if scaled is not None:
                    values[f"{axis}s"] = f"{scaled[i, k]:.15g}"
            text.append(" ".join(str(values[name]) for name in columns.split()) + " \n")
    path.write_text("".join(text))
    return path


def write_log(
    path: Path,
    energies: Sequence[float],
    n_atoms: int,
    *,
    units: str | None = "metal",
    timestep: float | None = 0.0005,
    every: int = 1,
    header: str = "Step          Temp          PotEng         TotEng",
) -> Path:
    """A log.lammps with thermodynamic output: https://docs.lammps.org/thermo_style.html"""
    unit = {"metal": 1.0, "real": KCAL_PER_MOL, None: 1.0}[units]
    text = ["LAMMPS (2 Aug 2023)\n"]
    if units is not None:
        text.append(f"units           {units}\nthermo_style custom step temp pe etotal\n  Unit style    : {units}\n")
    if timestep is not None:
        text.append(f"timestep        {timestep}\n  Current step  : 0\n  Time step     : {timestep}\n")
    text.append(f"Per MPI rank memory allocation (min/avg/max) = 3.1 | 3.1 | 3.1 Mbytes\n   {header}\n")
    for number, energy in enumerate(energies):
        text.append(f"{number * every:10d}   300.0   {energy / unit:.12f}   {energy / unit + 1.0:.12f}\n")
        if number == 1:
            text.append("WARNING: a line between the lines (src/thermo.cpp:1)\n")
    text.append(f"Loop time of 0.1 on 1 procs for {len(energies)} steps with {n_atoms} atoms\n")
    path.write_text("".join(text))
    return path
