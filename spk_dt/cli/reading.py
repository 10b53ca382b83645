"""Options of the commands that read trajectories of other programs: what a file does not say is stated by them."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Charge",
    "DropIncomplete",
    "EnergyKey",
    "Fixed",
    "ForcesKey",
    "LammpsElements",
    "LammpsLog",
    "LammpsUnits",
    "Masses",
    "RecoverVelocities",
    "SaveEvery",
    "Spin",
    "TimestepFs",
    "Units",
    "VelocitiesKey",
    "VelocityUnit",
]

TimestepFs = Annotated[float | None, typer.Option(help="Time step of the simulation, where the files do not say it.")]
SaveEvery = Annotated[
    int | None, typer.Option(metavar="N", help="Only every Nth step is in the files, where they do not say it.")
]
RecoverVelocities = Annotated[
    bool, typer.Option("--recover-velocities", help="Velocities from positions, even if the files have them.")
]
DropIncomplete = Annotated[
    bool, typer.Option("--drop-incomplete", help="Leave out the last frame of a file that ends within it.")
]
EnergyKey = Annotated[str | None, typer.Option(help="extxyz: name of the energy (eV).")]
ForcesKey = Annotated[str | None, typer.Option(help="extxyz: name of the forces (eV/Å).")]
VelocitiesKey = Annotated[str | None, typer.Option(help="extxyz: name of the velocities.")]
VelocityUnit = Annotated[
    str | None, typer.Option(help="extxyz: their unit: Ang/fs, Ang/ps, nm/ps, m/s, Bohr/aut or ASE.")
]
LammpsLog = Annotated[
    list[Path] | None, typer.Option(help="LAMMPS: log with energies; one for each dump, in their order.")
]
LammpsUnits = Annotated[str | None, typer.Option(help="LAMMPS: metal or real, where neither dump nor log says it.")]
LammpsElements = Annotated[
    str | None, typer.Option(metavar="El,El...", help="LAMMPS: elements of the types 1, 2, ..., as Si,O.")
]
Fixed = Annotated[
    str | None,
    typer.Option(
        metavar="ATOMS",
        help="Atoms that the simulation held fixed, where the files do not say so: 0-35,40 (counted from 0), 0-35:z, "
        "'z<3.5' (Å, first frame), or none.",
    ),
]
Units = Annotated[
    str | None,
    typer.Option(
        metavar="NAME=UNIT,...",
        help="Units of numbers that the files, or the database, have in others than their format says: positions (and "
        "cell), energy, forces, velocities, stress, dipole; a name as Bohr, Hartree/Bohr, kcal/mol, Bohr/aut, a number "
        "to multiply with, or a minus in front to change the sign.",
    ),
]
Masses = Annotated[
    str | None,
    typer.Option(
        metavar="El=M,...", help="Masses of the simulation, Dalton: by element H=2.014, or atom 4=2.014,8-11=18."
    ),
]
Charge = Annotated[int | None, typer.Option(help="Total charge of all inputs, e, where the files do not say it.")]
Spin = Annotated[int | None, typer.Option(min=1, help="Spin multiplicity 2S + 1 of all inputs, likewise.")]
