r"""What a better potential would gain along the reference: simulations with a fraction of the error of a model.

Forces are those of the reference method and a fraction f of what the model is off by,

.. math:: F_f(x) = F_\mathrm{ref}(x) + f \, (F_\mathrm{model}(x) - F_\mathrm{ref}(x)),

so that f = 1 is the model, f = 0.5 a model whose errors are half as large at every geometry, and f = 0 the reference itself.
How the error along the reference falls with f tells how much better a way of training would have to be on the forces to
be better along the reference by so much.
"""

import warnings
from pathlib import Path
from statistics import fmean

import ase.units
import numpy as np
import torch
from ase.calculators.calculator import Calculator
from ase.calculators.mixing import LinearCombinationCalculator
from ase.md.verlet import VelocityVerlet
from schnetpack.interfaces import SpkCalculator
from schnetpack.transform import MatScipyNeighborList

from benchmarks.study.train import Study
from spk_dt.data.continuation import Continuation, spread_continuations
from spk_dt.data.partition import read_partition
from spk_dt.evaluation.force_error import element_errors
from spk_dt.labels.calculator import reference_calculator
from spk_dt.representation.cutoff import cutoff_of

__all__ = ["along_with_fraction"]

_STEPS = 300


def along_with_fraction(study: Study, run: Path, fraction: float, starts: int) -> dict[str, object]:
    """Errors along the unseen trajectories of a model with a fraction of its error.

    Args:
        study: the study.
        run: folder of a run.
        fraction: f.
        starts: start frames of each test trajectory.

    Returns:
        along_reference: mean over starts and 300 steps, summed over elements, eV/Å.
        elements: the same for each of them.
        snapshots: at the start frames, summed over elements.
    """
    errors = []
    for start in spread_continuations(read_partition(study.database, "test"), None, starts, _STEPS):
        forces = _simulate(start, _calculator(study, run / "best_model", fraction))
        errors.append(element_errors(forces, start.forces, start.start.numbers))
    elements = {element: fmean(one[element].mean() for one in errors) for element in errors[0]}
    return {
        "along_reference": sum(elements.values()),
        "elements": elements,
        "snapshots": fmean(sum(one[element][0] for element in one) for one in errors),
    }


def _calculator(study: Study, model_file: Path, fraction: float) -> Calculator:
    """The forces F_f; a new one for each simulation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.load in SchNetPack
        cutoff = cutoff_of(torch.load(model_file, map_location="cpu", weights_only=False))
        model = SpkCalculator(
            str(model_file), MatScipyNeighborList(cutoff), energy_unit="eV", position_unit="Ang", dtype=torch.float64
        )
    if fraction == 1.0:
        return model
    return LinearCombinationCalculator([model, reference_calculator(study.reference)], [fraction, 1.0 - fraction])


def _simulate(start: Continuation, calculator: Calculator) -> np.ndarray:
    """Forces [n_steps + 1, n_atoms, 3] along a simulation as long as the reference goes, 300 steps at most."""
    atoms = start.start.copy()
    atoms.calc = calculator
    forces = [atoms.get_forces()]
    integrator = VelocityVerlet(atoms, start.timestep_fs * ase.units.fs)
    for _ in range(start.steps):
        integrator.run(1)
        forces.append(atoms.get_forces())
    return np.array(forces)
