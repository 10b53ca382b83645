"""Carrying out a plan for trajectories: several at once, continued where an earlier run stopped, written when complete.

What is done is kept in the folder ``<name>.generate`` beside the database, see `spk_dt.labels.pieces`. A trajectory at which
the reference method fails does not stop the others. The database appears when all trajectories are there.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, TypedDict

from ase import Atoms

from spk_dt.folders.hold import hold
from spk_dt.folders.whole_file import whole_file
from spk_dt.labels.pieces import read_piece
from spk_dt.labels.provenance import differing
from spk_dt.labels.reference_check import check_reference
from spk_dt.labels.reference_process import NoLabelError, reference_processes
from spk_dt.labels.side_by_side import Task, side_by_side
from spk_dt.trajectories.database import TrajectoryWriter

__all__ = ["HowToMake", "Plan", "Progress", "carry_out", "folder_of"]

log = logging.getLogger(__name__)

#: called with the trajectory or piece that is being made, the steps done and the steps in all; from one thread at a time
Progress = Callable[[str, int, int], None]

#: setting that tells what is simulated, and what it is where it is not said
_KIND, _RECIPE = "simulates", "H2 on Pd6/graphene (no START)"

#: characters of a value in a message
_LONGEST = 100


class Plan(Protocol):
    """Trajectories, and how they are made.

    Attributes:
        names: of the trajectories.
        settings: all that decides what their frames are, as JSON can hold it; ``simulates`` tells folders of different
            plans apart, ``structures`` may be continued with more of them.
        timestep_fs: fs between two frames, see `spk_dt.trajectories.database.Trajectory`.
        inner_steps: steps of the integrator between two frames.
        metadata: what the database shall say of the simulation.
    """

    names: list[str]
    settings: dict[str, Any]
    timestep_fs: float
    inner_steps: int
    metadata: dict[str, Any]

    def differences(self, recorded: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
        """Name, recorded value and present value of settings that need more than to be compared."""

    def pieces(self, folder: Path) -> dict[str, list[Path]]:
        """Files of each trajectory that are there, and others with forces under other names."""

    def tasks(self, folder: Path, progress: Progress) -> list[Task]:
        """What makes them."""

    def frames(self, folder: Path, name: str) -> Iterator[Atoms]:
        """Frames of a trajectory that is complete."""

    def way_out(self, folder: Path) -> str:
        """What else the user may do if a trajectory fails, ending in a semicolon and a space, or nothing."""


class HowToMake(TypedDict, total=False):
    """Arguments of `carry_out` on which frames do not depend."""

    progress: Progress | None
    scratch: str | Path | None
    time_limit: float | None
    n_processes: int
    drop_failed: bool
    pool: str


def folder_of(path: str | Path) -> Path:
    """The folder with the pieces of a database."""
    return Path(path).with_name(f"{Path(path).stem}.generate")


def carry_out(
    plan: Plan,
    path: str | Path,
    reference: str,
    progress: Progress | None = None,
    scratch: str | Path | None = None,
    time_limit: float | None = None,
    n_processes: int = 1,
    drop_failed: bool = False,
    pool: str = "processes",
) -> Path:
    """Make the trajectories of a plan and write them as a database; continue if an earlier run was interrupted.

    Args:
        plan: what is to be made.
        path: database to create, ending in ``.db``.
        reference: calculator, see `spk_dt.labels.calculator.reference_calculator`.
        progress: called after each step.
        scratch: where each reference calculation has its folder; None takes that for temporary files (TMPDIR).
        time_limit: s, for each reference calculation; None waits.
        n_processes: how many trajectories are made at once, in a process each, with one thread unless OMP_NUM_THREADS is
            set: several threads may add up in another order each time. What they are does not depend on it.
        drop_failed: whether to write the database without trajectories that fail.
        pool: where the processes run, see `spk_dt.labels.pools`.

    Returns:
        the folder with the pieces, which may be removed.

    Raises:
        FileExistsError: if `path` exists; before anything is computed.
        NoLabelError: if the reference method fails in a trajectory, when the others are complete; what is done is kept, and
            the same call goes on. With `drop_failed` if it fails in all of them.
        ValueError: if the folder holds pieces made with other settings or versions, or by another method of the same name,
            another process is at work in it, or an argument makes no sense.
        ImportError: if the package of the reference calculator is not installed.
    """
    if n_processes < 1:
        raise ValueError(f"n_processes={n_processes}: it takes one at least.")
    writer = TrajectoryWriter(path)
    folder, names = folder_of(path), plan.names
    with ExitStack() as stack:
        number = min(n_processes, len(names))
        processes = stack.enter_context(
            reference_processes(reference, number, scratch, time_limit, pool, one_thread=True)
        )
        made_by = {"reference": reference, **processes[0].describe()}  # a wrong name shall not wait for the folder
        folder.mkdir(parents=True, exist_ok=True)
        busy = f"makes trajectories in '{folder}'; wait for it, or choose another name."
        stack.enter_context(hold(folder / "lock", busy))
        _check_settings(folder, plan, made_by)
        _check_method(folder, plan.pieces(folder), reference, scratch, time_limit)
        failures = side_by_side(plan.tasks(folder, _one_at_a_time(progress)), processes, _say_failed)
        if failures:
            names = _complete(plan, path, folder, failures, drop_failed)
        writer = TrajectoryWriter(path, _splits_of(names), metadata={"reference": made_by, **plan.metadata})
        with writer:
            for name in names:
                writer.add(name, plan.frames(folder, name), plan.timestep_fs, plan.inner_steps)
    return folder


def _one_at_a_time(progress: Progress | None) -> Progress:
    """The same, from one thread at a time."""
    lock = Lock()

    def report(name: str, done: int, total: int) -> None:
        if progress is not None:
            with lock:
                progress(name, done, total)

    return report


def _say_failed(name: str, why: str, others: bool) -> None:
    if others:
        log.warning("%s stops at %s. The others go on.", name, why)


def _complete(plan: Plan, path: str | Path, folder: Path, failures: Mapping[str, str], drop_failed: bool) -> list[str]:
    """Names of the trajectories that are complete, if these are to be written."""
    missing = [name for name in plan.names if name in failures or not plan.pieces(folder).get(name)]
    reasons = "; ".join(f"{name} at {why}" for name, why in list(failures.items())[:3])
    reasons += f"; and {len(failures) - 3} more" if len(failures) > 3 else ""
    message = f"{len(missing)} of {len(plan.names)} trajectories could not be completed: {reasons}."
    complete = [name for name in plan.names if name not in missing]
    if not drop_failed or not complete:
        leave_out = "--drop-failed leaves them out; " if complete else ""
        raise NoLabelError(
            f"{message} So '{path}' is not written; what is done stays in '{folder}'. The same command tries them again; "
            f"{leave_out}{plan.way_out(folder)}or remove the folder and begin with other settings."
        )
    log.warning("%s They are left out.", message)
    return complete


def _splits_of(names: Sequence[str]) -> dict[str, Sequence[str]] | None:
    """The last quarter for testing, 15 % before it for validation, at least one each; None for fewer than three."""
    if len(names) < 3:
        return None
    test = len(names) - max(1, round(0.25 * len(names)))
    val = test - max(1, round(0.15 * len(names)))
    return {"train": names[:val], "val": names[val:test], "test": names[test:]}


def _check_settings(folder: Path, plan: Plan, made_by: Mapping[str, Any]) -> None:
    """Refuse to mix pieces made with other settings; keep the settings for the next time.

    Raises:
        ValueError: if the folder holds pieces made with other settings.
    """
    file = folder / "recipe.json"
    settings = {**plan.settings, **made_by}
    if file.exists():
        try:
            recorded = json.loads(file.read_text())
        except ValueError as error:
            raise ValueError(
                f"'{file}' is damaged ({error}), so it is not known how the pieces in '{folder}' were made. Remove the "
                "folder, or choose another name for the database."
            ) from error
        found: list[tuple[str, Any, Any]]
        if recorded.get(_KIND) == settings.get(_KIND):
            plain = {key: value for key, value in recorded.items() if key != "structures"}
            found = [(key, *values) for key, values in differing(plain, settings).items()]
            found += plan.differences(recorded)
        else:
            found = [(_KIND, recorded.get(_KIND, _RECIPE), settings.get(_KIND, _RECIPE))]
        if found:
            before, now = (", ".join(f"{one[0]}={_short(one[i])}" for one in found[:4]) for i in (1, 2))
            more = f" ({len(found) - 4} more differ)" if len(found) > 4 else ""
            raise ValueError(
                f"'{folder}' holds pieces made with {before}, but now {now} is asked for{more}. Ask for the same to "
                "continue, or choose another name for the database, or remove the folder."
            )
        if len(recorded.get("structures", [])) >= len(settings.get("structures", [])):
            return
    elif any(folder.glob("*.traj")):
        raise ValueError(
            f"'{folder}' holds pieces, but no '{file.name}' that says how they were made. Remove the folder, or choose "
            "another name for the database."
        )
    with whole_file(file) as part:
        part.write_text(json.dumps(settings, indent=2) + "\n")


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."


def _check_method(folder: Path, pieces: Mapping[str, Sequence[Path]], reference: str, *how: Any) -> None:
    """Compute frames of the pieces again before they are continued or written: a name may stand for another method by now.

    Args:
        folder: folder with the pieces, for messages.
        pieces: files of the pieces that are there, by trajectory.
        reference: reference method.
        how: see `spk_dt.labels.reference_check.check_reference`, from `scratch` on.

    Raises:
        ValueError: if it is another method.
    """
    frames = []
    for files in pieces.values():
        for file in dict.fromkeys((files[0], files[-1])) if files else ():
            read = read_piece(file)
            for index in {0, len(read) - 1}:
                read[index].info |= {"trajectory": file.stem, "frame": index}
                frames.append(read[index])
    if frames:
        way_out = "choose another name for the database"
        check_reference(frames, reference, str(folder), None, False, False, way_out, "reference", *how)
