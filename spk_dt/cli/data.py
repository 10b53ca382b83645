"""Commands that read trajectories, check and look at them."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from spk_dt.cli.app import USER_ERRORS, app
from spk_dt.cli.progress import progress_bar
from spk_dt.cli.reading import OfFilesAndDatabases, stating

if TYPE_CHECKING:
    from spk_dt.trajectories.inputs import Reading


@app.command()
@stating(OfFilesAndDatabases)
def convert(
    inputs: Annotated[list[Path], typer.Argument(metavar="IN...", help="Files, or folders; one trajectory each.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.db", help="Database to create; nothing is overwritten.")],
    reading: "Reading",
) -> None:
    """Make a trajectory database from the files of a simulation with forces.

    Reads extended XYZ, .traj of ASE, VASP, CP2K, text dumps of LAMMPS, i-PI, MD17, HDF5 of SchNetPack's MD, dtegnn, and
    output of ABACUS, CASTEP, FHI-aims, Gaussian, OpenMX, pw.x, PWmat, Qbox and SIESTA; text files also packed with gzip,
    bzip2 or xz. Positions are unwrapped; velocities that are missing are recovered from the positions. If it is interrupted,
    the same command continues.

    A trajectory database is read, too: what spkdt check names as a remedy is an option here.
    """
    from spk_dt.trajectories.convert import convert as run

    try:
        with progress_bar() as progress:
            found = run(inputs, out, reading, progress)
    except KeyboardInterrupt:
        typer.echo(f"spkdt: interrupted; '{out}' is not there yet. The same command continues.", err=True)
        raise typer.Exit(130) from None
    rows = [("trajectory", "atoms", "frames", "time step / fs", "inner steps", "velocities")]
    for one in found[:20]:
        record = one.trajectory
        step = f"{record.timestep_fs:.6g}"
        rows.append((record.name, one.formula, str(record.length), step, str(record.inner_steps), record.velocities))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    if len(found) > 20:
        typer.echo(f"... and {len(found) - 20} more")
    notes = [(note, one.trajectory.name) for one in found for note in one.notes]
    for note in dict.fromkeys(note for note, _ in notes):
        names = [name for other, name in notes if other == note]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        typer.echo(f"note: {', '.join(names[:3])}{more}: {note}")
    n_frames = sum(one.trajectory.length for one in found)
    trajectories = "1 trajectory" if len(found) == 1 else f"{len(found)} trajectories"
    typer.echo(f"{out}: {trajectories}, {n_frames} frames. Next, see whether they are sound: spkdt check {out}")


@app.command()
def check(
    data: Annotated[Path, typer.Argument(metavar="DATA.db", help="Trajectory database.")],
    replay_kicks: Annotated[
        bool,
        typer.Option(
            "--replay-kicks",
            help="For training with data.replay_kicks=true, which replays random forces of thermostats: fine then.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="All numbers and findings as JSON, in place of a table.")
    ] = False,
) -> None:
    """See whether trajectories are what they say: time step, units, order of frames, thermostat, energies.

    One row for each trajectory, and below them what was found, with the remedy. The same is checked before training, which
    refuses what is refused here. Exit code 0: may be trained on, 1: refused, 2: could not be read.
    """
    import json
    import sqlite3

    from rich.console import Console
    from schnetpack.data import ASEAtomsData
    from schnetpack.data.atoms import AtomsDataError

    from spk_dt.data.load import load_frames
    from spk_dt.trajectories.checked_database import read_metadata
    from spk_dt.trajectories.diagnosis import diagnose
    from spk_dt.trajectories.diagnosis.printing import as_dict, overall, print_report

    try:
        if not data.is_file():
            raise FileNotFoundError(f"there is no trajectory database '{data}'.")
        read_metadata(data)  # refuses what is none
        dataset = ASEAtomsData(str(data))
        with progress_bar() as progress:
            loaded = load_frames(dataset, progress=lambda done: progress("reading", done, len(dataset)))
    except (*USER_ERRORS, AtomsDataError, sqlite3.Error) as error:
        where = "" if str(data) in str(error) else f"'{data}' is no trajectory database: "
        typer.echo(f"spkdt: {where}{error}", err=True)
        raise typer.Exit(2) from None
    number = len(loaded.trajectories)
    found = []
    with progress_bar() as progress:
        for trajectory in range(number):
            found.append(diagnose(loaded, trajectory, replay_kicks))
            progress("checking", trajectory + 1, number)
    made = dataset.metadata.get("simulation")
    if as_json:
        report = as_dict(found, str(data)) | ({} if made is None else {"simulation": made})
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        console = Console()
        print_report(found, str(data), console if console.is_terminal else Console(width=140))
        if isinstance(made, dict) and made.get("friction_per_fs") is not None:
            typer.echo(
                f"made with Langevin dynamics of {made['temperature_k']:g} K and friction {1e3 * made['friction_per_fs']:g} "
                "/ps; while atoms are colder than that, the friction that is measured is larger."
            )
    if overall(found) == "refused":
        raise typer.Exit(1)


@app.command()
def frames(
    out: Annotated[Path, typer.Argument(metavar="OUT.extxyz", help="File to write; .traj keeps all digits.")],
    data: Annotated[
        Path | None, typer.Option(metavar="DATA.db", help="Trajectory database; without it, the embedded data.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Partition to take trajectories from, of the data or of --run: test unless another is named; 'all' takes "
            "all."
        ),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Folder of a run of spktrain, whose partitions count.")
    ] = None,
    number: Annotated[int | None, typer.Option(min=1, help="Number of trajectories; without it, all.")] = None,
    frame: Annotated[int, typer.Option(min=0, help="Which of its frames in the partition.")] = 0,
) -> None:
    """Write frames with velocities, for simulations that start where the trajectories do.

    spkmd system.molecule_file=OUT.extxyz system/initializer=frames ...
    """
    if out.suffix not in (".extxyz", ".xyz", ".traj"):
        raise ValueError(f"'{out}': write .extxyz or .traj; other formats may not keep velocities.")
    import ase.io

    from spk_dt.data.embedded import unpack
    from spk_dt.data.partition import SPLIT_FILE
    from spk_dt.data.start_frames import start_frames
    from spk_dt.folders.hold import hold

    split_files = [] if run is None else [run / SPLIT_FILE]
    for file in split_files:
        if not file.is_file():
            raise FileNotFoundError(
                f"there is no '{file}'; it is in the folder of a run of spktrain with trajectory data."
            )
    busy = f"writes '{out}'; wait for it, or choose another name."
    with hold(out.with_name(f".{out.name}.lock"), busy), TemporaryDirectory() as folder:
        if out.exists():
            raise FileExistsError(f"'{out}' exists. Remove it or choose another name.")
        if data is None:
            data = Path(folder) / "h2_pd6_graphene.db"
            unpack(data)
        found = start_frames(data, split, number, frame, split_files)
        ase.io.write(out, found, format="traj" if out.suffix == ".traj" else "extxyz")
    named = ", ".join(f"{atoms.info['trajectory']} ({atoms.info['frame']})" for atoms in found)
    typer.echo(f"{out}: of trajectory (frame) {named}")
