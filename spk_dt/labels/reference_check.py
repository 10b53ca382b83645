"""Is a reference method the one that the data were made with? Labels of another one would contradict the data, silently."""

import logging
from pathlib import Path

import numpy as np
from schnetpack import properties as spk_properties

from spk_dt.data.datamodule import TrajectoryDataModule
from spk_dt.data.start_frames import open_dataset, read_frame
from spk_dt.labels.relabel import relabel

__all__ = ["check_reference"]

log = logging.getLogger(__name__)

#: frames of the training among which one with large forces is looked for
_CANDIDATES = 50

#: the same method with other settings of convergence is off by less than this part of the forces
_SAME_FORCES = 0.1

#: eV per atom, above which energies have another zero
_SAME_ENERGY = 0.01


def check_reference(datamodule: TrajectoryDataModule, reference: str, file: str | Path) -> None:
    """Compute a training frame with a reference method, and compare with what the data say.

    Args:
        datamodule: set up.
        reference: reference calculator, see `spk_dt.labels.calculator.reference_calculator`.
        file: where the label is kept, see `spk_dt.labels.relabel.relabel`; it is not computed twice.

    Raises:
        ValueError: if the method fails there, its forces are not those of the data, or the file is of another method.
    """
    frames, starts = datamodule.frames, datamodule.train_dataset.starts
    some = starts[np.linspace(0, len(starts) - 1, min(len(starts), _CANDIDATES)).astype(int)]
    index = max(map(int, some), key=lambda one: np.abs(frames.window(spk_properties.forces, one, 1)).mean())
    trajectory = frames.trajectories[frames.trajectory_of(index)]
    atoms = read_frame(open_dataset(frames.source), trajectory, index - trajectory.start)
    name = f"{trajectory.name}:{index - trajectory.start}"
    labels = relabel([atoms], reference, file, ids=[name], sound={name})
    known = atoms.get_forces(apply_constraint=False)
    error, size = np.abs(labels.forces[0] - known).mean(), np.abs(known).mean()
    where = f"at frame {index - trajectory.start} of trajectory '{trajectory.name}' of '{frames.source}'"
    if error > _SAME_FORCES * size:
        Path(file).unlink()  # so that another method may be named
        raise ValueError(
            f"callbacks.on_policy.labels.reference='{reference}' is not the method of the data: {where} its forces are "
            f"off by {error:.3g} eV/Å, and those of the data are {size:.3g} eV/Å on average. Name the calculator, with the "
            "settings, that the data were computed with."
        )
    energy = abs(float(labels.energy[0]) - atoms.get_potential_energy()) / len(atoms)
    if energy > _SAME_ENERGY:
        log.warning(
            "the energies of '%s' are off from those of the data by %.3g eV per atom %s; if that is another zero of "
            "energy, train on forces only.",
            *(reference, energy, where),
        )
