"""The frames of a slab as VASP and CP2K write them, as far as it is read."""

from ase.units import Bohr, Hartree


def poscar(path, atoms, flags):
    """With selective dynamics."""
    symbols = "Cu O", "12 1"
    rows = [
        f"{' '.join(f'{x:.10f}' for x in s)} {' '.join('FT'[int(f)] for f in row)}"
        for s, row in zip(atoms.get_scaled_positions(wrap=False), flags, strict=True)
    ]
    cell = [" ".join(f"{x:.10f}" for x in vector) for vector in atoms.cell.array]
    path.write_text("\n".join(["slab", "1.0", *cell, *symbols, "Selective dynamics", "Direct", *rows]) + "\n")


def outcar(path, frames):
    """As much of an OUTCAR as is read."""
    masses = frames[0].get_masses()[[0, -1]]
    lines = [
        " vasp.6.4.2 20Jul23 (build Aug 01 2023) complex",
        *(f"   TITEL  = PAW_PBE {s} 22Jun2005" for s in ("Cu", "O")),
        *(f"   POMASS = {m:8.3f}; ZVAL   =   11.000    mass and valenz" for m in masses),
        "   ions per type =              12   1",
        "   NSW    =      9    number of steps for IOM",
        "   IBRION =      0    ionic relax: 0-MD 1-quasi-New 2-CG",
        "   POTIM  = 1.0000    time-step for ionic-motion",
        " POMASS = " + "".join(f"{m:6.2f}" for m in masses),
    ]
    for i, atoms in enumerate(frames):
        lines += [f"---- Iteration {i + 1:6}(   1)  ----"]
        lines += ["      direct lattice vectors                 reciprocal lattice vectors"]
        lines += ["".join(f"{x:13.9f}" for x in [*v, 0.0, 0.0, 0.0]) for v in atoms.cell.array]
        lines += [" POSITION                                       TOTAL-FORCE (eV/Angst)", " " + 83 * "-"]
        forces = atoms.calc.results["forces"]
        lines += [
            "".join(f"{x:13.5f}" for x in r) + "  " + "".join(f"{x:14.6f}" for x in f)
            for r, f in zip(atoms.positions, forces, strict=True)
        ]
        energy = atoms.calc.results["energy"]
        lines += ["", "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)", "  " + 51 * "-"]
        lines += [f"  free  energy   TOTEN  = {energy:18.8f} eV", "", "", ""]
    path.write_text("\n".join([*lines, " General timing and accounting informations for this job:", ""]) + "\n")


def vasprun(path, frames, flags):
    """As much of a vasprun.xml as is read."""

    def varray(name, rows, kind="{:.10f}"):
        return (
            f"<varray name='{name}'>"
            + "".join("<v>" + " ".join(kind.format(x) for x in row) + "</v>" for row in rows)
            + "</varray>"
        )

    def structure(atoms, extra="", name=""):
        basis = varray("basis", atoms.cell.array)
        scaled = varray("positions", atoms.get_scaled_positions(wrap=False))
        return f"<structure{name}><crystal>{basis}</crystal>{scaled}{extra}</structure>"

    m = frames[0].get_masses()[[0, -1]]
    kinds = "".join(f"<rc><c>{n}</c><c>{s}</c><c>{x}</c></rc>" for n, s, x in zip((12, 1), ("Cu", "O"), m, strict=True))
    atoms = "".join(f"<rc><c>{a.symbol}</c><c>{1 + (a.symbol == 'O')}</c></rc>" for a in frames[0])
    selective = varray("selective", [["FT"[int(f)] for f in row] for row in flags], "{}")
    text = [
        "<?xml version='1.0' encoding='ISO-8859-1'?>\n<modeling>\n<incar><i name='IBRION'>0</i><i name='POTIM'>1.0</i>"
        "<i name='NSW'>9</i></incar>",
        f"<atominfo><array name='atoms'><set>{atoms}</set></array><array name='atomtypes'><set>{kinds}</set></array>"
        "</atominfo>",
        structure(frames[0], selective, " name='initialpos'"),
    ]
    for one in frames:
        forces = varray("forces", one.calc.results["forces"])
        energy = one.calc.results["energy"]
        text.append(
            f"<calculation>{structure(one)}{forces}<energy><i name='e_fr_energy'>{energy:.8f}</i></energy></calculation>"
        )
    path.write_text("\n".join([*text, structure(frames[-1], selective, " name='finalpos'"), "</modeling>"]) + "\n")


def cp2k(folder, frames, sections):
    """Positions, forces and input of a run of CP2K."""
    for kind, unit in (("pos", 1.0), ("frc", Bohr / Hartree)):
        text = ""
        for i, atoms in enumerate(frames):
            values = atoms.positions if kind == "pos" else atoms.calc.results["forces"] * unit
            text += f"{len(atoms)}\n i = {i}, time = {i:.3f}, E = {atoms.calc.results['energy'] / Hartree:.10f}\n"
            for symbol, row in zip(atoms.symbols, values, strict=True):
                text += f"{symbol} " + " ".join(f"{x:.10f}" for x in row) + "\n"
        (folder / f"slab-{kind}-1.xyz").write_text(text)
    vectors = "\n".join(
        f"{name} {' '.join(map(str, vector))}" for name, vector in zip("ABC", frames[0].cell.array, strict=True)
    )
    (folder / "slab.inp").write_text(
        f"&GLOBAL\n PROJECT slab\n&END\n&FORCE_EVAL\n&SUBSYS\n&CELL\n{vectors}\n&END CELL\n&END\n&END\n"
        f"&MOTION\n&CONSTRAINT\n{sections}&END CONSTRAINT\n&END MOTION\n"
    )
    return folder / "slab-pos-1.xyz"
