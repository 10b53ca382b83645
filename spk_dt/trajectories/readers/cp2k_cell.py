"""The cell of a CP2K run, which its XYZ files do not hold."""

import logging
from pathlib import Path

import numpy as np

from spk_dt.trajectories.readers.compressed import plain_or_packed
from spk_dt.trajectories.readers.cp2k_files import printed_name, tensors
from spk_dt.trajectories.readers.cp2k_input import RunInput

__all__ = ["cell_of"]

log = logging.getLogger(__name__)

_SAY_CELL = (
    "Put the restart file {project}-{number}.restart or the input of the run beside it, or a file {project}-{number}.cell "
    "with the line '0 0.0 Ax Ay Az Bx By Bz Cx Cy Cz' in Å; for a molecule without a cell, an input with "
    "&FORCE_EVAL &SUBSYS &CELL and PERIODIC NONE"
)


#: what names of ensembles begin with in which the cell changes
_VARIABLE_CELL = ("NPT", "NPE", "MSST", "HYDROSTATICSHOCK")


def cell_of(
    folder: Path, project: str, number: str, step: np.ndarray, run_input: RunInput | None
) -> tuple[dict[int, np.ndarray] | np.ndarray | None, tuple[bool, bool, bool], tuple[Path, ...]]:
    """The cell of a run and where it is periodic: from its input, or the ``.cell`` file that CP2K prints.

    Args:
        folder: of the run.
        project: name of the project.
        number: of the run, as in its file names.
        step: [n_frames] steps of the frames.
        run_input: its input, if there is one.

    Returns:
        the cell ([3, 3] Å; by step if it changes; None without), where it is periodic, and the files that say so.

    Raises:
        ValueError: if the cell is not known, or not at all steps; or if the ensemble changes it, and no file says how.
    """
    pbc = run_input.pbc if run_input is not None else (True, True, True)
    said = (run_input.file,) if run_input is not None else ()
    filename = run_input.filenames.get("CELL") if run_input is not None else None
    name = printed_name(run_input.project if run_input and filename else project, filename, f"-{number}.cell")
    file = plain_or_packed(folder / name)
    if not any(pbc):
        return None, pbc, said
    changes = run_input is not None and run_input.ensemble.startswith(_VARIABLE_CELL)
    if changes and run_input is not None and not file.is_file():
        others = ", ".join(path.name for path in sorted(folder.glob("*.cell*")))
        raise ValueError(
            f"ENSEMBLE {run_input.ensemble} of '{run_input.file}' changes the cell, and no file says how: there is no "
            f"'{file}'. "
            + (f"If {others} is of this run, give it that name; otherwise print it" if others else "Print it")
            + " with &MOTION &PRINT &CELL (&EACH MD 1), or with FORMAT EXTXYZ in &TRAJECTORY, and run again."
        )
    if not file.is_file():
        if run_input is None or run_input.cell is None:
            where = f"'{folder / project}-pos-{number}.xyz'"
            remedy = _SAY_CELL.format(project=project, number=number)
            problem = run_input.problem if run_input is not None else None
            raise ValueError(f"the cell of {where} is not known: {problem or 'XYZ files do not hold it.'} {remedy}.")
        return run_input.cell, pbc, said
    if run_input is None:
        log.warning(
            "'%s' does not say where it is periodic: taken as PERIODIC XYZ, with the units that CP2K prints by default. "
            "If that is wrong, put the restart file %s-%s.restart or the input of the run beside it.",
            *(file, project, number),
        )
    cells = tensors(file, "cell", "Repair or remove the line.", regular=True)
    if not cells:
        raise ValueError(f"'{file}' holds no cell. {_SAY_CELL.format(project=project, number=number)}.")
    values = np.array(list(cells.values()))
    if np.ptp(values, axis=0).max() < 1e-8 and not changes:
        return values[0], pbc, (file, *said)
    missing = [int(one) for one in step if int(one) not in cells]
    if missing:
        raise ValueError(
            f"the cell changes, and '{file}' lacks that of step {missing[0]}. Print it with the &EACH of the positions."
        )
    return cells, pbc, (file, *said)
