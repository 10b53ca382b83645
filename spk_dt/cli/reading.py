"""Options of the commands that read trajectories of other programs: what a file does not say is stated by them."""

import inspect
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from spk_dt.trajectories.inputs import Reading

__all__ = ["OfFiles", "OfFilesAndDatabases", "stating"]


class OfFiles:
    """Options of all commands that read files, in the order of their help; see `spk_dt.trajectories.inputs.Reading`."""

    timestep_fs: Annotated[
        float | None, typer.Option(help="Time step of the simulation, where the files do not say it.")
    ] = None
    save_every: Annotated[
        int | None, typer.Option(metavar="N", help="Only every Nth step is in the files, where they do not say it.")
    ] = None
    recover_velocities: Annotated[
        bool, typer.Option("--recover-velocities", help="Velocities from positions, even if the files have them.")
    ] = False
    drop_incomplete: Annotated[
        bool, typer.Option("--drop-incomplete", help="Leave out the last frame of a file that ends within it.")
    ] = False
    energy_key: Annotated[str | None, typer.Option(help="extxyz: name of the energy (eV).")] = None
    forces_key: Annotated[str | None, typer.Option(help="extxyz: name of the forces (eV/Å).")] = None
    velocities_key: Annotated[str | None, typer.Option(help="extxyz: name of the velocities.")] = None
    velocity_unit: Annotated[
        str | None, typer.Option(help="extxyz: their unit: Ang/fs, Ang/ps, nm/ps, m/s, Bohr/aut or ASE.")
    ] = None
    lammps_log: Annotated[
        list[Path] | None, typer.Option(help="LAMMPS: log with energies; one for each dump, in their order.")
    ] = None
    lammps_units: Annotated[
        str | None, typer.Option(help="LAMMPS: metal or real, where neither dump nor log says it.")
    ] = None
    lammps_elements: Annotated[
        str | None, typer.Option(metavar="El,El...", help="LAMMPS: elements of the types 1, 2, ..., as Si,O.")
    ] = None
    fixed: Annotated[
        str | None,
        typer.Option(
            metavar="ATOMS",
            help="Atoms that the simulation held fixed, where the files do not say so: 0-35,40 (counted from 0), 0-35:z, "
            "'z<3.5' (Å, first frame), or none.",
        ),
    ] = None
    units: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=UNIT,...",
            help="Units of numbers that the files, or the database, have in others than their format says: positions (and "
            "cell), energy, forces, velocities, stress, dipole; a name as Bohr, Hartree/Bohr, kcal/mol, Bohr/aut, a number "
            "to multiply with, or a minus in front to change the sign.",
        ),
    ] = None
    masses: Annotated[
        str | None,
        typer.Option(
            metavar="El=M,...", help="Masses of the simulation, Dalton: by element H=2.014, or atom 4=2.014,8-11=18."
        ),
    ] = None
    charge: Annotated[
        int | None, typer.Option(help="Total charge of all inputs, e, where the files do not say it.")
    ] = None
    spin: Annotated[int | None, typer.Option(min=1, help="Spin multiplicity 2S + 1 of all inputs, likewise.")] = None


class OfFilesAndDatabases(OfFiles):
    """Options of ``spkdt convert``, which also mends databases."""

    vasp_mlff: Annotated[
        bool, typer.Option("--vasp-mlff", help="VASP: frames of its machine-learned force field, not those ab initio.")
    ] = False
    keep_momenta: Annotated[
        bool | None,
        typer.Option(
            "--keep-momenta/--keep-velocities",
            help="With --masses: what stays as it is; without it, what the file has.",
        ),
    ] = None
    take: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Database: trajectories to take; without it, all.")
    ] = None
    cut: Annotated[
        str | None, typer.Option(metavar="K,...", help="Database: frames after which to cut the trajectory, from 0.")
    ] = None
    leave_out: Annotated[str | None, typer.Option(metavar="K,...", help="Database: frames to leave out, from 0.")] = (
        None
    )
    reverse: Annotated[bool, typer.Option("--reverse", help="Database: turn the order of the frames round.")] = False
    shift: Annotated[
        str | None,
        typer.Option(metavar="NAME=N", help="Database: forces, or energy, of each frame are found N frames behind it."),
    ] = None


def stating(options: type[OfFiles]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a command have options in place of its parameter `reading`, which tells what they state.

    Args:
        options: the options.
    """
    types = get_type_hints(options, include_extras=True)

    def with_options(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**given: Any) -> None:
            command(reading=_reading({name: given.pop(name) for name in types}), **given)

        signature = inspect.signature(command)
        parameters = [one for name, one in signature.parameters.items() if name != "reading"]
        parameters += [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=getattr(options, name), annotation=annotation
            )
            for name, annotation in types.items()
        ]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # typer asks for it
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return with_options


def _reading(stated: dict[str, Any]) -> "Reading":
    """What options state, from what is typed."""
    from spk_dt.trajectories.inputs import Reading
    from spk_dt.trajectories.stated import parse_indices, parse_masses, parse_shift, parse_units

    parse: dict[str, Callable[[str], Any]] = {
        "lammps_elements": lambda text: text.split(","),
        "take": lambda text: text.split(","),
        "units": parse_units,
        "masses": parse_masses,
        "shift": parse_shift,
        "cut": partial(parse_indices, option="--cut"),
        "leave_out": partial(parse_indices, option="--leave-out"),
    }
    for name in parse.keys() & stated.keys():
        stated[name] = None if stated[name] is None else parse[name](stated[name])
    return Reading(lammps_logs=stated.pop("lammps_log") or (), **stated)
