"""The command that makes trajectories with the reference method."""

from pathlib import Path
from typing import Annotated

import typer

from spk_dt.cli.app import Pool, Scratch, TimeLimit, app
from spk_dt.cli.progress import trajectory_bars


@app.command()
def generate(
    *,
    starts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[START...]",
            help="Files with structures to start from, in any format of ASE; run.traj@-1 takes the last one, @::10 every "
            "tenth. Without them, H2 on Pd6/graphene.",
        ),
    ] = None,
    out: Annotated[Path, typer.Argument(metavar="OUT.db", help="Database to create; nothing is overwritten.")],
    trajectories: Annotated[
        int | None, typer.Option(min=1, help="Trajectories of each structure, 1; without START, 19.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each trajectory.")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 0,
    reference: Annotated[
        str, typer.Option(help="tblite:METHOD, or package.module:Class of an ASE calculator.")
    ] = "tblite:GFN1-xTB",
    processes: Annotated[
        int, typer.Option(min=1, help="Trajectories made at once; each with one thread, unless OMP_NUM_THREADS is set.")
    ] = 1,
    temperature: Annotated[
        float | None,
        typer.Option(help="START: draw velocities at this temperature (K); without it, those of the file."),
    ] = None,
    equilibrate: Annotated[
        float | None,
        typer.Option(
            metavar="FS",
            help="START: Langevin dynamics for this time (fs) before the first frame. Without it, a relaxed structure has "
            "half the temperature at constant energy.",
        ),
    ] = None,
    timestep_fs: Annotated[float | None, typer.Option(help="START: time step, 0.5 fs unless given.")] = None,
    save_every: Annotated[int | None, typer.Option(metavar="N", help="START: save every Nth step.")] = None,
    friction: Annotated[
        float | None,
        typer.Option(help="START: Langevin dynamics with this friction (1/fs); without it, constant energy."),
    ] = None,
    charge: Annotated[
        int | None, typer.Option(help="START: total charge of all structures, e, where the files do not say it.")
    ] = None,
    spin: Annotated[int | None, typer.Option(min=1, help="START: their spin multiplicity 2S + 1, likewise.")] = None,
    drop_failed: Annotated[
        bool,
        typer.Option("--drop-failed", help="Write the database without trajectories at which the reference fails."),
    ] = False,
    scratch: Scratch = None,
    time_limit: TimeLimit = None,
    pool: Pool = "processes",
) -> None:
    """Make trajectories from structures, or of H2 on Pd6/graphene, like those that come with the package.

    Atoms that constraints hold fixed stay where they are. What is done is kept in a folder beside OUT.db, which appears when
    all is there: if it is interrupted, the same command continues, with the same result; also with more --steps,
    --trajectories or --processes. H2 on Pd6/graphene takes about an hour on one CPU core.
    """
    from spk_dt.labels.generate import Recipe
    from spk_dt.labels.generate import generate as run
    from spk_dt.labels.generate_from import Protocol, generate_from
    from spk_dt.labels.plan import HowToMake, folder_of
    from spk_dt.labels.starts import read_starts
    from spk_dt.trajectories.checked_database import read_metadata
    from spk_dt.trajectories.database import read_trajectories

    of_starts = {
        **{"--temperature": temperature, "--equilibrate": equilibrate, "--timestep-fs": timestep_fs},
        **{"--save-every": save_every, "--friction": friction, "--charge": charge, "--spin": spin},
    }
    named = [name for name, value in of_starts.items() if value is not None]
    if named and not starts:
        raise ValueError(f"{', '.join(named)}: only with files of structures to start from (START), before '{out}'.")
    how = HowToMake(scratch=scratch, time_limit=time_limit, n_processes=processes, drop_failed=drop_failed, pool=pool)
    try:
        if starts:
            structures = read_starts(starts, charge, spin)
            protocol = Protocol(
                temperature, 0.5 if timestep_fs is None else timestep_fs, save_every or 1, friction, equilibrate
            )
            number = trajectories or 1
            with trajectory_bars(number * len(structures)) as how["progress"]:
                generate_from(structures, out, steps, protocol, reference, number, seed, **how)
        else:
            with trajectory_bars(trajectories or 19) as how["progress"]:
                run(out, Recipe(steps=steps), trajectories or 19, seed, reference, **how)
    except KeyboardInterrupt:
        typer.echo(f"spkdt: interrupted; '{out}' is not there yet. The same command continues.", err=True)
        raise typer.Exit(130) from None
    made = read_trajectories(read_metadata(out), str(out))
    typer.echo(
        f"{out}: {len(made)} trajectories of {made[0].length} frames. The folder {folder_of(out)} is no longer needed."
    )
    if friction is not None:
        typer.echo(
            "Random forces of the thermostat are in the data: train with data.replay_kicks=true, which replays them, and "
            f"check with spkdt check {out} --replay-kicks"
        )
    else:
        typer.echo(f"Next, see whether they are sound: spkdt check {out}")
