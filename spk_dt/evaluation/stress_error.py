"""The stress of a model at frames of the data: how far off it is, and the pressure with it.

At constant pressure the volume follows the mean pressure: a model that is off by 1 GPa there has, with a bulk modulus of 100
GPa, a volume that is off by 1 %. Errors of single frames that cancel in the mean do not matter as much.
"""

from collections.abc import Sequence
from pathlib import Path

import ase.units
import numpy as np

from spk_dt.data.continuation import Continuation
from spk_dt.evaluation.simulate import group_starts, stress_at_start
from spk_dt.labels.unit_check import Unit
from spk_dt.md.model_inputs import stress_of_files

__all__ = ["compare_stress", "stress_error"]

#: systems that are computed at once
_BATCH = 16


def stress_error(
    model_file: str | Path, units: tuple[Unit, Unit], frames: Sequence[Continuation], device: str = "cpu"
) -> dict[str, float | int] | None:
    """Compare the stress of a model with that of frames.

    Args:
        model_file: stored SchNetPack model.
        units: of its energies and positions.
        frames: those that have a stress are compared.
        device: where to compute.

    Returns:
        see `compare_stress`; None if the model predicts no stress, or no frame has one.
    """
    having = [one for one in frames if _stress_of(one) is not None]
    if not having or stress_of_files(model_file) is None:
        return None
    predicted = []
    for i in range(0, len(having), _BATCH):
        part = having[i : i + _BATCH]
        predicted.append(stress_at_start(model_file, units, part, group_starts(part), device))
    return compare_stress(np.concatenate(predicted), np.array([_stress_of(one) for one in having]))


def compare_stress(predicted: np.ndarray, reference: np.ndarray) -> dict[str, float | int]:
    """Errors of stresses.

    Args:
        predicted: [n, 3, 3] eV/Å^3.
        reference: [n, 3, 3] likewise.

    Returns:
        ``mae_gpa``, mean absolute error of a component; ``mean_absolute_gpa``, that of zeros; ``pressure_mae_gpa``, mean
        absolute error of the pressure; ``mean_pressure_error_gpa``, what the mean pressure is off by; ``n_frames``.
    """
    errors = (predicted - reference) / ase.units.GPa
    pressure = -np.trace(errors, axis1=1, axis2=2) / 3.0
    return {
        "mae_gpa": float(np.abs(errors).mean()),
        "mean_absolute_gpa": float(np.abs(reference).mean() / ase.units.GPa),
        "pressure_mae_gpa": float(np.abs(pressure).mean()),
        "mean_pressure_error_gpa": float(pressure.mean()),
        "n_frames": len(errors),
    }


def _stress_of(one: Continuation) -> np.ndarray | None:
    """[3, 3] stress of a frame, None if it has none or no periodic cell with a volume."""
    atoms = one.start
    if "stress" not in atoms.calc.results or not atoms.pbc.any() or atoms.cell.rank < 3:
        return None
    stress = atoms.get_stress(voigt=False, apply_constraint=False)
    return stress if np.isfinite(stress).all() else None
