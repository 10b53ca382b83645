"""The reference method of an evaluation: compared with the data, before anything is simulated or relabelled.

What was found is kept in ``reference_check.json`` of the evaluation.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypedDict, Unpack

from spk_dt.data.continuation import trajectory_database
from spk_dt.evaluation.results import Results
from spk_dt.labels.reference_check import ReferenceCheck, check_reference, frames_to_choose_from
from spk_dt.trajectories.checked_database import read_metadata
from spk_dt.trajectories.database import read_trajectories

__all__ = ["ByReference", "check_asked_for", "check_of_evaluation", "compare_reference", "write_check"]

_FILE = "reference_check.json"


class ByReference(TypedDict, total=False):
    """The reference method with which `spk_dt.evaluation.true_error` will relabel.

    Args:
        reference: the reference method, compared with the data before anything is simulated; None where nothing will be
            relabelled.
        another_reference: whether it may be another method than that of the data.
        scratch: see `spk_dt.labels.relabel.relabel`.
        time_limit: see `spk_dt.labels.relabel.relabel`.
    """

    reference: str | None
    another_reference: bool
    scratch: str | Path | None
    time_limit: float | None


def check_asked_for(
    database: Path, trajectories: Iterable[str], source: str, **by: Unpack[ByReference]
) -> ReferenceCheck | None:
    """What `compare_reference` finds, if there is a reference method to compare."""
    if (reference := by.get("reference")) is None:
        return None
    how = (by.get("scratch"), by.get("time_limit"))
    return compare_reference(database, trajectories, reference, by.get("another_reference", False), source, *how)


def compare_reference(
    database: Path,
    trajectories: Iterable[str],
    reference: str,
    another: bool,
    source: str,
    scratch: str | Path | None = None,
    time_limit: float | None = None,
) -> ReferenceCheck:
    """Compare a reference method with frames of trajectories, see `spk_dt.labels.reference_check.check_reference`.

    Args:
        database: trajectory database.
        trajectories: names of the trajectories from which simulations start.
        reference: the reference method.
        another: whether another method than that of the data is taken on purpose.
        source: name of the data, for messages.
        scratch: see `spk_dt.labels.relabel.relabel`.
        time_limit: see `spk_dt.labels.relabel.relabel`.

    Raises:
        ValueError: if the method is not that of the data, or fails there; or a trajectory is not in the database.
    """
    known = {one.name: one for one in read_trajectories(read_metadata(database), source)}
    names = list(dict.fromkeys(trajectories))
    missing = [name for name in names if name not in known]
    if missing:
        raise ValueError(f"'{source}' has no trajectory '{missing[0]}'; it has {', '.join(known)}.")
    frames = frames_to_choose_from(database, [(known[name], range(known[name].length)) for name in names])
    return check_reference(frames, reference, source, another=another, scratch=scratch, time_limit=time_limit)


def write_check(directory: Path, check: ReferenceCheck | None) -> None:
    """Keep what was found, if anything was, in the folder of an evaluation."""
    if check is None:
        return
    content = {"reference": check.reference, **check.as_dict()}
    (directory / _FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_of_evaluation(results: Results, reference: str, another: bool, **how: Any) -> dict[str, Any]:
    """What is known of a reference method and the data of an evaluation; compared if that has not been done.

    If the data are gone, or others stand in their place, the start frames of the evaluation take it. `how` are
    ``scratch`` and ``time_limit`` of `spk_dt.labels.relabel.relabel`.

    Returns:
        see `ReferenceCheck.as_dict`.

    Raises:
        ValueError: if the method is not that of the data, and `another` is not set.
    """
    file = results.directory / _FILE
    if file.is_file():
        found = json.loads(file.read_text(encoding="utf-8"))
        if found.pop("reference", None) == reference and (another or found["verdict"] != "another method"):
            return dict(found)
    check = _check(results, reference, another, **how)
    write_check(results.directory, check)
    return check.as_dict()


def _check(results: Results, reference: str, another: bool, **how: Any) -> ReferenceCheck:
    """Of the data, or else of the start frames."""
    source, names = str(results.settings.get("data")), [start.trajectory for start in results.starts]
    if results.of_trajectories:  # whose frames have what a model says, not the reference method
        with trajectory_database(source) as database:
            return compare_reference(
                database, results.settings["reference_trajectories"], reference, another, source, **how
            )
    try:
        with trajectory_database(source) as database:
            known = {one.name for one in read_trajectories(read_metadata(database), source)}
            if known.issuperset(names):
                return compare_reference(database, names, reference, another, source, **how)
    except FileNotFoundError:
        pass
    frames = [one.start for one in results.continuations]
    for atoms, start in zip(frames, results.starts, strict=True):
        atoms.info |= {"trajectory": start.trajectory, "frame": start.frame}
    return check_reference(frames, reference, str(results.directory / "start.traj"), another=another, **how)
