"""Output of simulation programs, written from frames as the programs write it: units, order and headers are theirs."""

from collections.abc import Callable, Sequence
from pathlib import Path

import ase.units
import numpy as np
from ase import Atoms

BOHR, HARTREE, AUT_FS = 0.529177210903, 27.211386245988, 0.02418884326585747
STEP_FS = 0.5


def _rows(table: np.ndarray, form: str = "%20.12f") -> list[str]:
    return ["".join(form % value for value in row) for row in np.atleast_2d(table)]


def _per_fs(atoms: Atoms) -> np.ndarray:
    """Velocities in Å/fs."""
    return atoms.get_velocities() * ase.units.fs


def write_pwmat(path: Path, frames: Sequence[Atoms]) -> Path:
    text = []
    for k, a in enumerate(frames):
        e, kin = a.get_potential_energy(), a.get_kinetic_energy()
        text.append(
            f"  {len(a)} atoms,Iteration (fs) = {k * STEP_FS + STEP_FS:.10E}, Etot,Ep,Ek (eV) = {e + kin:.12E}  {e:.12E}   "
            f"{kin:.10E}, SCF =    19"
        )
        text += ["     MD_INFO: METHOD(1-VV,2-NH) TIME(fs) TEMP(K)", "              1    0.1E+01   0.3E+03"]
        text += [" Lattice vector (Angstrom)", *_rows(a.cell.array)]
        for title, table, tail in (
            (" Position (normalized), move_x, move_y, move_z", a.get_scaled_positions(wrap=False), "     1  1  1"),
            (" Force (eV/Angstrom)", -a.get_forces(), ""),
            (" Velocity (bohr/fs)", _per_fs(a) / BOHR, ""),
        ):
            text.append(title)
            text += [f"{z:4d}{row}{tail}" for z, row in zip(a.numbers, _rows(table), strict=True)]
        text.append(" ---------------------------------------------")
    path.write_text("\n".join(text) + "\n")
    return path


def write_abacus(path: Path, frames: Sequence[Atoms], modern: bool = True, stride: int = 2) -> Path:
    log, text = ["ABACUS v3.2"], []
    if not modern:
        log.append(f" final etot is {frames[0].get_potential_energy():.12f} eV")
    for step in range((len(frames) - 1) * stride + 1):
        a = frames[step // stride]
        energy = a.get_potential_energy() + (7.0 if step % stride else 0.0)
        if modern:
            log += [f" STEP OF MOLECULAR DYNAMICS : {step}", f" final etot is {energy:.12f} eV"]
        elif step > 0:
            log += [f" STEP OF MOLECULAR DYNAMICS : {step}"] if step % stride == 1 else []
            log.append(f" final etot is {energy:.12f} eV")
    for k, a in enumerate(frames):
        length = 3.0 if modern else 3.0 * BOHR
        text += [f"MDSTEP:  {k * stride}", f"LATTICE_CONSTANT: 3.000000000000{' Angstrom' if modern else ''}"]
        text += ["LATTICE_VECTORS", *_rows(a.cell.array / length), "VIRIAL (kbar)", *["  0.0  0.0  0.0"] * 3]
        tail = "    VELOCITY (Angstrom/fs)" if modern else ""
        text.append(f"INDEX    LABEL    POSITION (Angstrom)    FORCE (eV/Angstrom){tail}")
        tables = [a.positions if modern else a.positions / length, a.get_forces()] + ([_per_fs(a)] if modern else [])
        rows = _rows(np.hstack(tables), "  %.12f")
        text += [f"  {i}  {symbol}{row}" for i, (symbol, row) in enumerate(zip(a.symbols, rows, strict=True))] + [
            "",
            "",
        ]
    path.write_text("\n".join(text) + "\n")
    path.with_name("running_md.log").write_text("\n".join(log) + "\n")
    return path


def write_openmx(path: Path, frames: Sequence[Atoms]) -> Path:
    text = []
    for k, a in enumerate(frames):
        cell = " ".join(f"{x:.10f}" for x in a.cell.array.ravel())
        text += [
            f"{len(a)} ",
            f"   time= {k * STEP_FS:.3f} (fs)  Energy= {a.get_potential_energy() / HARTREE:.12f} (Hartree) ",
        ]
        text[-1] += f"Temperature= 300.000 (Given Temp.= 300.000) Cell_Vectors= {cell}  scf_conv=1"
        table = np.hstack([a.positions, a.get_forces() * BOHR / HARTREE, 1e5 * _per_fs(a) + 40.0])
        text += [f"  {symbol}{row} 0.0 0.0" for symbol, row in zip(a.symbols, _rows(table, " %.12f"), strict=True)]
    path.write_text("\n".join(text) + "\n")
    return path


def write_siesta(path: Path, frames: Sequence[Atoms]) -> Path:
    kinds = sorted(set(frames[0].symbols))
    text = ["Siesta Version  : v4.1", "  *  WELCOME TO SIESTA  *"]
    numbers = {symbol: frames[0].numbers[list(frames[0].symbols).index(symbol)] for symbol in kinds}
    text += [
        f" Species number: {i + 1} Atomic number: {numbers[symbol]} Label: {symbol}" for i, symbol in enumerate(kinds)
    ]
    text.append(f"redata: Length of MD time step           =     {STEP_FS:.4f}  fs")
    for k, a in enumerate(frames):
        text += [
            f"                            Begin MD step =      {k + 1}",
            "outcoor: Atomic coordinates (Ang):      ",
        ]
        text += [
            f"{row}   {kinds.index(symbol) + 1}  {i + 1}  {symbol}"
            for i, (symbol, row) in enumerate(zip(a.symbols, _rows(a.positions), strict=True))
        ]
        text += ["superc: Internal auxiliary supercell", "outcell: Unit cell vectors (Ang):", *_rows(a.cell.array)]
        text += ["siesta: iscf   Eharris(eV)      E_KS(eV)", f"siesta: E_KS(eV) =   {a.get_potential_energy():.10f}"]
        text += ["siesta: Atomic forces (eV/Ang):"]
        text += [f"{i + 1:6d}{row}" for i, row in enumerate(_rows(a.get_forces()))]
        text += ["----------------------------------------", "   Tot   -0.000010   -0.000009    0.000002"]
    path.write_text("\n".join(text) + "\n")
    return path


def write_castep(path: Path, frames: Sequence[Atoms]) -> Path:
    text = [" BEGIN header", "  ", " END header", "  "]
    for k, a in enumerate(frames):
        energy = a.get_potential_energy() / HARTREE
        text += [f"   {k * STEP_FS / AUT_FS:.16E}", f"   {energy:.16E} {energy + 1:.16E} {0.1:.16E}  <-- E"]
        text += [f"{row}  <-- h" for row in _rows(a.cell.array / BOHR)]
        for mark, table in (
            ("R", a.positions / BOHR),
            ("V", _per_fs(a) / BOHR * AUT_FS),
            ("F", a.get_forces() * BOHR / HARTREE),
        ):
            rows = zip(a.symbols, _rows(table, "  %.16E"), strict=True)
            text += [f" {symbol:6s}{i + 1:8d}{row}  <-- {mark}" for i, (symbol, row) in enumerate(rows)]
        text.append("  ")
    path.write_text("\n".join(text) + "\n")
    return path


def write_aims(path: Path, frames: Sequence[Atoms]) -> Path:
    text = [
        "          Invoking FHI-aims ...",
        f"  Molecular dynamics time step = {STEP_FS / 1000:.6f} ps",
        "  | Unit cell:",
    ]
    text += [f"  |{row}" for row in _rows(frames[0].cell.array)]
    for k, a in enumerate(frames):
        energy = a.get_potential_energy()
        text += [f"  | Total energy uncorrected      :   {energy + 1:.15E} eV"]
        text += [f"  | Electronic free energy        :   {energy:.15E} eV"]
        text += ["  Total atomic forces (unitary forces cleaned) [eV/Ang]:"]
        text += [f"  |{i + 1:4d} {row}" for i, row in enumerate(_rows(a.get_forces(), " %.15E"))] + [""]
        text += [f"  | Simulation time           :   {k * STEP_FS / 1000:.15E} ps", "-" * 60]
        text += [
            "  Atomic structure (and velocities) as used in the preceding time step:",
            "    x [A]   y [A]   z [A]  Atom",
        ]
        for symbol, row, speed in zip(a.symbols, _rows(a.positions), _rows(1000 * _per_fs(a)), strict=True):
            text += [f"   atom       {row}  {symbol}", f"     velocity {speed}"]
        text.append("-" * 60)
    path.write_text("\n".join(text) + "\n")
    return path


def write_pwscf(path: Path, frames: Sequence[Atoms]) -> Path:
    a, alat = frames[0], 10.0
    length = alat * BOHR
    text = ["     Program PWSCF v.6.7 starts on  1Jan2024", ""]
    text += [
        f"     lattice parameter (alat)  =      {alat:.4f}  a.u.",
        f"     number of atoms/cell      =     {len(a)}",
    ]
    text += [
        f"     number of atomic types    =     {len(set(a.symbols))}",
        f"     celldm(1)=  {alat:.6f}  celldm(2)=   0.000000",
    ]
    text += ["     crystal axes: (cart. coord. in units of alat)"]
    text += [f"               a({i + 1}) = ({row} )" for i, row in enumerate(_rows(a.cell.array / length))]
    text += ["", "     atomic species   valence    mass     pseudopotential"]
    masses = dict(zip(a.symbols, a.get_masses(), strict=True))
    text += [
        f"        {symbol:2s}           4.00    {mass:9.5f}     {symbol}( 1.00)" for symbol, mass in masses.items()
    ]
    text += ["", "   Cartesian axes", "", "     site n.     atom                  positions (alat units)"]
    rows = zip(a.symbols, _rows(a.positions / length), strict=True)
    text += [f"   {i + 1}        {symbol:2s}  tau(   {i + 1}) = ({row}  )" for i, (symbol, row) in enumerate(rows)]
    text += ["", "     number of k points=     1", "                       cart. coord. in units 2pi/alat"]
    text += ["        k(    1) = (   0.0000000   0.0000000   0.0000000), wk =   2.0000000", ""]
    for k, a in enumerate(frames):
        if k > 0:
            text += ["", "ATOMIC_POSITIONS (angstrom)"]
            text += [f"{symbol:2s} {row}" for symbol, row in zip(a.symbols, _rows(a.positions), strict=True)] + [""]
        text += [f"!    total energy              = {a.get_potential_energy() / HARTREE * 2:.12f} Ry", ""]
        text += ["     Forces acting on atoms (cartesian axes, Ry/au):", ""]
        forces = _rows(a.get_forces() * BOHR / HARTREE * 2)
        text += [f"     atom    {i + 1} type  1   force = {row}" for i, row in enumerate(forces)] + [""]
        if k == 0:
            text += ["     Molecular Dynamics Calculation"]
            text += [f"     Time step             =    {STEP_FS / AUT_FS / 2:.4f} a.u.,  {STEP_FS:.4f} femto-seconds"]
        text += ["", f"     Entering Dynamics:    iteration =     {k + 1}"]
    path.write_text("\n".join(text) + "\n")
    return path


def write_qbox(path: Path, frames: Sequence[Atoms]) -> Path:
    text = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<fpmd:simulation xmlns:fpmd="http://www.quantum-simulation.org">',
    ]
    text += ["  <release> 1.63.2 x </release>"]
    for symbol, mass in dict(zip(frames[0].symbols, frames[0].get_masses(), strict=True)).items():
        number = int(frames[0].numbers[list(frames[0].symbols).index(symbol)])
        text += [
            f'<species name="s{symbol}">',
            f"<symbol>{symbol}</symbol>",
            f"<atomic_number>{number}</atomic_number>",
        ]
        text += [f"<mass>{mass}</mass>", "</species>"]
    text += [f"[qbox] <cmd>set dt {STEP_FS / AUT_FS}</cmd>", "[qbox] <cmd>run 5 5</cmd>"]
    for k, a in enumerate(frames):
        vectors = " ".join(f'{n}="{row}"' for n, row in zip("abc", _rows(a.cell.array / BOHR), strict=True))
        text += [f'<iteration count="{k + 1}">', f"<etotal>  {a.get_potential_energy() / HARTREE:.12f} </etotal>"]
        text += ["<atomset>", f"<unit_cell {vectors} />"]
        tables = [a.positions / BOHR, _per_fs(a) / BOHR * AUT_FS, a.get_forces() * BOHR / HARTREE]
        for symbol, x, v, f in zip(a.symbols, *map(_rows, tables), strict=True):
            text += [
                f'<atom name="{symbol}" species="s{symbol}">',
                f"<position>{x}</position>",
                f"<velocity>{v}</velocity>",
            ]
            text += [f"<force>{f}</force>", "</atom>"]
        text += ["</atomset>", "</iteration>"]
    path.write_text("\n".join([*text, "</fpmd:simulation>"]) + "\n")
    return path


def write_gaussian(path: Path, frames: Sequence[Atoms]) -> Path:
    text = [
        " Entering Gaussian System, Link 0=g16",
        " Gaussian 16:  ES64L-G16RevA.03 25-Dec-2016",
        " ------",
        " # admp b3lyp",
        " ------",
        "",
    ]
    text += [" Time Step                    =  0.50000 femtosec."]
    for k, a in enumerate(frames):
        text += ["                          Input orientation:                          ", " " + "-" * 69]
        text += [
            " Center     Atomic      Atomic             Coordinates (Angstroms)",
            " Number     Number       Type  X  Y  Z",
        ]
        text += [" " + "-" * 69]
        atoms = enumerate(zip(a.numbers, _rows(a.positions, " %.10f"), strict=True))
        text += [f" {i + 1:6d} {z:10d}           0    {row}" for i, (z, row) in atoms] + [" " + "-" * 69]
        text += [
            f" SCF Done:  E(RB3LYP) =  {a.get_potential_energy() / HARTREE:.12f}     A.U. after   10 cycles",
            " " + "-" * 67,
        ]
        text += [
            " Center     Atomic                   Forces (Hartrees/Bohr)",
            " Number     Number              X   Y   Z",
            " " + "-" * 67,
        ]
        atoms = enumerate(zip(a.numbers, _rows(a.get_forces() * BOHR / HARTREE, " %.12f"), strict=True))
        text += [f" {i + 1:6d} {z:8d}     {row}" for i, (z, row) in atoms] + [" " + "-" * 67]
        text += [f" Summary information for step      {k}", f" Time (fs)     {k * STEP_FS:.6f}"]
    path.write_text("\n".join(text) + "\n Normal termination of Gaussian 16 at Thu Jan  1 00:00:00 2026.\n")
    return path


#: name of the format -> name of the file, what writes it, whether it gives the time step, and velocities
Writer = Callable[[Path, Sequence[Atoms]], Path]
PROGRAMS: dict[str, tuple[str, Writer, bool, bool]] = {
    "PWmat": ("MOVEMENT", write_pwmat, True, True),
    "ABACUS": ("MD_dump", write_abacus, False, True),
    "OpenMX": ("run.md", write_openmx, True, False),
    "SIESTA": ("run.out", write_siesta, True, False),
    "CASTEP": ("run.md", write_castep, True, True),
    "FHI-aims": ("aims.out", write_aims, True, True),
    "Quantum ESPRESSO": ("pw.out", write_pwscf, True, False),
    "Qbox": ("run.r", write_qbox, True, False),
    "Gaussian": ("run.log", write_gaussian, True, False),
}
